//! Tests by the file that they test; each name is a claim.

mod disputes;
mod emission;
mod exploits;
mod extension;
mod invariants;
mod keys;
mod migrations;
mod overlap;
mod proofs;
mod registration;
mod scenario;
mod settlement;
mod slashing;
mod stake;
mod submission;
mod view;
mod window;
