//! The kernels: their sources, how each is compiled, and one typed function a kernel that starts it.

use super::kernel::Kernel;

pub mod attention;
pub mod embedding;
pub mod loss;
pub mod norm;
pub mod optimiser;
pub mod rows;
pub mod sparse;
mod start;
pub mod values;

/// What every kernel includes.
pub const PRELUDE: &str = include_str!("kernels/prelude.cuh");

/// A source's text by its file name without `.cu`.
pub fn source(file: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

/// All sources: file name without `.cu`, and text.
pub const SOURCES: &[(&str, &str)] = &[
    ("attention", include_str!("kernels/attention.cu")),
    ("embedding", include_str!("kernels/embedding.cu")),
    ("loss", include_str!("kernels/loss.cu")),
    ("norm", include_str!("kernels/norm.cu")),
    ("optimiser", include_str!("kernels/optimiser.cu")),
    ("rows", include_str!("kernels/rows.cu")),
    ("sparse", include_str!("kernels/sparse.cu")),
    ("values", include_str!("kernels/values.cu")),
];

/// All kernels in all their forms.
pub fn all() -> impl Iterator<Item = &'static Kernel> {
    let groups: [&'static [Kernel]; 8] = [
        attention::KERNELS,
        embedding::KERNELS,
        loss::KERNELS,
        norm::KERNELS,
        optimiser::KERNELS,
        rows::KERNELS,
        sparse::KERNELS,
        values::KERNELS,
    ];
    groups.into_iter().flatten()
}
