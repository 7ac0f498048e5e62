//! One kernel, in one of its forms.

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
