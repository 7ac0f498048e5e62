//! Takes part in a run: a miner, a validator and an auditor as a library, the one place where chain, peers and model meet.
//!
//! A program that mines beside whatever else it does:
//!
//! ```no_run
//! use futures::StreamExt;
//! use node_client::keys;
//! use participant::{open, settings::Participant, Miner};
//! use trainer::ModelConfig;
//!
//! # async fn embed() -> participant::Result<()> {
//! let hot = keys::keypair_from_uri("//Alice//hot")?;
//! let settings = Participant::new("state", ModelConfig::preset("nano")?, "data", hot);
//! let surroundings = open::connect(&settings).await?;
//! let miner = Miner::open(settings, surroundings).await?;
//! let mut events = miner.events();
//! tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         tracing::info!(?event);
//!     }
//! });
//! miner.run(std::future::pending()).await
//! # }
//! ```
//!
//! `examples/embed.rs` is such a program. Read in this order: [`settings`] says what can be configured and [`mod@open`]
//! opens it; [`miner`] and [`validator`] are the two services, on what they share ([`handles`], [`desk`], [`heads`],
//! [`peers`], [`payloads`], [`copies`], [`replica`], [`work`], [`diary`]); [`events`] tells what they do; [`auditor`]
//! recomputes what they did.
//!
//! **Invariants.** A service per duty, each with its own loop, sharing only handles. What is signed is in the journal
//! first ([`desk`]). Whatever fails in a window (the chain, a peer, the disk) is logged and written to the diary, and the next
//! window is worked on; only what cannot get better ends a service, and [`Error::next`] tells an embedding program what to do
//! about it. Every wait for somebody else has a
//! time-out. Nothing is printed and no process is ended: that is the embedding program's.

pub mod error;
pub mod telemetry;

pub mod diary_record;
pub mod events;

pub mod diary;
pub mod folder;
pub mod heads;
pub mod peers;
pub mod work;

mod aside;

pub mod copies;
pub mod desk;
pub mod leave;
pub mod payloads;
pub mod snapshots;

pub mod handles;

pub mod replica;

mod prefetch;
mod ranks;

pub mod memory;

pub mod settings;

pub mod open;

pub mod hindrance;
mod holders;
pub mod reach;
mod slot;

mod outcomes;
mod pay;

pub mod miner;

pub mod validator;

pub mod auditor;

pub use auditor::{Audit, AuditSettings};
pub use error::{Error, Next, Result};
pub use events::Event;
pub use miner::Miner;
pub use validator::Validator;
