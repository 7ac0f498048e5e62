//! Says how far a run's settings may move at once, so that an owner's key alone can neither redirect a run nor ruin it.

use super::{Settings, PPM};

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
    /// Besides what [`Settings::may_be_forced_to`] asks for, an amount or a count moves by a factor of two at most
    /// (zero counts as one), a part of a whole by a tenth of the whole, `power` by one, and `waiver_windows` never
    /// rises: it would end the probation of those who are on it.
    pub fn may_become(&self, to: &Settings) -> Result<(), ChangeError> {
        self.may_be_forced_to(to)?;
        let (old, new) = (&self.training, &to.training);
        within_factor_two("inner_steps", old.inner_steps, new.inner_steps)?;
        within_factor_two("batch_size", old.batch_size, new.batch_size)?;
        within_factor_two("evaluation_samples", old.evaluation_samples, new.evaluation_samples)?;
        within_factor_two("outer.rate_ppm", old.outer.rate_ppm, new.outer.rate_ppm)?;
        within_factor_two("inner_rate_ppb", old.inner_rate_ppb, new.inner_rate_ppb)?;

        let (old, new) = (&self.incentive, &to.incentive);
        within_factor_two("uid_max", old.uid_max, new.uid_max)?;
        within_factor_two("accepted_max", old.accepted_max, new.accepted_max)?;
        within_factor_two("probation_windows", old.probation_windows, new.probation_windows)?;
        within_factor_two(
            "evaluations_per_validator",
            old.evaluations_per_validator,
            new.evaluations_per_validator,
        )?;
        within_factor_two("miner_bond", old.miner_bond, new.miner_bond)?;
        within_factor_two("validator_stake_min", old.validator_stake_min, new.validator_stake_min)?;
        within_factor_two("claim_delay_windows", old.claim_delay_windows, new.claim_delay_windows)?;
        within("power", old.power, new.power, 1)?;
        within_factor_two(
            "evaluators_per_miner",
            old.evaluators_per_miner,
            new.evaluators_per_miner,
        )?;
        within_factor_two("permits_max", old.permits_max, new.permits_max)?;
        within_factor_two("unscored_max", old.unscored_max, new.unscored_max)?;
        within_factor_two("trust_windows", old.trust_windows, new.trust_windows)?;
        within_factor_two("proof_prior_windows", old.proof_prior_windows, new.proof_prior_windows)?;
        within("knee_ppm", old.knee_ppm, new.knee_ppm, PPM_STEP)?;
        within("knee_spread_ppm", old.knee_spread_ppm, new.knee_spread_ppm, PPM_STEP)?;
        within("proof_full_ppm", old.proof_full_ppm, new.proof_full_ppm, PPM_STEP)?;
        within(
            "evaluation_quorum_ppm",
            old.evaluation_quorum_ppm,
            new.evaluation_quorum_ppm,
            PPM_STEP,
        )?;
        within("missed_penalty_ppm", old.missed_penalty_ppm, new.missed_penalty_ppm, PPM_STEP)?;
        within("proof_gate_ppm", old.proof_gate_ppm, new.proof_gate_ppm, PPM_STEP)?;
        if new.waiver_windows > old.waiver_windows {
            return Err(too_far("waiver_windows", old.waiver_windows, new.waiver_windows));
        }

        let (old, new) = (&self.emission, &to.emission);
        within_factor_two("release_ppm", old.release_ppm, new.release_ppm)?;
        within("owner_ppm", old.owner_ppm, new.owner_ppm, PPM_STEP)?;
        within("miners_ppm", old.miners_ppm, new.miners_ppm, PPM_STEP)?;
        within("validators_ppm", old.validators_ppm, new.validators_ppm, PPM_STEP)
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

/// Whether the numbers are at most `step` apart.
fn within<T: Into<u128>>(field: &'static str, from: T, to: T, step: T) -> Result<(), ChangeError> {
    let (from, to) = (from.into(), to.into());
    if from.abs_diff(to) <= step.into() {
        Ok(())
    } else {
        Err(too_far(field, from, to))
    }
}
