//! The command line of Gauntlet and its services: the one place where chain, peers and model meet.
//!
//! Read in this order: [`cli`] and [`config`] say what can be asked; [`miner`] and [`validator`] are the two services,
//! on what they share ([`participant`], [`dataset`], [`heads`], [`peers`], [`payloads`], [`replica`], [`submitter`], [`work`]); [`commands::localnet`] runs
//! a whole network of them; [`auditor`] recomputes what it did.
//!
//! **Invariants.** A service per duty, each with its own loop, sharing only handles. What is signed is in the journal
//! first. Whatever fails in a window (the chain, a peer, the disk) is logged and written to the diary, and the next
//! window is worked on; only what cannot get better ends a process. Every wait for somebody else has a time-out.

pub mod cli;
pub mod env;
pub mod exit;
pub mod telemetry;

pub mod config;

pub mod diary;
pub mod heads;
pub mod payloads;
pub mod peers;
pub mod signals;
pub mod submitter;
pub mod work;

pub mod participant;

pub mod dataset;
pub mod replica;
pub mod samples;

pub mod miner;

pub mod adversary;

pub mod validator;

mod corpus;

pub mod chain_process;
pub mod commands;
pub mod supervise;
mod terminal;

pub mod auditor;
pub mod run_folder;

pub mod memory;
