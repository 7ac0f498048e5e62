//! Leads the storage of a running chain to the version that the code reads, a version at a time.
//!
//! A runtime names the steps that its chain has not taken yet among its migrations:
//!
//! ```ignore
//! type SingleBlockMigrations = (pallet_gauntlet::migrations::MigrateV1ToV2<Runtime>,);
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
//! | 2 | [`MigrateV1ToV2`] | settings that wait tell whether the chain's governance forced them; settings and records of windows have what overlap needs, for which there is no way: a chain with runs is begun anew, as none with version 2 is known |
//!
//! # Writing the next one
//!
//! Its module keeps the types as they were, so that later changes of the code do not reach back; it rewrites rows by
//! `translate`, which leaves what it cannot decode, and for `try-runtime` it tells before and after what must have stayed.

use frame_support::migrations::VersionedMigration;

use crate::Pallet;

mod v2;

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
