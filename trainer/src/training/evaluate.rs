//! Measures for a validator: the loss of θ, and what one update alone does to it.
//!
//! For an update of window w: losses before and after θ_w ← θ_w − rate · v, with v the update alone
//! and rate = outer rate (its full size, in every window) · evaluation rate, on the miner's own samples
//! and on random ones (docs/PROTOCOL.md §7). Losses are means in nats a token; on chain they are Q8.24.

use protocol::aggregate::rate;
use protocol::consensus::Evaluation;
use protocol::update::Payload;
use protocol::Uid;

use crate::compute::threads::Threads;
use crate::engine::device::{Device, Predictor};
use crate::engine::weights::{apply_in_place, Updated, Weights};
use crate::model::config::ModelConfig;
use crate::model::Model;
use crate::training::train::TrainError;
use dataset::{Dataset, SampleSource};

/// A loss in nats as Q8.24: rounded to the nearest, clamped to what fits; NaN is the largest.
pub fn loss_to_q824(loss: f64) -> u32 {
    if loss.is_nan() {
        return u32::MAX;
    }
    // The cast saturates.
    (loss * f64::from(1u32 << 24)).round() as u32
}

/// The loss in nats that a Q8.24 number stands for.
pub fn loss_from_q824(loss: u32) -> f64 {
    f64::from(loss) / f64::from(1u32 << 24)
}

/// The update that is to be evaluated.
#[derive(Clone, Copy, Debug)]
pub struct UpdateToEvaluate<'a> {
    /// Whose it is.
    pub uid: Uid,
    /// Its bytes.
    pub payload: &'a [u8],
    /// Samples that were assigned to this miner.
    pub own_ids: &'a [u64],
}

/// The run's settings that an evaluation depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EvaluationRates {
    /// k of 4096.
    pub keep: u16,
    /// The run's outer rate between warm-up and decay: at a window's own, which may be next to nothing, the
    /// samples' noise would be measured.
    pub outer_rate_ppm: u32,
    /// Factor on the outer rate.
    pub evaluation_rate_ppm: u32,
}

impl EvaluationRates {
    /// What an update is multiplied with.
    fn rate(&self) -> f32 {
        rate(self.outer_rate_ppm) * rate(self.evaluation_rate_ppm)
    }
}

/// The losses on the miner's own samples, before and after, and on random ones.
fn evaluation(uid: Uid, losses: [f64; 4]) -> Evaluation {
    let [own_before, own_after, random_before, random_after] = losses.map(loss_to_q824);
    Evaluation { uid, own_before, own_after, random_before, random_after }
}

/// Losses without gradients: a third of the work of training and a fraction of its memory.
pub struct Evaluator {
    threads: Threads,
    predictor: Box<dyn Predictor>,
    samples_at_once: usize,
    seq_len: usize,
    /// The loss of a model (by its stamp) on samples, so that the random samples' loss before is
    /// measured once for all updates of a window.
    before: Option<(u64, Vec<u64>, f64)>,
}

impl Evaluator {
    /// An evaluator that computes `samples_at_once` samples in one go.
    pub fn new(
        config: &ModelConfig,
        device: &dyn Device,
        samples_at_once: usize,
    ) -> Result<Self, TrainError> {
        // Room for θ with one update applied is made when an update to a shared θ is measured: most never do that.
        let predictor = device.predictor(config, samples_at_once, false)?;
        let (threads, seq_len) = (device.threads().clone(), config.seq_len);
        Ok(Self { threads, predictor, samples_at_once, seq_len, before: None })
    }

    /// The host's threads.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The mean loss in nats a token over the samples `ids`.
    pub fn loss(
        &mut self,
        mut weights: impl Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, TrainError> {
        self.mean_loss(&mut weights, samples, ids)
    }

    /// The mean loss over up to `samples_max` held-out samples, spread evenly over all of them and
    /// the same at every call.
    pub fn held_out_loss(
        &mut self,
        model: &Model,
        dataset: &Dataset,
        samples_max: usize,
    ) -> Result<f64, TrainError> {
        let ids = held_out_ids(dataset.held_out().sample_count(), samples_max);
        self.loss(model, dataset.held_out(), &ids)
    }

    /// Measures one update against θ = `model`, which is shared: θ with the update applied is made beside it, in a copy that
    /// stays for the next update. Who has θ alone calls [`Evaluator::evaluate_update_in_place`], which makes none.
    ///
    /// An update that is malformed is an error: a validator attests only what it could read. One
    /// that makes the loss NaN is measured as the largest loss there is.
    ///
    /// # Errors
    /// The update is malformed, or a sample does not exist.
    pub fn evaluate_update(
        &mut self,
        model: &Model,
        update: UpdateToEvaluate<'_>,
        random_ids: &[u64],
        samples: &dyn SampleSource,
        rates: EvaluationRates,
    ) -> Result<Evaluation, TrainError> {
        let own_before = self.mean_loss(&mut &*model, samples, update.own_ids)?;
        let random_before = self.loss_before(model, samples, random_ids)?;
        let mut updated = Updated::new(model, update.payload, rates.keep, rates.rate())?;
        let own_after = self.mean_loss(&mut updated, samples, update.own_ids)?;
        let random_after = self.mean_loss(&mut updated, samples, random_ids)?;
        Ok(evaluation(update.uid, [own_before, own_after, random_before, random_after]))
    }

    /// [`Evaluator::evaluate_update`] of a θ that nobody else looks at: the update is applied where θ lies and undone
    /// afterwards, bit for bit, also on an error. Beside θ it holds one value for each of the update. A panic leaves θ changed.
    ///
    /// # Errors
    /// As there.
    pub fn evaluate_update_in_place(
        &mut self,
        model: &mut Model,
        update: UpdateToEvaluate<'_>,
        random_ids: &[u64],
        samples: &dyn SampleSource,
        rates: EvaluationRates,
    ) -> Result<Evaluation, TrainError> {
        let payload = Payload::parse(update.payload, model.layout(), rates.keep)?;
        let own_before = self.mean_loss(&mut &*model, samples, update.own_ids)?;
        let random_before = self.loss_before(model, samples, random_ids)?;
        let threads = self.threads.clone();
        let undo = apply_in_place(&threads, model, &payload, rates.rate())?;
        let own_after = self.mean_loss(&mut &*model, samples, update.own_ids);
        let random_after =
            own_after.and_then(|own| Ok((own, self.mean_loss(&mut &*model, samples, random_ids)?)));
        undo.undo(&threads, model, &payload)?;
        let (own_after, random_after) = random_after?;
        Ok(evaluation(update.uid, [own_before, own_after, random_before, random_after]))
    }

    fn loss_before(
        &mut self,
        model: &Model,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, TrainError> {
        if let Some((stamp, known_ids, loss)) = &self.before {
            if *stamp == model.stamp() && known_ids == ids {
                return Ok(*loss);
            }
        }
        let loss = self.mean_loss(&mut &*model, samples, ids)?;
        self.before = Some((model.stamp(), ids.to_vec(), loss));
        Ok(loss)
    }

    fn mean_loss(
        &mut self,
        weights: &mut dyn Weights,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, TrainError> {
        if ids.is_empty() {
            return Err(TrainError::NoSamples);
        }
        let mut sum = 0.0;
        for ids in ids.chunks(self.samples_at_once) {
            sum += self.predictor.loss(weights, samples, ids)?;
        }
        Ok(sum / (ids.len() * self.seq_len) as f64)
    }
}

/// The samples of [`Evaluator::held_out_loss`]: up to `samples_max` of `sample_count`, spread evenly.
pub fn held_out_ids(sample_count: u64, samples_max: usize) -> Vec<u64> {
    let wanted = (samples_max as u64).min(sample_count);
    let spread = |index| u128::from(index) * u128::from(sample_count) / u128::from(wanted);
    // Below `sample_count`, so it fits.
    (0..wanted).map(|index| spread(index) as u64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_round_and_clamp() {
        assert_eq!(loss_to_q824(1.0), 1 << 24);
        assert_eq!(loss_to_q824(-1.0), 0);
        assert_eq!(loss_to_q824(1e9), u32::MAX);
        assert_eq!(loss_to_q824(f64::NAN), u32::MAX);
        assert_eq!(loss_from_q824(3 << 23), 1.5);
    }
}
