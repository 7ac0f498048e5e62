//! A GPU for tests: the engine's kernels compiled by the host's C++ compiler, lanes as fibres, streams in random
//! order where no event forbids it. Nothing of it is in a miner's program.
//!
//! - [`compile`]: a kernel's source as a library or as a program, by the host's compiler, kept between runs;
//! - [`library`]: such a library's kernels, called in this process;
//! - [`gpu`]: memory and streams around them, which is what the engine sees;
//! - [`case`](mod@case): a kernel with its data, run in every order of lanes, under sanitizers, and with planted bugs.
//!
//! The C++ side is `cpp/emulate.h` and `cpp/emulate.cpp`; docs/decisions/0011-kernels-without-a-gpu.md says why.

pub mod case;
pub mod compile;
mod error;
pub mod gpu;
pub mod library;
mod product;
pub mod settings;

pub use case::{agree_in_all_orders, finds, sanitised, Case, Finding, Outcome, Way};
pub use compile::{Program, Sanitizer};
pub use error::EmulatorError;
pub use gpu::{Behaviour, Counts, Emulated, Fault, Log};
pub use library::{Function, Kernels};
pub use settings::{Copies, Order, Settings};
