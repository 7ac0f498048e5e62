//! Matrix products by cuBLASLt: how each is done is decided once for a shape, and kept.
//!
//! cuBLASLt's matrices are column-major. A row-major matrix is its own transpose in that order, so that
//! d = a · b is asked for as dᵀ = bᵀ · aᵀ: a and b change places, rows and columns too, and nothing is moved.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::time::Instant;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulDescAttributes_t, cublasLtMatmulDesc_t, cublasLtMatmulHeuristicResult_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatmulPreference_t, cublasLtMatrixLayout_t,
    cudaDataType, cudaStream_t,
};

use super::found::{self, Library};
use super::gpu::{Address, GpuError, Product, ProductForm, ProductResult};

/// Bytes that a product may work in, of each stream: what NVIDIA advises for Hopper.
pub(super) const WORKSPACE: u64 = 32 << 20;

/// Ways that are compared when the best is asked for.
const WAYS: usize = 8;

/// Alignment beyond which cuBLASLt has no faster ways.
const ALIGNMENT_MAX: u64 = 256;

/// What a plan depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    form: ProductForm,
    result: ProductResult,
    adds: bool,
    sizes: [u32; 3],
    strides: [u32; 3],
    /// Largest powers of two that the addresses of a, b and d are multiples of.
    alignments: [u32; 3],
}

impl Key {
    fn of(product: &Product) -> Self {
        let operands = [product.a, product.b, product.d];
        Self {
            form: product.form,
            result: product.result,
            adds: product.beta != 0.0,
            sizes: [product.m, product.n, product.k],
            strides: operands.map(|(_, stride)| stride),
            alignments: operands.map(|(at, _)| {
                // Of address 0: any.
                let bits = at.0.trailing_zeros().min(ALIGNMENT_MAX.trailing_zeros());
                1 << bits
            }),
        }
    }
}

/// A matrix as cuBLASLt sees it: rows and columns in column-major order, and values from column to column.
type Layout = (u32, u32, u32);

/// The operands in cuBLASLt's order: (first, is it transposed), (second, is it transposed), result.
fn layouts(product: &Product) -> ((Layout, bool), (Layout, bool), Layout) {
    let Product { m, n, k, a: (_, lda), b: (_, ldb), d: (_, ldd), .. } = *product;
    // Row-major (rows, columns) is column-major (columns, rows).
    let (first, first_turned) = match product.form {
        ProductForm::Nt => ((k, n, ldb), true),
        ProductForm::Nn | ProductForm::Tn => ((n, k, ldb), false),
    };
    let (second, second_turned) = match product.form {
        ProductForm::Nt | ProductForm::Nn => ((k, m, lda), false),
        ProductForm::Tn => ((m, k, lda), true),
    };
    ((first, first_turned), (second, second_turned), (n, m, ldd))
}

/// How a product is done.
struct Plan {
    operation: Operation,
    /// The ways that cuBLASLt knows, those first that it takes for the fastest.
    ways: Vec<cublasLtMatmulAlgo_t>,
    /// Which of them is used.
    way: usize,
}

/// The plans of a GPU.
pub(super) struct Products {
    handle: cublasLtHandle_t,
    plans: HashMap<Key, Plan>,
}

impl Products {
    /// Opens the library; the GPU's context is the thread's.
    pub(super) fn open() -> Result<Self, GpuError> {
        found::need(Library::CublasLt)?;
        let handle = result::create_handle().map_err(|error| failed("cublasLtCreate", error))?;
        Ok(Self { handle, plans: HashMap::new() })
    }

    /// Starts a product on a stream, with [`WORKSPACE`] bytes to work in.
    pub(super) fn start(
        &mut self,
        product: &Product,
        stream: cudaStream_t,
        workspace: Address,
    ) -> Result<(), GpuError> {
        let handle = self.handle;
        let plan = self.plan(product)?;
        let way = plan.ways.get(plan.way).ok_or_else(|| no_way(product))?;
        plan.operation.start(handle, way, product, stream, workspace)
    }

    /// Seconds that each way takes, the one that is used without being asked first; the best is used from now on.
    /// What the product's result was is lost.
    pub(super) fn compare(
        &mut self,
        product: &Product,
        stream: cudaStream_t,
        workspace: Address,
        repeats: u32,
        wait: &dyn Fn() -> Result<(), GpuError>,
    ) -> Result<Vec<f64>, GpuError> {
        let handle = self.handle;
        let plan = self.plan(product)?;
        let mut seconds = Vec::with_capacity(plan.ways.len());
        for way in &plan.ways {
            let run = || plan.operation.start(handle, way, product, stream, workspace);
            run()?;
            wait()?;
            let started = Instant::now();
            for _ in 0..repeats.max(1) {
                run()?;
            }
            wait()?;
            seconds.push(started.elapsed().as_secs_f64() / f64::from(repeats.max(1)));
        }
        let best = seconds.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        plan.way = best.map_or(0, |(at, _)| at);
        Ok(seconds)
    }

    fn plan(&mut self, product: &Product) -> Result<&mut Plan, GpuError> {
        use std::collections::hash_map::Entry;
        match self.plans.entry(Key::of(product)) {
            Entry::Occupied(kept) => Ok(kept.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(plan(self.handle, product)?)),
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: it was created, and the plans are gone.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

fn no_way(product: &Product) -> GpuError {
    let Product { form, m, n, k, result, .. } = product;
    let reason = format!("cuBLASLt knows no way for {form:?} of {m} × {n} × {k} to {result:?}");
    GpuError::Failed { call: "a product".to_owned(), reason }
}

fn failed(call: &str, error: CublasError) -> GpuError {
    GpuError::Failed { call: call.to_owned(), reason: format!("{:?}", error.0) }
}

fn plan(handle: cublasLtHandle_t, product: &Product) -> Result<Plan, GpuError> {
    let operation = Operation::new(product)?;
    let preference = Preference::new(&Key::of(product))?;
    let mut found = [cublasLtMatmulHeuristicResult_t {
        algo: cublasLtMatmulAlgo_t { data: [0; 8] },
        workspaceSize: 0,
        state: sys::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED,
        wavesCount: 0.0,
        reserved: [0; 4],
    }; WAYS];
    let mut count = 0;
    // SAFETY: descriptors and layouts are alive, and there is room for as many results as are asked for.
    let outcome = unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            handle,
            operation.description,
            operation.first,
            operation.second,
            operation.result,
            operation.result,
            preference.0,
            WAYS as i32,
            found.as_mut_ptr(),
            &mut count,
        )
    };
    let ways: Vec<_> = found
        .iter()
        .take(usize::try_from(count).unwrap_or(0))
        .filter(|way| way.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS)
        .map(|way| way.algo)
        .collect();
    match outcome.result() {
        Ok(()) if !ways.is_empty() => Ok(Plan { operation, ways, way: 0 }),
        Ok(()) | Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => {
            Err(no_way(product))
        }
        Err(error) => Err(failed("cublasLtMatmulAlgoGetHeuristic", error)),
    }
}

/// cuBLASLt's descriptors of a product.
struct Operation {
    description: cublasLtMatmulDesc_t,
    first: cublasLtMatrixLayout_t,
    second: cublasLtMatrixLayout_t,
    result: cublasLtMatrixLayout_t,
}

impl Operation {
    fn new(product: &Product) -> Result<Self, GpuError> {
        let (values, sums) = (cudaDataType::CUDA_R_16BF, cudaDataType::CUDA_R_32F);
        let ((first, first_turned), (second, second_turned), of_result) = layouts(product);
        let of_values = match product.result {
            ProductResult::Bf16 => values,
            ProductResult::F32 => sums,
        };
        // What is not made yet is null, and not destroyed.
        let mut operation = Self {
            description: ptr::null_mut(),
            first: ptr::null_mut(),
            second: ptr::null_mut(),
            result: ptr::null_mut(),
        };
        operation.description =
            result::create_matmul_desc(cublasComputeType_t::CUBLAS_COMPUTE_32F, sums)
                .map_err(|error| failed("cublasLtMatmulDescCreate", error))?;
        let layout = |kind, (rows, columns, stride): Layout| {
            result::create_matrix_layout(kind, rows.into(), columns.into(), stride.into())
                .map_err(|error| failed("cublasLtMatrixLayoutCreate", error))
        };
        operation.first = layout(values, first)?;
        operation.second = layout(values, second)?;
        operation.result = layout(of_values, of_result)?;
        let turned = [
            (cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, first_turned),
            (cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB, second_turned),
        ];
        for (attribute, turned) in turned {
            let kind = i32::from(turned);
            // SAFETY: the description is alive, and the attribute is a cublasOperation_t: 0 as it lies, 1 transposed.
            unsafe {
                result::set_matmul_desc_attribute(
                    operation.description,
                    attribute,
                    ptr::from_ref(&kind).cast(),
                    size_of_val(&kind),
                )
            }
            .map_err(|error| failed("cublasLtMatmulDescSetAttribute", error))?;
        }
        Ok(operation)
    }

    fn start(
        &self,
        handle: cublasLtHandle_t,
        way: &cublasLtMatmulAlgo_t,
        product: &Product,
        stream: cudaStream_t,
        workspace: Address,
    ) -> Result<(), GpuError> {
        let at = |(address, _): (Address, u32)| address.0 as *mut c_void;
        // SAFETY: the descriptors are alive; that the addresses have room for the matrices is the caller's word, as for
        // every launch.
        unsafe {
            result::matmul(
                handle,
                self.description,
                ptr::from_ref(&product.alpha).cast(),
                ptr::from_ref(&product.beta).cast(),
                at(product.b),
                self.first,
                at(product.a),
                self.second,
                at(product.d),
                self.result,
                at(product.d),
                self.result,
                way,
                workspace.0 as *mut c_void,
                WORKSPACE as usize,
                stream,
            )
        }
        .map_err(|error| failed("cublasLtMatmul", error))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: each was created, and is destroyed once.
        unsafe {
            for layout in [self.first, self.second, self.result] {
                if !layout.is_null() {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
            if !self.description.is_null() {
                let _ = result::destroy_matmul_desc(self.description);
            }
        }
    }
}

/// What cuBLASLt may choose from.
struct Preference(cublasLtMatmulPreference_t);

impl Preference {
    fn new(key: &Key) -> Result<Self, GpuError> {
        use cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = result::create_matmul_pref()
            .map_err(|error| failed("cublasLtMatmulPreferenceCreate", error))?;
        let preference = Self(preference);
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        // Its A is our b.
        let [a, b, d] = key.alignments;
        let alignments = [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ];
        for (attribute, alignment) in alignments {
            preference.set(attribute, &alignment)?;
        }
        Ok(preference)
    }

    fn set<T: Copy>(
        &self,
        attribute: cublasLtMatmulPreferenceAttributes_t,
        value: &T,
    ) -> Result<(), GpuError> {
        // SAFETY: the preference is alive; the workspace is a u64 and an alignment a u32, as cublasLt.h says.
        unsafe {
            result::set_matmul_pref_attribute(
                self.0,
                attribute,
                ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        }
        .map_err(|error| failed("cublasLtMatmulPreferenceSetAttribute", error))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was created, and is destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(form: ProductForm) -> Product {
        let (m, n, k) = (3, 5, 7);
        let (lda, ldb) = match form {
            ProductForm::Nt => (k + 1, k + 2),
            ProductForm::Nn => (k + 1, n + 2),
            ProductForm::Tn => (m + 1, n + 2),
        };
        Product {
            form,
            m,
            n,
            k,
            a: (Address(256), lda),
            b: (Address(48), ldb),
            d: (Address(4_096), n + 3),
            result: ProductResult::F32,
            alpha: 2.0,
            beta: 0.5,
        }
    }

    /// The value of a column-major matrix, as cuBLASLt reads it.
    fn read(values: &[f64], (rows, columns, stride): Layout, turned: bool, i: u32, j: u32) -> f64 {
        let (row, column) = if turned { (j, i) } else { (i, j) };
        assert!(row < rows && column < columns && stride >= rows);
        values[(column * stride + row) as usize]
    }

    #[test]
    fn changed_places_give_the_row_major_product() {
        for form in [ProductForm::Nt, ProductForm::Nn, ProductForm::Tn] {
            let of = product(form);
            let values = |seed: u32| -> Vec<f64> {
                (0..200u32).map(|at| f64::from((at * 37 + seed) % 11) - 5.0).collect()
            };
            let (a, b) = (values(1), values(2));
            let ((first, first_turned), (second, second_turned), (rows, columns, stride)) =
                layouts(&of);
            let mut d = vec![0.0; 200];
            for i in 0..rows {
                for j in 0..columns {
                    let terms = (0..of.k).map(|l| {
                        read(&b, first, first_turned, i, l) * read(&a, second, second_turned, l, j)
                    });
                    d[(j * stride + i) as usize] = terms.sum::<f64>();
                }
            }
            for i in 0..of.m {
                for j in 0..of.n {
                    let terms = (0..of.k).map(|l| {
                        let a = match form {
                            ProductForm::Tn => a[(l * of.a.1 + i) as usize],
                            _ => a[(i * of.a.1 + l) as usize],
                        };
                        let b = match form {
                            ProductForm::Nt => b[(j * of.b.1 + l) as usize],
                            _ => b[(l * of.b.1 + j) as usize],
                        };
                        a * b
                    });
                    assert_eq!(d[(i * of.d.1 + j) as usize], terms.sum::<f64>(), "{form:?}");
                }
            }
        }
    }

    #[test]
    fn a_plan_is_kept_for_what_it_depends_on() {
        let of = product(ProductForm::Nt);
        let key = Key::of(&of);
        assert_eq!(key.alignments, [256, 16, 256]);
        assert_eq!(Key::of(&Product { alpha: 1.0, beta: 1.0, ..of }), key);
        assert_ne!(Key::of(&Product { beta: 0.0, ..of }), key);
        assert_ne!(Key::of(&Product { a: (Address(264), of.a.1), ..of }), key);
        assert_eq!(Key::of(&Product { a: (Address(512), of.a.1), ..of }), key);
    }
}
