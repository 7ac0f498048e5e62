//! What `substrate-wasm-builder` asks of wasm-opt, without the eight minutes of C++ behind the crate of that name.
//!
//! The builder asks for no optimisation: the file is to lose its debug information, and instructions that extend signs are
//! to be written as older ones. The first is done here, section by section. The second has no object: the runtime is
//! compiled for `wasm32v1-none`, a target without such instructions, its `core` and `alloc` included.

mod module;

use std::{fs, io, path::Path};

/// A change that the builder asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Leave out the sections with DWARF.
    StripDwarf,
    /// Write sign extensions as shifts; there are none to write.
    SignextLowering,
}

/// What is to happen to a file.
#[derive(Debug, Clone, Default)]
pub struct OptimizationOptions {
    passes: Vec<Pass>,
}

impl OptimizationOptions {
    /// Changes nothing until a pass is added.
    pub fn new_opt_level_0() -> Self {
        Self::default()
    }

    /// Says that the file uses no feature newer than the first version of Wasm; nothing depends on it here.
    pub fn mvp_features_only(&mut self) -> &mut Self {
        self
    }

    /// Says whether functions keep their names, which they do in any case.
    pub fn debug_info(&mut self, _keep: bool) -> &mut Self {
        self
    }

    /// Adds a pass.
    pub fn add_pass(&mut self, pass: Pass) -> &mut Self {
        self.passes.push(pass);
        self
    }

    /// Applies the passes to the file `from` and writes the result to `to`, which may be the same file.
    ///
    /// # Errors
    /// A file that cannot be read or written; a file that is no Wasm module.
    pub fn run(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let bytes = fs::read(from)?;
        let strip = self.passes.contains(&Pass::StripDwarf);
        let kept = module::keep(&bytes, |name| !(strip && module::holds_dwarf(name)))
            .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        fs::write(to, kept)
    }
}
