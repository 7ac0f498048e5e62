//! The one set of features of our dependencies.
//!
//! Cargo compiles a crate with the features that the packages it was asked to build want of it: `cargo test -p gauntlet-protocol` asks
//! for fewer than the whole workspace does, and would compile hundreds of crates a second time. Nothing is in here; but each
//! of our crates names this one for its tests, and with it the features that the whole workspace uses.
