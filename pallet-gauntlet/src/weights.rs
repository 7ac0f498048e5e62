//! Weighs calls and hooks: time, storage and proof of the worst case, as `cargo xtask weights` measured them on our machine.

use frame_support::weights::Weight;

mod measured;
pub use measured::SubstrateWeight;

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
