//! Scenarios against the real runtime, and what clients know of it.

mod draws;

mod network;

mod payload;

mod evidence;

mod adversaries;
mod authorities;
mod encodings;
mod genesis;
mod governance;
mod metadata;
mod random_calls;
mod twin;
mod window;
mod work;
