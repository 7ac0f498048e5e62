//! The chain's binary: makes, finalises and serves the blocks of the runtime. No rule of Gauntlet's is here.

#![allow(
    clippy::result_large_err,
    reason = "the errors are the SDK's, and each is met once, at the start"
)]

mod chain_spec;
mod cli;
mod client;
mod command;
mod rpc;
mod service;
mod webrtc;

fn main() -> sc_cli::Result<()> {
    command::run()
}
