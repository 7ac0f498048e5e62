//! Whole nodes as processes on this machine, asked over RPC.

mod development;
mod flood;
mod fullness;
mod new_chain;
mod process;
mod secure_address;
mod transactions;
mod two_authorities;
mod watch;
mod webrtc;
mod work;
