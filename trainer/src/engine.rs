//! The CPU engine: loss and gradient of a LLaMA model, forward and backward written out by hand.
//!
//! All buffers are allocated when the engine is made ([`Plan`]); a step allocates nothing (on
//! [`MatrixUnit::Portable`](crate::MatrixUnit::Portable), nothing but what gemm packs matrices into). The backward pass keeps the residual stream, q|k|v,
//! attention's output and gate|up, and computes norms, probabilities and SwiGLU's output again, which is
//! cheaper than reading them back. The output matrix is applied to a bounded number of rows at a
//! time, and those logits become their own gradient. It leaves out: dropout, biases.
//!
//! Where the samples say which token ends a document ([`SampleSource::end_of_document`]), a token
//! attends to its own document only; the end token belongs to the document that it ends. Blocks of
//! scores that are masked as a whole are never computed. Positions go on through the sample, which
//! changes nothing: RoPE sees differences only. The loss of the end token, which has to predict the
//! first token of the next document, counts like any other: that is what a sampler meets after an
//! end, and the mean stays one over all tokens.
//!
//! Parameters and gradient are flat slices in the order of [`Arena`]: the host's memory is the
//! engine's. What a device of another kind implements instead is in [`crate::engine::device`].
//!
//! Shapes: T tokens = samples · seq_len, D hidden, Q qkv_dim, F ffn, V vocab. Matrices are
//! row-major; a weight is (outputs, inputs), so that y = x · Wᵀ.

pub mod plan;

mod attention;
mod backward;
mod forward;
mod output;

pub mod optimiser;

pub mod weights;

pub mod device;
pub mod learner;

pub mod cpu;

pub mod autograd;
pub mod candle;

pub mod devices;

use std::time::{Duration, Instant};

use self::plan::{Plan, Precision, Region};
use crate::compute::aligned::Aligned;
use crate::compute::matmul::Multiplier;
use crate::compute::ops;
use crate::compute::threads::{Shared, Threads};
use crate::compute::Compute;
use crate::model::config::{Arena, ConfigError, ModelConfig};
use dataset::SampleSource;
use protocol::update::UpdateError;

/// Parameters that one task rounds.
const ROUNDED: usize = 16 * 1024;

/// Why a batch cannot be computed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// More samples than the engine was made for, or none.
    #[error("{given} samples, not 1 to {max}")]
    Samples {
        /// Samples given.
        given: usize,
        /// Samples that the buffers hold.
        max: usize,
    },
    /// The source's samples are of another length than the model's.
    #[error("samples of {source_len} tokens for a model of {model} tokens")]
    SampleLen {
        /// Tokens of the source's samples.
        source_len: usize,
        /// Tokens of the model.
        model: usize,
    },
    /// The source has no such sample.
    #[error("no sample {0}")]
    NoSample(u64),
    /// A sample has a token that the model does not know.
    #[error("sample {sample} has token {token}; the model knows {vocab}")]
    Token {
        /// The sample.
        sample: u64,
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocab: usize,
    },
    /// Parameters or gradient are not those of the engine's model.
    #[error("{given} parameters, not {expected}")]
    Parameters {
        /// Values given.
        given: usize,
        /// Values of the model.
        expected: usize,
    },
    /// There is no such tensor.
    #[error("no tensor {tensor}; there are {count}")]
    Tensor {
        /// The number asked for.
        tensor: usize,
        /// Tensors of the model.
        count: usize,
    },
    /// Averages are of another optimiser than the learner's.
    #[error("the averages are of another optimiser")]
    Optimiser,
    /// Values cannot be encoded as an update, or an update is not the model's.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The engine was made without room for a backward pass.
    #[error("this engine only evaluates")]
    NotTraining,
}

/// How long the parts of the latest computation took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// From the tokens to the last norm.
    pub forward: Duration,
    /// Output matrix and cross entropy, with their backward pass where there is one.
    pub output: Duration,
    /// From the gradient of the last norm's output to that of all parameters; else zero.
    pub backward: Duration,
}

/// Computes losses and gradients of one model on one micro-batch at a time.
pub struct Engine {
    config: ModelConfig,
    arena: Arena,
    plan: Plan,
    threads: Threads,
    multiplier: Multiplier,
    buffers: Buffers,
    times: Times,
    /// What [`Engine::logits`] returns, allocated when it is first called: no part of the plan.
    all_logits: Aligned,
}

/// The regions of [`Plan`], in its order. Those with a layer or a state in front hold that many of what
/// follows, each with room for all of the plan's tokens T.
struct Buffers {
    /// (seq_len, head_dim / 2) each.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// (T) each.
    inputs: Vec<u32>,
    targets: Vec<u32>,
    /// (T): where in its sample a token's document starts.
    starts: Vec<u32>,
    /// (threads, what a head's packed keys and values take).
    keys: Aligned,
    /// The parameters rounded to bf16; empty in f32.
    rounded: Aligned,
    /// (state, T, D): before attention and before SwiGLU of each layer, and after the last.
    residual: Aligned,
    /// (norm, T), in the order of use.
    inverse: Aligned,
    /// (T, D): the last norm's output, and in the backward pass that of the norm before SwiGLU.
    normed: Aligned,
    /// (layer, T, Q).
    qkv: Aligned,
    /// (layer, samples, heads, seq_len).
    log_sums: Aligned,
    /// (layer, T, D).
    attended: Aligned,
    /// (layer, T, 2 F).
    gate_up: Aligned,
    /// (threads, rows of a band, F + D).
    band: Aligned,
    /// (threads, 1 or 2, rows, seq_len).
    scores: Aligned,
    /// (logit rows, V).
    logits: Aligned,
    /// (T).
    losses: Aligned,
    /// (T, D): the output of the norm before attention.
    attention_normed: Aligned,
    /// (T, F).
    swiglu: Aligned,
    /// (3, T, D), taking turns: after a layer, between its halves and before it.
    d_residual: Aligned,
    /// (T, D).
    d_attended: Aligned,
    /// (T, Q).
    d_qkv: Aligned,
    /// (T, 2 F).
    d_gate_up: Aligned,
    /// (blocks of rows, D).
    d_norm_parts: Aligned,
}

impl Buffers {
    fn new(config: &ModelConfig, plan: &Plan) -> Self {
        let region = |region: Region| Aligned::zeros(plan.region(region));
        let tokens = plan.tokens;
        let (cos, sin) = rotary_tables(config);
        Self {
            cos,
            sin,
            inputs: vec![0; tokens],
            targets: vec![0; tokens],
            starts: vec![0; tokens],
            keys: region(Region::Keys),
            rounded: region(Region::Rounded),
            residual: region(Region::Residual),
            inverse: region(Region::Inverse),
            normed: region(Region::Normed),
            qkv: region(Region::Qkv),
            log_sums: region(Region::LogSums),
            attended: region(Region::Attended),
            gate_up: region(Region::GateUp),
            band: region(Region::Band),
            scores: region(Region::Scores),
            logits: region(Region::Logits),
            losses: region(Region::Losses),
            attention_normed: region(Region::AttentionNormed),
            swiglu: region(Region::SwiGlu),
            d_residual: region(Region::DResidual),
            d_attended: region(Region::DAttended),
            d_qkv: region(Region::DQkv),
            d_gate_up: region(Region::DGateUp),
            d_norm_parts: region(Region::DNormParts),
        }
    }

    fn bytes(&self) -> u64 {
        let floats = [
            &self.keys,
            &self.rounded,
            &self.residual,
            &self.inverse,
            &self.normed,
            &self.qkv,
            &self.log_sums,
            &self.attended,
            &self.gate_up,
            &self.band,
            &self.scores,
            &self.logits,
            &self.losses,
            &self.attention_normed,
            &self.swiglu,
            &self.d_residual,
            &self.d_attended,
            &self.d_qkv,
            &self.d_gate_up,
            &self.d_norm_parts,
        ];
        let values = floats.into_iter().map(|buffer| buffer.len()).sum::<usize>()
            + self.cos.len()
            + self.sin.len()
            + self.inputs.len()
            + self.targets.len()
            + self.starts.len();
        values as u64 * 4
    }
}

/// cos and sin of position · frequency: (seq_len, head_dim / 2).
pub(crate) fn rotary_tables(config: &ModelConfig) -> (Vec<f32>, Vec<f32>) {
    let frequencies = config.rotary_frequencies();
    let half = frequencies.len();
    let angle = |index: usize| {
        let (position, pair) = (index / half, index % half);
        position as f64 * frequencies[pair]
    };
    let count = config.seq_len * half;
    (
        (0..count).map(|index| angle(index).cos() as f32).collect(),
        (0..count).map(|index| angle(index).sin() as f32).collect(),
    )
}

impl Engine {
    /// An engine for up to `samples` samples at once; with `training`, also for gradients.
    pub fn new(
        config: &ModelConfig,
        samples: usize,
        training: bool,
        compute: impl Into<Compute>,
    ) -> Result<Self, ConfigError> {
        Self::with_precision(config, samples, training, compute, Precision::F32)
    }

    /// [`Engine::new`] with the precision that parameters have in forward and backward pass.
    pub fn with_precision(
        config: &ModelConfig,
        samples: usize,
        training: bool,
        compute: impl Into<Compute>,
        precision: Precision,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        if samples == 0 {
            return Err(ConfigError::Dimension { name: "samples at once", value: samples });
        }
        let Compute { threads, unit } = compute.into();
        let plan = Plan::with_precision(config, samples, threads.count(), training, precision)
            .with_unit(config, unit);
        let buffers = Buffers::new(config, &plan);
        let multiplier = Multiplier::new(threads.clone(), unit, plan.region(Region::Operands));
        debug_assert_eq!(buffers.bytes() + multiplier.bytes(), plan.bytes());
        Ok(Self {
            config: config.clone(),
            arena: config.arena(),
            plan,
            threads,
            multiplier,
            buffers,
            times: Times::default(),
            all_logits: Aligned::default(),
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What has been allocated.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of the buffers, counted from themselves; equal to the plan's.
    pub fn allocated_bytes(&self) -> u64 {
        self.buffers.bytes() + self.multiplier.bytes()
    }

    /// How long the parts of the latest loss took.
    pub fn times(&self) -> Times {
        self.times
    }

    /// The threads it computes on.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The sum of the losses, in nats, of all tokens of the samples `ids`.
    pub fn loss(
        &mut self,
        parameters: &[f32],
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f64, BatchError> {
        let tokens = self.load(samples, ids)?;
        self.check(parameters)?;
        Ok(self.with_rounded(parameters, |engine, parameters| {
            let start = Instant::now();
            engine.forward(parameters, tokens);
            let middle = Instant::now();
            let loss = engine.cross_entropy(parameters, None, tokens, 0.0);
            engine.times = Times {
                forward: middle - start,
                output: middle.elapsed(),
                backward: Duration::ZERO,
            };
            loss
        }))
    }

    /// Calls `f` with the parameters in the engine's precision.
    fn with_rounded<R>(&mut self, parameters: &[f32], f: impl FnOnce(&mut Self, &[f32]) -> R) -> R {
        if self.plan.precision == Precision::F32 {
            return f(self, parameters);
        }
        let mut rounded = std::mem::take(&mut self.buffers.rounded);
        let part = Shared::new(&mut rounded);
        self.threads.blocks(parameters.len(), ROUNDED, |first, end| {
            // SAFETY: blocks are disjoint.
            let rounded = unsafe { part.part(first, end) };
            ops::round_to_bf16(&parameters[first..end], rounded);
        });
        let result = f(self, &rounded);
        self.buffers.rounded = rounded;
        result
    }

    /// The losses, in nats, of each token of the samples `ids`: (samples, seq_len). The loss at a
    /// position is that of predicting the token after it.
    pub fn token_losses(
        &mut self,
        parameters: &[f32],
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<&[f32], BatchError> {
        self.loss(parameters, samples, ids)?;
        Ok(&self.buffers.losses[..ids.len() * self.config.seq_len])
    }

    /// The sum of the losses of all tokens of the samples `ids`, and its gradient times `scale`,
    /// which is added to `gradient` (or, if `!accumulate`, replaces it).
    pub fn loss_and_gradient(
        &mut self,
        parameters: &[f32],
        gradient: &mut [f32],
        samples: &dyn SampleSource,
        ids: &[u64],
        scale: f32,
        accumulate: bool,
    ) -> Result<f64, BatchError> {
        if !self.plan.training {
            return Err(BatchError::NotTraining);
        }
        let tokens = self.load(samples, ids)?;
        self.check(parameters)?;
        self.check(gradient)?;
        Ok(self.with_rounded(parameters, |engine, parameters| {
            let start = Instant::now();
            engine.forward(parameters, tokens);
            let middle = Instant::now();
            let head = Some((&mut *gradient, accumulate));
            let loss = engine.cross_entropy(parameters, head, tokens, scale);
            let end = Instant::now();
            engine.backward(parameters, gradient, tokens, accumulate);
            engine.times =
                Times { forward: middle - start, output: end - middle, backward: end.elapsed() };
            loss
        }))
    }

    /// The mean loss in nats a token of the batch `ids`, and its gradient, which replaces `gradient`:
    /// as many samples at once as the engine was made for, and their gradients added up in order.
    pub fn batch_gradient(
        &mut self,
        parameters: &[f32],
        gradient: &mut [f32],
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<f32, BatchError> {
        if ids.is_empty() {
            let max = self.plan.samples;
            return Err(BatchError::Samples { given: 0, max });
        }
        let tokens = ids.len() * self.config.seq_len;
        let scale = (1.0 / tokens as f64) as f32;
        let mut loss_sum = 0.0f64;
        for (index, ids) in ids.chunks(self.plan.samples).enumerate() {
            loss_sum +=
                self.loss_and_gradient(parameters, gradient, samples, ids, scale, index > 0)?;
        }
        Ok((loss_sum / tokens as f64) as f32)
    }

    /// The logits (tokens, vocab) of the samples `ids`, for tests and for whoever wants the
    /// probabilities. All of them at once, which training never needs: the first call allocates
    /// memory beyond the plan.
    pub fn logits(
        &mut self,
        parameters: &[f32],
        samples: &dyn SampleSource,
        ids: &[u64],
    ) -> Result<&[f32], BatchError> {
        let tokens = self.load(samples, ids)?;
        self.check(parameters)?;
        self.with_rounded(parameters, |engine, parameters| {
            engine.forward(parameters, tokens);
            engine.all_logits(parameters, tokens);
        });
        Ok(&self.all_logits[..tokens * self.config.vocab])
    }

    fn check(&self, values: &[f32]) -> Result<(), BatchError> {
        match values.len() == self.arena.len {
            true => Ok(()),
            false => Err(BatchError::Parameters { given: values.len(), expected: self.arena.len }),
        }
    }

    /// Copies the samples' tokens in; returns how many there are.
    fn load(&mut self, samples: &dyn SampleSource, ids: &[u64]) -> Result<usize, BatchError> {
        let buffers = &mut self.buffers;
        let into = [&mut buffers.inputs[..], &mut buffers.targets, &mut buffers.starts];
        load_tokens(&self.config, self.plan.samples, samples, ids, into)
    }
}

/// Copies the tokens of up to `max` samples to inputs, targets and documents' starts, which have room for them; returns how
/// many tokens there are.
pub(crate) fn load_tokens(
    config: &ModelConfig,
    max: usize,
    samples: &dyn SampleSource,
    ids: &[u64],
    [inputs, targets, starts]: [&mut [u32]; 3],
) -> Result<usize, BatchError> {
    let seq_len = config.seq_len;
    if ids.is_empty() || ids.len() > max {
        return Err(BatchError::Samples { given: ids.len(), max });
    }
    if samples.sample_len() != seq_len {
        let source_len = samples.sample_len();
        return Err(BatchError::SampleLen { source_len, model: seq_len });
    }
    let inputs = inputs.chunks_exact_mut(seq_len);
    let targets = targets.chunks_exact_mut(seq_len);
    let starts = starts.chunks_exact_mut(seq_len);
    let end_of_document = samples.end_of_document();
    for (((inputs, targets), starts), id) in inputs.zip(targets).zip(starts).zip(ids) {
        let sample = samples.sample(*id).ok_or(BatchError::NoSample(*id))?;
        if sample.len() != seq_len + 1 {
            return Err(BatchError::NoSample(*id));
        }
        let given = sample.iter().zip(sample.iter().skip(1));
        for ((input, target), (token, next)) in inputs.iter_mut().zip(targets).zip(given) {
            for token in [token, next] {
                if token as usize >= config.vocab {
                    let (sample, vocab) = (*id, config.vocab);
                    return Err(BatchError::Token { sample, token, vocab });
                }
            }
            (*input, *target) = (token, next);
        }
        mark_documents(inputs, end_of_document, starts);
    }
    Ok(ids.len() * seq_len)
}

/// Writes where the document of each token of one sample starts.
fn mark_documents(inputs: &[u32], end_of_document: Option<u32>, starts: &mut [u32]) {
    let mut first = 0;
    for (position, (input, start)) in (1u32..).zip(inputs.iter().zip(starts)) {
        *start = first;
        if Some(*input) == end_of_document {
            first = position;
        }
    }
}
