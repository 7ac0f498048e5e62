//! Names the metrics that a participant records through the crate `metrics`; whoever embeds it decides where they go.

use metrics::{describe_counter, describe_gauge, describe_histogram, Unit};

/// Number of the last finalised block that was seen.
pub const HEAD_BLOCK: &str = "gauntlet_head_block";
/// Payloads that were fetched and could not be kept, for want of room.
pub const UNKEPT: &str = "gauntlet_unkept_total";
/// Number of the best block that was seen; how far finality is behind is the difference.
pub const BEST_BLOCK: &str = "gauntlet_best_block";
/// Window whose parameters this participant holds.
pub const STATE_WINDOW: &str = "gauntlet_state_window";
/// Loss of the last local step, nats a token.
pub const TRAIN_LOSS: &str = "gauntlet_train_loss";
/// Held-out loss of the agreed parameters, nats a token.
pub const HELD_OUT_LOSS: &str = "gauntlet_held_out_loss";
/// Seconds of one part of a window, by `part`.
pub const PART_SECONDS: &str = "gauntlet_part_seconds";
/// Extrinsics by `call` and `result`.
pub const EXTRINSICS: &str = "gauntlet_extrinsics_total";
/// Bytes of updates made.
pub const UPDATE_BYTES: &str = "gauntlet_update_bytes_total";
/// Payloads fetched, by `result`.
pub const FETCHES: &str = "gauntlet_fetches_total";
/// Copies to the mirror, by `result`.
pub const MIRROR_COPIES: &str = "gauntlet_mirror_copies_total";
/// Windows in which a duty was missed, by `duty`.
pub const MISSED: &str = "gauntlet_missed_total";
/// Steps of proofs of faults that concern this participant, by `step`.
pub const PROOFS: &str = "gauntlet_proofs_total";
/// Planck that this participant has at risk in bonds.
pub const BONDS_AT_RISK: &str = "gauntlet_bonds_at_risk";
/// Planck of bonds that this process has lost.
pub const BONDS_LOST: &str = "gauntlet_bonds_lost";

/// Tells the recorder that is installed what each metric is.
pub fn describe() {
    describe_gauge!(HEAD_BLOCK, Unit::Count, "last finalised block seen");
    describe_counter!(UNKEPT, Unit::Count, "payloads fetched that could not be kept");
    describe_gauge!(BEST_BLOCK, Unit::Count, "best block seen");
    describe_gauge!(STATE_WINDOW, Unit::Count, "window whose parameters are held");
    describe_gauge!(TRAIN_LOSS, "loss of the last local step, nats a token");
    describe_gauge!(HELD_OUT_LOSS, "held-out loss of the agreed parameters, nats a token");
    describe_histogram!(PART_SECONDS, Unit::Seconds, "duration of one part of a window");
    describe_counter!(EXTRINSICS, Unit::Count, "extrinsics by call and result");
    describe_counter!(UPDATE_BYTES, Unit::Bytes, "bytes of updates made");
    describe_counter!(FETCHES, Unit::Count, "payloads fetched by result");
    describe_counter!(MIRROR_COPIES, Unit::Count, "copies to the mirror by result");
    describe_counter!(MISSED, Unit::Count, "windows in which a duty was missed");
    describe_counter!(PROOFS, Unit::Count, "steps of proofs of faults, by step");
    describe_gauge!(BONDS_AT_RISK, "planck at risk in bonds of accusations");
    describe_gauge!(BONDS_LOST, "planck of bonds that were lost");
}
