//! The kernels: their sources, how each is compiled, and one typed function a kernel that starts it.

pub mod attention;
pub mod embedding;
pub mod loss;
pub mod norm;
pub mod optimiser;
pub mod rows;
pub mod sparse;
mod start;
pub mod values;

/// A kernel as it is compiled: its source, and the constants that are fixed in it.
#[derive(PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// The function's name.
    pub name: &'static str,
    /// The source's file name without `.cu`.
    pub file: &'static str,
    /// Constants, as `-DNAME=value`.
    pub defines: &'static [(&'static str, u32)],
    /// Threads of a block, as in its `KERNEL(threads, blocks)`.
    pub threads: u32,
    /// Blocks that an SM is to hold at once, as there.
    pub blocks: u32,
    /// The most dynamic shared memory that it is started with, in bytes.
    pub shared_max: u32,
}

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
