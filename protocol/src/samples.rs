//! Lists the samples of a miner's training and of an evaluation.

use alloc::vec::Vec;

use crate::{
    assignment::{own_samples, random_samples},
    settings::Settings,
    Hash, Uid,
};

/// Key of the random samples on which every validator measures every miner in a window: the same for all, so that
/// honest validators agree, and unknown before the window's first block.
const EVALUATION_SALT: &[u8] = b"evaluation";

/// Why samples could not be drawn; the settings of a run rule it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SamplesError {
    /// The data set, or the part of a miner, has no samples.
    #[error("no samples")]
    Empty,
    /// The data set has no sample at the position.
    #[error("the data set is too small")]
    TooSmall,
}

/// The position `uid · per_uid + within` in the permutation of a window.
fn position(uid: Uid, per_uid: u64, within: u64) -> Result<u64, SamplesError> {
    let first = u64::from(uid).checked_mul(per_uid);
    first.and_then(|first| first.checked_add(within)).ok_or(SamplesError::TooSmall)
}

/// The samples that miner `uid` trains on in the window with this seed, step by step.
///
/// # Errors
/// The data set is too small for this uid, which the chain rules out.
pub fn training_steps(
    seed: &Hash,
    uid: Uid,
    settings: &Settings,
) -> Result<Vec<Vec<u64>>, SamplesError> {
    let training = &settings.training;
    let batch = u64::from(training.batch_size);
    let permutation = own_samples(seed, training.sample_count).ok_or(SamplesError::Empty)?;
    let per_uid = settings.samples_per_miner();
    (0..u64::from(training.inner_steps))
        .map(|step| {
            (0..batch)
                .map(|sample| {
                    // Below `per_uid`, which fits.
                    let within = step.saturating_mul(batch).saturating_add(sample);
                    let position = position(uid, per_uid, within)?;
                    permutation.apply(position).ok_or(SamplesError::TooSmall)
                })
                .collect()
        })
        .collect()
}

/// The samples on which a miner's update of a window is measured: of its own in that window (seed `trained`), drawn
/// under the seed of the next window, so that it could not know them.
///
/// # Errors
/// As [`training_steps`].
pub fn own_evaluation(
    trained: &Hash,
    scored: &Hash,
    uid: Uid,
    settings: &Settings,
) -> Result<Vec<u64>, SamplesError> {
    let training = &settings.training;
    let per_uid = settings.samples_per_miner();
    let own = own_samples(trained, training.sample_count).ok_or(SamplesError::Empty)?;
    let draw = random_samples(scored, &uid.to_le_bytes(), per_uid).ok_or(SamplesError::Empty)?;
    (0..per_uid.min(u64::from(training.evaluation_samples)))
        .map(|number| {
            let within = draw.apply(number).ok_or(SamplesError::TooSmall)?;
            own.apply(position(uid, per_uid, within)?).ok_or(SamplesError::TooSmall)
        })
        .collect()
}

/// The random samples on which all miners' updates of a window are measured, drawn under the next window's seed.
///
/// # Errors
/// The data set is empty.
pub fn random_evaluation(scored: &Hash, settings: &Settings) -> Result<Vec<u64>, SamplesError> {
    let training = &settings.training;
    let draw = random_samples(scored, EVALUATION_SALT, training.sample_count)
        .ok_or(SamplesError::Empty)?;
    (0..training.sample_count.min(u64::from(training.evaluation_samples)))
        .map(|number| draw.apply(number).ok_or(SamplesError::TooSmall))
        .collect()
}
