//! Whole nodes as processes on this machine, asked over RPC.

mod development;
mod flood;
mod process;
mod two_authorities;
mod webrtc;
