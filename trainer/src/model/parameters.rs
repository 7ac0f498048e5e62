//! The parameters θ of a model: the same bytes on every replica of a run.
//!
//! This is all that an auditor needs: initial parameters from a seed, the outer step, the state
//! root. The arithmetic of the outer step is `protocol::aggregate`'s; here it is only spread over
//! threads, tensor by tensor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use protocol::aggregate::{self, OuterRule, TensorUpdate};
use protocol::layout::Layout;
use protocol::state_root::{StateManifest, TensorManifest};
use protocol::update::{Payload, UpdateError};
use protocol::{Hash, Uid};

use crate::compute::threads::Threads;
use crate::model::config::{Arena, ConfigError, ModelConfig, TensorInfo};
use crate::model::init;
use crate::model::outer_step::TensorStep;

/// Why bytes are not a model's parameters.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Not four bytes for each parameter.
    #[error("{given} bytes, not {expected}")]
    ByteLen {
        /// Bytes given.
        given: u64,
        /// Bytes of the model.
        expected: u64,
    },
    /// A parameter is NaN or infinite.
    #[error("a value of tensor {0} is NaN or infinite")]
    NotFinite(String),
}

/// What does not change about a model.
#[derive(Debug)]
struct Shape {
    config: ModelConfig,
    arena: Arena,
    tensors: Vec<TensorInfo>,
    layout: Layout,
}

/// Parameters and their shape. Cloning copies the parameters.
#[derive(Clone, Debug)]
pub struct Model {
    shape: Arc<Shape>,
    parameters: Vec<f32>,
    /// Differs between any two models whose parameters may differ; see [`Model::stamp`].
    stamp: u64,
}

/// A number not given out before in this process.
pub(crate) fn next_stamp() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Model {
    /// The initial parameters of a run, equal on every machine.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn init(config: &ModelConfig, seed: u64) -> Result<Self, ConfigError> {
        Self::init_on(&Threads::single(), config, seed)
    }

    /// [`Model::init`] on these threads: the same bytes with any number of them.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn init_on(
        threads: &Threads,
        config: &ModelConfig,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::with_parameters(config, init::parameters(config, seed, threads)))
    }

    /// Parameters that are all 0, to be overwritten: drawing initial ones takes seconds for a large
    /// model, and memory that is not written yet takes none.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub(crate) fn zeros(config: &ModelConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let parameters = vec![0.0; config.arena().len];
        Ok(Self::with_parameters(config, parameters))
    }

    /// A model of a valid configuration; `parameters` are finite and in the order of its arena.
    pub(crate) fn with_parameters(config: &ModelConfig, parameters: Vec<f32>) -> Self {
        let shape = Shape {
            config: config.clone(),
            arena: config.arena(),
            tensors: config.tensors(),
            layout: config.layout(),
        };
        Self { shape: Arc::new(shape), parameters, stamp: next_stamp() }
    }

    /// The same parameters for samples of another length, up to what positions the model was made
    /// for; nothing is copied.
    ///
    /// # Errors
    /// The length is 0 or above 2^24.
    pub fn with_seq_len(self, seq_len: usize) -> Result<Self, ConfigError> {
        let config = ModelConfig { seq_len, ..self.shape.config.clone() };
        config.validate()?;
        Ok(Self::with_parameters(&config, self.parameters))
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.shape.config
    }

    /// Where the tensors lie in [`Model::parameters`].
    pub fn arena(&self) -> &Arena {
        &self.shape.arena
    }

    /// The tensors' lengths in canonical order.
    pub fn layout(&self) -> &Layout {
        &self.shape.layout
    }

    /// Names and shapes in canonical order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.shape.tensors
    }

    /// Tensor `index` in canonical order; empty past the last, and where the parameters were let go.
    pub fn tensor(&self, index: usize) -> &[f32] {
        match self.shape.arena.canonical.get(index) {
            Some(&place) => {
                let range = self.shape.arena.tensors[place].range.clone();
                self.parameters.get(range).unwrap_or_default()
            }
            None => &[],
        }
    }

    /// The tensor of this name.
    pub fn tensor_named(&self, name: &str) -> Option<&[f32]> {
        let index = self.shape.tensors.iter().position(|tensor| tensor.name == name)?;
        Some(self.tensor(index))
    }

    /// All parameters, in the order of the arena.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// All parameters, to be changed.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        self.stamp = next_stamp();
        &mut self.parameters
    }

    /// Equal for a model and its unchanged copies, and for no others in this process: a cheap key
    /// for what has been computed from the parameters.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Gives back a stamp that the same parameters had before.
    pub(crate) fn set_stamp(&mut self, stamp: u64) {
        self.stamp = stamp;
    }

    /// Makes the parameters those of `other`, a model of the same shape, without allocating.
    pub fn copy_from(&mut self, other: &Model) -> Result<(), ModelError> {
        if self.shape.config != other.shape.config {
            return Err(ModelError::ByteLen {
                given: other.parameters.len() as u64 * 4,
                expected: self.parameters.len() as u64 * 4,
            });
        }
        self.parameters.copy_from_slice(&other.parameters);
        self.stamp = other.stamp;
        Ok(())
    }

    /// The hashes that the state root stands for: what a joiner checks each piece against.
    pub fn state_manifest(&self, threads: &Threads) -> StateManifest {
        let tensors = threads.map(self.shape.tensors.len(), |index| {
            TensorManifest::new(&self.shape.tensors[index].name, self.tensor(index))
        });
        StateManifest::new(tensors)
    }

    /// The state root: the hash of all parameters and their names.
    pub fn state_root(&self, threads: &Threads) -> Hash {
        self.state_manifest(threads).root()
    }

    /// The same shape without its parameters: what is left of a model that is shared no longer. All tensors are empty.
    pub(crate) fn emptied(&self) -> Self {
        Self { shape: self.shape.clone(), parameters: Vec::new(), stamp: next_stamp() }
    }

    /// Bytes of the parameters: 4 each.
    pub fn byte_len(&self) -> u64 {
        self.parameters.len() as u64 * 4
    }

    /// Writes a part of [`Model::to_bytes`], from byte `offset` on, to `into`; returns how many bytes there are, fewer
    /// than `into` has only at the end. Copies nothing else.
    pub fn read_bytes(&self, offset: u64, into: &mut [u8]) -> usize {
        let (mut start, mut written) = (0u64, 0);
        for index in 0..self.shape.tensors.len() {
            let tensor = self.tensor(index);
            let len = tensor.len() as u64 * 4;
            let wanted = offset + written as u64;
            if wanted < start + len && written < into.len() {
                let first = (wanted - start) as usize;
                let part = &mut into[written..];
                let count = part.len().min(len as usize - first);
                write_bytes(tensor, first, &mut part[..count]);
                written += count;
            }
            start += len;
        }
        written
    }

    /// The parameters as bytes: tensors in canonical order, `f32` little endian. A copy of all of them: what is served
    /// goes by [`Model::read_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.parameters.len() * 4);
        for index in 0..self.shape.tensors.len() {
            bytes.extend(self.tensor(index).iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    /// Reads [`Model::to_bytes`]. The state root must be checked by the caller, who knows it; that
    /// all values are finite is checked here.
    pub fn from_bytes(config: &ModelConfig, bytes: &[u8]) -> Result<Self, ModelError> {
        config.validate()?;
        let expected = config.parameter_count() * 4;
        if bytes.len() as u64 != expected {
            return Err(ModelError::ByteLen { given: bytes.len() as u64, expected });
        }
        let mut model = Self::with_parameters(config, vec![0.0; bytes.len() / 4]);
        let mut rest = bytes;
        let views = model.shape.arena.views_mut(&mut model.parameters);
        for (tensor, view) in model.shape.tensors.iter().zip(views) {
            let (part, after) = rest.split_at(view.len() * 4);
            rest = after;
            for (value, bytes) in view.iter_mut().zip(part.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            if !view.iter().all(|value| value.is_finite()) {
                return Err(ModelError::NotFinite(tensor.name.clone()));
            }
        }
        Ok(model)
    }

    /// The outer step: θ ← θ − rate · (the clipped mean of the accepted updates, as `rule` divides), bit
    /// for bit as `protocol::aggregate::outer_step` does it.
    ///
    /// `accepted` may be in any order. All payloads are read before anything changes; on an error
    /// the parameters are as before. Nothing accepted changes nothing.
    pub fn apply_outer(
        &mut self,
        threads: &Threads,
        accepted: &[(Uid, &[u8])],
        keep: u16,
        rule: OuterRule,
    ) -> Result<(), UpdateError> {
        self.apply_outer_by(threads, accepted, keep, rule, &mut |step| step.on_the_host())
    }

    /// [`Model::apply_outer`] where `take` takes the step of each tensor.
    pub fn apply_outer_by(
        &mut self,
        threads: &Threads,
        accepted: &[(Uid, &[u8])],
        keep: u16,
        rule: OuterRule,
        take: &mut dyn FnMut(TensorStep<'_>) -> Result<(), UpdateError>,
    ) -> Result<(), UpdateError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let shape = Arc::clone(&self.shape);
        let mut sorted: Vec<(Uid, &[u8])> = accepted.to_vec();
        sorted.sort_by_key(|(uid, _)| *uid);
        let payloads = threads
            .map(sorted.len(), |index| Payload::parse(sorted[index].1, &shape.layout, keep))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;

        let views = shape.arena.views_mut(self.parameters_mut());
        for (tensor, theta) in (0u32..).zip(views) {
            let updates = payloads
                .iter()
                .map(|payload| TensorUpdate::new(payload, &shape.layout, tensor))
                .collect::<Option<Vec<_>>>()
                .ok_or(UpdateError::Tensors)?;
            let chunks = shape.layout.tensor_chunks(tensor).ok_or(UpdateError::Tensors)?;
            let (payloads, updates, first_chunk) = (&payloads[..], &updates[..], chunks.0);
            // Every chunk has been read by `parse`, so that this cannot fail.
            take(TensorStep { theta, first_chunk, payloads, updates, rule, threads })?;
        }
        Ok(())
    }

    /// θ ← θ − rate · v for one update alone, as an evaluation does it: without clipping.
    pub fn apply_single(
        &mut self,
        payload: &[u8],
        keep: u16,
        rate: f32,
    ) -> Result<(), UpdateError> {
        let shape = Arc::clone(&self.shape);
        let payload = Payload::parse(payload, &shape.layout, keep)?;
        let mut views = shape.arena.views_mut(self.parameters_mut());
        aggregate::apply_single(&mut views, &shape.layout, &payload, rate)
    }
}

/// The bytes of `values` from byte `first` on.
fn write_bytes(values: &[f32], first: usize, mut into: &mut [u8]) {
    let (mut value, mut byte) = (first / 4, first % 4);
    // Whole values in the middle, at most three bytes of one at either end.
    while byte != 0 && !into.is_empty() {
        into[0] = values[value].to_le_bytes()[byte];
        into = &mut into[1..];
        byte = (byte + 1) % 4;
        value += usize::from(byte == 0);
    }
    let (whole, rest) = into.as_chunks_mut::<4>();
    for (bytes, value) in whole.iter_mut().zip(&values[value.min(values.len())..]) {
        *bytes = value.to_le_bytes();
    }
    if let Some(last) = values.get(value + whole.len()) {
        let bytes = last.to_le_bytes();
        rest.copy_from_slice(&bytes[..rest.len()]);
    }
}
