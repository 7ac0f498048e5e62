//! Tests by the file that they test; each name is a claim.

mod emission;
mod exploits;
mod registration;
mod settlement;
mod submission;
mod window;
