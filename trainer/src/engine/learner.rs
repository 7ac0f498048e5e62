//! Trains one model on one device: the gradient of a batch and a step of the optimiser.
//!
//! Parameters, gradient and the optimiser's averages stay with the learner. What the host wants of them
//! crosses one tensor at a time; no call asks for all of a model in one piece.

use std::ops::ControlFlow;

use crate::engine::optimiser::{AdamWSettings, MuonSettings};
use crate::engine::plan::Precision;
use crate::engine::weights::{copy, Weights};
use crate::engine::BatchError;
use crate::model::config::{Arena, ModelConfig};
use crate::model::{next_stamp, Model};
use dataset::SampleSource;
use protocol::update::EncodedChunks;

/// What a learner is made for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LearnerSettings {
    /// Samples at once, at least 1.
    pub micro_batch: usize,
    /// The optimiser: of all tensors, or of those that Muon leaves to it.
    pub adamw: AdamWSettings,
    /// The optimiser of the layers' matrices, if it is another.
    pub muon: Option<MuonSettings>,
    /// What the parameters are in forward and backward pass.
    pub precision: Precision,
}

/// What a batch says about the parameters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchGradient {
    /// Mean loss in nats a token.
    pub loss: f32,
    /// Norm of the mean loss's gradient.
    pub norm: f64,
}

impl BatchGradient {
    /// The factor that brings the gradient down to `longest`; 1 if it is no longer, or if `longest` is 0.
    pub fn clip_factor(&self, longest: f32) -> f32 {
        let longest = f64::from(longest);
        if longest > 0.0 && self.norm > longest {
            (longest / self.norm) as f32
        } else {
            1.0
        }
    }
}

/// The values that a learner keeps for each parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// The parameters themselves.
    Parameters,
    /// The average of gradients: AdamW's, or Muon's momentum.
    Mean,
    /// AdamW's average of squared gradients; nothing of a tensor that Muon trains.
    Square,
}

/// One tensor of an update that is to be encoded: what the learner's parameters have become since `start`.
#[derive(Debug)]
pub struct TensorToEncode<'a> {
    /// Which, as the arena counts.
    pub tensor: usize,
    /// The error feedback, which becomes what the bytes leave out; as long as the tensor.
    pub feedback: &'a mut [f32],
    /// The parameters at the window's start; as long as the tensor.
    pub start: &'a [f32],
    /// Values kept of a full chunk.
    pub keep: u16,
    /// What is left of the error feedback from window to window.
    pub decay: f32,
}

/// Values as a device keeps them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Lent<'a> {
    /// f32.
    F32(&'a [f32]),
    /// The upper halves of f32.
    Bf16(&'a [u16]),
}

/// Takes values over: which of a device's parts hands over, the number of the first value among all of their kind,
/// tensor after tensor of the arena, and the values. Each part calls on a thread of its own; it ends when told to.
pub type Take<'a> = &'a (dyn Fn(usize, u64, Lent<'_>) -> ControlFlow<()> + Sync);

/// Trains one model on one device. Tensors are counted as in
/// [`Arena::tensors`](crate::model::config::Arena::tensors).
pub trait Learner: Send {
    /// Bytes allocated for loss and gradient; 0 where the device does not know.
    fn allocated_bytes(&self) -> u64;

    /// Takes parameters over: before the first batch, and whenever they are to be others.
    fn load(&mut self, weights: &mut dyn Weights) -> Result<(), BatchError>;

    /// Loss and gradient of the batch `ids`; keeps the gradient.
    fn gradient(
        &mut self,
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<BatchGradient, BatchError>;

    /// A step of the optimiser against `scale` times the kept gradient, at AdamW's learning rate `rate`.
    fn step(&mut self, rate: f32, scale: f32) -> Result<(), BatchError>;

    /// Steps of the optimiser so far.
    fn steps(&self) -> u64;

    /// Lends one tensor of what is kept, until the next call.
    fn tensor(&mut self, kept: Kept, tensor: usize) -> Result<&[f32], BatchError>;

    /// How many parts hand over at once what [`Learner::hand_over`] is asked for.
    fn parts(&self) -> usize {
        1
    }

    /// Hands over all that is kept of the arena's `tensors` tensors, each value once, in parts of which none is whole
    /// in memory a second time. The parts are those of [`Learner::parts`], from 0 on.
    ///
    /// # Errors
    /// The device failed; a part of the values has been handed over.
    fn hand_over(&mut self, kept: Kept, tensors: usize, take: Take<'_>) -> Result<(), BatchError> {
        let mut first = 0;
        for tensor in 0..tensors {
            let values = self.tensor(kept, tensor)?;
            if take(0, first, Lent::F32(values)).is_break() {
                break;
            }
            first += values.len() as u64;
        }
        Ok(())
    }

    /// All parameters in the order of the arena, where they lie on the host in one piece.
    fn arena(&self) -> Option<&[f32]> {
        None
    }

    /// Encodes a tensor where its parameters lie and puts its chunks at the end of `into`: the bytes, and the error feedback, of
    /// [`Encoder::encode_difference`](protocol::update::Encoder::encode_difference). `false`, and nothing has changed,
    /// where the device leaves that to the host.
    ///
    /// # Errors
    /// The device failed, or [`BatchError::Update`]: a value is not finite. The error feedback is a mixture then and must
    /// be dropped.
    fn encode(
        &mut self,
        part: TensorToEncode<'_>,
        into: &mut EncodedChunks,
    ) -> Result<bool, BatchError> {
        let _ = (part, into);
        Ok(false)
    }

    /// Replaces one tensor of what is kept.
    fn set_tensor(&mut self, kept: Kept, tensor: usize, values: &[f32]) -> Result<(), BatchError>;

    /// Says how many steps the averages stand for.
    fn set_steps(&mut self, steps: u64);

    /// Starts the optimiser afresh: no steps, averages of zero.
    fn reset(&mut self) -> Result<(), BatchError>;

    /// Ends the training and gives the model to the host.
    fn into_model(self: Box<Self>, config: &ModelConfig) -> Result<Model, BatchError>;
}

/// A copy on the host of the parameters that a learner has by now.
pub(crate) fn copied_model(
    learner: &mut dyn Learner,
    config: &ModelConfig,
) -> Result<Model, BatchError> {
    let mut model = Model::zeros(config).map_err(|error| BatchError::Device(error.to_string()))?;
    let arena = config.arena();
    let parameters = model.parameters_mut();
    for (index, tensor) in arena.tensors.iter().enumerate() {
        let values = learner.tensor(Kept::Parameters, index)?;
        copy(values, &mut parameters[tensor.range.clone()])?;
    }
    Ok(model)
}

/// Replaces the optimiser's averages by those of a checkpoint, tensor after tensor in the order of the arena.
///
/// # Errors
/// They are not those of such a learner: its optimiser is another.
pub(crate) fn set_averages(
    learner: &mut dyn Learner,
    arena: &Arena,
    averages: [&[f32]; 2],
) -> Result<(), BatchError> {
    for (kept, mut rest) in [Kept::Mean, Kept::Square].into_iter().zip(averages) {
        for tensor in 0..arena.tensors.len() {
            let len = learner.tensor(kept, tensor)?.len();
            let (values, after) = rest.split_at_checked(len).ok_or(BatchError::Optimiser)?;
            learner.set_tensor(kept, tensor, values)?;
            rest = after;
        }
        if !rest.is_empty() {
            return Err(BatchError::Optimiser);
        }
    }
    Ok(())
}

/// The parameters of a learner, which rests while they are lent.
pub struct Learned<'a> {
    learner: &'a mut dyn Learner,
    stamp: u64,
}

impl<'a> Learned<'a> {
    /// Lends them as they are now.
    pub fn new(learner: &'a mut dyn Learner) -> Self {
        Self { learner, stamp: next_stamp() }
    }
}

impl Weights for Learned<'_> {
    fn stamp(&self) -> u64 {
        self.stamp
    }

    fn read(&mut self, tensor: usize, into: &mut [f32]) -> Result<(), BatchError> {
        copy(self.learner.tensor(Kept::Parameters, tensor)?, into)
    }

    fn arena(&self) -> Option<&[f32]> {
        self.learner.arena()
    }
}
