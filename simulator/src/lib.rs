//! Simulates a run's economy: miners whose gains are a model and validators that measure with noise, on the real runtime, block
//! by block, from one seed. Nobody trains and nobody signs; every call is dispatched and every hook runs as on a node, and each
//! block is committed to the backend.
//!
//! - [`scenario`] who takes part in which attack
//! - [`miner`], [`validator`] what each kind does; [`truth`] what an update is worth
//! - [`world`] one scenario from the first to the last window, which calls [`chain`] alone
//! - [`statistics`] what it meant for whom; [`report`] and [`plot`] write it down
//!
//! docs/study/incentive.md says what came out.

pub mod random;
pub mod truth;

pub mod miner;
pub mod validator;

pub mod chain;

pub mod scenario;
pub mod world;

pub mod statistics;

pub mod plot;
pub mod report;
