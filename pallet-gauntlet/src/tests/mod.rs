//! Tests by the file that they test; each name is a claim.

mod emission;
mod registration;
mod settlement;
mod submission;
mod view;
mod window;
