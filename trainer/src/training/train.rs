//! A miner's window: H inner steps from θ, the update, and the outer step.
//!
//! Call in this order, window by window: [`Trainer::train_window`], [`Trainer::make_update`],
//! [`Trainer::apply_outer`]. The local parameters are dropped at the next `train_window`, which
//! starts at θ again; the optimiser's averages and the error feedback go on.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::Arc;

use protocol::aggregate::OuterRule;
use protocol::update::{payload_bytes_max, EncodedChunks, Payload, UpdateError, WriteError};
use protocol::{Hash, Uid};

use crate::compute::threads::Threads;
use crate::engine::device::{Device, DeviceError};
use crate::engine::learner::{
    copied_model, set_averages, Kept, Learner, LearnerSettings, Lent, TensorToEncode,
};
use crate::engine::optimiser::{AdamWSettings, MuonSettings};
use crate::engine::plan::Precision;
use crate::engine::weights::touch;
use crate::engine::BatchError;
use crate::model::config::ConfigError;
use crate::model::{Model, ModelError};
use crate::training::checkpoint::{
    Averages, Checkpoint, CheckpointError, Checkpoints, Held, OpenCheckpoint, Position, Section,
    Title,
};
use crate::training::compress::{TensorPart, UpdateStream};
use crate::training::progress::{Ahead, Progress};
use dataset::{BatchSource, DataError, SampleSource};

pub use crate::training::progress::{LossSummary, StepReport};

/// Why a window's work cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model's configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device cannot do it.
    #[error(transparent)]
    Device(DeviceError),
    /// Parameters of another shape.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The samples do not fit the model or do not exist.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The samples cannot be fetched.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An update is malformed, or this miner's own values cannot be encoded.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The batch size is 0, or not a multiple of the micro-batch.
    #[error("a batch of {batch} samples in micro-batches of {micro}")]
    BatchSize {
        /// Samples of a step.
        batch: usize,
        /// Samples at once.
        micro: usize,
    },
    /// A step was given another number of samples than the batch size.
    #[error("step {step} has {given} samples, not {expected}")]
    StepSamples {
        /// The step in the window.
        step: usize,
        /// Samples given.
        given: usize,
        /// The batch size.
        expected: usize,
    },
    /// Loss or gradient is NaN or infinite; the window's local parameters are lost, θ is not.
    #[error("loss {loss}, gradient norm {gradient_norm} at step {step}: training has diverged")]
    Diverged {
        /// The step in the window.
        step: usize,
        /// The step's loss.
        loss: f32,
        /// The step's gradient norm.
        gradient_norm: f32,
    },
    /// [`Trainer::make_update`] was called without a trained window.
    #[error("no window has been trained since the last update")]
    NotTrained,
    /// No window is trained ahead, or θ has not arrived, or has already.
    #[error("no window is trained ahead, or not so far")]
    NotAhead,
    /// No samples to evaluate on.
    #[error("no samples to evaluate on")]
    NoSamples,
}

impl From<DeviceError> for TrainError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Config(error) => error.into(),
            other => Self::Device(other),
        }
    }
}

/// What a trainer is set to.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainerSettings {
    /// Samples of an inner step.
    pub batch_size: usize,
    /// Samples at once, a divisor of the batch size; 0 for the whole batch. Less needs less memory.
    pub micro_batch: usize,
    /// The inner optimiser: of all tensors, or of those that Muon leaves to it.
    pub adamw: AdamWSettings,
    /// The inner optimiser of the layers' matrices, if it is another.
    pub muon: Option<MuonSettings>,
    /// Largest norm of a gradient, to which longer ones are scaled; 0 for none.
    pub clip_norm: f32,
}

impl Default for TrainerSettings {
    fn default() -> Self {
        let adamw = AdamWSettings::default();
        Self { batch_size: 8, micro_batch: 0, adamw, muon: None, clip_norm: 1.0 }
    }
}

/// A miner's model, optimiser and error feedback.
pub struct Trainer {
    settings: TrainerSettings,
    pub(super) threads: Threads,
    /// It holds the parameters during a window.
    pub(super) learner: Box<dyn Learner>,
    /// θ, what all replicas agree on, shared with who else holds it; without its parameters between
    /// [`Trainer::release_model`] and [`Trainer::set_model`].
    pub(super) model: Arc<Model>,
    feedback: Vec<f32>,
    /// Whether the learner has a trained window of which no update has been made.
    pub(super) trained: bool,
    /// The window that the learner trains before its θ is known.
    pub(super) ahead: Option<Ahead>,
}

/// The learning rate that grows linearly to `rate` over `warm_up_steps` steps, counted from 1.
pub fn warm_up(step: u64, warm_up_steps: u64, rate: f32) -> f32 {
    match step < warm_up_steps {
        true => rate * (step.max(1) as f32 / warm_up_steps as f32),
        false => rate,
    }
}

/// A learning rate in parts per 10^9 as a number.
pub fn rate_from_ppb(ppb: u32) -> f32 {
    (f64::from(ppb) / 1e9) as f32
}

impl Trainer {
    /// A trainer that starts at `model`, which may be shared, with a fresh optimiser and no error feedback. Allocates
    /// all it will ever need.
    pub fn new(
        model: impl Into<Arc<Model>>,
        settings: TrainerSettings,
        device: &dyn Device,
    ) -> Result<Self, TrainError> {
        let model = model.into();
        let micro = match settings.micro_batch {
            0 => settings.batch_size,
            micro => micro,
        };
        if micro == 0 || !settings.batch_size.is_multiple_of(micro) || settings.batch_size == 0 {
            return Err(TrainError::BatchSize { batch: settings.batch_size, micro });
        }
        let made_for = LearnerSettings {
            micro_batch: micro,
            adamw: settings.adamw,
            muon: settings.muon,
            precision: Precision::F32,
        };
        let mut learner = device.learner(model.config(), &made_for)?;
        learner.load(&mut &*model)?;
        Ok(Self {
            settings,
            threads: device.threads().clone(),
            learner,
            feedback: vec![0.0; model.arena().len],
            model,
            trained: false,
            ahead: None,
        })
    }

    /// θ: the agreed parameters, not the local ones; a model without parameters after [`Trainer::release_model`].
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A copy of the parameters of the window's training.
    pub fn local_model(&mut self) -> Result<Model, TrainError> {
        Ok(copied_model(&mut *self.learner, self.model.config())?)
    }

    /// θ, to be shared with others.
    pub fn shared_model(&self) -> Arc<Model> {
        self.model.clone()
    }

    /// The error feedback, in the order of the arena.
    pub fn feedback(&self) -> &[f32] {
        &self.feedback
    }

    /// The host's threads.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The learner, for what it has allocated.
    pub fn learner(&self) -> &dyn Learner {
        &*self.learner
    }

    /// Steps of the optimiser since its start.
    pub fn optimiser_step(&self) -> u64 {
        self.learner.steps()
    }

    /// The state root of θ.
    pub fn state_root(&self) -> Hash {
        self.model.state_root(self.threads())
    }

    /// Replaces θ by what others agreed on; nothing is copied. Optimiser and error feedback stay.
    ///
    /// # Errors
    /// A model of another shape.
    pub fn set_model(&mut self, model: impl Into<Arc<Model>>) -> Result<(), TrainError> {
        let model = model.into();
        self.check_shape(&model)?;
        self.model = model;
        self.trained = false;
        self.ahead = None;
        Ok(())
    }

    /// Lets go of θ, so that who shares it may change it in place. What needs it fails until [`Trainer::set_model`];
    /// optimiser and error feedback stay.
    pub fn release_model(&mut self) {
        self.model = Arc::new(self.model.emptied());
        self.trained = false;
        self.ahead = None;
    }

    /// Trains one window from θ: a step of the optimiser for each list of sample ids.
    ///
    /// `rate` gives AdamW's learning rate for a step of the optimiser, counted from 1; Muon's is a fixed multiple. `on_step` may
    /// stop the window; what has been trained until then counts. Allocates nothing.
    ///
    /// # Errors
    /// A step has another number of samples than a batch, a sample does not exist, or training
    /// diverged.
    pub fn train_window(
        &mut self,
        mut samples: &dyn SampleSource,
        steps: &[Vec<u64>],
        rate: &dyn Fn(u64) -> f32,
        on_step: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
    ) -> Result<LossSummary, TrainError> {
        self.train_window_from(&mut samples, steps, rate, on_step)
    }

    /// [`Trainer::train_window`] on samples that may have to be fetched.
    ///
    /// # Errors
    /// As there, and [`TrainError::Data`]: the window's local parameters are lost then, θ is not.
    pub fn train_window_from(
        &mut self,
        source: &mut dyn BatchSource,
        steps: &[Vec<u64>],
        rate: &dyn Fn(u64) -> f32,
        on_step: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
    ) -> Result<LossSummary, TrainError> {
        self.trained = false;
        self.ahead = None;
        self.learner.load(&mut &*self.model)?;
        let mut progress = Progress::default();
        self.train_on(&mut progress, source, steps, rate, on_step)?;
        let summary = progress.summary(steps.len());
        self.trained = summary.steps > 0;
        Ok(summary)
    }

    /// Takes the steps that `progress` has not counted yet, until `on_step` ends it.
    pub(super) fn train_on(
        &mut self,
        progress: &mut Progress,
        source: &mut dyn BatchSource,
        steps: &[Vec<u64>],
        rate: &dyn Fn(u64) -> f32,
        on_step: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        for (step, ids) in steps.iter().enumerate().skip(progress.steps()) {
            let mut upcoming = |number: u64| {
                let following = steps.get(step..)?.iter().flatten();
                following.copied().nth(usize::try_from(number).ok()?)
            };
            let samples = source.batch(ids, &mut upcoming)?;
            let report = self.train_step(samples, step, ids, rate)?;
            progress.count(&report);
            if on_step(&report).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Gradient over the micro-batches, clipping, a step of the optimiser.
    fn train_step(
        &mut self,
        samples: &dyn SampleSource,
        step: usize,
        ids: &[u64],
        rate: &dyn Fn(u64) -> f32,
    ) -> Result<StepReport, TrainError> {
        let expected = self.settings.batch_size;
        if ids.len() != expected {
            return Err(TrainError::StepSamples { step, given: ids.len(), expected });
        }
        let batch = self.learner.gradient(samples, ids)?;
        let (loss, gradient_norm) = (batch.loss, batch.norm as f32);
        if !loss.is_finite() || !batch.norm.is_finite() {
            return Err(TrainError::Diverged { step, loss, gradient_norm });
        }
        let clip = batch.clip_factor(self.settings.clip_norm);
        let rate = rate(self.learner.steps() + 1);
        self.learner.step(rate, clip)?;
        Ok(StepReport {
            step,
            optimiser_step: self.learner.steps(),
            loss,
            gradient_norm,
            tokens: ids.len() * self.model.config().seq_len,
        })
    }

    /// The trained window as an update's bytes; the error feedback takes up what they leave out.
    ///
    /// Once for each trained window. If the values cannot be encoded the error feedback is dropped.
    pub fn make_update(&mut self, keep: u16, error_decay_ppm: u32) -> Result<Vec<u8>, TrainError> {
        if !self.trained {
            return Err(TrainError::NotTrained);
        }
        self.trained = false;
        let decay = (f64::from(error_decay_ppm) / 1e6) as f32;
        let encoded = self.encode(keep, decay);
        if encoded.is_err() {
            self.feedback.fill(0.0);
        }
        encoded
    }

    /// Puts an update of [`Trainer::make_update`] back into the error feedback, which then has all of u, but for rounding: it
    /// has reached nobody, and a later one sends what it would have done.
    ///
    /// # Errors
    /// It is not of this model's layout; the error feedback is as it was.
    pub fn take_back(&mut self, update: &[u8], keep: u16) -> Result<(), TrainError> {
        let place = (self.model.arena(), self.model.layout());
        let payload = Payload::parse(update, place.1, keep)?;
        let add = |_, _: &mut (), feedback: &mut f32, value| *feedback += value;
        touch(&self.threads, place, &mut self.feedback, &payload, |_| (), add)?;
        Ok(())
    }

    /// Encodes tensor by tensor: where the learner's device does it, else here, after the learner has fetched it.
    fn encode(&mut self, keep: u16, decay: f32) -> Result<Vec<u8>, TrainError> {
        let (arena, layout) = (self.model.arena(), self.model.layout());
        let bytes = payload_bytes_max(layout, keep) as usize;
        // A vector in memory takes all that it is given.
        let in_memory = |error| match error {
            WriteError::Update(error) => error,
            WriteError::Io(_) => UpdateError::ByteLen(bytes),
        };
        let sink = Cursor::new(Vec::with_capacity(bytes));
        let stream = UpdateStream::new(&self.threads, sink, layout, keep, decay);
        let mut stream = stream.map_err(in_memory)?;
        let mut encoded = EncodedChunks::default();
        let parts = arena.canonical.iter().zip(arena.views_mut(&mut self.feedback));
        for (&place, feedback) in parts {
            let start = &self.model.parameters()[arena.tensors[place].range.clone()];
            let part =
                TensorToEncode { tensor: place, feedback: &mut *feedback, start, keep, decay };
            encoded.lens.clear();
            encoded.bytes.clear();
            match self.learner.encode(part, &mut encoded) {
                Ok(true) => stream.append(&encoded).map_err(in_memory)?,
                Ok(false) => {
                    let local = self.learner.tensor(Kept::Parameters, place)?;
                    stream.encode([TensorPart { feedback, start, local }]).map_err(in_memory)?;
                }
                Err(BatchError::Update(error)) => return Err(stream.numbered(error).into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(stream.finish().map_err(in_memory)?.into_inner())
    }

    /// The outer step on θ with the accepted updates; the new state root. In place if nobody shares θ, else on a copy.
    pub fn apply_outer(
        &mut self,
        accepted: &[(Uid, &[u8])],
        keep: u16,
        rule: OuterRule,
    ) -> Result<Hash, TrainError> {
        Arc::make_mut(&mut self.model).apply_outer(&self.threads, accepted, keep, rule)?;
        Ok(self.state_root())
    }

    /// Writes everything that a restart needs, atomically.
    pub fn save(
        &mut self,
        checkpoints: &Checkpoints,
        position: &Position,
    ) -> Result<(), CheckpointError> {
        self.write(checkpoints, position, false)
    }

    /// [`Trainer::save`] and then [`Trainer::release_model`], which happens as soon as θ is written: who waits for θ
    /// does not wait for the rest.
    ///
    /// # Errors
    /// As there; θ is let go all the same.
    pub fn save_and_release(
        &mut self,
        checkpoints: &Checkpoints,
        position: &Position,
    ) -> Result<(), CheckpointError> {
        let saved = self.write(checkpoints, position, true);
        self.release_model();
        saved
    }

    fn write(
        &mut self,
        checkpoints: &Checkpoints,
        position: &Position,
        releases: bool,
    ) -> Result<(), CheckpointError> {
        let config = self.model.config().clone();
        let held = Held::Miner(Averages::of(self.settings.muon.as_ref()));
        let (optimiser_step, parts) = (self.learner.steps(), self.learner.parts());
        let title = Title { config: &config, position, optimiser_step, held, parts };
        let tensors = self.model.arena().tensors.len();
        checkpoints.write(&title, &mut |parts| {
            parts.put_all(Section::Parameters, self.model.parameters());
            if releases {
                self.release_model();
            }
            for (kept, section) in [(Kept::Mean, Section::Mean), (Kept::Square, Section::Square)] {
                let take = &|part, first, values: Lent<'_>| parts.put(part, section, first, values);
                self.learner.hand_over(kept, tensors, take)?;
            }
            parts.put_all(Section::Feedback, &self.feedback);
            Ok(())
        })
    }

    /// Goes on from a checkpoint, which must be of a model of the same shape and of the same optimiser. One that holds
    /// only parameters leaves optimiser and error feedback fresh.
    ///
    /// # Errors
    /// It is of another model or optimiser.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<Position, CheckpointError> {
        let parts = checkpoint.into_contents();
        parts.held.check(Averages::of(self.settings.muon.as_ref()))?;
        if parts.model.config() != self.model.config() {
            return Err(CheckpointError::Shape);
        }
        self.model = Arc::new(parts.model);
        match parts.arrays.as_slice() {
            [mean, square, rest @ ..] => {
                set_averages(&mut *self.learner, self.model.arena(), [mean, square])?;
                self.learner.set_steps(parts.optimiser_step);
                match rest {
                    [feedback, ..] => self.feedback.copy_from_slice(feedback),
                    [] => self.feedback.fill(0.0),
                }
            }
            _ => {
                self.learner.reset()?;
                self.feedback.fill(0.0);
            }
        }
        self.trained = false;
        self.ahead = None;
        Ok(parts.position)
    }

    /// [`Trainer::restore`] of a checkpoint that is still on disk: it is read to where it stays, and θ of before is let go
    /// first, so that nothing but one tensor is held twice.
    ///
    /// # Errors
    /// As there; and the disk failed, which leaves the trainer as [`Trainer::release_model`] does, with what was read.
    pub fn resume(&mut self, mut checkpoint: OpenCheckpoint) -> Result<Position, CheckpointError> {
        let held = checkpoint.held();
        held.check(Averages::of(self.settings.muon.as_ref()))?;
        self.release_model();
        if checkpoint.config() != self.model.config() {
            return Err(CheckpointError::Shape);
        }
        self.model = Arc::new(checkpoint.read_model()?);
        let averages = held.averages().is_some();
        self.learner.reset()?;
        if averages {
            let tensors = self.model.arena().tensors.len();
            for kept in [Kept::Mean, Kept::Square] {
                checkpoint.give(&mut *self.learner, kept, tensors)?;
            }
            self.learner.set_steps(checkpoint.optimiser_step());
        }
        match held {
            Held::Miner(_) => checkpoint.read(&mut self.feedback)?,
            Held::Model | Held::Training(_) => self.feedback.fill(0.0),
        }
        Ok(checkpoint.position().clone())
    }

    /// Starts the error feedback afresh: what it has has been sent since, or is not known.
    pub fn forget_feedback(&mut self) {
        self.feedback.fill(0.0);
    }
}
