//! Leads the storage of a running chain to the version that the code reads, a version at a time.
//!
//! A runtime names the steps that its chain has not taken yet among its migrations:
//!
//! ```ignore
//! use pallet_gauntlet::migrations::{MigrateV1ToV2, MigrateV2ToV3};
//!
//! type SingleBlockMigrations = (MigrateV1ToV2<Runtime>, MigrateV2ToV3<Runtime>);
//! ```
//!
//! Each is a [`VersionedMigration`]: it runs if the chain's storage has the version that it leads from, once, and raises it.
//! A step that was taken costs a read, so that it may stay until every chain has taken it. What it rewrites has a bound that
//! a block holds; a map without one is rewritten by a `SteppedMigration` over many blocks, and read in both forms meanwhile.
//!
//! | version | since | what changed |
//! |---|---|---|
//! | 0 | | chains from before the pallet counted versions; there is no way from there, they are begun anew |
//! | 1 | the first that is counted | |
//! | 2 | [`MigrateV1ToV2`] | settings that wait tell whether the chain's governance forced them |
//! | 3 | [`MigrateV2ToV3`] | settings tell whether training overlaps with the exchange, and records of windows have the seeds for it; runs of before go on without |
//!
//! Builds between two releases may have had the records of version 3 under version 2. Their chains are begun anew:
//! `try-runtime` says so before the step.
//!
//! # Writing the next one
//!
//! Its module keeps the types as they were, so that later changes of the code do not reach back; it rewrites rows by
//! `translate`, which leaves what it cannot decode, and for `try-runtime` it tells before and after what must have stayed.

use frame_support::migrations::VersionedMigration;

use crate::Pallet;

mod stored_v2;
mod v2;
mod v3;

/// From storage version 1 to 2: [`ScheduledSettings`](crate::ScheduledSettings) has `by_admin`, `false` for those that wait.
///
/// At most [`Config::RunsMax`](crate::Config::RunsMax) rows, in one block.
pub type MigrateV1ToV2<T> = VersionedMigration<
    1,
    2,
    v2::TellWhoForced<T>,
    Pallet<T>,
    <T as frame_system::Config>::DbWeight,
>;

/// From storage version 2 to 3: settings have [`overlap`](protocol::settings::Training::overlap), which is off. A
/// [`WindowRecord`](crate::WindowRecord) has `scoring_seed`, which was the seed, and no `next_seed`.
///
/// In one block: at most [`Config::RunsMax`](crate::Config::RunsMax) times the windows that are kept, twice, and the
/// settings that wait.
pub type MigrateV2ToV3<T> = VersionedMigration<
    2,
    3,
    v3::LetTrainingOverlap<T>,
    Pallet<T>,
    <T as frame_system::Config>::DbWeight,
>;
