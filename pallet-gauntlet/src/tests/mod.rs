//! Tests by the file that they test; each name is a claim.

mod emission;
mod exploits;
mod registration;
mod settlement;
mod slashing;
mod stake;
mod submission;
mod window;
