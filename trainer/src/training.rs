//! Trains, with a chain and without one: steps from θ, an update, a checkpoint that outlives a
//! kill -9, and what one update alone does to the loss.

pub mod checkpoint;

pub mod compress;
mod progress;
pub mod train;

pub mod ahead;

pub mod evaluate;

pub mod guard;
pub mod schedule;

pub mod pretrain;
