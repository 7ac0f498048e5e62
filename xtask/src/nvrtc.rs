//! NVIDIA's run-time compiler, which the kernels are checked with: one package for pip, no GPU and no driver.

use std::path::{Path, PathBuf};

use crate::{failure::Failure, wheel::Wheel};

/// The variable that names the folder to the programs and tests.
pub(crate) const VARIABLE: &str = "GAUNTLET_CUDA_LIBRARIES";

/// The package: of CUDA 13.0, which the bindings are made for.
const WHEEL: Wheel = Wheel {
    package: "nvidia-cuda-nvrtc==13.0.88",
    megabytes: 90,
    file: "nvidia/cu13/lib/libnvrtc.so.13",
    purpose: "the kernels are checked with",
};

/// Where the package has its libraries.
const LIBRARIES: &str = "nvidia/cu13/lib";

/// The folder of the libraries, if they were fetched before.
pub(crate) fn kept(cache_dir: &Path) -> Option<PathBuf> {
    WHEEL.kept(cache_dir).map(|folder| folder.join(LIBRARIES))
}

/// The folder of the libraries, fetched now if need be.
///
/// # Errors
/// As [`Wheel::ensure`].
pub(crate) fn ensure(cache_dir: &Path) -> Result<PathBuf, Failure> {
    WHEEL.ensure(cache_dir).map(|folder| folder.join(LIBRARIES))
}
