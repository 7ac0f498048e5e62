//! Names the protocol's lists of samples for the roles.

pub use protocol::samples::{own_evaluation, random_evaluation, training_steps};
