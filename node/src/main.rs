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
mod sealing;
mod service;
mod webrtc;

fn main() -> sc_cli::Result<()> {
    choose_tls();
    command::run()
}

/// Chooses the TLS with which peers are met at `wss` addresses. Compiled beside the clients, two are linked, and rustls
/// would panic for being asked to guess: at an address that any peer may announce.
fn choose_tls() {
    // Nobody can have chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
