//! The CPU engine: loss and gradient of a LLaMA model, forward and backward written out by hand.
//!
//! All buffers are allocated when the engine is made ([`Plan`]); a step allocates nothing but what
//! gemm packs matrices into. The backward pass keeps the residual stream, q|k|v, attention's
//! output and gate|up, and computes norms, probabilities and SwiGLU's output again, which is
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
//! Every function that a CUDA engine would replace takes flat slices in the order of
//! [`Arena`], so that both can be run on the same parameters and compared.
//!
//! Shapes: T tokens = samples · seq_len, D hidden, Q qkv_dim, F ffn, V vocab. Matrices are
//! row-major; a weight is (outputs, inputs), so that y = x · Wᵀ.

use std::time::{Duration, Instant};

use crate::config::{Arena, ConfigError, ModelConfig};
use crate::data::SampleSource;
use crate::ops;
use crate::plan::{Plan, Precision, ATTENTION_ROWS, NORM_ROWS};
use crate::threads::{Shared, Threads};

/// Rows that one task of an elementwise operation takes.
const ROWS: usize = 64;

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
    buffers: Buffers,
    times: Times,
    /// What [`Engine::logits`] returns, allocated when it is first called: no part of the plan.
    all_logits: Vec<f32>,
}

/// The regions of [`Plan`], in its order.
struct Buffers {
    /// (seq_len, head_dim / 2) each.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// (T) each.
    inputs: Vec<u32>,
    targets: Vec<u32>,
    /// (T): where in its sample a token's document starts.
    starts: Vec<u32>,
    /// The parameters rounded to bf16; empty in f32.
    rounded: Vec<f32>,
    /// (T, D) each: before attention and before SwiGLU of each layer, and after the last.
    residual: Vec<Vec<f32>>,
    /// (T) each, in the order of use.
    inverse: Vec<Vec<f32>>,
    /// (T, D).
    normed: Vec<f32>,
    /// (T, Q) for each layer kept.
    qkv: Vec<Vec<f32>>,
    /// (samples, heads, seq_len) for each layer kept.
    log_sums: Vec<Vec<f32>>,
    /// (T, D) for each layer kept.
    attended: Vec<Vec<f32>>,
    /// (T, 2 F) for each layer kept.
    gate_up: Vec<Vec<f32>>,
    /// (T, F).
    swiglu: Vec<f32>,
    /// (threads, 1 or 2, rows, seq_len).
    scores: Vec<f32>,
    /// (logit rows, V).
    logits: Vec<f32>,
    /// (T).
    losses: Vec<f32>,
    /// (T, D).
    d_residual: Vec<f32>,
    /// (T, D).
    d_normed: Vec<f32>,
    /// (T, Q).
    d_qkv: Vec<f32>,
    /// (T, 2 F).
    d_gate_up: Vec<f32>,
    /// (T, F).
    d_swiglu: Vec<f32>,
    /// (blocks of rows, D).
    d_norm_parts: Vec<f32>,
}

impl Buffers {
    fn new(config: &ModelConfig, plan: &Plan) -> Self {
        let tokens = plan.tokens;
        let zeros = |values: usize| vec![0.0f32; values];
        let each = |count: usize, values: usize| (0..count).map(|_| vec![0.0f32; values]).collect();
        let region = |name: &str| {
            plan.regions
                .iter()
                .find(|region| region.name == name)
                .map_or(0, |region| region.values)
        };
        let (cos, sin) = rotary_tables(config);
        let kept = plan.layers_kept;
        Self {
            cos,
            sin,
            inputs: vec![0; tokens],
            targets: vec![0; tokens],
            starts: vec![0; tokens],
            rounded: zeros(region("parameters in bf16")),
            residual: each(plan.residuals_kept, tokens * config.hidden),
            inverse: each(2 * kept + 1, tokens),
            normed: zeros(region("normed")),
            qkv: each(kept, tokens * config.qkv_dim()),
            log_sums: each(kept, region("attention's logarithms") / kept),
            attended: each(kept, tokens * config.hidden),
            gate_up: each(kept, tokens * 2 * config.ffn),
            swiglu: zeros(region("SwiGLU's output")),
            scores: zeros(region("scores")),
            logits: zeros(region("logits")),
            losses: zeros(region("losses")),
            d_residual: zeros(region("gradient of the residual stream")),
            d_normed: zeros(region("gradient of a norm's output")),
            d_qkv: zeros(region("gradient of q|k|v")),
            d_gate_up: zeros(region("gradient of gate|up")),
            d_swiglu: zeros(region("gradient of SwiGLU's output")),
            d_norm_parts: zeros(region("partial gradients of a norm")),
        }
    }

    fn bytes(&self) -> u64 {
        let lists = [
            &self.residual,
            &self.inverse,
            &self.qkv,
            &self.log_sums,
            &self.attended,
            &self.gate_up,
        ];
        let singles = [
            &self.cos,
            &self.sin,
            &self.rounded,
            &self.normed,
            &self.swiglu,
            &self.scores,
            &self.logits,
            &self.losses,
            &self.d_residual,
            &self.d_normed,
            &self.d_qkv,
            &self.d_gate_up,
            &self.d_swiglu,
            &self.d_norm_parts,
        ];
        let values = lists.into_iter().flatten().map(Vec::len).sum::<usize>()
            + singles.into_iter().map(Vec::len).sum::<usize>()
            + self.inputs.len()
            + self.targets.len()
            + self.starts.len();
        values as u64 * 4
    }
}

/// cos and sin of position · frequency: (seq_len, head_dim / 2).
fn rotary_tables(config: &ModelConfig) -> (Vec<f32>, Vec<f32>) {
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
        threads: Threads,
    ) -> Result<Self, ConfigError> {
        Self::with_precision(config, samples, training, threads, Precision::F32)
    }

    /// [`Engine::new`] with the precision that parameters have in forward and backward pass.
    pub fn with_precision(
        config: &ModelConfig,
        samples: usize,
        training: bool,
        threads: Threads,
        precision: Precision,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        if samples == 0 {
            return Err(ConfigError::Dimension {
                name: "samples at once",
                value: samples,
            });
        }
        let plan = Plan::with_precision(config, samples, threads.count(), training, precision);
        let buffers = Buffers::new(config, &plan);
        debug_assert_eq!(buffers.bytes(), plan.bytes());
        Ok(Self {
            config: config.clone(),
            arena: config.arena(),
            plan,
            threads,
            buffers,
            times: Times::default(),
            all_logits: Vec::new(),
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
        self.buffers.bytes()
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
        let threads = self.threads.clone();
        Ok(threads.install(|| {
            self.with_rounded(parameters, |engine, parameters| {
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
            })
        }))
    }

    /// Calls `f` with the parameters in the engine's precision.
    fn with_rounded<R>(&mut self, parameters: &[f32], f: impl FnOnce(&mut Self, &[f32]) -> R) -> R {
        if self.plan.precision == Precision::F32 {
            return f(self, parameters);
        }
        let mut rounded = std::mem::take(&mut self.buffers.rounded);
        let part = Shared::new(&mut rounded);
        self.threads
            .blocks(parameters.len(), ROUNDED, |first, end| {
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
        let threads = self.threads.clone();
        Ok(threads.install(|| {
            self.with_rounded(parameters, |engine, parameters| {
                let start = Instant::now();
                engine.forward(parameters, tokens);
                let middle = Instant::now();
                let head = Some((&mut *gradient, accumulate));
                let loss = engine.cross_entropy(parameters, head, tokens, scale);
                let end = Instant::now();
                engine.backward(parameters, gradient, tokens, accumulate);
                engine.times = Times {
                    forward: middle - start,
                    output: end - middle,
                    backward: end.elapsed(),
                };
                loss
            })
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
        let threads = self.threads.clone();
        threads.install(|| {
            self.with_rounded(parameters, |engine, parameters| {
                engine.forward(parameters, tokens);
                let (vocab, hidden) = (engine.config.vocab, engine.config.hidden);
                engine.all_logits.resize(engine.plan.tokens * vocab, 0.0);
                multiply_transposed(
                    &engine.threads,
                    &mut engine.all_logits,
                    &engine.buffers.normed,
                    &parameters[engine.arena.head.clone()],
                    tokens,
                    vocab,
                    hidden,
                    false,
                );
            });
        });
        Ok(&self.all_logits[..tokens * self.config.vocab])
    }

    fn check(&self, values: &[f32]) -> Result<(), BatchError> {
        match values.len() == self.arena.len {
            true => Ok(()),
            false => Err(BatchError::Parameters {
                given: values.len(),
                expected: self.arena.len,
            }),
        }
    }

    /// Copies the samples' tokens in; returns how many there are.
    fn load(&mut self, samples: &dyn SampleSource, ids: &[u64]) -> Result<usize, BatchError> {
        let seq_len = self.config.seq_len;
        if ids.is_empty() || ids.len() > self.plan.samples {
            return Err(BatchError::Samples {
                given: ids.len(),
                max: self.plan.samples,
            });
        }
        if samples.sample_len() != seq_len {
            let source_len = samples.sample_len();
            return Err(BatchError::SampleLen {
                source_len,
                model: seq_len,
            });
        }
        let inputs = self.buffers.inputs.chunks_exact_mut(seq_len);
        let targets = self.buffers.targets.chunks_exact_mut(seq_len);
        let starts = self.buffers.starts.chunks_exact_mut(seq_len);
        let end_of_document = samples.end_of_document();
        for (((inputs, targets), starts), id) in inputs.zip(targets).zip(starts).zip(ids) {
            let sample = samples.sample(*id).ok_or(BatchError::NoSample(*id))?;
            if sample.len() != seq_len + 1 {
                return Err(BatchError::NoSample(*id));
            }
            let given = sample.iter().zip(sample.iter().skip(1));
            for ((input, target), (token, next)) in inputs.iter_mut().zip(targets).zip(given) {
                for token in [token, next] {
                    if token as usize >= self.config.vocab {
                        let (sample, vocab) = (*id, self.config.vocab);
                        return Err(BatchError::Token {
                            sample,
                            token,
                            vocab,
                        });
                    }
                }
                (*input, *target) = (token, next);
            }
            mark_documents(inputs, end_of_document, starts);
        }
        Ok(ids.len() * seq_len)
    }

    /// From the loaded tokens to the logits.
    fn forward(&mut self, parameters: &[f32], tokens: usize) {
        let (config, arena) = (&self.config, &self.arena);
        let (hidden, ffn, qkv_dim) = (config.hidden, config.ffn, config.qkv_dim());
        let threads = &self.threads;
        let buffers = &mut self.buffers;
        let residuals = buffers.residual.len();
        let kept = buffers.qkv.len();

        let embedding = &parameters[arena.embedding.clone()];
        for (row, token) in buffers.residual[0]
            .chunks_exact_mut(hidden)
            .zip(&buffers.inputs[..tokens])
        {
            row.copy_from_slice(&embedding[*token as usize * hidden..][..hidden]);
        }

        for (layer, places) in arena.layers.iter().enumerate() {
            let slot = layer % kept;

            // Attention: x ← x + attend(norm(x) · Wqkvᵀ) · Woᵀ
            let (x, x_mid) = pair(&mut buffers.residual, 2 * layer % residuals, residuals);
            norm_rows(
                threads,
                &x[..tokens * hidden],
                &parameters[places.attention_norm.clone()],
                config.norm_epsilon,
                &mut buffers.normed,
                &mut buffers.inverse[2 * slot],
            );
            let qkv = &mut buffers.qkv[slot];
            let w_qkv = &parameters[places.qkv.clone()];
            multiply_transposed(
                threads,
                qkv,
                &buffers.normed,
                w_qkv,
                tokens,
                qkv_dim,
                hidden,
                false,
            );
            rotate(
                threads,
                config,
                qkv,
                tokens,
                &buffers.cos,
                &buffers.sin,
                1.0,
            );
            attend(
                threads,
                config,
                tokens / config.seq_len,
                qkv,
                &buffers.starts,
                &mut buffers.attended[slot],
                &mut buffers.log_sums[slot],
                &mut buffers.scores,
            );
            x_mid[..tokens * hidden].copy_from_slice(&x[..tokens * hidden]);
            let w_output = &parameters[places.output.clone()];
            let attended = &buffers.attended[slot];
            multiply_transposed(
                threads, x_mid, attended, w_output, tokens, hidden, hidden, true,
            );

            // SwiGLU: x ← x + swiglu(norm(x) · Wgate|upᵀ) · Wdownᵀ
            let (x_mid, x_out) = pair(
                &mut buffers.residual,
                (2 * layer + 1) % residuals,
                residuals,
            );
            norm_rows(
                threads,
                &x_mid[..tokens * hidden],
                &parameters[places.ffn_norm.clone()],
                config.norm_epsilon,
                &mut buffers.normed,
                &mut buffers.inverse[2 * slot + 1],
            );
            let gate_up = &mut buffers.gate_up[slot];
            let w_gate_up = &parameters[places.gate_up.clone()];
            multiply_transposed(
                threads,
                gate_up,
                &buffers.normed,
                w_gate_up,
                tokens,
                2 * ffn,
                hidden,
                false,
            );
            let swiglu = Shared::new(&mut buffers.swiglu);
            threads.blocks(tokens, ROWS, |first, end| {
                // SAFETY: blocks are disjoint.
                let h = unsafe { swiglu.part(first * ffn, end * ffn) };
                ops::swiglu(&gate_up[first * 2 * ffn..end * 2 * ffn], h, ffn);
            });
            x_out[..tokens * hidden].copy_from_slice(&x_mid[..tokens * hidden]);
            let w_down = &parameters[places.down.clone()];
            multiply_transposed(
                threads,
                x_out,
                &buffers.swiglu,
                w_down,
                tokens,
                hidden,
                ffn,
                true,
            );
        }

        let x = &buffers.residual[2 * config.layers % residuals];
        norm_rows(
            threads,
            &x[..tokens * hidden],
            &parameters[arena.final_norm.clone()],
            config.norm_epsilon,
            &mut buffers.normed,
            &mut buffers.inverse[2 * kept],
        );
    }

    /// The sum of the tokens' losses, from the last norm's output. With a gradient (and whether to
    /// add to it), also the output matrix's gradient and that of the norm's output, times `scale`.
    fn cross_entropy(
        &mut self,
        parameters: &[f32],
        gradient: Option<(&mut [f32], bool)>,
        tokens: usize,
        scale: f32,
    ) -> f64 {
        let (vocab, hidden) = (self.config.vocab, self.config.hidden);
        let head_range = self.arena.head.clone();
        let head = &parameters[head_range.clone()];
        let mut gradient = gradient.map(|(gradient, add)| (&mut gradient[head_range], add));
        let buffers = &mut self.buffers;
        let mut from = 0;
        while from < tokens {
            let rows = self.plan.logit_rows.min(tokens - from);
            let normed = &buffers.normed[from * hidden..(from + rows) * hidden];
            let logits = &mut buffers.logits;
            multiply_transposed(
                &self.threads,
                logits,
                normed,
                head,
                rows,
                vocab,
                hidden,
                false,
            );
            let shared = Shared::new(logits);
            let losses = Shared::new(&mut buffers.losses[from..from + rows]);
            let targets = &buffers.targets[from..from + rows];
            self.threads.blocks(rows, ROWS, |first, end| {
                // SAFETY: blocks are disjoint.
                let (logits, losses) = unsafe {
                    (
                        shared.part(first * vocab, end * vocab),
                        losses.part(first, end),
                    )
                };
                ops::cross_entropy(logits, &targets[first..end], vocab, scale, losses);
            });
            if let Some((d_head, add)) = &mut gradient {
                let add = *add || from > 0;
                multiply_rows(
                    &self.threads,
                    d_head,
                    logits,
                    normed,
                    vocab,
                    hidden,
                    rows,
                    add,
                );
                let d_normed = &mut buffers.d_normed[from * hidden..(from + rows) * hidden];
                multiply(&self.threads, d_normed, logits, head, rows, hidden, vocab);
            }
            from += rows;
        }
        buffers.losses[..tokens]
            .iter()
            .map(|loss| f64::from(*loss))
            .sum()
    }

    /// From the gradient of the last norm's output to that of every parameter.
    fn backward(
        &mut self,
        parameters: &[f32],
        gradient: &mut [f32],
        tokens: usize,
        accumulate: bool,
    ) {
        let (config, arena) = (&self.config, &self.arena);
        let (hidden, ffn, qkv_dim) = (config.hidden, config.ffn, config.qkv_dim());
        let threads = &self.threads;
        let buffers = &mut self.buffers;
        let kept = buffers.qkv.len();

        // The final norm; `d_normed` is the gradient of its output.
        let mut norm = NormBackward {
            threads,
            d_normed: &buffers.d_normed[..tokens * hidden],
            parts: &mut buffers.d_norm_parts,
        };
        norm.run(
            &buffers.residual[2 * config.layers],
            &parameters[arena.final_norm.clone()],
            &buffers.inverse[2 * kept],
            &mut buffers.d_residual,
            &mut gradient[arena.final_norm.clone()],
            false,
            accumulate,
        );

        for (layer, places) in arena.layers.iter().enumerate().rev() {
            // SwiGLU, from the gradient of its output, which is that of the residual stream.
            let x_mid = &buffers.residual[2 * layer + 1][..tokens * hidden];
            let w_down = &parameters[places.down.clone()];
            let d_swiglu = &mut buffers.d_swiglu;
            multiply(
                threads,
                d_swiglu,
                &buffers.d_residual,
                w_down,
                tokens,
                ffn,
                hidden,
            );
            {
                let gate_up = &buffers.gate_up[layer];
                let d_swiglu = &buffers.d_swiglu;
                let swiglu = Shared::new(&mut buffers.swiglu);
                let d_gate_up = Shared::new(&mut buffers.d_gate_up);
                threads.blocks(tokens, ROWS, |first, end| {
                    // SAFETY: blocks are disjoint.
                    let (h, d_gate_up) = unsafe {
                        (
                            swiglu.part(first * ffn, end * ffn),
                            d_gate_up.part(first * 2 * ffn, end * 2 * ffn),
                        )
                    };
                    let gate_up = &gate_up[first * 2 * ffn..end * 2 * ffn];
                    let dh = &d_swiglu[first * ffn..end * ffn];
                    ops::swiglu_backward(gate_up, dh, h, d_gate_up, ffn);
                });
            }
            let d_w_down = &mut gradient[places.down.clone()];
            let d_residual = &buffers.d_residual;
            multiply_rows(
                threads,
                d_w_down,
                d_residual,
                &buffers.swiglu,
                hidden,
                ffn,
                tokens,
                accumulate,
            );
            let w_norm = &parameters[places.ffn_norm.clone()];
            let inverse = &buffers.inverse[2 * layer + 1];
            norm_rows_again(threads, x_mid, w_norm, inverse, &mut buffers.normed);
            multiply_rows(
                threads,
                &mut gradient[places.gate_up.clone()],
                &buffers.d_gate_up,
                &buffers.normed,
                2 * ffn,
                hidden,
                tokens,
                accumulate,
            );
            let w_gate_up = &parameters[places.gate_up.clone()];
            let d_normed = &mut buffers.d_normed;
            multiply(
                threads,
                d_normed,
                &buffers.d_gate_up,
                w_gate_up,
                tokens,
                hidden,
                2 * ffn,
            );
            let mut norm = NormBackward {
                threads,
                d_normed: &buffers.d_normed[..tokens * hidden],
                parts: &mut buffers.d_norm_parts,
            };
            let d_w_norm = &mut gradient[places.ffn_norm.clone()];
            norm.run(
                x_mid,
                w_norm,
                inverse,
                &mut buffers.d_residual,
                d_w_norm,
                true,
                accumulate,
            );

            // Attention, likewise. `d_normed` serves as the gradient of its output first.
            let x = &buffers.residual[2 * layer][..tokens * hidden];
            let w_output = &parameters[places.output.clone()];
            let d_attended = &mut buffers.d_normed;
            multiply(
                threads,
                d_attended,
                &buffers.d_residual,
                w_output,
                tokens,
                hidden,
                hidden,
            );
            let attended = &buffers.attended[layer];
            multiply_rows(
                threads,
                &mut gradient[places.output.clone()],
                &buffers.d_residual,
                attended,
                hidden,
                hidden,
                tokens,
                accumulate,
            );
            attend_backward(
                threads,
                config,
                tokens / config.seq_len,
                &buffers.qkv[layer],
                &buffers.starts,
                attended,
                &buffers.d_normed,
                &buffers.log_sums[layer],
                &mut buffers.d_qkv,
                &mut buffers.scores,
            );
            let d_qkv = &mut buffers.d_qkv;
            rotate(
                threads,
                config,
                d_qkv,
                tokens,
                &buffers.cos,
                &buffers.sin,
                -1.0,
            );
            let w_norm = &parameters[places.attention_norm.clone()];
            let inverse = &buffers.inverse[2 * layer];
            norm_rows_again(threads, x, w_norm, inverse, &mut buffers.normed);
            multiply_rows(
                threads,
                &mut gradient[places.qkv.clone()],
                &buffers.d_qkv,
                &buffers.normed,
                qkv_dim,
                hidden,
                tokens,
                accumulate,
            );
            let w_qkv = &parameters[places.qkv.clone()];
            let d_normed = &mut buffers.d_normed;
            multiply(
                threads,
                d_normed,
                &buffers.d_qkv,
                w_qkv,
                tokens,
                hidden,
                qkv_dim,
            );
            let mut norm = NormBackward {
                threads,
                d_normed: &buffers.d_normed[..tokens * hidden],
                parts: &mut buffers.d_norm_parts,
            };
            let d_w_norm = &mut gradient[places.attention_norm.clone()];
            norm.run(
                x,
                w_norm,
                inverse,
                &mut buffers.d_residual,
                d_w_norm,
                true,
                accumulate,
            );
        }

        // Embedding: where it is tied, the output matrix's gradient is already there.
        let d_embedding = &mut gradient[arena.embedding.clone()];
        if !config.tied && !accumulate {
            d_embedding.fill(0.0);
        }
        let rows = buffers.d_residual.chunks_exact(hidden);
        for (row, token) in rows.zip(&buffers.inputs[..tokens]) {
            ops::add(&mut d_embedding[*token as usize * hidden..][..hidden], row);
        }
    }
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

/// Buffers `index` and the one after it, which may be the first again.
fn pair(buffers: &mut [Vec<f32>], index: usize, count: usize) -> (&[f32], &mut [f32]) {
    match index + 1 < count {
        true => {
            let (before, after) = buffers.split_at_mut(index + 1);
            (&before[index], &mut after[0])
        }
        false => {
            let (before, after) = buffers.split_at_mut(index);
            (&after[0], &mut before[0])
        }
    }
}

/// RMSNorm of all rows of `x` (rows, w.len()).
fn norm_rows(
    threads: &Threads,
    x: &[f32],
    w: &[f32],
    epsilon: f32,
    y: &mut [f32],
    inverse: &mut [f32],
) {
    let width = w.len();
    let (y, inverse) = (Shared::new(y), Shared::new(inverse));
    threads.blocks(x.len() / width, ROWS, |first, end| {
        // SAFETY: blocks are disjoint.
        let (y, inverse) =
            unsafe { (y.part(first * width, end * width), inverse.part(first, end)) };
        ops::rms_norm(&x[first * width..end * width], w, epsilon, y, inverse);
    });
}

/// The same from the inverses that are kept.
fn norm_rows_again(threads: &Threads, x: &[f32], w: &[f32], inverse: &[f32], y: &mut [f32]) {
    let width = w.len();
    let y = Shared::new(y);
    threads.blocks(x.len() / width, ROWS, |first, end| {
        // SAFETY: blocks are disjoint.
        let y = unsafe { y.part(first * width, end * width) };
        ops::rms_norm_again(&x[first * width..end * width], w, &inverse[first..end], y);
    });
}

/// RMSNorm backward over all rows; a norm's own gradient is summed over blocks of rows first and
/// then over the blocks in order, so that it does not depend on the number of threads.
struct NormBackward<'a> {
    threads: &'a Threads,
    d_normed: &'a [f32],
    parts: &'a mut [f32],
}

impl NormBackward<'_> {
    #[allow(
        clippy::too_many_arguments,
        reason = "buffers that a caller has laid out"
    )]
    fn run(
        &mut self,
        x: &[f32],
        w: &[f32],
        inverse: &[f32],
        dx: &mut [f32],
        dw: &mut [f32],
        add_dx: bool,
        add_dw: bool,
    ) {
        let width = w.len();
        let rows = self.d_normed.len() / width;
        let dy = self.d_normed;
        let (dx, parts) = (Shared::new(dx), Shared::new(self.parts));
        self.threads.blocks(rows, NORM_ROWS, |first, end| {
            let block = first / NORM_ROWS;
            let places = first * width..end * width;
            // SAFETY: blocks are disjoint.
            let (dx, dw) = unsafe {
                (
                    dx.part(places.start, places.end),
                    parts.part(block * width, (block + 1) * width),
                )
            };
            dw.fill(0.0);
            let (x, dy) = (&x[places.clone()], &dy[places]);
            ops::rms_norm_backward(x, w, &inverse[first..end], dy, dx, dw, add_dx);
        });
        if !add_dw {
            dw.fill(0.0);
        }
        for part in self
            .parts
            .chunks_exact(width)
            .take(rows.div_ceil(NORM_ROWS))
        {
            ops::add(dw, part);
        }
    }
}

/// Rotary positions on the queries and keys of all rows.
fn rotate(
    threads: &Threads,
    config: &ModelConfig,
    qkv: &mut [f32],
    tokens: usize,
    cos: &[f32],
    sin: &[f32],
    direction: f32,
) {
    let (width, heads) = (config.qkv_dim(), config.heads + config.kv_heads);
    let half = config.head_dim() / 2;
    let qkv = Shared::new(qkv);
    threads.blocks(tokens, ROWS, |first, end| {
        // SAFETY: blocks are disjoint.
        let rows = unsafe { qkv.part(first * width, end * width) };
        ops::rope(rows, width, heads, first, cos, sin, half, direction);
    });
}

/// One matrix inside a larger one, for gemm.
#[derive(Clone, Copy)]
struct View<T> {
    start: T,
    row_stride: usize,
    column_stride: usize,
}

impl<T> View<T> {
    fn new(start: T, row_stride: usize, column_stride: usize) -> Self {
        Self {
            start,
            row_stride,
            column_stride,
        }
    }
}

/// c (m, n) ← [c +] scale · a (m, k) · b (k, n).
///
/// # Safety
/// The views must lie inside live memory, and nobody else may touch what `c` covers.
#[allow(clippy::too_many_arguments, reason = "the shape of a product")]
unsafe fn product(
    parallelism: gemm::Parallelism,
    (m, n, k): (usize, usize, usize),
    c: View<*mut f32>,
    a: View<*const f32>,
    b: View<*const f32>,
    scale: f32,
    accumulate: bool,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.start,
            c.column_stride as isize,
            c.row_stride as isize,
            accumulate,
            a.start,
            a.column_stride as isize,
            a.row_stride as isize,
            b.start,
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// c (m, n) ← [c +] a (m, k) · bᵀ with b (n, k): the forward pass.
#[allow(clippy::too_many_arguments, reason = "the shape of a product")]
fn multiply_transposed(
    threads: &Threads,
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    assert!(c.len() >= m * n && a.len() >= m * k && b.len() == n * k);
    let (c, a) = (View::new(c.as_mut_ptr(), n, 1), View::new(a.as_ptr(), k, 1));
    let b = View::new(b.as_ptr(), 1, k);
    // SAFETY: the lengths have been checked.
    unsafe { product(threads.parallelism(), (m, n, k), c, a, b, 1.0, accumulate) }
}

/// c (m, n) ← a (m, k) · b (k, n): the gradient of a product's input.
fn multiply(threads: &Threads, c: &mut [f32], a: &[f32], b: &[f32], m: usize, n: usize, k: usize) {
    assert!(c.len() >= m * n && a.len() >= m * k && b.len() == n * k);
    let (c, a) = (View::new(c.as_mut_ptr(), n, 1), View::new(a.as_ptr(), k, 1));
    let b = View::new(b.as_ptr(), n, 1);
    // SAFETY: the lengths have been checked.
    unsafe { product(threads.parallelism(), (m, n, k), c, a, b, 1.0, false) }
}

/// c (m, n) ← [c +] aᵀ · b with a (k, m), b (k, n): the gradient of a product's matrix.
#[allow(clippy::too_many_arguments, reason = "the shape of a product")]
fn multiply_rows(
    threads: &Threads,
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    assert!(c.len() == m * n && a.len() >= k * m && b.len() >= k * n);
    let (c, a) = (View::new(c.as_mut_ptr(), n, 1), View::new(a.as_ptr(), 1, m));
    let b = View::new(b.as_ptr(), n, 1);
    // SAFETY: the lengths have been checked.
    unsafe { product(threads.parallelism(), (m, n, k), c, a, b, 1.0, accumulate) }
}

/// How the heads of a sample lie in q|k|v and in attention's output.
#[derive(Clone, Copy)]
struct Heads {
    seq_len: usize,
    head_dim: usize,
    qkv_dim: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    group: usize,
    rows: usize,
    scale: f32,
}

impl Heads {
    fn new(config: &ModelConfig) -> Self {
        Self {
            seq_len: config.seq_len,
            head_dim: config.head_dim(),
            qkv_dim: config.qkv_dim(),
            hidden: config.hidden,
            heads: config.heads,
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            rows: ATTENTION_ROWS.min(config.seq_len),
            scale: 1.0 / (config.head_dim() as f32).sqrt(),
        }
    }

    /// Where query `row` of `head` of `sample` starts in q|k|v.
    fn query(&self, sample: usize, head: usize, row: usize) -> usize {
        (sample * self.seq_len + row) * self.qkv_dim + head * self.head_dim
    }

    /// Where the keys of `kv_head` start.
    fn keys(&self, sample: usize, kv_head: usize) -> usize {
        self.query(sample, self.heads + kv_head, 0)
    }

    /// Where the values of `kv_head` start.
    fn values(&self, sample: usize, kv_head: usize) -> usize {
        self.query(sample, self.heads + self.kv_heads + kv_head, 0)
    }

    /// Where `row` of `head` of `sample` starts in attention's output.
    fn output(&self, sample: usize, head: usize, row: usize) -> usize {
        (sample * self.seq_len + row) * self.hidden + head * self.head_dim
    }

    /// The blocks of rows, from the last to the first: (first, end).
    fn blocks_from_last(&self) -> impl Iterator<Item = (usize, usize)> {
        let (rows, seq_len) = (self.rows, self.seq_len);
        (0..seq_len.div_ceil(rows)).rev().map(move |block| {
            let first = block * rows;
            (first, (first + rows).min(seq_len))
        })
    }
}

/// Calls `task(scratch, sample, kv_head)` for all pairs, each part of them with scratch of its own.
fn for_each_kv_head(
    threads: &Threads,
    heads: Heads,
    samples: usize,
    scratch: &mut [f32],
    task: impl Fn(&mut [f32], usize, usize) + Sync + Send,
) {
    let pairs = samples * heads.kv_heads;
    let parts = threads.count();
    let scratch_len = scratch.len() / parts;
    let scratch = Shared::new(scratch);
    threads.for_each(parts, |part| {
        // SAFETY: each part has its own.
        let scratch = unsafe { scratch.part(part * scratch_len, (part + 1) * scratch_len) };
        for pair in pairs * part / parts..pairs * (part + 1) / parts {
            task(scratch, pair / heads.kv_heads, pair % heads.kv_heads);
        }
    });
}

/// Causal attention within documents: (T, Q) → (T, D), with the logarithms of the softmax's sums for the backward
/// pass.
#[allow(
    clippy::too_many_arguments,
    reason = "buffers that a caller has laid out"
)]
fn attend(
    threads: &Threads,
    config: &ModelConfig,
    samples: usize,
    qkv: &[f32],
    starts: &[u32],
    attended: &mut [f32],
    log_sums: &mut [f32],
    scratch: &mut [f32],
) {
    let heads = Heads::new(config);
    let (seq_len, head_dim, qkv_dim) = (heads.seq_len, heads.head_dim, heads.qkv_dim);
    assert!(qkv.len() >= samples * seq_len * qkv_dim);
    let (attended, log_sums) = (Shared::new(attended), Shared::new(log_sums));
    for_each_kv_head(
        threads,
        heads,
        samples,
        scratch,
        |scratch, sample, kv_head| {
            let starts = &starts[sample * seq_len..(sample + 1) * seq_len];
            for head in kv_head * heads.group..(kv_head + 1) * heads.group {
                for (first, end) in heads.blocks_from_last() {
                    let queries = &qkv[heads.query(sample, head, first)..];
                    let rows = end - first;
                    // No row of the block sees a key before its first row's document.
                    let from = starts[first] as usize;
                    let width = end - from;
                    let keys = &qkv[heads.keys(sample, kv_head) + from * qkv_dim..];
                    let values = &qkv[heads.values(sample, kv_head) + from * qkv_dim..];
                    let scores = &mut scratch[..rows * width];
                    // SAFETY: all views lie inside their matrices; the scores are this task's own.
                    unsafe {
                        product(
                            gemm::Parallelism::None,
                            (rows, width, head_dim),
                            View::new(scores.as_mut_ptr(), width, 1),
                            View::new(queries.as_ptr(), qkv_dim, 1),
                            View::new(keys.as_ptr(), 1, qkv_dim),
                            heads.scale,
                            false,
                        );
                    }
                    let log_start = (sample * heads.heads + head) * seq_len;
                    // SAFETY: one task for each head of each sample.
                    let log_sums = unsafe { log_sums.part(log_start + first, log_start + end) };
                    ops::causal_softmax(scores, width, &starts[first..end], first, log_sums);
                    // SAFETY: as above; each head of each sample has its own columns and rows.
                    unsafe {
                        product(
                            gemm::Parallelism::None,
                            (rows, head_dim, width),
                            View::new(
                                attended.at(heads.output(sample, head, first)),
                                heads.hidden,
                                1,
                            ),
                            View::new(scores.as_ptr(), width, 1),
                            View::new(values.as_ptr(), qkv_dim, 1),
                            1.0,
                            false,
                        );
                    }
                }
            }
        },
    );
}

/// Attention backward: the gradient of q|k|v (after rotation) from that of attention's output.
///
/// Blocks run from the last to the first: the last one sees all keys of its documents, so the first
/// head of a group writes the gradient of keys and values there (and zeros before those documents)
/// and everything after it adds to it.
#[allow(
    clippy::too_many_arguments,
    reason = "buffers that a caller has laid out"
)]
fn attend_backward(
    threads: &Threads,
    config: &ModelConfig,
    samples: usize,
    qkv: &[f32],
    starts: &[u32],
    attended: &[f32],
    d_attended: &[f32],
    log_sums: &[f32],
    d_qkv: &mut [f32],
    scratch: &mut [f32],
) {
    let heads = Heads::new(config);
    let (seq_len, head_dim, qkv_dim) = (heads.seq_len, heads.head_dim, heads.qkv_dim);
    let hidden = heads.hidden;
    assert!(qkv.len() >= samples * seq_len * qkv_dim);
    assert!(d_attended.len() >= samples * seq_len * hidden);
    let d_qkv = Shared::new(d_qkv);
    for_each_kv_head(
        threads,
        heads,
        samples,
        scratch,
        |scratch, sample, kv_head| {
            let (p_scratch, dp_scratch) = scratch.split_at_mut(scratch.len() / 2);
            let starts = &starts[sample * seq_len..(sample + 1) * seq_len];
            let (key_start, value_start) =
                (heads.keys(sample, kv_head), heads.values(sample, kv_head));
            let mut accumulate = false;
            for head in kv_head * heads.group..(kv_head + 1) * heads.group {
                for (first, end) in heads.blocks_from_last() {
                    let rows = end - first;
                    let from = starts[first] as usize;
                    let width = end - from;
                    let skipped = from * qkv_dim;
                    let keys = View::new(qkv[key_start + skipped..].as_ptr(), qkv_dim, 1);
                    let values = View::new(qkv[value_start + skipped..].as_ptr(), 1, qkv_dim);
                    let d_keys = View::new(d_qkv.at(key_start + skipped), qkv_dim, 1);
                    let d_values = View::new(d_qkv.at(value_start + skipped), qkv_dim, 1);
                    if !accumulate {
                        for row in 0..from {
                            for start in [key_start, value_start] {
                                let start = start + row * qkv_dim;
                                // SAFETY: each pair of a sample and a key head has its own columns.
                                unsafe { d_qkv.part(start, start + head_dim) }.fill(0.0);
                            }
                        }
                    }
                    let (p, dp) = (
                        &mut p_scratch[..rows * width],
                        &mut dp_scratch[..rows * width],
                    );
                    let queries = &qkv[heads.query(sample, head, first)..];
                    let queries = View::new(queries.as_ptr(), qkv_dim, 1);
                    let output_start = heads.output(sample, head, first);
                    let d_output = View::new(d_attended[output_start..].as_ptr(), hidden, 1);
                    let run = |shape, c, a, b, scale, accumulate| {
                        // SAFETY: all views lie inside their matrices; each pair of a sample and a
                        // key head has its own columns and rows of `d_qkv`, and its own scratch.
                        unsafe {
                            product(gemm::Parallelism::None, shape, c, a, b, scale, accumulate);
                        }
                    };

                    // p = softmax(scale · q · kᵀ)
                    let keys_transposed = View::new(keys.start, 1, qkv_dim);
                    let shape = (rows, width, head_dim);
                    let p_out = View::new(p.as_mut_ptr(), width, 1);
                    run(shape, p_out, queries, keys_transposed, heads.scale, false);
                    let log_start = (sample * heads.heads + head) * seq_len;
                    let log_sums = &log_sums[log_start + first..log_start + end];
                    ops::causal_softmax_again(p, width, &starts[first..end], first, log_sums);

                    // dv += pᵀ · do;  dp = do · vᵀ
                    let p_transposed = View::new(p.as_ptr(), 1, width);
                    let shape = (width, head_dim, rows);
                    run(shape, d_values, p_transposed, d_output, 1.0, accumulate);
                    let shape = (rows, width, head_dim);
                    run(
                        shape,
                        View::new(dp.as_mut_ptr(), width, 1),
                        d_output,
                        values,
                        1.0,
                        false,
                    );

                    // ds = p · (dp − Σ p · dp) · scale, the sum being do · o
                    let mut dots = [0.0f32; ATTENTION_ROWS];
                    for (row, dot) in dots[..rows].iter_mut().enumerate() {
                        let start = output_start + row * hidden;
                        let columns = start..start + head_dim;
                        *dot = ops::dot(&attended[columns.clone()], &d_attended[columns]);
                    }
                    ops::softmax_backward(dp, p, width, &dots[..rows], heads.scale);

                    // dq = ds · k;  dk += dsᵀ · q
                    let ds = View::new(dp.as_ptr(), width, 1);
                    let d_queries =
                        View::new(d_qkv.at(heads.query(sample, head, first)), qkv_dim, 1);
                    run((rows, head_dim, width), d_queries, ds, keys, 1.0, false);
                    let ds_transposed = View::new(dp.as_ptr(), 1, width);
                    run(
                        (width, head_dim, rows),
                        d_keys,
                        ds_transposed,
                        queries,
                        1.0,
                        accumulate,
                    );
                    accumulate = true;
                }
            }
        },
    );
}
