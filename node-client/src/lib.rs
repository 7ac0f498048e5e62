//! Connects a participant with the chain and its peers, and keeps its keys, contents and journal; knows no model.
//!
//! Read in this order, which is the order in which a participant meets the parts:
//!
//! - [`keys`]: who signs (sr25519, encrypted key files) and who speaks on the network (ed25519);
//! - [`clock`]: time as a trait, with a twin that tests move by hand; [`backoff`] and [`budget`]: how long to wait before another
//!   try, and for what goes by its size;
//! - [`chain`]: the chain as a trait over plain domain types, its subxt implementation and a fake;
//! - [`network`]: peers as a trait: publish bytes under a content id, fetch them, verified, from whoever has them;
//! - [`store`]: published bytes on disk, by content id, within a bound;
//! - [`mirror`]: the same in a bucket of an S3-compatible store;
//! - [`journal`]: what this participant has already committed to, so that it never commits to two things.
//!
//! **Invariants.** Every queue, table and buffer has a bound. What a peer or the chain sends is data: it is judged and
//! reported, it never ends a loop and never panics. Nothing here knows a model, and nothing depends on the pallet but
//! through its metadata and `protocol`.

pub mod backoff;
pub mod budget;
pub mod clock;
pub mod keys;

pub mod chain;

pub mod mirror;
pub mod network;
pub mod store;

pub mod journal;
