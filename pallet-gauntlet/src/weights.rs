//! Weighs calls and hooks, by hand: storage as counted in the code, where a benchmark may not meet the worst case, and time
//! that is at least what `cargo xtask weights` measured (`weights/measured.rs`; a test compares both).

use core::marker::PhantomData;

use frame_support::{
    traits::Get,
    weights::{
        constants::{RocksDbWeight, WEIGHT_REF_TIME_PER_MICROS},
        RuntimeDbWeight, Weight,
    },
};

use protocol::strikes::STRIKE_WINDOWS;

#[cfg(test)]
pub(crate) mod measured;

/// The weights that the pallet needs. Each parameter says what it counts.
pub trait WeightInfo {
    /// `t` tensors.
    fn create_run(t: u32) -> Weight;
    /// `m` miners among which one is found that has to make room; 0 while there is a free slot.
    fn register_miner(m: u32) -> Weight;
    /// The weight of the call `leave_miner`.
    fn leave_miner() -> Weight;
    /// The weight of the call `evict`.
    fn evict() -> Weight;
    /// The weight of the call `withdraw_bond`.
    fn withdraw_bond() -> Weight;
    /// The weight of the call `rotate_hot_key`.
    fn rotate_hot_key() -> Weight;
    /// The weight of the call `offer_cold`.
    fn offer_cold() -> Weight;
    /// The weight of the call `cancel_cold`.
    fn cancel_cold() -> Weight;
    /// The weight of the call `accept_cold`.
    fn accept_cold() -> Weight;
    /// Making `c` changes that waited for a window.
    fn make_changes(c: u32) -> Weight;
    /// The weight of the call `register_validator`.
    fn register_validator() -> Weight;
    /// The weight of the call `add_stake`.
    fn add_stake() -> Weight;
    /// The weight of the call `deregister_validator`.
    fn deregister_validator() -> Weight;
    /// The weight of the call `announce`.
    fn announce() -> Weight;
    /// The weight of the call `commit_update`.
    fn commit_update() -> Weight;
    /// `c` chunks, each with the longest proof.
    fn reveal_update(c: u32) -> Weight;
    /// The weight of the call `commit_attestation`.
    fn commit_attestation() -> Weight;
    /// The weight of the call `reveal_attestation`.
    fn reveal_attestation() -> Weight;
    /// The weight of the call `commit_scores`.
    fn commit_scores() -> Weight;
    /// `e` evaluations.
    fn reveal_scores(e: u32) -> Weight;
    /// The weight of the call `claim`.
    fn claim() -> Weight;
    /// The weight of the call `set_run_weight`.
    fn set_run_weight() -> Weight;
    /// The weight of the call `fund_run`.
    fn fund_run() -> Weight;
    /// The weight of the call `set_params`.
    fn set_params() -> Weight;
    /// The weight of the call `pause_run`.
    fn pause_run() -> Weight;
    /// The weight of the call `resume_run`.
    fn resume_run() -> Weight;
    /// The weight of the call `close_run`.
    fn close_run() -> Weight;
    /// Removing `r` rows of a closed run.
    fn reap_run(r: u32) -> Weight;
    /// The weight of the call `offer_run`.
    fn offer_run() -> Weight;
    /// The weight of the call `accept_run`.
    fn accept_run() -> Weight;
    /// The weight of the call `cancel_params`.
    fn cancel_params() -> Weight;
    /// Looking for boundaries that are due, of `r` runs.
    fn look_at_schedule(r: u32) -> Weight;
    /// Looking for work that waits, of `r` runs.
    fn look_at_queue(r: u32) -> Weight;
    /// Looking whether a run has a step to take.
    fn look_at_run() -> Weight;
    /// Crossing a boundary that only notes that work waits.
    fn enqueue() -> Weight;
    /// The weight of the call `unstake`.
    fn unstake() -> Weight;
    /// The weight of the call `withdraw_unbonded` with `u` parts.
    fn withdraw_unbonded(u: u32) -> Weight;
    /// The weight of the call `delegate`.
    fn delegate() -> Weight;
    /// The weight of the call `undelegate`.
    fn undelegate() -> Weight;
    /// The weight of the call `set_take`.
    fn set_take() -> Weight;
    /// The weight of the call `compound`.
    fn compound() -> Weight;
    /// The weight of the call `cancel_slash`.
    fn cancel_slash() -> Weight;
    /// The weight of the call `report_copy`.
    fn report_copy() -> Weight;
    /// The weight of the call `report_malformed`.
    fn report_malformed() -> Weight;
    /// The weight of the call `challenge_data`.
    fn challenge_data() -> Weight;
    /// The weight of the call `answer_data`.
    fn answer_data() -> Weight;
    /// The weight of the call `time_out`.
    fn time_out() -> Weight;
    /// The weight of the call `dispute_evaluation`.
    fn dispute_evaluation() -> Weight;
    /// The weight of the call `commit_verdict`.
    fn commit_verdict() -> Weight;
    /// The weight of the call `reveal_verdict`.
    fn reveal_verdict() -> Weight;
    /// The weight of the call `close_dispute`.
    fn close_dispute() -> Weight;
    /// Applying one slash.
    fn apply_slash() -> Weight;
    /// Opening a window.
    fn open_window() -> Weight;
    /// Drawing the seed of the challenged chunks.
    fn draw_challenge() -> Weight;
    /// Fixing the accepted set of `m` reveals and `v` attestations.
    fn accept(m: u32, v: u32) -> Weight;
    /// Computing the settlement of `m` miners and `v` validators that evaluated as many as they may.
    fn settle_begin(m: u32, v: u32) -> Weight;
    /// What a Plackett–Luce match of `p` players adds to it.
    fn settle_match(p: u32) -> Weight;
    /// What Yuma consensus with `m` miners and `v` validators that hold bonds in all of them adds to it.
    fn settle_yuma(m: u32, v: u32) -> Weight;
    /// Paying a page of `m` miners.
    fn settle_page(m: u32) -> Weight;
    /// Paying `v` validators and closing.
    fn settle_close(v: u32) -> Weight;
    /// Removing `r` rows of a window.
    fn prune(r: u32) -> Weight;
}

/// The estimates with the database weights of a runtime.
pub struct SubstrateWeight<T>(PhantomData<T>);

/// `micros` of computation, `bytes` of proof, and storage operations.
fn estimate(database: RuntimeDbWeight, micros: u64, bytes: u64, reads: u64, writes: u64) -> Weight {
    Weight::from_parts(micros.saturating_mul(WEIGHT_REF_TIME_PER_MICROS), bytes)
        .saturating_add(database.reads_writes(reads, writes))
}

/// Implements [`WeightInfo`] for a type with the given database weights.
macro_rules! estimates {
    ([$($generics:tt)*] $type:ty, $database:expr) => {
        impl $($generics)* WeightInfo for $type {
            fn create_run(t: u32) -> Weight {
                estimate($database, 480 + u64::from(t) / 10, 8_192 + 8 * u64::from(t), 9, 11)
            }
            fn register_miner(m: u32) -> Weight {
                // A signature is verified; each row is decoded.
                let m = u64::from(m);
                estimate($database, 980 + 12 * m, 8_192 + 512 * m, 22 + m, 20)
            }
            fn leave_miner() -> Weight {
                let lists = u64::from(crate::CHANGE_LISTS_MAX);
                estimate($database, 600, 8_192 * lists, 10 + lists, 10 + lists)
            }
            fn evict() -> Weight {
                estimate($database, 270, 8_192, 12, 12)
            }
            fn withdraw_bond() -> Weight {
                estimate($database, 270, 8_192, 6, 5)
            }
            fn rotate_hot_key() -> Weight {
                let lists = u64::from(crate::CHANGE_LISTS_MAX);
                estimate($database, 930, 8_192 * lists, 10 + lists, 7 + lists)
            }
            fn offer_cold() -> Weight {
                estimate($database, 85, 8_192, 3, 1)
            }
            fn cancel_cold() -> Weight {
                estimate($database, 60, 8_192, 2, 1)
            }
            fn accept_cold() -> Weight {
                estimate($database, 345, 8_192, 9, 7)
            }
            fn make_changes(c: u32) -> Weight {
                let c = u64::from(c);
                estimate($database, 60 + 145 * c, 8_192 + 4_096 * c, 5 + 12 * c, 3 + 12 * c)
            }
            fn register_validator() -> Weight {
                // Of a full table every stake is read, and the lowest one's validator leaves.
                estimate($database, 1_340, 16_384, 80, 18)
            }
            fn add_stake() -> Weight {
                estimate($database, 270, 8_192, 4, 4)
            }
            fn deregister_validator() -> Weight {
                estimate($database, 225, 8_192, 10, 9)
            }
            fn announce() -> Weight {
                // A signature is verified.
                estimate($database, 200, 8_192, 4, 1)
            }
            fn commit_update() -> Weight {
                estimate($database, 145, 8_192, 5, 3)
            }
            fn reveal_update(c: u32) -> Weight {
                // A layout of 1024 tensors is read and walked for each chunk; 32 hashes and the
                // decoding of 4096 values follow.
                estimate($database, 300 + 150 * u64::from(c), 24_576, 11, 4)
            }
            fn commit_attestation() -> Weight {
                estimate($database, 165, 8_192, 6, 1)
            }
            fn reveal_attestation() -> Weight {
                estimate($database, 240, 8_192, 8, 2)
            }
            fn commit_scores() -> Weight {
                estimate($database, 195, 8_192, 7, 1)
            }
            fn reveal_scores(e: u32) -> Weight {
                estimate($database, 265 + u64::from(e), 8_192, 9, 2)
            }
            fn claim() -> Weight {
                estimate($database, 295, 8_192, 5, 4)
            }
            fn set_run_weight() -> Weight {
                estimate($database, 47, 8_192, 2, 1)
            }
            fn fund_run() -> Weight {
                estimate($database, 285, 16_384, 6, 6)
            }
            fn unstake() -> Weight {
                estimate($database, 155, 8_192, 5, 3)
            }
            fn withdraw_unbonded(u: u32) -> Weight {
                let u = u64::from(u);
                estimate($database, 465 + 41 * u, 16_384, 10 + u, 6 + u)
            }
            fn delegate() -> Weight {
                estimate($database, 540, 16_384, 14, 11)
            }
            fn undelegate() -> Weight {
                estimate($database, 445, 16_384, 14, 11)
            }
            fn set_take() -> Weight {
                estimate($database, 95, 8_192, 4, 1)
            }
            fn compound() -> Weight {
                estimate($database, 325, 8_192, 10, 8)
            }
            fn cancel_slash() -> Weight {
                estimate($database, 41, 8_192, 1, 1)
            }
            fn report_copy() -> Weight {
                estimate($database, 400, 32_768, 11, 4)
            }
            fn report_malformed() -> Weight {
                estimate($database, 315, 24_576, 10, 4)
            }
            fn challenge_data() -> Weight {
                estimate($database, 390, 24_576, 10, 4)
            }
            fn answer_data() -> Weight {
                estimate($database, 395, 32_768, 10, 6)
            }
            fn time_out() -> Weight {
                estimate($database, 380, 16_384, 10, 8)
            }
            fn dispute_evaluation() -> Weight {
                estimate($database, 365, 16_384, 8, 3)
            }
            fn commit_verdict() -> Weight {
                // The first juror draws the jury from all validators.
                estimate($database, 840, 32_768, 72, 1)
            }
            fn reveal_verdict() -> Weight {
                estimate($database, 190, 16_384, 5, 1)
            }
            fn close_dispute() -> Weight {
                estimate($database, 1_550, 65_536, 60, 24)
            }
            fn apply_slash() -> Weight {
                // What left the pool in each of 32 windows is read and written.
                estimate($database, 495, 65_536, 48, 44)
            }
            fn set_params() -> Weight {
                estimate($database, 70, 8_192, 3, 1)
            }
            fn pause_run() -> Weight {
                estimate($database, 70, 8_192, 3, 3)
            }
            fn resume_run() -> Weight {
                estimate($database, 55, 4_096, 1, 1)
            }
            fn close_run() -> Weight {
                estimate($database, 72, 8_192, 3, 3)
            }
            fn reap_run(r: u32) -> Weight {
                let r = u64::from(r);
                // A participant: its rows under both keys, announcement, money held, two accounts.
                estimate($database, 9_800 + 290 * r, 32_768 + 8_192 * r, 32 + 7 * r, 20 + 8 * r)
            }
            fn offer_run() -> Weight {
                estimate($database, 49, 4_096, 2, 1)
            }
            fn accept_run() -> Weight {
                estimate($database, 395, 8_192, 6, 6)
            }
            fn cancel_params() -> Weight {
                estimate($database, 60, 4_096, 2, 1)
            }
            fn look_at_schedule(r: u32) -> Weight {
                estimate($database, 10 + u64::from(r) / 4, 1_024 + 32 * u64::from(r), 1, 1)
            }
            fn look_at_queue(r: u32) -> Weight {
                estimate($database, 8 + u64::from(r) / 8, 1_024 + 4 * u64::from(r), 1, 1)
            }
            fn look_at_run() -> Weight {
                estimate($database, 65, 4_096, 7, 1)
            }
            fn enqueue() -> Weight {
                estimate($database, 15, 4_096, 5, 2)
            }
            fn open_window() -> Weight {
                // The stakes of 64 validators are read and sorted.
                estimate($database, 145, 65_536, 76, 11)
            }
            fn draw_challenge() -> Weight {
                estimate($database, 30, 8_192, 5, 3)
            }
            fn accept(m: u32, v: u32) -> Weight {
                let (m, v) = (u64::from(m), u64::from(v));
                // Each reveal is looked up in each bitmap twice.
                estimate($database, 4_900 + 25 * m + 10 * v + m * v / 20, 512 * m + 1_024 * v, 3 + 2 * m + 2 * v, 1)
            }
            fn settle_begin(m: u32, v: u32) -> Weight {
                let (m, v) = (u64::from(m), u64::from(v));
                let pages = m.div_ceil(u64::from(crate::PAGE_LEN));
                // Each of 256 evaluations a validator is sorted three times; each miner is hashed once for the draw
                // and looked up in each bitmap three times.
                estimate(
                    $database,
                    8_300 + 41 * m + 1_000 * v + m * v / 10,
                    1_024 * m + 8_192 * v,
                    // Of each validator also the rows of the windows in which a strike counts.
                    12 + 3 * m + (3 + 2 * STRIKE_WINDOWS) * v,
                    11 + pages,
                )
            }
            fn settle_match(p: u32) -> Weight {
                // One 128-bit division for each pair of players.
                estimate($database, 2 + u64::from(p) + u64::from(p) * u64::from(p) / 5, 0, 0, 0)
            }
            fn settle_yuma(m: u32, v: u32) -> Weight {
                // Six divisions for each pair, and a row of 4 bytes a pair.
                let (m, v) = (u64::from(m), u64::from(v));
                estimate($database, 1_100 + 7 * m + 105 * v + m * v / 2, 4 * m * v, v, v)
            }
            fn settle_page(m: u32) -> Weight {
                let m = u64::from(m);
                // What the page paid is noted in one row.
                estimate($database, 60 + 43 * m, 4_096 * m, 3 + 2 * m, 4 + 2 * m)
            }
            fn settle_close(v: u32) -> Weight {
                let v = u64::from(v);
                // Each validator's pool is read, and its nominators are credited apart.
                estimate($database, 85 + 64 * v, 8_192 * v, 4 + 5 * v, 5 + 4 * v)
            }
            fn prune(r: u32) -> Weight {
                let r = u64::from(r);
                estimate($database, 130 + 15 * r, 4_096 + 512 * r, 12 + r, 6 + r)
            }
        }
    };
}

estimates!([<T: frame_system::Config>] SubstrateWeight<T>, T::DbWeight::get());
estimates!([](), RocksDbWeight::get());
