//! Which samples: of a miner's training, and of an evaluation.

use crate::error::{Attempt as _, Result};
use protocol::{
    assignment::{own_samples, random_samples},
    settings::Settings,
    Hash, Uid,
};

/// Key of the random samples on which every validator measures every miner in a window: the same for all, so that
/// honest validators agree, and unknown before the window's first block.
const EVALUATION_SALT: &[u8] = b"evaluation";

/// The samples that miner `uid` trains on in the window with this seed, step by step.
///
/// # Errors
/// The data set is too small for this uid, which the chain rules out.
pub fn training_steps(seed: &Hash, uid: Uid, settings: &Settings) -> Result<Vec<Vec<u64>>> {
    let training = &settings.training;
    let batch = u64::from(training.batch_size);
    let permutation = own_samples(seed, training.sample_count).context("no samples")?;
    let first = u64::from(uid) * settings.samples_per_miner();
    (0..u64::from(training.inner_steps))
        .map(|step| {
            (0..batch)
                .map(|sample| {
                    permutation
                        .apply(first + step * batch + sample)
                        .context("the data set is too small")
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
) -> Result<Vec<u64>> {
    let training = &settings.training;
    let per_uid = settings.samples_per_miner();
    let own = own_samples(trained, training.sample_count).context("no samples")?;
    let draw = random_samples(scored, &uid.to_le_bytes(), per_uid).context("no samples")?;
    (0..per_uid.min(u64::from(training.evaluation_samples)))
        .map(|number| {
            let position = draw.apply(number).context("no such position")?;
            own.apply(u64::from(uid) * per_uid + position).context("the data set is too small")
        })
        .collect()
}

/// The random samples on which all miners' updates of a window are measured, drawn under the next window's seed.
///
/// # Errors
/// The data set is empty.
pub fn random_evaluation(scored: &Hash, settings: &Settings) -> Result<Vec<u64>> {
    let training = &settings.training;
    let draw =
        random_samples(scored, EVALUATION_SALT, training.sample_count).context("no samples")?;
    (0..training.sample_count.min(u64::from(training.evaluation_samples)))
        .map(|number| draw.apply(number).context("no such sample"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_protocols_assignment() {
        let settings = Settings::example();
        let seed = [7; 32];
        let steps = training_steps(&seed, 3, &settings).unwrap();
        assert_eq!(steps.len(), 4);
        let position = 2 * 8 + 5;
        let per_uid = settings.samples_per_miner();
        let expected =
            protocol::assignment::assigned_sample(&seed, 3, position, per_uid, 1_000_000).unwrap();
        assert_eq!(steps[2][5], expected);
    }

    #[test]
    fn evaluations_on_own_samples_are_on_samples_that_were_trained_on() {
        let settings = Settings::example();
        let trained: Vec<u64> = training_steps(&[1; 32], 5, &settings).unwrap().concat();
        let ids = own_evaluation(&[1; 32], &[2; 32], 5, &settings).unwrap();
        assert_eq!(ids.len(), 16);
        assert!(ids.iter().all(|id| trained.contains(id)));
        assert!(random_evaluation(&[2; 32], &settings).unwrap().len() == 16);
    }
}
