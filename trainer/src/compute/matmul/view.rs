//! Places of matrices inside larger ones, by address and strides, and what becomes of a product.

/// A result, and what becomes of it: c ← [c +] scale · product.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) c: View<*mut f32>,
    pub(crate) scale: f32,
    pub(crate) accumulate: bool,
}

impl Target {
    /// c ← product.
    pub(crate) fn set(c: View<*mut f32>) -> Self {
        Self::add_if(c, false)
    }

    /// c ← [c +] product.
    pub(crate) fn add_if(c: View<*mut f32>, accumulate: bool) -> Self {
        let scale = 1.0;
        Self { c, scale, accumulate }
    }

    /// With the product times `scale`.
    pub(crate) fn times(self, scale: f32) -> Self {
        Self { scale, ..self }
    }
}

/// One matrix inside a larger one.
#[derive(Clone, Copy)]
pub(crate) struct View<T> {
    pub(crate) start: T,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<T> View<T> {
    pub(crate) fn new(start: T, row_stride: usize, column_stride: usize) -> Self {
        Self { start, row_stride, column_stride }
    }

    pub(super) fn transposed(self) -> Self {
        Self::new(self.start, self.column_stride, self.row_stride)
    }
}

impl View<*const f32> {
    /// The part from `row` and `column` on.
    pub(super) fn offset(self, row: usize, column: usize) -> Self {
        let index = row * self.row_stride + column * self.column_stride;
        Self::new(self.start.wrapping_add(index), self.row_stride, self.column_stride)
    }
}

impl View<*mut f32> {
    /// The part from `row` and `column` on.
    pub(super) fn offset(self, row: usize, column: usize) -> Self {
        let index = row * self.row_stride + column * self.column_stride;
        Self::new(self.start.wrapping_add(index), self.row_stride, self.column_stride)
    }
}
