//! Log-likelihoods of requests under a model, in batches of similar length.
//!
//! Requests that read the same tokens are computed once: the letters of a multiple-choice question
//! cost one pass and not four. An engine has one sample length; the requests are taken from the
//! longest to the shortest with a new engine whenever an eighth of its length would be padding.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::compute::threads::Threads;
use crate::engine::device::{Device, DeviceError, Predictor};
use crate::engine::BatchError;
use crate::model::config::{ConfigError, ModelConfig};
use crate::model::Model;
use dataset::{SampleSource, Tokens};

use super::cache::{Cache, Key};
use super::request::{Score, ScoreRequest};

/// Lengths of engines are multiples of this.
const LENGTH_STEP: usize = 16;

/// Why requests were not scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The model cannot be run at this length.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device cannot do it.
    #[error(transparent)]
    Device(DeviceError),
    /// The engine refused a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A continuation is longer than the model can read.
    #[error("an ending of {tokens} tokens; the model reads {max}")]
    TooLong {
        /// Tokens of the continuation.
        tokens: usize,
        /// Tokens that the model reads at most.
        max: usize,
    },
    /// There is no memory for an engine that reads so many tokens.
    #[error(
        "a request reads {tokens} tokens at once, and the memory is enough for {max}; \
         --max-length {max} cuts it"
    )]
    Memory {
        /// Tokens that the model would read.
        tokens: usize,
        /// Tokens for which there is memory.
        max: usize,
    },
    /// The cache could not be written.
    #[error("cannot write the cache: {0}")]
    Cache(std::io::Error),
    /// The caller ended it; what was computed is in the cache.
    #[error("interrupted")]
    Interrupted,
}

impl From<DeviceError> for ScoreError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Config(error) => error.into(),
            other => Self::Device(other),
        }
    }
}

/// How far the scoring is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Requests scored.
    pub done: usize,
    /// Requests in all.
    pub total: usize,
    /// Tokens that the model has read, without padding.
    pub tokens: u64,
}

/// Called after each batch; may end the scoring.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Scores requests with one model.
pub struct Scorer<'a> {
    model: &'a Model,
    device: &'a dyn Device,
    length_max: usize,
    length_that_fits: usize,
    batch_tokens: usize,
}

/// The scores of some requests.
#[derive(Clone, PartialEq, Debug)]
pub struct Scores {
    /// One for each request.
    pub scores: Vec<Score>,
    /// Whether a request was too long and lost tokens at its start.
    pub truncated: Vec<bool>,
    /// Tokens that the model has read, without padding.
    pub tokens: u64,
}

/// Tokens to read and what is asked about them.
struct Pass {
    /// What the model reads.
    inputs: Vec<u32>,
    /// For each request: its index and its continuation.
    asked: Vec<(usize, Vec<u32>)>,
}

impl<'a> Scorer<'a> {
    /// Requests longer than `length_max` tokens lose tokens at their start; a batch has about
    /// `batch_tokens` tokens.
    pub fn new(
        model: &'a Model,
        device: &'a dyn Device,
        length_max: usize,
        batch_tokens: usize,
    ) -> Self {
        Self {
            model,
            device,
            length_max: length_max.max(1),
            length_that_fits: usize::MAX,
            batch_tokens: batch_tokens.max(1),
        }
    }

    /// With memory for requests of so many tokens: longer ones are an error, before any is computed.
    #[must_use]
    pub fn with_length_that_fits(mut self, length_that_fits: usize) -> Self {
        self.length_that_fits = length_that_fits;
        self
    }

    /// The scores of all requests, in their order.
    ///
    /// # Errors
    /// An ending or a request is too long, a token unknown to the model, or `progress` said to end.
    pub fn score(
        &self,
        requests: &[ScoreRequest],
        mut cache: Option<&mut Cache>,
        progress: OnProgress<'_>,
    ) -> Result<Scores, ScoreError> {
        let (passes, truncated) = self.passes(requests)?;
        let mut scores: Vec<Option<Score>> = vec![None; requests.len()];
        let mut state = Progress { done: 0, total: requests.len(), tokens: 0 };
        let waiting = match cache.as_deref() {
            None => passes,
            Some(cache) => known(cache, passes, &mut scores),
        };
        state.done = scores.iter().flatten().count();
        if progress(state).is_break() {
            return Err(ScoreError::Interrupted);
        }

        let tokens = waiting.first().map_or(0, |pass| pass.inputs.len());
        if tokens > self.length_that_fits {
            let max = self.length_that_fits;
            return Err(ScoreError::Memory { tokens, max });
        }
        let mut rest = waiting.as_slice();
        let mut ready: Option<Rung> = None;
        while let Some(first) = rest.first() {
            let longest = first.inputs.len();
            let mut rung = match ready.take() {
                Some(rung) if longest * 8 >= rung.length * 7 => rung,
                // The old engine's memory is free before the new one's is taken.
                _ => self.rung(longest, rest.len())?,
            };
            let (batch, after) = rest.split_at(rung.rows.min(rest.len()));
            rest = after;
            for (index, score) in rung.compute(self.model, self.device.threads(), batch)? {
                scores[index] = Some(score);
            }
            if let Some(cache) = cache.as_deref_mut() {
                remember(cache, batch, &scores).map_err(ScoreError::Cache)?;
            }
            state.done += batch.iter().map(|pass| pass.asked.len()).sum::<usize>();
            state.tokens += batch.iter().map(|pass| pass.inputs.len() as u64).sum::<u64>();
            ready = Some(rung);
            if progress(state).is_break() {
                return Err(ScoreError::Interrupted);
            }
        }
        // Every request belongs to a pass, and every pass was computed or known.
        Ok(Scores {
            scores: scores.into_iter().flatten().collect(),
            truncated,
            tokens: state.tokens,
        })
    }

    /// The different inputs from the longest to the shortest, and which requests were cut.
    fn passes(&self, requests: &[ScoreRequest]) -> Result<(Vec<Pass>, Vec<bool>), ScoreError> {
        let mut by_input: BTreeMap<Vec<u32>, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        let mut truncated = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            let tokens = request.continuation.len();
            if tokens > self.length_max {
                let max = self.length_max;
                return Err(ScoreError::TooLong { tokens, max });
            }
            let whole = [request.context.as_slice(), &request.continuation].concat();
            let cut = whole.len().saturating_sub(self.length_max + 1);
            truncated.push(cut > 0);
            let inputs = whole[cut..whole.len() - 1].to_vec();
            let asked = by_input.entry(inputs).or_default();
            asked.push((index, request.continuation.clone()));
        }
        let mut passes: Vec<Pass> =
            by_input.into_iter().map(|(inputs, asked)| Pass { inputs, asked }).collect();
        passes.sort_by_key(|pass| std::cmp::Reverse(pass.inputs.len()));
        Ok((passes, truncated))
    }

    /// An engine for inputs of up to `longest` tokens, of which `waiting` are to be computed.
    fn rung(&self, longest: usize, waiting: usize) -> Result<Rung, DeviceError> {
        let (rows, length) = rung_shape(longest, self.batch_tokens);
        let rows = rows.min(waiting.max(1));
        let config = ModelConfig { seq_len: length, ..self.model.config().clone() };
        Ok(Rung { length, rows, predictor: self.device.predictor(&config, rows, false)? })
    }
}

/// Samples at once, at most, and their length, when the longest input has so many tokens: what an
/// engine of a [`Scorer`] is made for.
pub fn rung_shape(longest: usize, batch_tokens: usize) -> (usize, usize) {
    let length = longest.max(1).next_multiple_of(LENGTH_STEP);
    ((batch_tokens / length).max(1), length)
}

/// Takes from the cache what it has; the passes that are left have requests that it has not.
fn known(cache: &Cache, passes: Vec<Pass>, scores: &mut [Option<Score>]) -> Vec<Pass> {
    let mut waiting = Vec::with_capacity(passes.len());
    for mut pass in passes {
        let inputs = &pass.inputs;
        pass.asked.retain(|(index, continuation)| {
            scores[*index] = cache.get(&Key::new(inputs, continuation));
            scores[*index].is_none()
        });
        if !pass.asked.is_empty() {
            waiting.push(pass);
        }
    }
    waiting
}

fn remember(cache: &mut Cache, batch: &[Pass], scores: &[Option<Score>]) -> std::io::Result<()> {
    for pass in batch {
        for (index, continuation) in &pass.asked {
            if let Some(score) = scores[*index] {
                cache.put(Key::new(&pass.inputs, continuation), score)?;
            }
        }
    }
    cache.flush()
}

/// An engine of one length.
struct Rung {
    length: usize,
    rows: usize,
    predictor: Box<dyn Predictor>,
}

impl Rung {
    fn compute(
        &mut self,
        model: &Model,
        threads: &Threads,
        batch: &[Pass],
    ) -> Result<Vec<(usize, Score)>, BatchError> {
        let samples = Padded::new(batch, self.length);
        let ids: Vec<u64> = (0..batch.len() as u64).collect();
        let vocab = model.config().vocab;
        check_tokens(batch, vocab)?;
        let logits = self.predictor.logits(&mut &*model, &samples, &ids)?;
        let asked: Vec<(usize, usize, &[u32])> = batch
            .iter()
            .enumerate()
            .flat_map(|(row, pass)| {
                // The last input predicts the last token of the continuation.
                let end = row * self.length + pass.inputs.len();
                let asked = pass.asked.iter();
                asked.map(move |(index, tokens)| (*index, end - tokens.len(), tokens.as_slice()))
            })
            .collect();
        Ok(threads.map(asked.len(), |which| {
            let (index, first, tokens) = asked[which];
            let rows = logits[first * vocab..].chunks_exact(vocab);
            (index, score(rows, tokens))
        }))
    }
}

/// The engine checks what it reads, which leaves the last token of each continuation.
fn check_tokens(batch: &[Pass], vocab: usize) -> Result<(), BatchError> {
    let asked = batch.iter().zip(0u64..).flat_map(|(pass, sample)| {
        let asked = pass.asked.iter();
        asked.map(move |(_, tokens)| (sample, tokens))
    });
    for (sample, tokens) in asked {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(BatchError::Token { sample, token, vocab });
        }
    }
    Ok(())
}

/// The score of `tokens`, each under the logits of its row.
fn score<'a>(rows: impl Iterator<Item = &'a [f32]>, tokens: &[u32]) -> Score {
    let mut sum = Score { log_likelihood: 0.0, greedy: true };
    for (logits, &token) in rows.zip(tokens) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials = logits.iter().map(|logit| f64::from((logit - largest).exp()));
        let log_sum = exponentials.sum::<f64>().ln();
        let chosen = logits[token as usize];
        sum.log_likelihood += f64::from(chosen - largest) - log_sum;
        sum.greedy &= chosen == largest;
    }
    sum
}

/// A batch as the engine reads it: (passes, length + 1), zeros after the inputs. Attention is
/// causal, so that nothing before sees them.
struct Padded {
    length: usize,
    tokens: Vec<u32>,
}

impl Padded {
    fn new(batch: &[Pass], length: usize) -> Self {
        let mut tokens = vec![0; batch.len() * (length + 1)];
        for (row, pass) in tokens.chunks_exact_mut(length + 1).zip(batch) {
            row[..pass.inputs.len()].copy_from_slice(&pass.inputs);
        }
        Self { length, tokens }
    }
}

impl SampleSource for Padded {
    fn sample_len(&self) -> usize {
        self.length
    }

    fn sample_count(&self) -> u64 {
        (self.tokens.len() / (self.length + 1)) as u64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let mut rows = self.tokens.chunks_exact(self.length + 1);
        rows.nth(usize::try_from(id).ok()?).map(Tokens::U32)
    }
}
