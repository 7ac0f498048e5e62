//! The commands, a file or folder each.

pub mod audit;
pub mod bench;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod localnet;
pub mod miner;
mod money;
pub mod plan;
pub mod run;
pub mod status;
pub mod train;
pub mod transfer;
pub mod validator;
pub mod wallet;
