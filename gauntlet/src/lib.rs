//! The command line of Gauntlet: parses a person's command, calls the libraries, and prints the result.
//!
//! Read in this order: [`cli`] is the list of commands, each of which is a module of [`commands`]; [`participant_file`] and
//! [`run_folder`] are the files that they read and write; [`chain_process`] and [`supervise`] start and stop processes.
//!
//! **Invariant.** Nothing depends on this crate: everything that another program could use is in `participant`, `trainer` or
//! `node-client`.

pub mod cli;
pub mod env;
pub mod exit;
pub mod telemetry;

pub mod participant_file;
pub mod signals;

mod corpus;
pub mod engine;
mod limits;
mod text_file;

pub mod chain_process;
pub mod commands;
pub mod supervise;
mod terminal;

pub mod run_folder;
