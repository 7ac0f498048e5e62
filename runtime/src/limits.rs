//! Bounds what a block takes: computation, bytes, and the parts of both that are kept for the work of windows.

use frame_support::{
    dispatch::DispatchClass,
    parameter_types,
    weights::{constants::WEIGHT_REF_TIME_PER_SECOND, Weight},
};
use frame_system::limits::{BlockLength, BlockWeights};
use sp_runtime::Perbill;

/// The part of a block that ordinary transactions may fill; the rest is left to the work of windows.
const NORMAL_RATIO: Perbill = Perbill::from_percent(75);
/// The part of a block that the work of windows may fill; the rest is left to ordinary transactions and to hooks.
pub(crate) const WORK_RATIO: Perbill = Perbill::from_percent(50);
/// The most bytes in a block, its header included.
pub(crate) const BLOCK_BYTES_MAX: u32 = 5 * 1024 * 1024;
/// The computation that a block may take, in seconds of the machine that weights are measured on.
const BLOCK_SECONDS_MAX: u64 = 2;

parameter_types! {
    /// The computation and proof limits of a block. Work (the operational class) has a quarter of a block also where
    /// everything else is full, and never more than half of it.
    pub RuntimeBlockWeights: BlockWeights = {
        let block = Weight::from_parts(BLOCK_SECONDS_MAX * WEIGHT_REF_TIME_PER_SECOND, u64::MAX);
        // What ordinary transactions may not fill is reserved for work.
        let mut weights = BlockWeights::with_sensible_defaults(block, NORMAL_RATIO);
        let work = weights.per_class.get_mut(DispatchClass::Operational);
        work.max_total = Some(WORK_RATIO * block);
        work.max_extrinsic = work.reserved;
        weights
    };
    /// The size limits of a block.
    pub RuntimeBlockLength: BlockLength = BlockLength::builder()
        .max_length(BLOCK_BYTES_MAX)
        .modify_max_length_for_class(DispatchClass::Normal, |max| *max = NORMAL_RATIO * *max)
        .build();
}
