//! Training on one machine, without a chain: the loop from the first step to the last.
//!
//! [`pretrain`] is the loop; a [`Pretrainer`] holds what it changes. Which samples a step sees, and
//! at which rate, follows from its number and the settings alone; everything else that a step
//! depends on is in the checkpoint. So a run that was killed and goes on ends with the same bits
//! as one that was not.

use std::ops::ControlFlow;
use std::time::Instant;

use protocol::assignment::Permutation;
use protocol::merkle::blake2_256;
use protocol::Hash;
use serde::{Deserialize, Serialize};

use crate::compute::threads::Threads;
use crate::engine::device::Device;
use crate::engine::learner::{copied_model, Kept, Learned, Learner, LearnerSettings, Lent};
use crate::engine::optimiser::{AdamWSettings, MuonSettings};
use crate::engine::plan::Precision;
use crate::model::config::{Arena, ModelConfig};
use crate::model::Model;
use crate::training::checkpoint::{
    Averages, CheckpointError, Checkpoints, Held, OpenCheckpoint, Position, Section, Title,
};
use crate::training::guard::{GuardSettings, GuardState, Verdict};
use crate::training::schedule::{RateSchedule, ScheduleError};
use crate::training::train::TrainError;
use dataset::{BatchSource, DataError};

/// Key of the order of the samples.
const ORDER_DOMAIN: &[u8] = b"gauntlet/pretraining-order/1";

/// Why a training cannot start, go on or come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The schedule does not fit the training.
    #[error(transparent)]
    RateSchedule(#[from] ScheduleError),
    /// A step cannot be computed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The samples of a step cannot be fetched. What was computed so far is in a checkpoint.
    #[error(transparent)]
    Data(#[from] DataError),
    /// No step is to be taken.
    #[error("a training of 0 steps")]
    Steps,
    /// There is not a single sample.
    #[error("the data set has no training samples")]
    NoSamples,
    /// The checkpoint is of a training with another setting.
    #[error("this training was begun with {name} = {before}, not {now}; start over, or in another folder")]
    OtherSettings {
        /// The setting.
        name: String,
        /// Its value in the checkpoint.
        before: String,
        /// Its value now.
        now: String,
    },
    /// The checkpoint is not one of such a training.
    #[error("the checkpoint is not of a training without a chain")]
    Foreign,
    /// The loss did not come back; the last good parameters are in the checkpoint of `kept_step`.
    #[error(
        "training diverged at step {step}: loss {loss}, gradient norm {gradient_norm}, after {rollbacks} times going back \
         to a checkpoint; the one of step {kept_step} is kept. A lower rate or a longer warm-up may help"
    )]
    Diverged {
        /// Where.
        step: u64,
        /// The step's loss in nats a token.
        loss: f32,
        /// The step's gradient norm.
        gradient_norm: f32,
        /// Times that training went back.
        rollbacks: u32,
        /// Step of the newest checkpoint.
        kept_step: u64,
    },
}

/// Everything that decides the outcome of a training, beside model and data.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainSettings {
    /// Steps of the optimiser in all.
    pub steps: u64,
    /// Samples of a step.
    pub batch_size: usize,
    /// Samples at once, a divisor of the batch size: the others of a step follow, and their
    /// gradients add up.
    pub micro_batch: usize,
    /// What the parameters are in forward and backward pass; the optimiser's are `f32` always.
    pub precision: Precision,
    /// The learning rate.
    pub schedule: RateSchedule,
    /// The optimiser: of all tensors, or of those that Muon leaves to it.
    pub adamw: AdamWSettings,
    /// The optimiser of the layers' matrices, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonSettings>,
    /// Largest norm of a gradient, to which longer ones are scaled; 0 for none.
    pub clip_norm: f32,
    /// Seed of the order of the samples.
    pub seed: u64,
    /// The divergence guard.
    pub guard: GuardSettings,
}

impl PretrainSettings {
    /// Checks what can be checked without model and data.
    ///
    /// # Errors
    /// No steps, a schedule that does not fit them, or micro-batches that do not make a batch.
    pub fn check(&self) -> Result<(), PretrainError> {
        if self.steps == 0 {
            return Err(PretrainError::Steps);
        }
        self.schedule.check(self.steps)?;
        let (batch, micro) = (self.batch_size, self.micro_batch);
        if batch == 0 || micro == 0 || !batch.is_multiple_of(micro) {
            return Err(TrainError::BatchSize { batch, micro }.into());
        }
        Ok(())
    }
}

/// The samples of every step: epoch after epoch, each in an order of its own.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    sample_count: u64,
    /// The permutation of the epoch that was asked for last.
    epoch: Option<(u64, Permutation)>,
}

impl Order {
    /// The order of `sample_count` samples under `seed`.
    pub fn new(seed: u64, sample_count: u64) -> Self {
        Self { seed, sample_count, epoch: None }
    }

    /// The sample at `position`, counted over all epochs. `None` if there are no samples.
    pub fn sample(&mut self, position: u64) -> Option<u64> {
        let epoch = position.checked_div(self.sample_count)?;
        if self.epoch.as_ref().is_none_or(|(held, _)| *held != epoch) {
            let key: Hash =
                blake2_256(&[ORDER_DOMAIN, &self.seed.to_le_bytes(), &epoch.to_le_bytes()]);
            self.epoch = Some((epoch, Permutation::new(key, self.sample_count)?));
        }
        let (_, permutation) = self.epoch.as_ref()?;
        permutation.apply(position % self.sample_count)
    }
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PretrainStep {
    /// The step, from 1.
    pub step: u64,
    /// Mean loss of the batch, in nats a token, before the step.
    pub loss: f32,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// The learning rate.
    pub rate: f32,
    /// Tokens of the batch.
    pub tokens: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Whether its gradient was applied, and what is to be done if not.
    pub verdict: Verdict,
}

/// What a training's owner is told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum PretrainEvent {
    /// A step was taken, or left out.
    Step(PretrainStep),
    /// Training went back to the checkpoint of this step, with half the rate.
    RolledBack(u64),
    /// A checkpoint of this step is on the disk.
    Saved(u64),
}

/// How a training ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PretrainEnd {
    /// All steps were taken.
    Complete,
    /// Its owner stopped it; it goes on from its checkpoint.
    Stopped,
}

/// What a checkpoint says beside parameters and averages.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    settings: PretrainSettings,
    /// State root of the parameters before the first step.
    initial_root: String,
    data_root: String,
    guard: GuardState,
}

/// Model, optimiser and position of a training.
pub struct Pretrainer {
    settings: PretrainSettings,
    initial_root: String,
    data_root: String,
    threads: Threads,
    /// It holds the parameters.
    learner: Box<dyn Learner>,
    config: ModelConfig,
    arena: Arena,
    order: Order,
    ids: Vec<u64>,
    step: u64,
    guard: GuardState,
}

/// Trains until the last step: step, judge, and from time to time a checkpoint.
///
/// `observe` hears of everything and may stop the training after a step; a checkpoint is written
/// then too. One is also written before the first step and after the last.
///
/// # Errors
/// [`PretrainError`]; the last checkpoint is whole whatever happens.
pub fn pretrain(
    trainer: &mut Pretrainer,
    mut samples: impl BatchSource,
    checkpoints: &Checkpoints,
    checkpoint_steps: u64,
    observe: &mut dyn FnMut(&mut Pretrainer, PretrainEvent) -> ControlFlow<()>,
) -> Result<PretrainEnd, PretrainError> {
    if trainer.step == 0 {
        trainer.save(checkpoints)?;
    }
    let mut kept_step = trainer.step;
    while trainer.step < trainer.settings.steps {
        let report = match trainer.step(&mut samples) {
            Err(PretrainError::Data(error)) => {
                // No step has been begun: what the store did not give can be asked for another day.
                if trainer.step > kept_step {
                    trainer.save(checkpoints)?;
                }
                return Err(error.into());
            }
            report => report?,
        };
        let mut flow = observe(trainer, PretrainEvent::Step(report));
        match report.verdict {
            Verdict::Apply | Verdict::Skip => {}
            Verdict::RollBack => {
                trainer.roll_back(checkpoints)?;
                if observe(trainer, PretrainEvent::RolledBack(trainer.step)).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            Verdict::Stop => {
                return Err(PretrainError::Diverged {
                    step: report.step,
                    loss: report.loss,
                    gradient_norm: report.gradient_norm,
                    rollbacks: trainer.guard.rollbacks,
                    kept_step,
                })
            }
        }
        let is_last = trainer.step == trainer.settings.steps;
        let is_due = checkpoint_steps > 0 && trainer.step.is_multiple_of(checkpoint_steps);
        if is_last || is_due || flow.is_break() {
            trainer.save(checkpoints)?;
            kept_step = trainer.step;
            let saved = observe(trainer, PretrainEvent::Saved(kept_step));
            if (flow.is_break() || saved.is_break()) && !is_last {
                return Ok(PretrainEnd::Stopped);
            }
        }
    }
    Ok(PretrainEnd::Complete)
}

impl Pretrainer {
    /// A training of `model` at its first step. Allocates all it will ever need.
    ///
    /// # Errors
    /// The settings contradict one another or the model.
    pub fn new(
        model: Model,
        settings: PretrainSettings,
        sample_count: u64,
        data_root: &Hash,
        device: &dyn Device,
    ) -> Result<Self, PretrainError> {
        settings.check()?;
        if sample_count == 0 {
            return Err(PretrainError::NoSamples);
        }
        let made_for = LearnerSettings {
            micro_batch: settings.micro_batch,
            adamw: settings.adamw,
            muon: settings.muon,
            precision: settings.precision,
        };
        let mut learner = device.learner(model.config(), &made_for).map_err(TrainError::from)?;
        learner.load(&mut &model).map_err(TrainError::from)?;
        let threads = device.threads().clone();
        Ok(Self {
            order: Order::new(settings.seed, sample_count),
            ids: Vec::with_capacity(settings.batch_size),
            initial_root: blake3::Hash::from(model.state_root(&threads)).to_hex().to_string(),
            data_root: blake3::Hash::from(*data_root).to_hex().to_string(),
            threads,
            learner,
            config: model.config().clone(),
            arena: model.arena().clone(),
            settings,
            step: 0,
            guard: GuardState::default(),
        })
    }

    /// Lends the parameters after the steps so far, for an evaluation.
    pub fn weights(&mut self) -> Learned<'_> {
        Learned::new(&mut *self.learner)
    }

    /// A copy of the parameters after the steps so far.
    pub fn model(&mut self) -> Result<Model, PretrainError> {
        Ok(copied_model(&mut *self.learner, &self.config).map_err(TrainError::from)?)
    }

    /// Ends the training and gives the parameters to the host.
    pub fn into_model(self) -> Result<Model, PretrainError> {
        Ok(self.learner.into_model(&self.config).map_err(TrainError::from)?)
    }

    /// What it was set to.
    pub fn settings(&self) -> &PretrainSettings {
        &self.settings
    }

    /// Steps so far, those that were skipped included.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// What the guard knows.
    pub fn guard(&self) -> &GuardState {
        &self.guard
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The host's threads.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The learner, for what it has allocated.
    pub fn learner(&self) -> &dyn Learner {
        &*self.learner
    }

    /// One step: loss and gradient over the micro-batches, the guard's verdict, clipping, the optimiser.
    /// A step that is to be rolled back is not counted.
    fn step(&mut self, samples: &mut dyn BatchSource) -> Result<PretrainStep, PretrainError> {
        let started = Instant::now();
        let batch = self.settings.batch_size as u64;
        let first = self.step.saturating_mul(batch);
        let end = self.settings.steps.saturating_mul(batch);
        let order = &mut self.order;
        let mut upcoming = |number: u64| {
            let position = first.saturating_add(number);
            (position < end).then(|| order.sample(position)).flatten()
        };
        self.ids.clear();
        for number in 0..batch {
            let id = upcoming(number).ok_or(PretrainError::NoSamples)?;
            self.ids.push(id);
        }
        let samples = samples.batch(&self.ids, &mut upcoming)?;
        let tokens = self.ids.len() * self.config.seq_len;
        let gradient = self.learner.gradient(samples, &self.ids).map_err(TrainError::from)?;
        let (loss, norm) = (gradient.loss, gradient.norm as f32);
        let number = self.step + 1;
        let rate = self.settings.schedule.rate(number, self.settings.steps);
        let rate = rate * self.guard.rate_factor();
        let verdict = self.guard.judge(&self.settings.guard, loss, norm);
        if verdict == Verdict::Apply {
            let clip = gradient.clip_factor(self.settings.clip_norm);
            self.learner.step(rate, clip).map_err(TrainError::from)?;
        }
        if matches!(verdict, Verdict::Apply | Verdict::Skip) {
            self.step = number;
        }
        Ok(PretrainStep {
            step: number,
            loss,
            gradient_norm: norm,
            rate,
            tokens: tokens as u64,
            seconds: started.elapsed().as_secs_f64(),
            verdict,
        })
    }

    /// Writes everything that a restart needs, atomically.
    ///
    /// # Errors
    /// The disk failed; the checkpoint before is still there.
    pub fn save(&mut self, checkpoints: &Checkpoints) -> Result<(), PretrainError> {
        let note = Note {
            settings: self.settings.clone(),
            initial_root: self.initial_root.clone(),
            data_root: self.data_root.clone(),
            guard: self.guard,
        };
        let position = Position {
            run: 0,
            window: self.step,
            trained: false,
            note: serde_json::to_string(&note).map_err(|_| PretrainError::Foreign)?,
        };
        let (steps, tensors) = (self.learner.steps(), self.arena.tensors.len());
        let held = Held::Training(Averages::of(self.settings.muon.as_ref()));
        let (learner, config) = (&mut *self.learner, &self.config);
        let (position, parts) = (&position, learner.parts());
        let title = Title { config, position, optimiser_step: steps, held, parts };
        checkpoints.write(&title, &mut |parts| {
            for (kept, section) in [
                (Kept::Parameters, Section::Parameters),
                (Kept::Mean, Section::Mean),
                (Kept::Square, Section::Square),
            ] {
                let take = &|part, first, values: Lent<'_>| parts.put(part, section, first, values);
                learner.hand_over(kept, tensors, take)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Goes on from the newest whole checkpoint, if there is one; returns whether there was.
    ///
    /// The number of steps may be another one where the schedule does not depend on it.
    ///
    /// # Errors
    /// The checkpoint is of another model, of other data or of other settings; none is whole.
    pub fn resume(&mut self, checkpoints: &Checkpoints) -> Result<bool, PretrainError> {
        let Some(checkpoint) = newest(checkpoints, &self.config)? else {
            return Ok(false);
        };
        let note = note_of(checkpoint.position())?;
        let mut before = note.settings.clone();
        if !before.schedule.depends_on_steps() {
            before.steps = self.settings.steps;
        }
        check_optimiser(&before, &self.settings)?;
        if let Some((mut name, before, now)) = difference(&before, &self.settings) {
            if name == "muon.relative_rate" {
                name = "matrix_rate over rate".to_owned();
            }
            return Err(PretrainError::OtherSettings { name, before, now });
        }
        for (name, before, now) in [
            ("initial parameters", note.initial_root, &self.initial_root),
            ("data root", note.data_root, &self.data_root),
        ] {
            if before != *now {
                return Err(PretrainError::OtherSettings {
                    name: name.to_owned(),
                    before,
                    now: now.clone(),
                });
            }
        }
        self.take(checkpoint, note.guard)?;
        Ok(true)
    }

    fn roll_back(&mut self, checkpoints: &Checkpoints) -> Result<(), PretrainError> {
        let checkpoint = checkpoints.newest(&self.config)?;
        let checkpoint = checkpoint.ok_or(PretrainError::Foreign)?;
        let saved = note_of(checkpoint.position())?.guard;
        let guard = self.guard.rolled_back(&saved);
        self.take(checkpoint, guard)?;
        // So that a kill does not forget that the rate was halved.
        self.save(checkpoints)
    }

    /// Goes on from a checkpoint, which is read to where its values stay.
    fn take(
        &mut self,
        mut checkpoint: OpenCheckpoint,
        guard: GuardState,
    ) -> Result<(), PretrainError> {
        checkpoint.held().check(Averages::of(self.settings.muon.as_ref()))?;
        if !matches!(checkpoint.held(), Held::Training(_)) {
            return Err(PretrainError::Foreign);
        }
        let (learner, tensors) = (&mut *self.learner, self.arena.tensors.len());
        for kept in [Kept::Parameters, Kept::Mean, Kept::Square] {
            checkpoint.give(learner, kept, tensors)?;
        }
        learner.set_steps(checkpoint.optimiser_step());
        self.step = checkpoint.position().window;
        self.guard = guard;
        Ok(())
    }
}

/// The newest whole checkpoint. That it is of another model is said by the name of what differs.
fn newest(
    checkpoints: &Checkpoints,
    config: &ModelConfig,
) -> Result<Option<OpenCheckpoint>, PretrainError> {
    match checkpoints.newest(config) {
        Err(CheckpointError::Shape) => {
            let before = checkpoints.config()?;
            let difference = before.and_then(|before| difference(&before, config));
            let (name, before, now) = difference.ok_or(CheckpointError::Shape)?;
            let name = format!("model.{name}");
            Err(PretrainError::OtherSettings { name, before, now })
        }
        found => Ok(found?),
    }
}

/// The settings that the newest readable checkpoint was made with, if there is one: of its header
/// alone. Whether it is whole, [`Pretrainer::resume`] finds out.
///
/// # Errors
/// The folder cannot be read, or the checkpoint is not of such a training.
pub fn settings_in(checkpoints: &Checkpoints) -> Result<Option<PretrainSettings>, PretrainError> {
    let position = checkpoints.position()?;
    let note = position.as_ref().map(note_of).transpose()?;
    Ok(note.map(|note| note.settings))
}

fn note_of(position: &Position) -> Result<Note, PretrainError> {
    serde_json::from_str(&position.note).map_err(|_| PretrainError::Foreign)
}

/// Refuses to go on with another optimiser, by its name rather than by the settings that only one of them has.
fn check_optimiser(before: &PretrainSettings, now: &PretrainSettings) -> Result<(), PretrainError> {
    let [before, now] = [before, now].map(|settings| Averages::of(settings.muon.as_ref()));
    if before == now {
        return Ok(());
    }
    let (name, before, now) = ("optimiser".into(), before.name().into(), now.name().into());
    Err(PretrainError::OtherSettings { name, before, now })
}

/// The first setting that differs, with both values.
fn difference<T: Serialize>(before: &T, now: &T) -> Option<(String, String, String)> {
    let flat = |settings: &T| {
        let mut rows = Vec::new();
        if let Ok(value) = serde_json::to_value(settings) {
            flatten("", &value, &mut rows);
        }
        rows
    };
    let (before, now) = (flat(before), flat(now));
    let value = |rows: &[(String, String)], name: &str| {
        let row = rows.iter().find(|row| row.0 == name);
        row.map_or("nothing".to_owned(), |row| row.1.clone())
    };
    let mut names = before.iter().chain(&now).map(|row| &row.0);
    let name = names.find(|name| value(&before, name) != value(&now, name))?;
    Some((name.clone(), value(&before, name), value(&now, name)))
}

fn flatten(name: &str, value: &serde_json::Value, rows: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                flatten(&name, value, rows);
            }
        }
        other => rows.push((name.to_owned(), other.to_string())),
    }
}
