//! Lists the settings of a run, which governance tunes and [`Settings::validate`] checks once.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::{
    layout::CHUNK_LEN, merkle::MERKLE_PROOF_MAX, update::chunk_bytes_max, window::Schedule, Hash,
    Planck,
};

mod bounds;
mod change;
mod disputes;
mod entry;
mod optimisers;
mod staking;

use bounds::in_range;
pub use bounds::{SettingsError, PPM};
pub use change::ChangeError;
pub use disputes::{Disputes, JURORS_MAX};
pub use entry::Entry;
pub use optimisers::{InnerOptimiser, OuterStep};
pub use staking::{Staking, UNBONDING_WINDOWS_MAX};

/// Most miner slots of a run: a bitmap of them takes 512 bytes.
pub const UID_MAX: u16 = 4_096;

/// Most miner slots of a run that rates by Plackett–Luce: the cost of a match grows with their square, and half of a
/// block must hold it.
pub const PLACKETT_LUCE_UID_MAX: u16 = 1_536;

/// Most miners accepted in a window.
pub const ACCEPTED_MAX: u16 = 256;

/// Most evaluations a validator reveals in a window.
pub const EVALUATIONS_MAX: u16 = 256;

/// The version of measuring that this software does: which samples, which losses, which rate. It changes when two
/// validators that follow the old and the new way would not agree.
pub const SCORE_VERSION: u32 = 1;

/// Most validators with a permit in a window.
pub const PERMITS_MAX: u16 = 64;

/// Values of an update's chunk, the upper bound of [`Training::keep`].
pub const KEEP_MAX: u16 = 4_096;

/// Bytes of a block that reveals may count on: a block has five million, of which three quarters are for transactions.
const REVEAL_BYTES_PER_BLOCK: u128 = 3_500_000;

/// Bytes of a hash in a proof.
const HASH_BYTES: u128 = 32;

/// Bytes of a reveal beside its chunks: opening, signature and extensions.
const OPENING_BYTES: u128 = 320;

/// Largest exponent of the shares.
pub const POWER_MAX: u8 = 16;

/// Least [`Incentive::knee_ppm`]: lower, who does a tenth would be paid as who does the work.
const KNEE_MIN_PPM: u128 = 100_000;

/// Most chunks the chain asks for at a reveal.
pub const CHALLENGE_CHUNKS_MAX: u8 = 4;

/// Most windows between settlement and claim.
pub const CLAIM_DELAY_MAX: u32 = 32;

/// The largest part of a run's money that its owner may give itself: a quarter.
pub const OWNER_PPM_MAX: u32 = 250_000;

/// The largest part of a carry that one window may pay: a tenth, so that who comes first after idle windows does not
/// take what they left.
pub const RELEASE_PPM_MAX: u32 = 100_000;

/// Most samples of an evaluation.
pub const EVALUATION_SAMPLES_MAX: u16 = 4_096;

/// Which number a miner's standing is.
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
pub enum StandingKind {
    /// The average gain relative to the window's typical one; the proof of computation is a gate.
    Gain,
    /// The Plackett–Luce rating times the proof of computation, Templar's rule.
    PlackettLuce,
}

/// How the validators' evaluations become one number.
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
pub enum ConsensusKind {
    /// Stake-weighted medians, see [`crate::consensus`].
    Gauntlet,
    /// Yuma consensus with bonds, see [`crate::consensus::yuma`]. Every validator must evaluate every miner: a miner that
    /// validators with half of the present stake leave out is paid nothing.
    Yuma(YumaSettings),
}

/// The parameters of Yuma consensus.
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
pub struct YumaSettings {
    /// Part of the active stake that must endorse a weight, κ · 65535.
    pub kappa: u16,
    /// How much of a validator's bonds the clip takes, β · 65535: 65535 counts what is left of a weight, 0 all of it.
    pub bonds_penalty: u16,
    /// What the average of the bonds keeps from one window to the next.
    pub bonds_moving_average_ppm: u32,
}

impl YumaSettings {
    /// κ of one half, β of 1, nine tenths kept: as pallet-subtensor begins.
    pub const UPSTREAM: YumaSettings =
        YumaSettings { kappa: 32_767, bonds_penalty: u16::MAX, bonds_moving_average_ppm: 900_000 };

    fn validate(&self) -> Result<(), SettingsError> {
        in_range("kappa", self.kappa, 1, u128::from(u16::MAX))?;
        // A bond that never moves would be 0 for ever.
        let most = u128::from(PPM).saturating_sub(1);
        in_range("bonds_moving_average_ppm", self.bonds_moving_average_ppm, 0, most)
    }
}

/// The settings of a run.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Settings {
    /// Windows and phases in blocks.
    pub schedule: Schedule,
    /// What every miner must do.
    pub training: Training,
    /// Who is accepted and who is paid how much.
    pub incentive: Incentive,
    /// To whom the money goes.
    pub emission: Emission,
    /// What validators and their nominators have at stake.
    pub staking: Staking,
    /// What faults and accusations cost.
    pub disputes: Disputes,
    /// What joining and leaving cost.
    pub entry: Entry,
}

/// What every miner must do, judged by the protocol.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Training {
    /// Local steps of a window (H).
    pub inner_steps: u32,
    /// Samples of a step.
    pub batch_size: u32,
    /// Tokens of a sample.
    pub sample_len: u32,
    /// Training samples of the data set.
    pub sample_count: u64,
    /// Root of the data set's manifest.
    #[serde(with = "crate::hash_text")]
    pub data_root: Hash,
    /// Values kept of each chunk of 4096.
    pub keep: u16,
    /// What the accepted updates do to the parameters.
    pub outer: OuterStep,
    /// Factor on [`OuterStep::rate_ppm`], whatever the window's own rate, when one update alone is evaluated.
    pub evaluation_rate_ppm: u32,
    /// Decay β of the error feedback.
    pub error_decay_ppm: u32,
    /// The optimiser of the local steps.
    pub optimiser: InnerOptimiser,
    /// AdamW's learning rate, of whatever parameters the optimiser has it train.
    pub inner_rate_ppb: u32,
    /// Samples on which a loss is measured, own and random each.
    pub evaluation_samples: u16,
    /// Seed of the initial parameters.
    pub model_seed: u64,
    /// State root of the initial parameters.
    #[serde(with = "crate::hash_text")]
    pub genesis_state_root: Hash,
    /// Whether the seed of a window is fixed behind the commit phase of the one before, so that miners train in it
    /// while the updates of that one travel: [`crate::seed`].
    #[serde(default)]
    pub overlap: bool,
}

/// Who is accepted and who is paid how much.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Incentive {
    /// Miner slots of the run: uids are `0..uid_max`.
    pub uid_max: u16,
    /// Most miners accepted in a window.
    pub accepted_max: u16,
    /// Windows after its registration in which a miner is scored but not accepted.
    pub probation_windows: u32,
    /// Who registers in the first so many windows of the run has no probation.
    pub waiver_windows: u32,
    /// Validators that evaluate each miner in a window (r).
    pub evaluators_per_miner: u16,
    /// Most miners that a validator must evaluate in a window.
    pub evaluations_per_validator: u16,
    /// The version of measuring that counts, see [`SCORE_VERSION`]; scores of another one are refused.
    pub score_version: u32,
    /// Which number a miner's standing is.
    pub standing: StandingKind,
    /// How evaluations become one number.
    pub consensus: ConsensusKind,
    /// How steeply a miner's pay falls with its standing: below the knee it is proportional to the standing to this power.
    pub power: u8,
    /// The standing, relative to the typical one, at which a miner is paid half of what the best are, once the standings
    /// are well known; under [`StandingKind::Gain`] alone.
    pub knee_ppm: u32,
    /// How far the knee lies lower while the standings are averages of few windows, times the root of their number.
    pub knee_spread_ppm: u32,
    /// Scored windows after which a miner is paid half of its share, what it lacks being carried: n² / (n² + this²).
    pub trust_windows: u32,
    /// Smallest rate of the average that proves computation.
    pub proof_rate_ppm: u32,
    /// The proof of computation that is assumed of a newcomer, and of how many windows it is believed to be the average.
    pub proof_prior_ppm: u32,
    /// See [`Incentive::proof_prior_ppm`].
    pub proof_prior_windows: u32,
    /// A proof of computation at or below this counts as none.
    pub proof_gate_ppm: u32,
    /// A proof of computation from here on counts in full; between the two in proportion.
    pub proof_full_ppm: u32,
    /// Smallest rate of a miner's average gain.
    pub gain_rate_min_ppm: u32,
    /// Validators of highest stake that have a permit for a window: they attest, score and are paid.
    pub permits_max: u16,
    /// The run's first windows, in which a miner is accepted whatever its standing.
    pub bootstrap_windows: u32,
    /// Later, miners accepted in a window that were never scored.
    pub unscored_max: u16,
    /// Share of the stake drawn for a miner that must have evaluated it for its score to count, and half of those drawn must.
    pub evaluation_quorum_ppm: u32,
    /// Factor on a miner's penalty for each fault.
    pub missed_penalty_ppm: u32,
    /// Held from a miner while it is registered.
    pub miner_bond: Planck,
    /// Least stake of a validator's own; its nominators' does not count.
    pub validator_stake_min: Planck,
    /// Chunks the chain asks for at a reveal.
    pub challenge_chunks: u8,
    /// Windows between settlement and claim, at most [`CLAIM_DELAY_MAX`]; counts for what is earned under it, whatever it
    /// becomes later.
    pub claim_delay_windows: u32,
}

/// To whom a run's money goes; how much that is, the chain's schedule and the run's sponsors decide.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Emission {
    /// The run owner's part, at most [`OWNER_PPM_MAX`].
    pub owner_ppm: u32,
    /// The miners' part.
    pub miners_ppm: u32,
    /// The validators' part; the three parts sum to one million.
    pub validators_ppm: u32,
    /// Of what a group did not earn in earlier windows, the part that one window pays at most.
    pub release_ppm: u32,
}

impl Settings {
    /// Checks every setting, by itself and against the others.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.schedule.validate()?;
        self.training.validate()?;
        self.incentive.validate()?;
        self.emission.validate()?;
        self.staking.validate()?;
        self.disputes.validate()?;
        self.entry.validate()?;
        // A u16 times two u32 is below 2^80.
        self.validate_capacity()?;
        let needed = u128::from(self.incentive.uid_max)
            .saturating_mul(u128::from(self.training.inner_steps))
            .saturating_mul(u128::from(self.training.batch_size));
        if needed > u128::from(self.training.sample_count) {
            let sample_count = self.training.sample_count;
            return Err(SettingsError::TooFewSamples { needed, sample_count });
        }
        Ok(())
    }

    /// Checks that validators can evaluate every miner as often as is asked for, and that the blocks of the reveal phase hold
    /// the reveals of all miners.
    fn validate_capacity(&self) -> Result<(), SettingsError> {
        let incentive = &self.incentive;
        let uids = u128::from(incentive.uid_max);
        let evaluators = u128::from(incentive.evaluators_per_miner.min(incentive.permits_max));
        let evaluations = uids.saturating_mul(evaluators);
        // Permits are at least 1 here.
        let needed = evaluations.div_ceil(u128::from(incentive.permits_max.max(1)));
        in_range(
            "evaluations_per_validator",
            incentive.evaluations_per_validator,
            needed,
            u128::from(EVALUATIONS_MAX),
        )?;
        let blocks = self.schedule.reveal_end.saturating_sub(self.schedule.commit_end);
        let bytes = u128::from(blocks).saturating_mul(REVEAL_BYTES_PER_BLOCK);
        let fit = bytes.checked_div(self.reveal_bytes_max()).unwrap_or(0);
        in_range("uid_max", incentive.uid_max, 1, fit.min(u128::from(UID_MAX)))
    }

    /// Bytes of a reveal, at most: of each chunk that is asked for the values and the longest proof, and the opening.
    fn reveal_bytes_max(&self) -> u128 {
        let proof = u128::from(MERKLE_PROOF_MAX).saturating_mul(HASH_BYTES);
        let values = chunk_bytes_max(CHUNK_LEN, self.training.keep);
        let chunk = u128::from(values).saturating_add(proof);
        u128::from(self.incentive.challenge_chunks)
            .saturating_mul(chunk)
            .saturating_add(OPENING_BYTES)
    }

    /// Samples of a miner in a window: `inner_steps · batch_size`.
    pub fn samples_per_miner(&self) -> u64 {
        // Two u32 never overflow a u64.
        u64::from(self.training.inner_steps).saturating_mul(u64::from(self.training.batch_size))
    }

    /// Settings of a small run that work: what tests start from, not a recommendation.
    ///
    /// The roots are zero and have to be set before training.
    pub fn example() -> Settings {
        const UNIT: Planck = 1_000_000_000_000;
        Settings {
            schedule: Schedule {
                start_block: 5,
                window_blocks: 20,
                commit_end: 10,
                reveal_end: 13,
                attest_commit_end: 15,
                attest_end: 16,
                score_commit_end: 8,
                score_reveal_end: 12,
            },
            training: Training {
                inner_steps: 4,
                batch_size: 8,
                sample_len: 128,
                sample_count: 1_000_000,
                data_root: [0; 32],
                keep: 64,
                outer: OuterStep::constant(1_000_000),
                evaluation_rate_ppm: 200_000,
                error_decay_ppm: 950_000,
                optimiser: InnerOptimiser::AdamW,
                inner_rate_ppb: 1_000_000,
                evaluation_samples: 16,
                model_seed: 1,
                genesis_state_root: [0; 32],
                overlap: false,
            },
            incentive: Incentive {
                uid_max: 64,
                accepted_max: 20,
                probation_windows: 2,
                waiver_windows: 4,
                evaluators_per_miner: 16,
                evaluations_per_validator: 64,
                score_version: SCORE_VERSION,
                standing: StandingKind::Gain,
                consensus: ConsensusKind::Gauntlet,
                power: 16,
                knee_ppm: 900_000,
                knee_spread_ppm: 518_000,
                trust_windows: 18,
                proof_rate_ppm: 15_000,
                proof_prior_ppm: 700_000,
                proof_prior_windows: 8,
                proof_gate_ppm: 250_000,
                proof_full_ppm: 350_000,
                gain_rate_min_ppm: 25_000,
                permits_max: 64,
                bootstrap_windows: 4,
                unscored_max: 4,
                evaluation_quorum_ppm: 500_000,
                missed_penalty_ppm: 750_000,
                miner_bond: 10 * UNIT,
                validator_stake_min: 100 * UNIT,
                challenge_chunks: 2,
                claim_delay_windows: 2,
            },
            emission: Emission {
                owner_ppm: 100_000,
                miners_ppm: 600_000,
                validators_ppm: 300_000,
                release_ppm: 10_000,
            },
            staking: Staking::example(),
            disputes: Disputes::example(),
            entry: Entry {
                price_min: 10 * UNIT,
                price_max: 1_000 * UNIT,
                price_halving_blocks: 1_000,
                price_rise_ppm: 1_260_000,
                immunity_windows: 8,
                idle_windows: 4,
                hand_over_windows: 2,
            },
        }
    }
}

impl Training {
    fn validate(&self) -> Result<(), SettingsError> {
        let u32_max = u128::from(u32::MAX);
        let ppm = u128::from(PPM);
        in_range("inner_steps", self.inner_steps, 1, u32_max)?;
        in_range("batch_size", self.batch_size, 1, u32_max)?;
        // A sample of one token has nothing to predict.
        in_range("sample_len", self.sample_len, 2, u32_max)?;
        in_range("sample_count", self.sample_count, 1, u128::from(u64::MAX >> 1))?;
        in_range("keep", self.keep, 1, u128::from(KEEP_MAX))?;
        self.outer.validate()?;
        in_range("evaluation_rate_ppm", self.evaluation_rate_ppm, 1, u32_max)?;
        in_range("error_decay_ppm", self.error_decay_ppm, 0, ppm)?;
        self.optimiser.validate()?;
        in_range("inner_rate_ppb", self.inner_rate_ppb, 1, u32_max)?;
        in_range(
            "evaluation_samples",
            self.evaluation_samples,
            1,
            u128::from(EVALUATION_SAMPLES_MAX),
        )
    }
}

impl Incentive {
    fn validate(&self) -> Result<(), SettingsError> {
        let ppm = u128::from(PPM);
        let uid_max = match self.standing {
            StandingKind::Gain => UID_MAX,
            StandingKind::PlackettLuce => PLACKETT_LUCE_UID_MAX,
        };
        in_range("uid_max", self.uid_max, 1, u128::from(uid_max))?;
        in_range("accepted_max", self.accepted_max, 1, u128::from(ACCEPTED_MAX))?;
        in_range(
            "evaluations_per_validator",
            self.evaluations_per_validator,
            1,
            u128::from(EVALUATIONS_MAX),
        )?;
        in_range("evaluators_per_miner", self.evaluators_per_miner, 1, u128::from(PERMITS_MAX))?;
        in_range("power", self.power, 1, u128::from(POWER_MAX))?;
        if let ConsensusKind::Yuma(yuma) = &self.consensus {
            yuma.validate()?;
        }
        in_range("proof_rate_ppm", self.proof_rate_ppm, 1, ppm)?;
        in_range("gain_rate_min_ppm", self.gain_rate_min_ppm, 1, ppm)?;
        in_range("proof_prior_ppm", self.proof_prior_ppm, 0, ppm)?;
        in_range("proof_gate_ppm", self.proof_gate_ppm, 0, ppm)?;
        let above_gate = u128::from(self.proof_gate_ppm).saturating_add(1);
        in_range("proof_full_ppm", self.proof_full_ppm, above_gate, ppm.saturating_add(1))?;
        in_range("knee_ppm", self.knee_ppm, KNEE_MIN_PPM, ppm)?;
        in_range("knee_spread_ppm", self.knee_spread_ppm, 0, ppm)?;
        in_range("permits_max", self.permits_max, 1, u128::from(PERMITS_MAX))?;
        in_range("unscored_max", self.unscored_max, 0, u128::from(self.accepted_max))?;
        in_range("evaluation_quorum_ppm", self.evaluation_quorum_ppm, 1, ppm)?;
        in_range("missed_penalty_ppm", self.missed_penalty_ppm, 0, ppm)?;
        // Who leaves waits for something, and what is at risk is more than nothing.
        in_range("miner_bond", self.miner_bond, 1, u128::MAX)?;
        in_range("validator_stake_min", self.validator_stake_min, 1, u128::from(u64::MAX))?;
        in_range("challenge_chunks", self.challenge_chunks, 1, u128::from(CHALLENGE_CHUNKS_MAX))?;
        in_range("claim_delay_windows", self.claim_delay_windows, 0, u128::from(CLAIM_DELAY_MAX))
    }
}

impl Emission {
    fn validate(&self) -> Result<(), SettingsError> {
        let parts = [self.owner_ppm, self.miners_ppm, self.validators_ppm];
        let sum = parts.iter().map(|&part| u64::from(part)).fold(0, u64::saturating_add);
        if sum != u64::from(PPM) {
            return Err(SettingsError::EmissionSum { sum });
        }
        in_range("owner_ppm", self.owner_ppm, 0, u128::from(OWNER_PPM_MAX))?;
        in_range("release_ppm", self.release_ppm, 1, u128::from(RELEASE_PPM_MAX))
    }
}
