//! Trains a window before θ of it is known: from the parameters that the miner's own update alone would make of the
//! last θ.
//!
//! Call in this order: [`Trainer::begin_ahead`] with θ of the window before, [`Trainer::train_ahead`] as often as
//! there is time for steps, [`Trainer::arrive`] between two of them or after the last, [`Trainer::end_ahead`], and
//! [`Trainer::make_update`], which takes the difference to the θ that arrived. Whatever else sets parameters ends it.
//!
//! What arrives moves the local parameters by what the outer step did, less the part that was assumed. Both are
//! worked out from the updates, tensor by tensor, so that no θ but the new one is held. Measured in
//! docs/study/README.md, "Overlap".

use std::ops::ControlFlow;
use std::sync::Arc;

use dataset::BatchSource;
use protocol::aggregate::{OuterRule, TensorUpdate};
use protocol::layout::CHUNK_LEN;
use protocol::update::{chunk_values, Chunk, Payload, UpdateError};
use protocol::Uid;

use crate::engine::learner::Kept;
use crate::engine::weights::Updated;
use crate::model::outer_step::aggregate_tensor;
use crate::model::{Model, ModelError};
use crate::training::progress::{Ahead, LossSummary, StepReport};
use crate::training::train::{TrainError, Trainer};

/// What a miner's own update is assumed to do to θ.
#[derive(Clone, Copy, Debug)]
pub struct OwnPart<'a> {
    /// The update.
    pub payload: &'a [u8],
    /// Values kept of a full chunk.
    pub keep: u16,
    /// What its values are multiplied with: the outer rate over the number of updates that are expected.
    pub rate: f32,
}

impl Trainer {
    /// Begins a window from `model`, θ of the window before, less the own part of its outer step. `model` is not kept.
    ///
    /// # Errors
    /// The model is of another shape, the update is not of its layout, or the device failed.
    pub fn begin_ahead(&mut self, model: &Model, own: OwnPart<'_>) -> Result<(), TrainError> {
        self.check_shape(model)?;
        self.release_model();
        let mut assumed = Updated::new(model, own.payload, own.keep, own.rate)?;
        self.learner.load(&mut assumed)?;
        self.ahead = Some(Ahead::default());
        Ok(())
    }

    /// Steps of the window that is trained ahead, and whether its θ has arrived; `None` if none is.
    pub fn ahead(&self) -> Option<(usize, bool)> {
        self.ahead.as_ref().map(|ahead| (ahead.progress.steps(), ahead.has_arrived))
    }

    /// Takes the steps of `steps`, all of the window, that are not taken yet, until `on_step` ends it.
    ///
    /// # Errors
    /// As [`Trainer::train_window_from`], and [`TrainError::NotAhead`]. The window is lost then.
    pub fn train_ahead(
        &mut self,
        source: &mut dyn BatchSource,
        steps: &[Vec<u64>],
        rate: &dyn Fn(u64) -> f32,
        on_step: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        let mut ahead = self.ahead.take().ok_or(TrainError::NotAhead)?;
        self.train_on(&mut ahead.progress, source, steps, rate, on_step)?;
        self.ahead = Some(ahead);
        Ok(())
    }

    /// Corrects the local parameters by what the outer step of the window before, that of `accepted`, did to θ other
    /// than `own` says, which is what [`Trainer::begin_ahead`] was given; `model` is what it made, against which the
    /// update will be.
    ///
    /// # Errors
    /// The model is of another shape, an update is malformed, the device failed, it has arrived already, or no window
    /// is trained ahead. The window is lost then.
    pub fn arrive(
        &mut self,
        model: Arc<Model>,
        accepted: &[(Uid, &[u8])],
        rule: OuterRule,
        own: OwnPart<'_>,
    ) -> Result<(), TrainError> {
        let mut ahead =
            self.ahead.take().filter(|ahead| !ahead.has_arrived).ok_or(TrainError::NotAhead)?;
        self.check_shape(&model)?;
        self.model = model;
        self.correct(accepted, rule, own)?;
        ahead.has_arrived = true;
        self.ahead = Some(ahead);
        Ok(())
    }

    /// Ends the window: what was trained until now is what [`Trainer::make_update`] takes. `steps` are those that it
    /// should have.
    ///
    /// # Errors
    /// No window is trained ahead, or its θ has not arrived.
    pub fn end_ahead(&mut self, steps: usize) -> Result<LossSummary, TrainError> {
        let ahead =
            self.ahead.take().filter(|ahead| ahead.has_arrived).ok_or(TrainError::NotAhead)?;
        let summary = ahead.progress.summary(steps);
        self.trained = summary.steps > 0;
        Ok(summary)
    }

    /// Refuses parameters of another shape.
    pub(super) fn check_shape(&self, model: &Model) -> Result<(), ModelError> {
        if model.config() == self.model.config() {
            return Ok(());
        }
        let (given, expected) = (model.byte_len(), self.model.arena().len as u64 * 4);
        Err(ModelError::ByteLen { given, expected })
    }

    /// Adds to the local parameters what the outer step of `accepted` did and what `own` took off, tensor by tensor.
    fn correct(
        &mut self,
        accepted: &[(Uid, &[u8])],
        rule: OuterRule,
        own: OwnPart<'_>,
    ) -> Result<(), TrainError> {
        let model = self.model.clone();
        let (arena, layout) = (model.arena(), model.layout());
        let mut sorted: Vec<(Uid, &[u8])> = accepted.to_vec();
        sorted.sort_by_key(|(uid, _)| *uid);
        let payloads = self
            .threads
            .map(sorted.len(), |index| Payload::parse(sorted[index].1, layout, own.keep));
        let payloads = payloads.into_iter().collect::<Result<Vec<_>, _>>()?;
        let own_payload = Payload::parse(own.payload, layout, own.keep)?;
        let mut change = Vec::new();
        for (number, &place) in (0u32..).zip(&arena.canonical) {
            change.clear();
            change.resize(arena.tensors[place].range.len(), 0.0);
            let updates: Option<Vec<_>> =
                payloads.iter().map(|payload| TensorUpdate::new(payload, layout, number)).collect();
            let updates = updates.ok_or(UpdateError::Tensors)?;
            if !updates.is_empty() {
                aggregate_tensor(&self.threads, &mut change, &updates, rule)?;
            }
            let (first, _) = layout.tensor_chunks(number).ok_or(UpdateError::Tensors)?;
            add_own(&own_payload, first, own.rate, &mut change)?;
            let local = self.learner.tensor(Kept::Parameters, place)?;
            change.iter_mut().zip(local).for_each(|(change, local)| *change += local);
            self.learner.set_tensor(Kept::Parameters, place, &change)?;
        }
        Ok(())
    }
}

/// Adds `rate` times the values of a tensor, whose first chunk is `first`.
fn add_own(
    payload: &Payload<'_>,
    first: u32,
    rate: f32,
    values: &mut [f32],
) -> Result<(), UpdateError> {
    let mut chunk = Chunk::default();
    for (index, part) in (first..).zip(values.chunks_mut(CHUNK_LEN as usize)) {
        payload.decode_into(index, part.len() as u32, &mut chunk)?;
        for (position, value) in chunk_values(&chunk) {
            if let Some(sum) = part.get_mut(usize::from(position)) {
                *sum += rate * value;
            }
        }
    }
    Ok(())
}
