//! Says how far a run's settings may move at once, so that an owner's key alone can neither redirect a run nor ruin it.

use super::{
    ConsensusKind, Disputes, Emission, Entry, Incentive, InnerOptimiser, Settings, Staking,
    Training, YumaSettings, PPM,
};

/// A part of a whole moves by a tenth at most.
const PPM_STEP: u32 = PPM / 10;

/// Settings that a run's may not become.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// What a run is, or what its past binds.
    #[error("{field} cannot change")]
    Immutable {
        /// Name of the setting.
        field: &'static str,
    },
    /// A number moves too far in one change.
    #[error("{field} may not go from {from} to {to} in one change")]
    TooFar {
        /// Name of the setting.
        field: &'static str,
        /// Its value now.
        from: u128,
        /// The value that it should have.
        to: u128,
    },
}

impl Settings {
    /// Whether a run's settings may become `to` by its owner's will.
    ///
    /// Besides what [`Settings::may_be_forced_to`] asks for, an amount, a count or a rate moves by a factor of two at
    /// most (zero counts as one), a part of a whole by a tenth of the whole, `power` and `challenge_chunks` by one,
    /// and neither `waiver_windows` nor `bootstrap_windows` rises: the one would end the probation of those who are
    /// on it, the other would have everybody accepted again. Free are which data set is trained on, which numbers
    /// standing and consensus are, the version of measuring, whether training overlaps with the exchange, and the
    /// windows in which the outer rate rises and falls: they name something, and have no near and far.
    pub fn may_become(&self, to: &Settings) -> Result<(), ChangeError> {
        self.may_be_forced_to(to)?;
        self.training.may_become(&to.training)?;
        self.incentive.may_become(&to.incentive)?;
        self.emission.may_become(&to.emission)?;
        self.entry.may_become(&to.entry)?;
        self.staking.may_become(&to.staking)?;
        self.disputes.may_become(&to.disputes)
    }

    /// Whether a run's settings can become `to` at all: the boundaries of windows, the shape of a payload, the state at
    /// the beginning and whose averages miners keep stay what they are, and no slot that may be taken disappears.
    pub fn may_be_forced_to(&self, to: &Settings) -> Result<(), ChangeError> {
        let (old, new) = (&self.training, &to.training);
        let kept = [
            ("schedule", self.schedule == to.schedule),
            ("keep", old.keep == new.keep),
            ("model_seed", old.model_seed == new.model_seed),
            ("genesis_state_root", old.genesis_state_root == new.genesis_state_root),
            ("optimiser", old.optimiser.is_kind_of(&new.optimiser)),
            ("uid_max", self.incentive.uid_max <= to.incentive.uid_max),
        ];
        match kept.into_iter().find(|(_, is_kept)| !is_kept) {
            Some((field, _)) => Err(ChangeError::Immutable { field }),
            None => Ok(()),
        }
    }
}

/// Checks each `field` of two structs by `rule`, up to the first that moves too far.
macro_rules! check {
    ($rule:ident, $old:expr, $new:expr, [$($field:ident),+ $(,)?]) => {
        $($rule(stringify!($field), $old.$field, $new.$field)?;)+
    };
}

impl Training {
    fn may_become(&self, to: &Training) -> Result<(), ChangeError> {
        check!(
            within_factor_two,
            self,
            to,
            [
                inner_steps,
                batch_size,
                sample_len,
                evaluation_samples,
                evaluation_rate_ppm,
                inner_rate_ppb
            ]
        );
        check!(within_a_tenth, self, to, [error_decay_ppm]);
        let (old, new) = (&self.outer, &to.outer);
        within_factor_two("outer.rate_ppm", old.rate_ppm, new.rate_ppm)?;
        within_factor_two("outer.final_rate_ppm", old.final_rate_ppm, new.final_rate_ppm)?;
        within_a_tenth("outer.senders_min_ppm", old.senders_min_ppm, new.senders_min_ppm)?;
        match (self.optimiser, to.optimiser) {
            (InnerOptimiser::Muon { rate_ppb: old }, InnerOptimiser::Muon { rate_ppb: new }) => {
                within_factor_two("optimiser.rate_ppb", old, new)
            }
            // Another kind is no change of a rate: `may_be_forced_to` refuses it.
            _ => Ok(()),
        }
    }
}

impl Incentive {
    fn may_become(&self, to: &Incentive) -> Result<(), ChangeError> {
        check!(
            within_factor_two,
            self,
            to,
            [
                uid_max,
                accepted_max,
                probation_windows,
                evaluators_per_miner,
                evaluations_per_validator,
                trust_windows,
                proof_rate_ppm,
                proof_prior_windows,
                gain_rate_min_ppm,
                permits_max,
                unscored_max,
                miner_bond,
                validator_stake_min,
                claim_delay_windows
            ]
        );
        check!(
            within_a_tenth,
            self,
            to,
            [
                knee_ppm,
                knee_spread_ppm,
                proof_prior_ppm,
                proof_gate_ppm,
                proof_full_ppm,
                evaluation_quorum_ppm,
                missed_penalty_ppm
            ]
        );
        check!(within_one, self, to, [power, challenge_chunks]);
        check!(never_more, self, to, [waiver_windows, bootstrap_windows]);
        match (self.consensus, to.consensus) {
            (ConsensusKind::Yuma(old), ConsensusKind::Yuma(new)) => old.may_become(&new),
            _ => Ok(()),
        }
    }
}

impl YumaSettings {
    fn may_become(&self, to: &YumaSettings) -> Result<(), ChangeError> {
        check!(within_a_tenth_of_u16, self, to, [kappa, bonds_penalty]);
        check!(within_a_tenth, self, to, [bonds_moving_average_ppm]);
        Ok(())
    }
}

impl Emission {
    fn may_become(&self, to: &Emission) -> Result<(), ChangeError> {
        check!(within_factor_two, self, to, [release_ppm]);
        check!(within_a_tenth, self, to, [owner_ppm, miners_ppm, validators_ppm]);
        Ok(())
    }
}

impl Entry {
    fn may_become(&self, to: &Entry) -> Result<(), ChangeError> {
        check!(
            within_factor_two,
            self,
            to,
            [
                price_min,
                price_max,
                price_halving_blocks,
                immunity_windows,
                idle_windows,
                hand_over_windows
            ]
        );
        check!(within_a_tenth, self, to, [price_rise_ppm]);
        Ok(())
    }
}

impl Staking {
    fn may_become(&self, to: &Staking) -> Result<(), ChangeError> {
        check!(
            within_factor_two,
            self,
            to,
            [unbonding_windows, delegation_min, take_step_ppm, take_delay_windows]
        );
        check!(within_a_tenth, self, to, [take_max_ppm]);
        Ok(())
    }
}

impl Disputes {
    fn may_become(&self, to: &Disputes) -> Result<(), ChangeError> {
        check!(
            within_factor_two,
            self,
            to,
            [challenge_bond, answer_blocks, dispute_bond, jurors, evaluation_tolerance_ppm]
        );
        check!(within_a_tenth, self, to, [miner_slash_ppm, validator_slash_ppm, copy_overlap_ppm]);
        Ok(())
    }
}

fn too_far(field: &'static str, from: impl Into<u128>, to: impl Into<u128>) -> ChangeError {
    ChangeError::TooFar { field, from: from.into(), to: to.into() }
}

/// Whether neither number is more than twice the other.
fn within_factor_two<T: Into<u128>>(
    field: &'static str,
    from: T,
    to: T,
) -> Result<(), ChangeError> {
    let (from, to) = (from.into(), to.into());
    let is_near = |small: u128, large: u128| large <= small.max(1).saturating_mul(2);
    if is_near(from, to) && is_near(to, from) {
        Ok(())
    } else {
        Err(too_far(field, from, to))
    }
}

/// Whether parts of a million are at most a tenth of it apart.
fn within_a_tenth(field: &'static str, from: u32, to: u32) -> Result<(), ChangeError> {
    within(field, from, to, PPM_STEP)
}

/// Whether parts of 65535 are at most a tenth of it apart.
fn within_a_tenth_of_u16(field: &'static str, from: u16, to: u16) -> Result<(), ChangeError> {
    within(field, from, to, u16::MAX / 10)
}

fn within_one(field: &'static str, from: u8, to: u8) -> Result<(), ChangeError> {
    within(field, from, to, 1)
}

/// Whether the numbers are at most `step` apart.
fn within<T: Into<u128>>(field: &'static str, from: T, to: T, step: T) -> Result<(), ChangeError> {
    let (from, to) = (from.into(), to.into());
    if from.abs_diff(to) <= step.into() {
        Ok(())
    } else {
        Err(too_far(field, from, to))
    }
}

/// Whether a number does not rise.
fn never_more(field: &'static str, from: u32, to: u32) -> Result<(), ChangeError> {
    if to > from {
        return Err(too_far(field, from, to));
    }
    Ok(())
}
