//! Moves a miner's numbers by one window: the proof of computation, the average gain and the
//! Plackett–Luce rating. [`crate::consensus`] says which of them count.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::fixed::{exp_q60, Q32, Q32_BITS, Q60_BITS, Q60_ONE};

/// Most players of a match; a match costs at most one division for each pair of them.
pub const PLAYERS_MAX: usize = 4_096;

/// What is believed of a miner's strength: a normal distribution.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub struct Rating {
    /// Mean.
    pub mu: Q32,
    /// Standard deviation.
    pub sigma: Q32,
}

impl Default for Rating {
    /// A newcomer: mean 25, standard deviation 25/3.
    fn default() -> Self {
        // 25 · 2^32 / 3, truncated.
        Rating { mu: Q32::from_int(25), sigma: Q32(35_791_394_133) }
    }
}

/// The constants of a Plackett–Luce match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlackettLuce {
    /// Spread of a player's performance around its strength, β.
    pub beta: Q32,
    /// Uncertainty that every match adds, τ.
    pub tau: Q32,
    /// Smallest factor on a variance in one match, κ.
    pub kappa: Q32,
}

impl Default for PlackettLuce {
    /// β = 7, τ = 0.1, κ = 10^-4, as Templar runs it.
    fn default() -> Self {
        PlackettLuce {
            beta: Q32::from_int(7),
            tau: Q32::from_ppm(100_000),
            kappa: Q32::from_ppm(100),
        }
    }
}

/// A number of a rating that does not fit or does not make sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RatingError {
    /// There must be one rank for each player.
    #[error("{players} players but {ranks} ranks")]
    Length {
        /// Number of ratings given.
        players: usize,
        /// Number of ranks given.
        ranks: usize,
    },
    /// A match of more players than [`PLAYERS_MAX`].
    #[error("{0} players are too many for a match")]
    TooManyPlayers(usize),
    /// A number left the range of [`Q32`].
    #[error("a rating does not fit into Q32.32")]
    Overflow,
}

/// Ranks from scores: the number of players with a strictly higher score. Ties share a rank.
/// O(n log n).
pub fn ranks(scores: &[Q32]) -> Vec<u32> {
    let mut sorted: Vec<Q32> = scores.to_vec();
    sorted.sort_unstable();
    let count = sorted.len();
    scores
        .iter()
        .map(|score| {
            let not_higher = sorted.partition_point(|other| other <= score);
            u32::try_from(count.saturating_sub(not_higher)).unwrap_or(u32::MAX)
        })
        .collect()
}

impl PlackettLuce {
    /// One match: the ratings after `players` finished with `ranks` (lower is better, equal is a
    /// tie). The order of the players does not matter.
    ///
    /// Weng and Lin (2011), algorithm 4 with teams of one, for s²_i = σ_i² + τ²,
    /// c = √Σ(s²_q + β²), e_i = exp(μ_i / c), B_q = Σ of e_s over r_s ≥ r_q, p_iq = e_i / B_q and
    /// A_q the number of players of q's rank:
    ///
    /// ```text
    /// Ω_i = s²_i/c · Σ over r_q ≤ r_i of ([q = i] − p_iq) / A_q
    /// Δ_i = s²_i/c² · s_i/c · Σ over r_q ≤ r_i of p_iq (1 − p_iq) / A_q
    /// μ_i ← μ_i + Ω_i          σ_i ← s_i · √max(1 − Δ_i, κ)
    /// ```
    ///
    /// p_iq is the same for all q of a rank, so that the A_q of them cancel the division by A_q:
    /// the sums run over the distinct ranks, O(players · ranks). The strengths are relative to
    /// the strongest player's and have 60 fractional bits, at least the last of them set; each
    /// result is off from the exact one by less than 10^-6 for up to 256 players.
    pub fn play(&self, players: &[Rating], ranks: &[u32]) -> Result<Vec<Rating>, RatingError> {
        if players.len() != ranks.len() {
            return Err(RatingError::Length { players: players.len(), ranks: ranks.len() });
        }
        if players.len() > PLAYERS_MAX {
            return Err(RatingError::TooManyPlayers(players.len()));
        }
        self.play_checked(players, ranks).ok_or(RatingError::Overflow)
    }

    fn play_checked(&self, players: &[Rating], ranks: &[u32]) -> Option<Vec<Rating>> {
        let tau_squared = self.tau.checked_mul(self.tau)?;
        let beta_squared = self.beta.checked_mul(self.beta)?;
        let variances = players
            .iter()
            .map(|player| player.sigma.checked_mul(player.sigma)?.checked_add(tau_squared))
            .collect::<Option<Vec<Q32>>>()?;
        let mut total = Q32::ZERO;
        for variance in &variances {
            total = total.checked_add(*variance)?.checked_add(beta_squared)?;
        }
        let c = total.sqrt()?;
        let strengths = strengths_q60(players, c)?;
        let groups = groups(&strengths, ranks)?;

        let mut after = Vec::with_capacity(players.len());
        for (((player, rank), variance), strength) in
            players.iter().zip(ranks).zip(&variances).zip(&strengths)
        {
            let (expected, spread) = sums_over_ranks(*strength, *rank, &groups)?;
            let own = groups.iter().find(|group| group.rank == *rank)?;
            let surprise = Q60_ONE.checked_div(own.players)?.checked_sub(expected)?;
            let deviation = variance.sqrt()?;
            // Ω_i = s²/c · surprise; Δ_i = s²/c² · s/c · spread.
            let variance_by_c = variance.checked_div(c)?;
            let omega = mul_q60(variance_by_c, surprise)?;
            let factor = variance_by_c.checked_div(c)?.checked_mul(deviation.checked_div(c)?)?;
            let delta = mul_q60(factor, spread)?;
            let kept = Q32::ONE.checked_sub(delta)?.max(self.kappa);
            after.push(Rating {
                mu: player.mu.checked_add(omega)?,
                sigma: deviation.checked_mul(kept.sqrt()?)?,
            });
        }
        Some(after)
    }
}

/// All players of one rank.
struct Group {
    rank: u32,
    /// A_q: their number.
    players: i128,
    /// B_q: the strengths of this and all later ranks, 60 fractional bits.
    strength_q60: i128,
}

/// exp((μ_i − max μ) / c) with 60 fractional bits, at least 2^-60 so that no sum of them is 0.
fn strengths_q60(players: &[Rating], c: Q32) -> Option<Vec<i128>> {
    let top = players.iter().map(|player| player.mu).max().unwrap_or_default();
    players
        .iter()
        .map(|player| {
            let below = i128::from(player.mu.0).checked_sub(i128::from(top.0))?;
            let exponent = below.checked_mul(Q60_ONE)?.checked_div(i128::from(c.0))?;
            Some(exp_q60(exponent)?.max(1))
        })
        .collect()
}

/// The groups in ascending rank.
fn groups(strengths_q60: &[i128], ranks: &[u32]) -> Option<Vec<Group>> {
    let mut order: Vec<(u32, i128)> =
        ranks.iter().copied().zip(strengths_q60.iter().copied()).collect();
    order.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    let mut behind = 0i128;
    for (rank, strength) in order.into_iter().rev() {
        behind = behind.checked_add(strength)?;
        match groups.last_mut().filter(|group| group.rank == rank) {
            Some(group) => {
                group.players = group.players.checked_add(1)?;
                group.strength_q60 = behind;
            }
            None => groups.push(Group { rank, players: 1, strength_q60: behind }),
        }
    }
    groups.reverse();
    Some(groups)
}

/// Σ p_iq / A_q and Σ p_iq (1 − p_iq) / A_q over all q with r_q ≤ `rank`, 60 fractional bits.
fn sums_over_ranks(strength_q60: i128, rank: u32, groups: &[Group]) -> Option<(i128, i128)> {
    let numerator = strength_q60.checked_mul(Q60_ONE)?;
    let mut expected = 0i128;
    let mut spread = 0i128;
    for group in groups.iter().take_while(|group| group.rank <= rank) {
        // At most 1: the player's own strength is part of every sum it is divided by.
        let p = numerator.checked_div(group.strength_q60)?;
        expected = expected.checked_add(p)?;
        spread = spread.checked_add(p.checked_mul(Q60_ONE.checked_sub(p)?)? >> Q60_BITS)?;
    }
    Some((expected, spread))
}

/// a · b, rounded down, for b with 60 fractional bits.
fn mul_q60(a: Q32, b_q60: i128) -> Option<Q32> {
    // Drop bits of b first: |b| ≤ 4096 · 2^60 and |a| < 2^63 do not fit together otherwise.
    let b_q50 = b_q60 >> 10;
    let product = i128::from(a.0).checked_mul(b_q50)? >> (Q60_BITS - 10);
    i64::try_from(product).ok().map(Q32)
}

/// average ← average + rate · (sample − average), rounded down.
pub fn move_average(average: Q32, sample: Q32, rate: Q32) -> Option<Q32> {
    average.checked_add(rate.checked_mul(sample.checked_sub(average)?)?)
}

/// The sign of own − random: did the update help more on the miner's own samples?
pub fn proof_sample(own: Q32, random: Q32) -> Q32 {
    match own.cmp(&random) {
        core::cmp::Ordering::Less => Q32::from_int(-1),
        core::cmp::Ordering::Equal => Q32::ZERO,
        core::cmp::Ordering::Greater => Q32::ONE,
    }
}

/// clip(gain / typical, −1, 2), truncated toward zero. `None` unless `typical` is positive.
pub fn gain_sample(gain: Q32, typical: Q32) -> Option<Q32> {
    if typical <= Q32::ZERO {
        return None;
    }
    let ratio = (i128::from(gain.0) << Q32_BITS).checked_div(i128::from(typical.0))?;
    let clipped = ratio.clamp(i128::from(Q32::from_int(-1).0), i128::from(Q32::from_int(2).0));
    i64::try_from(clipped).ok().map(Q32)
}

/// The rate of an average after `count` samples of which `prior_windows` stand for what was believed before the first:
/// max(`rate_min`, 1/(count + prior + 1)), so that the first windows are averaged evenly and later ones fade.
pub fn average_rate(count: u32, prior_windows: u32, rate_min: Q32) -> Q32 {
    let count = i128::from(count).saturating_add(i128::from(prior_windows)).saturating_add(1);
    Q32::from_ratio(1, count).unwrap_or(Q32::ZERO).max(rate_min)
}
