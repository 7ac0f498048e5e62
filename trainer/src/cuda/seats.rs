//! The GPUs of a process, and the ranks that sit at them.

use super::collective::Collective;
use super::gpu::{Gpu, GpuError};

/// A rank's place: its GPU, and its end of what joins the ranks.
pub struct Seat {
    /// The GPU.
    pub gpu: Box<dyn Gpu>,
    /// The rank's end; its number is the seat's.
    pub collective: Box<dyn Collective>,
}

/// The GPUs of this process.
pub trait Gpus: Send + Sync {
    /// What they are called.
    fn name(&self) -> String;

    /// How many they are, and the bytes of memory that the smallest has.
    fn memory(&self) -> (usize, u64);

    /// Opens them afresh, a rank each: for one learner or predictor.
    ///
    /// # Errors
    /// A library or a GPU is missing, or the driver refuses.
    fn open(&self) -> Result<Vec<Seat>, GpuError>;
}
