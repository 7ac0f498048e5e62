//! The CUDA engine: the model of [`engine`](crate::engine) on GPUs, from one card to a 72B model over eight.
//!
//! Everything above two small traits is one code, and runs without a GPU in the tests: [`Gpu`] is one card
//! (the hardware by cudarc, or the crate `cuda-emulator`), [`Collective`] joins several. The kernels
//! are CUDA C++ over one prelude (`kernels/prelude.cuh`), compiled by NVRTC at the first start and by the
//! host's compiler in the tests.

mod backward;
mod batch;
pub mod collective;
pub mod device;
mod forward;
pub mod gpu;
pub mod kernel;
pub mod kernels;
pub mod layout;
pub mod learner;
pub mod memory;
pub mod nccl;
mod node;
mod optimiser;
pub mod outer;
mod output;
mod parts;
pub mod plan;
mod predictor;
mod rank;
pub mod seats;
pub mod settings;
pub mod state;
mod suggestion;
pub mod twin;
mod updates;

pub mod found;

pub mod compiler;
pub mod cubins;
pub mod gate;

mod products;

pub mod hardware;

pub mod cards;
pub mod check;
pub mod fit;
pub mod measure;

pub use cards::{Cards, Chosen};
pub use collective::Collective;
pub use device::Cuda;
pub use gpu::{Address, Argument, Event, Gpu, GpuError, Launch, Product, ProductForm, Stream};
pub use kernel::Kernel;
pub use seats::{Gpus, Seat};
pub use settings::CudaSettings;
