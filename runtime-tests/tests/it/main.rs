//! Scenarios against the real runtime, and what clients know of it.

mod metadata;
