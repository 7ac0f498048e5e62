//! The chain binary: block production, finality and RPC for the runtime. No rule of Gauntlet's is here.

mod chain_spec;
mod cli;
mod command;
mod rpc;
mod service;

fn main() -> sc_cli::Result<()> {
    command::run()
}
