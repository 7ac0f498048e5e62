//! Computes an epoch of Yuma consensus, version 2, as pallet-subtensor does to the last bit (section 8 of
//! docs/PROTOCOL.md).
//!
//! [`judge`] is what the rules share: weights, stake and bonds in; consensus, incentive, dividends and new bonds out.
//! [`epoch()`] puts around it what a chain of that kind does beside: permits, activity, weights and bonds that are out of
//! date. A run of ours has its own rules for those, and calls [`judge`] from [`super::settle()`].
//!
//! "Weight" is that chain's word for what one validator votes for one miner, and there each uid may be both.
//! Numbers are I32F32, our [`Q32`]: products round down, quotients toward zero, x / 0 is 0, sums and products saturate.
//! Nothing here fails or panics: entries that name no column are ignored.
//!
//! Cost: O(validators · miners · log validators).

use alloc::{vec, vec::Vec};

use crate::{fixed::Q32, settings::YumaSettings};

mod bonds;
mod epoch;
mod matrix;
mod median;
mod number;
mod weights;

use bonds::{average, dividends_of, learned, stored, upscaled};
pub(super) use epoch::stake_shares;
pub use epoch::{emissions, epoch, Emissions, EpochInput, EpochOutcome, Neuron};
use matrix::{accumulate_columns, normalise, normalise_columns, total};
pub use matrix::{normalised, Row};
pub use median::weighted_quantile;
use median::{clip, consensus_of};
pub use number::proportion_u16;
use number::ratio_u16;
pub(super) use weights::weight_rows;
pub use weights::{max_upscale, max_upscale_u16};

/// What one epoch decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// C: the weight of each miner that more than κ of the active stake endorses.
    pub consensus: Vec<Q32>,
    /// What is left of each validator's row after the clip, summed; from 0 to 1.
    pub trust: Vec<Q32>,
    /// I: each miner's part.
    pub incentive: Vec<Q32>,
    /// D: each validator's part.
    pub dividends: Vec<Q32>,
    /// Each validator's bonds, 65535 for a miner's largest one.
    pub bonds: Vec<Row<u16>>,
}

/// Judges `columns` miners by the weights of their validators.
///
/// `active_stake` sums to 1 or is all zero; `weights` are rows that sum to 1, by uid; `bonds` are as the last epoch
/// stored them, less what belongs to somebody who is gone. All three are in the order of the validators.
///
/// ```text
/// C_j = smallest weight of column j with more than Σ A − κ of the stake at or below it
/// K = min(W, C)                 trust_i = Σ_j K_ij             I = norm(Σ_i A_i K_ij)
/// ΔB = colnorm(A_i (W + β (K − W)))    E = colnorm(α ΔB + (1 − α) colnorm(B))    D = norm(Σ_j I_j E_ij)
/// ```
pub fn judge(
    columns: usize,
    active_stake: &[Q32],
    weights: &[Row<Q32>],
    bonds: &[Row<u16>],
    settings: &YumaSettings,
) -> Judgement {
    let consensus = consensus_of(columns, active_stake, weights, ratio_u16(settings.kappa));
    let clipped = clip(weights, &consensus);
    let trust = clipped.iter().map(|row| total(row.iter().map(|(_, value)| *value))).collect();
    let incentive = incentive_of(columns, active_stake, &clipped);

    let mut new = learned(weights, &clipped, active_stake, ratio_u16(settings.bonds_penalty));
    normalise_columns(&mut new, columns);
    let mut old = stored(bonds);
    normalise_columns(&mut old, columns);
    let kept = Q32::from_ppm(settings.bonds_moving_average_ppm);
    let mut averaged = average(&new, &old, Q32::ONE.saturating_sub(kept), columns);
    normalise_columns(&mut averaged, columns);
    let dividends = dividends_of(&averaged, &incentive);
    Judgement { consensus, trust, incentive, dividends, bonds: upscaled(averaged, columns) }
}

/// I = norm(Σ_i A_i · K_ij).
fn incentive_of(columns: usize, active_stake: &[Q32], clipped: &[Row<Q32>]) -> Vec<Q32> {
    let mut ranks = vec![Q32::ZERO; columns];
    for (row, stake) in clipped.iter().zip(active_stake) {
        accumulate_columns(&mut ranks, row, |value| value.saturating_mul(*stake));
    }
    normalise(&mut ranks);
    ranks
}
