//! Products of matrices: on the processor's matrix unit where it has one (`amx`), else on its vector unit
//! (`vector`), else by the `gemm` crate. All round like plain `f32` arithmetic, but not to the same bits.
//!
//! Which of them computes a product follows from the machine and from the product's shape alone, and
//! how it is spread over threads changes no bit of the result.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod vector;
mod view;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::compute::aligned::Aligned;
use crate::compute::threads::{Shared, Threads};

pub(crate) use view::{Target, View};

/// What computes products of matrices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixUnit {
    /// The `gemm` crate: any processor. It takes memory of its own for each product.
    Portable,
    /// AVX-512 or AVX2 with FMA.
    Vector,
    /// Intel's AMX, with each `f32` split into three bf16 values.
    Amx,
}

/// Packed operands can be used from a multiple of this on.
pub(crate) const CUT: usize = 32;

/// What a [`MatrixUnit`] is on this machine.
#[derive(Clone, Copy)]
enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Vector(vector::Level),
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl MatrixUnit {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::Amx, Self::Vector, Self::Portable];

    /// The fastest one of this machine.
    pub fn best() -> Self {
        let available = |unit: &Self| unit.available();
        Self::ALL.into_iter().find(available).unwrap_or(Self::Portable)
    }

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        self.kernel().is_some()
    }

    fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Portable => Some(Kernel::Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Vector => vector::Level::best().map(Kernel::Vector),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::available().then_some(Kernel::Amx),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vector | Self::Amx => None,
        }
    }

    /// Values of scratch that each thread needs; 0 where the machine lacks the unit.
    pub fn scratch(self) -> usize {
        self.kernel().map_or(0, Kernel::scratch)
    }

    /// Values that a packed matrix with `k` rows and `n` columns takes, as a product's right operand; 0 where the
    /// machine lacks the unit.
    pub fn packed(self, k: usize, n: usize) -> usize {
        self.kernel().map_or(0, |kernel| kernel.packed(k, n))
    }
}

impl Kernel {
    /// The one for a left matrix that lies by columns and a right one with few: to split such a left matrix for the
    /// matrix unit takes longer than to multiply it on the vector unit.
    fn for_few_columns(self) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Vector(vector::Level::Avx512),
            other => other,
        }
    }

    fn scratch(self) -> usize {
        match self {
            Self::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            Self::Vector(level) => level.scratch(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => blocked::scratch::<amx::Tiles>(),
        }
    }

    fn packed(self, k: usize, n: usize) -> usize {
        match self {
            Self::Portable => {
                let _ = (k, n);
                0
            }
            #[cfg(target_arch = "x86_64")]
            Self::Vector(level) => level.packed_len(k, n),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => blocked::packed_len::<amx::Tiles>(k, n),
        }
    }

    /// Blocks of columns that are packed one by one.
    fn blocks(self, n: usize) -> usize {
        match self {
            Self::Portable => {
                let _ = n;
                0
            }
            #[cfg(target_arch = "x86_64")]
            Self::Vector(level) => level.panels(n),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => blocked::panels::<amx::Tiles>(n),
        }
    }

    /// Packs one block of columns to its place in `packed`.
    ///
    /// # Safety
    /// The matrix lies inside live memory, `packed` has room for all of it, and nobody else touches the block's
    /// place.
    unsafe fn pack_columns(self, matrix: &Matrix<'_>, block: usize, packed: *mut f32) {
        let (shape, view) = ((matrix.k, matrix.n), matrix.view());
        match self {
            Self::Portable => {
                let _ = (shape, view, block, packed);
            }
            // SAFETY: by the caller's promise; the processor has been asked.
            #[cfg(target_arch = "x86_64")]
            Self::Vector(level) => unsafe { level.pack_panel(shape, view, block, packed) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Self::Amx => unsafe { amx::pack_panel(shape, view, block, packed) },
        }
    }

    /// c (m, n) ← [c +] scale · a (m, k) · b (k, n) on this thread.
    ///
    /// # Safety
    /// The views must lie inside live memory, and nobody else may touch what `c` covers.
    unsafe fn product(
        self,
        scratch: &mut [f32],
        shape: Shape,
        target: Target,
        a: View<*const f32>,
        b: View<*const f32>,
    ) {
        // SAFETY: by the caller's promise; the processor has been asked.
        unsafe {
            match self {
                Self::Portable => portable_product(shape, target, a, b),
                #[cfg(target_arch = "x86_64")]
                Self::Vector(level) => {
                    level.product(shape, target, a, blocked::Operand::View(b), scratch);
                }
                #[cfg(target_arch = "x86_64")]
                Self::Amx => {
                    let b = blocked::Operand::View(b);
                    amx::product(shape, target, a, b, scratch);
                }
            }
        }
    }

    /// [`Kernel::product`] with rows and columns of a packed right operand from `place` on.
    ///
    /// # Safety
    /// As there; the operand was packed as a whole, and has that many rows and columns from there on.
    unsafe fn packed_product(
        self,
        scratch: &mut [f32],
        shape: Shape,
        target: Target,
        a: View<*const f32>,
        right: &Right<'_>,
        place: (usize, usize),
    ) {
        #[cfg(target_arch = "x86_64")]
        let operand =
            blocked::Operand::Packed { start: right.packed.as_ptr(), k: right.matrix.k, place };
        // SAFETY: by the caller's promise; the processor has been asked.
        unsafe {
            match self {
                Self::Portable => {
                    portable_product(
                        shape,
                        target,
                        a,
                        right.matrix.view().offset(place.0, place.1),
                    );
                }
                #[cfg(target_arch = "x86_64")]
                Self::Vector(level) => level.product(shape, target, a, operand, scratch),
                #[cfg(target_arch = "x86_64")]
                Self::Amx => amx::product(shape, target, a, operand, scratch),
            }
        }
    }
}

/// Rows, columns and inner dimension of a product.
pub(crate) type Shape = (usize, usize, usize);

/// A matrix (k, n) that is to be the right operand of several products.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    k: usize,
    n: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `k` rows and `n` columns of a larger matrix that starts where `values` does.
    ///
    /// # Panics
    /// If they are not all there.
    pub(crate) fn part(values: &'a [f32], (k, n): (usize, usize), strides: (usize, usize)) -> Self {
        let (row_stride, column_stride) = strides;
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        let inside = last(k, row_stride) + last(n, column_stride) < values.len();
        assert!(inside || k * n == 0, "a matrix past its end");
        Self { values, k, n, row_stride, column_stride }
    }

    /// wᵀ of a weight (outputs, inputs): for the forward pass.
    pub(crate) fn forward(values: &'a [f32], outputs: usize, inputs: usize) -> Self {
        Self::part(values, (inputs, outputs), (1, inputs))
    }

    /// A weight (outputs, inputs) itself: for the gradient of the inputs.
    pub(crate) fn backward(values: &'a [f32], outputs: usize, inputs: usize) -> Self {
        Self::part(values, (outputs, inputs), (inputs, 1))
    }

    /// (n, k).
    pub(crate) fn transposed(self) -> Self {
        Self {
            k: self.n,
            n: self.k,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn view(&self) -> View<*const f32> {
        View::new(self.values.as_ptr(), self.row_stride, self.column_stride)
    }
}

/// A right operand, packed where the unit wants it so.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    matrix: Matrix<'a>,
    packed: &'a [f32],
}

/// Computes products on some threads, with scratch for each and room for packed right operands.
pub(crate) struct Multiplier {
    kernel: Kernel,
    threads: Threads,
    scratch: Aligned,
    packed: Aligned,
}

impl Multiplier {
    /// Allocates [`MatrixUnit::scratch`] for each thread, and `packed` values for right operands.
    pub(crate) fn new(threads: Threads, unit: MatrixUnit, packed: usize) -> Self {
        let kernel = unit.kernel().unwrap_or(Kernel::Portable);
        Self {
            kernel,
            scratch: Aligned::zeros(kernel.scratch() * threads.count()),
            packed: Aligned::zeros(packed),
            threads,
        }
    }

    /// Bytes of scratch and packed operands.
    pub(crate) fn bytes(&self) -> u64 {
        (self.scratch.len() + self.packed.len()) as u64 * 4
    }

    /// Packs right operands; with what tasks need to compute products of their own, each on one thread.
    ///
    /// # Panics
    /// If there is no room for all of them.
    pub(crate) fn prepare<'a, const N: usize>(
        &'a mut self,
        matrices: [Matrix<'a>; N],
    ) -> (Parts<'a>, [Right<'a>; N]) {
        let kernel = self.kernel;
        let parts =
            Parts { kernel, threads: &self.threads, scratch: Shared::new(&mut self.scratch) };
        let mut places = [0; N];
        let mut end = 0;
        for (place, matrix) in places.iter_mut().zip(&matrices) {
            *place = end;
            end += kernel.packed(matrix.k, matrix.n);
        }
        assert!(end <= self.packed.len(), "no room for packed matrices");
        let packed = Shared::new(&mut self.packed);
        let count = matrices.iter().map(|matrix| kernel.blocks(matrix.n)).sum();
        self.threads.for_each(count, |mut block| {
            for (matrix, place) in matrices.iter().zip(&places) {
                let blocks = kernel.blocks(matrix.n);
                if block < blocks {
                    // SAFETY: each block has its place.
                    return unsafe { kernel.pack_columns(matrix, block, packed.at(*place)) };
                }
                block -= blocks;
            }
        });
        let packed: &'a [f32] = &self.packed;
        let rights = std::array::from_fn(|index| Right {
            matrix: matrices[index],
            packed: &packed[places[index]..],
        });
        (parts, rights)
    }

    /// What tasks need to compute products of their own, each on one thread.
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        Parts {
            kernel: self.kernel,
            threads: &self.threads,
            scratch: Shared::new(&mut self.scratch),
        }
    }
}

/// The scratch of a [`Multiplier`], to be handed out to tasks.
pub(crate) struct Parts<'a> {
    kernel: Kernel,
    threads: &'a Threads,
    scratch: Shared<'a, f32>,
}

impl<'a> Parts<'a> {
    /// c (m, n) ← [c +] aᵀ · b with a (k, m), b (k, n): the gradient of a product's matrix, on all
    /// threads.
    pub(crate) fn weight_gradient(
        &mut self,
        (m, n, k): Shape,
        c: &mut [f32],
        a: &[f32],
        b: &[f32],
        accumulate: bool,
    ) {
        assert!(c.len() == m * n && a.len() >= k * m && b.len() >= k * n);
        let c = Sent(View::new(c.as_mut_ptr(), n, 1));
        let a = Sent(View::new(a.as_ptr(), 1, m));
        let b = Sent(View::new(b.as_ptr(), n, 1));
        let (down, across) = grid(m, n, self.threads.count());
        let parts = &*self;
        self.threads.for_each(down * across, |index| {
            let (c, a, b) = (c.get(), a.get(), b.get());
            let (top, bottom) = share(m, index / across, down);
            let (left, right) = share(n, index % across, across);
            let shape = (bottom - top, right - left, k);
            let target = Target::add_if(c.offset(top, left), accumulate);
            // SAFETY: the lengths have been checked; the parts of c are disjoint, and each has scratch.
            unsafe {
                let mut part = parts.part(index);
                part.product(shape, target, a.offset(top, 0), b.offset(0, left));
            }
        });
    }

    /// The scratch of thread `index`.
    ///
    /// # Safety
    /// No two tasks may hold that of the same thread at the same time.
    ///
    /// # Panics
    /// If there is no such thread.
    pub(crate) unsafe fn part(&self, index: usize) -> Part<'a> {
        let len = self.kernel.scratch();
        Part {
            kernel: self.kernel,
            // SAFETY: by the caller's promise.
            scratch: unsafe { self.scratch.part(index * len, (index + 1) * len) },
        }
    }
}

/// Computes products on one thread.
pub(crate) struct Part<'a> {
    kernel: Kernel,
    scratch: &'a mut [f32],
}

impl Part<'_> {
    /// c (rows, n) ← [c +] a (rows, k) · right (k, n).
    ///
    /// # Panics
    /// If `c` or `a` has fewer values than that.
    pub(crate) fn rows(
        &mut self,
        rows: usize,
        c: &mut [f32],
        a: &[f32],
        right: &Right<'_>,
        accumulate: bool,
    ) {
        let (k, n) = (right.matrix.k, right.matrix.n);
        assert!(c.len() >= rows * n && a.len() >= rows * k);
        let (c, a) = (View::new(c.as_mut_ptr(), n, 1), View::new(a.as_ptr(), k, 1));
        let target = Target::add_if(c, accumulate);
        // SAFETY: the lengths have been checked.
        unsafe { self.product_with((rows, n, k), target, a, right, (0, 0)) }
    }

    /// Rows `rows` and the columns from `column` on, a multiple of [`CUT`], of c ← a · right, or c + scale · a · right
    /// with `Some(scale)`; c lies row by row.
    ///
    /// # Panics
    /// If the matrices do not fit one another or the rows.
    pub(crate) fn multiply(
        &mut self,
        c: &mut [f32],
        a: Matrix<'_>,
        right: &Right<'_>,
        rows: Range<usize>,
        column: usize,
        added: Option<f32>,
    ) {
        let (k, n) = (right.matrix.k, right.matrix.n);
        assert!(a.n == k && rows.end <= a.k && column <= n && c.len() >= rows.end * n);
        let target = View::new(c.as_mut_ptr(), n, 1).offset(rows.start, column);
        let target = Target::add_if(target, added.is_some()).times(added.unwrap_or(1.0));
        let a = a.view().offset(rows.start, 0);
        // SAFETY: the lengths have been checked.
        unsafe { self.product_with((rows.len(), n - column, k), target, a, right, (0, column)) }
    }

    /// c (m, n) ← [c +] scale · aᵀ · b with a (k, m), b (k, n) and few columns n.
    ///
    /// # Safety
    /// As [`Part::product`].
    pub(crate) unsafe fn transposed_product(
        &mut self,
        shape: Shape,
        target: Target,
        a: View<*const f32>,
        b: View<*const f32>,
    ) {
        let kernel = self.kernel.for_few_columns();
        // SAFETY: by the caller's promise; the matrix unit's scratch holds the vector unit's.
        unsafe { kernel.product(self.scratch, shape, target, a.transposed(), b) }
    }

    /// Values that [`Part::pack`] needs.
    pub(crate) fn packed(&self, matrix: &Matrix<'_>) -> usize {
        self.kernel.packed(matrix.k, matrix.n)
    }

    /// Packs a right operand for this thread's products.
    ///
    /// # Panics
    /// If `packed` has fewer values than [`MatrixUnit::packed`] says.
    pub(crate) fn pack<'b>(&self, matrix: Matrix<'b>, packed: &'b mut [f32]) -> Right<'b> {
        assert!(packed.len() >= self.packed(&matrix), "no room to pack a matrix");
        for block in 0..self.kernel.blocks(matrix.n) {
            // SAFETY: there is room for all blocks.
            unsafe { self.kernel.pack_columns(&matrix, block, packed.as_mut_ptr()) };
        }
        Right { matrix, packed }
    }

    /// c (m, n) ← [c +] scale · a (m, k) · b (k, n), with b the rows and columns of `right` from `place` on, which are
    /// multiples of [`CUT`].
    ///
    /// # Safety
    /// As [`Part::product`].
    ///
    /// # Panics
    /// If `right` has no such place or ends before it.
    pub(crate) unsafe fn product_with(
        &mut self,
        shape: Shape,
        target: Target,
        a: View<*const f32>,
        right: &Right<'_>,
        place: (usize, usize),
    ) {
        let whole = right.matrix;
        assert!(place.0.is_multiple_of(CUT) && place.1.is_multiple_of(CUT));
        assert!(place.0 + shape.2 <= whole.k && place.1 + shape.1 <= whole.n);
        // SAFETY: by the caller's promise.
        unsafe {
            self.kernel.packed_product(self.scratch, shape, target, a, right, place);
        }
    }

    /// c (m, n) ← [c +] scale · a (m, k) · b (k, n).
    ///
    /// # Safety
    /// The views must lie inside live memory, and nobody else may touch what `c` covers.
    pub(crate) unsafe fn product(
        &mut self,
        shape: Shape,
        target: Target,
        a: View<*const f32>,
        b: View<*const f32>,
    ) {
        // SAFETY: by the caller's promise.
        unsafe { self.kernel.product(self.scratch, shape, target, a, b) }
    }
}

/// A view that a task on another thread may use.
#[derive(Clone, Copy)]
struct Sent<T>(View<T>);

// SAFETY: a view is an address and two numbers; who uses it promises that nobody else does.
unsafe impl<T> Send for Sent<T> {}
unsafe impl<T> Sync for Sent<T> {}

impl<T: Copy> Sent<T> {
    fn get(&self) -> View<T> {
        self.0
    }
}

/// Rows and columns of parts that m by n values are cut into for `count` threads, such that the parts'
/// edges, which is what each thread reads, are shortest.
fn grid(m: usize, n: usize, count: usize) -> (usize, usize) {
    (1..=count)
        .filter(|down| count.is_multiple_of(*down))
        .map(|down| (down, count / down))
        .min_by_key(|(down, across)| m.div_ceil(*down) + n.div_ceil(*across))
        .unwrap_or((count, 1))
}

/// Part `index` of `parts` of `0..len`, in whole blocks of 32: (first, end).
fn share(len: usize, index: usize, parts: usize) -> (usize, usize) {
    const BLOCK: usize = 32;
    let blocks = len.div_ceil(BLOCK);
    let place = |index: usize| (blocks * index / parts * BLOCK).min(len);
    (place(index), place(index + 1))
}

/// [`Kernel::product`] by the gemm crate.
///
/// # Safety
/// As there.
unsafe fn portable_product(
    (m, n, k): Shape,
    target: Target,
    a: View<*const f32>,
    b: View<*const f32>,
) {
    let c = target.c;
    // SAFETY: by the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.start,
            c.column_stride as isize,
            c.row_stride as isize,
            target.accumulate,
            a.start,
            a.column_stride as isize,
            a.row_stride as isize,
            b.start,
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            target.scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values without a pattern, of several magnitudes.
    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24)
        };
        (0..len).map(|_| ((next() - 0.5) * (next() * 6.0 - 3.0).exp()) as f32).collect()
    }

    /// A matrix and its strides from row to row and from column to column.
    type Strided<'a> = (&'a [f32], (usize, usize));

    fn at((values, strides): Strided<'_>, row: usize, column: usize) -> f64 {
        f64::from(values[row * strides.0 + column * strides.1])
    }

    /// Computes c ← [c +] 0.5 a · b; the worst error against f64, relative to Σ |a b| where that is not
    /// below 1e-24.
    fn worst_error(
        unit: MatrixUnit,
        (m, n, k): Shape,
        a: Strided<'_>,
        b: Strided<'_>,
        before: Option<&[f32]>,
    ) -> f64 {
        let mut c = before.map_or(vec![f32::NAN; m * n], <[f32]>::to_vec);
        let mut multiplier = Multiplier::new(Threads::single(), unit, 0);
        let view = |(values, (row, column)): Strided<'_>| View::new(values.as_ptr(), row, column);
        // SAFETY: the views are those of the vectors.
        unsafe {
            let to = Target::add_if(View::new(c.as_mut_ptr(), n, 1), before.is_some()).times(0.5);
            let mut part = multiplier.parts().part(0);
            part.product((m, n, k), to, view(a), view(b));
        }
        let error = |index: usize| {
            let start = before.map_or(0.0, |before| f64::from(before[index]));
            let term = |inner: usize| 0.5 * at(a, index / n, inner) * at(b, inner, index % n);
            let exact = start + (0..k).map(term).sum::<f64>();
            let size = start.abs() + (0..k).map(|inner| term(inner).abs()).sum::<f64>();
            (f64::from(c[index]) - exact).abs() / size.max(1e-24)
        };
        // A NaN is larger than any error here.
        let larger = |worst: f64, error: f64| if error <= worst { worst } else { error };
        (0..m * n).map(error).fold(0.0, larger)
    }

    /// The strides of a matrix with rows or columns side by side.
    fn strides(rows: usize, columns: usize, by_rows: bool) -> (usize, usize) {
        match by_rows {
            true => (columns, 1),
            false => (1, rows),
        }
    }

    #[test]
    fn products_of_every_layout_and_edge_are_as_exact_as_f32() {
        let shapes =
            [(1, 1, 1), (5, 3, 2), (32, 32, 32), (33, 47, 65), (64, 600, 130), (100, 31, 300)];
        for unit in MatrixUnit::ALL {
            for (m, n, k) in shapes {
                let (a, b, before) = (noise(m * k, 1), noise(k * n, 2), noise(m * n, 3));
                for layout in 0..8 {
                    let a = (&a[..], strides(m, k, layout & 1 == 0));
                    let b = (&b[..], strides(k, n, layout & 2 == 0));
                    let before = (layout & 4 == 0).then_some(&before[..]);
                    let worst = worst_error(unit, (m, n, k), a, b, before);
                    assert!(worst < 2e-6, "{unit:?} {m} {n} {k} {layout}: {worst:e}");
                }
            }
        }
    }

    #[test]
    fn the_smallest_values_spoil_no_others() {
        let (m, n, k) = (40, 40, 70);
        // A third of them as usual, the others denormal or with denormal last parts.
        let mixed = |len: usize, seed: u32| -> Vec<f32> {
            let tiny = |index: usize| (index as u32).wrapping_mul(2_654_435_761) & 0x8fff_ffff;
            let values = noise(len, seed).into_iter().enumerate();
            values
                .map(|(index, value)| match index % 3 {
                    0 => value,
                    _ => f32::from_bits(tiny(index)),
                })
                .collect()
        };
        let (a, b) = (mixed(m * k, 8), mixed(k * n, 9));
        for unit in MatrixUnit::ALL {
            for layout in 0..4 {
                let a = (&a[..], strides(m, k, layout & 1 == 0));
                let b = (&b[..], strides(k, n, layout & 2 == 0));
                let worst = worst_error(unit, (m, n, k), a, b, None);
                assert!(worst < 2e-6, "{unit:?} {layout}: {worst:e}");
            }
        }
    }

    #[test]
    fn packed_weights_and_any_number_of_threads_give_the_same_bits() {
        for unit in MatrixUnit::ALL {
            for (m, n, k) in [(7, 40, 33), (300, 96, 300), (64, 33, 520)] {
                let (x, w, dy) = (noise(m * k, 4), noise(n * k, 5), noise(m * n, 6));
                let results = [1, 2, 3, 5].map(|count| {
                    let threads = Threads::new(count).unwrap();
                    let room = unit.packed(k, n) + unit.packed(n, k);
                    let mut multiplier = Multiplier::new(threads, unit, room);
                    let operands = [Matrix::forward(&w, n, k), Matrix::backward(&w, n, k)];
                    let (mut parts, [forward, backward]) = multiplier.prepare(operands);
                    let (mut y, mut dx) = (vec![0.0; m * n], vec![0.0; m * k]);
                    let mut dw = noise(n * k, 7);
                    // SAFETY: nobody else computes meanwhile.
                    let mut part = unsafe { parts.part(count - 1) };
                    part.rows(m, &mut y, &x, &forward, false);
                    part.rows(m, &mut dx, &dy, &backward, false);
                    parts.weight_gradient((n, k, m), &mut dw, &dy, &x, true);
                    (y, dx, dw)
                });
                let (y, dx, dw) = &results[0];
                let before = noise(n * k, 7);
                let sum =
                    |count: usize, term: &dyn Fn(usize) -> f64| (0..count).map(term).sum::<f64>();
                let value = |values: &[f32], index: usize| f64::from(values[index]);
                let (row, column, inner) = (m - 1, n - 1, k - 1);
                let exact_y = sum(k, &|i| value(&x, row * k + i) * value(&w, column * k + i));
                let exact_dx = sum(n, &|i| value(&dy, row * n + i) * value(&w, i * k + inner));
                let exact_dw = value(&before, column * k + inner)
                    + sum(m, &|i| value(&dy, i * n + column) * value(&x, i * k + inner));
                for (value, exact) in [
                    (y[row * n + column], exact_y),
                    (dx[row * k + inner], exact_dx),
                    (dw[column * k + inner], exact_dw),
                ] {
                    let error = (f64::from(value) - exact).abs();
                    assert!(error < 1e-4, "{unit:?}: {value} {exact}");
                }
                assert!(results.iter().all(|other| other == &results[0]), "{unit:?} {n}");
            }
        }
    }
}
