//! Drafts the settings of a run that has none yet, from its model, its data and what a window is to hold.

use anyhow::{bail, Result};
use clap::Args;
use protocol::{
    settings::{Incentive, OuterStep, Settings, Training},
    window::Schedule,
    BlockNumber,
};

use crate::commands::localnet::optimisers::{INNER_RATE_PPB, KEEP, OPTIMISER, OUTER_RATE_PPM};

/// Blocks that each exchange takes at least: an extrinsic is seen when it is final, two blocks behind or more.
const EXCHANGE_BLOCKS_MIN: u32 = 8;

/// Part of a window that each exchange has.
const EXCHANGE_PART: u32 = 10;

/// Blocks in which miners train, at least.
const COMMIT_BLOCKS_MIN: u32 = 10;

/// What is asked of a run for which there is no file of settings.
#[derive(Args, Clone, Debug)]
pub struct DraftArgs {
    /// Blocks of a window, most of them for training.
    #[arg(long, value_name = "BLOCKS", default_value_t = 100, conflicts_with = "settings")]
    pub window_blocks: u32,
    /// Local steps of a window (H).
    #[arg(long, value_name = "STEPS", default_value_t = 30, conflicts_with = "settings")]
    pub inner_steps: u32,
    /// Samples of a step.
    #[arg(long, value_name = "SAMPLES", default_value_t = 8, conflicts_with = "settings")]
    pub batch_size: u32,
    /// Whether miners train in the next window while their updates travel.
    #[arg(long, conflicts_with = "settings")]
    pub overlap: bool,
    /// Most miners. Default: as many as the data has samples for, up to 64.
    #[arg(long, value_name = "MINERS", conflicts_with = "settings")]
    pub uid_max: Option<u16>,
}

/// The settings of a run on `sample_count` samples; [`start`] says when it begins, and roots and the samples' length are to be
/// filled in.
///
/// # Errors
/// The window is too short, or the data has too few samples for one miner.
pub(super) fn settings(args: &DraftArgs, sample_count: u64) -> Result<Settings> {
    let needed = u64::from(args.inner_steps).saturating_mul(args.batch_size.into());
    let fits = sample_count.checked_div(needed).unwrap_or(0);
    if fits == 0 {
        bail!(
            "{} steps of {} samples need {needed} of them for each miner, and the data has {sample_count}: fewer steps \
             (--inner-steps), a smaller batch (--batch-size), or more data",
            args.inner_steps,
            args.batch_size
        );
    }
    let example = Settings::example();
    let most = example.incentive.uid_max;
    let uid_max = args.uid_max.unwrap_or(u16::try_from(fits).map_or(most, |fits| fits.min(most)));
    if u64::from(uid_max) > fits {
        bail!("the data has samples for {fits} miners, not for {uid_max} (--uid-max)");
    }
    Ok(Settings {
        schedule: schedule(args.window_blocks)?,
        training: Training {
            inner_steps: args.inner_steps,
            batch_size: args.batch_size,
            sample_count,
            keep: KEEP,
            outer: OuterStep::constant(OUTER_RATE_PPM),
            optimiser: OPTIMISER,
            inner_rate_ppb: INNER_RATE_PPB,
            overlap: args.overlap,
            ..example.training
        },
        incentive: Incentive { uid_max, ..example.incentive },
        ..example
    })
}

/// A window whose exchanges are long enough for a chain that is final some blocks late, and the rest of it for training.
fn schedule(window_blocks: u32) -> Result<Schedule> {
    let exchange = (window_blocks / EXCHANGE_PART).max(EXCHANGE_BLOCKS_MIN);
    // Reveal, attest twice, apply.
    let exchanges = exchange.saturating_mul(4);
    let Some(commit_end) =
        window_blocks.checked_sub(exchanges).filter(|commit| *commit >= COMMIT_BLOCKS_MIN)
    else {
        let least = EXCHANGE_BLOCKS_MIN * 4 + COMMIT_BLOCKS_MIN;
        bail!("a window of {window_blocks} blocks is too short: {least} are needed");
    };
    Ok(Schedule {
        start_block: 0,
        window_blocks,
        commit_end,
        reveal_end: commit_end + exchange,
        attest_commit_end: commit_end + exchange * 2,
        attest_end: commit_end + exchange * 3,
        score_commit_end: commit_end,
        score_reveal_end: commit_end + exchange,
    })
}

/// Puts the first window `start_in` blocks after `best`, or checks that the one that is named is still to come.
///
/// # Errors
/// It is over.
pub(super) fn start(
    schedule: &mut Schedule,
    start_in: Option<u32>,
    best: BlockNumber,
) -> Result<()> {
    if let Some(blocks) = start_in {
        schedule.start_block = best.saturating_add(blocks.max(1));
    } else if schedule.start_block <= best {
        let start = schedule.start_block;
        bail!("the first window would begin at block {start}, and the chain is at {best}: say --start-in BLOCKS");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> DraftArgs {
        DraftArgs {
            window_blocks: 100,
            inner_steps: 30,
            batch_size: 8,
            overlap: false,
            uid_max: None,
        }
    }

    #[test]
    fn a_draft_is_valid_for_any_data_and_window_that_suffice() {
        for sample_count in [240, 1_000, 1_000_000] {
            for window_blocks in [42, 100, 2_400] {
                let args = DraftArgs { window_blocks, ..args() };
                let mut settings = settings(&args, sample_count).unwrap();
                start(&mut settings.schedule, Some(10), 1_000).unwrap();
                settings.validate().unwrap();
                assert_eq!(settings.schedule.start_block, 1_010);
            }
        }
    }

    #[test]
    fn what_does_not_suffice_is_named_with_its_cure() {
        let refused = |args: &DraftArgs, samples| settings(args, samples).unwrap_err().to_string();
        assert!(refused(&args(), 239).contains("--inner-steps"));
        let many = DraftArgs { uid_max: Some(5), ..args() };
        assert!(refused(&many, 960).contains("for 4 miners"));
        let short = DraftArgs { window_blocks: 41, ..args() };
        assert!(refused(&short, 1_000_000).contains("42 are needed"));
        let mut schedule = settings(&args(), 1_000).unwrap().schedule;
        assert!(start(&mut schedule, None, 0).unwrap_err().to_string().contains("--start-in"));
    }
}
