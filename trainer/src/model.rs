//! Holds a model: its size, where each tensor lies, the parameters θ that are the same bytes on
//! every machine, the outer step that changes them, and the operations that a token costs.

pub mod config;

pub mod init;
pub mod outer_step;

mod parameters;

mod arriving;

pub mod flops;

pub use arriving::ArrivingModel;
pub(crate) use parameters::next_stamp;
pub use parameters::{Model, ModelError};
