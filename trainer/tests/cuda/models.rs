//! The models, samples and settings of these tests.

use dataset::{SampleSource, Tokens};
use trainer::cuda::device::Cuda;
use trainer::learner::{Kept, Learner, LearnerSettings};
use trainer::{AdamWSettings, Model, ModelConfig, MuonSettings, Precision};

use crate::samples::MemorySamples;

/// Two layers on `hidden` values with `heads` heads.
pub(crate) fn config(
    (hidden, heads, kv_heads): (usize, usize, usize),
    seq_len: usize,
    tied: bool,
) -> ModelConfig {
    ModelConfig {
        vocab: 256,
        hidden,
        layers: 2,
        heads,
        kv_heads,
        ffn: hidden + hidden / 2,
        seq_len,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-5,
        tied,
    }
}

/// The smallest that has everything: grouped heads, ragged blocks of attention, matrices with and without a gap between.
pub(crate) fn small() -> ModelConfig {
    config((64, 2, 1), 40, true)
}

/// A model whose norms are not 1 and whose scores are not all alike: initial matrices, half as large again. A common
/// part of all keys and values would be ill-conditioned: attention's gradient is a difference in which it cancels.
pub(crate) fn model(config: &ModelConfig) -> Model {
    let mut model = Model::init(config, 11).unwrap();
    let norms: Vec<_> = model.arena().tensors.iter().map(|placed| placed.clone()).collect();
    for placed in norms {
        let matrix = placed.info.shape.len() > 1;
        for (index, value) in model.parameters_mut()[placed.range].iter_mut().enumerate() {
            *value *= if matrix { 1.5 } else { 1.0 + 0.2 * (index as f32 * 0.37).sin() };
        }
    }
    model
}

pub(crate) fn samples(config: &ModelConfig) -> MemorySamples {
    MemorySamples::words(config.seq_len, 64, 5)
}

/// Samples whose documents end with a token.
pub(crate) struct Documents {
    pub(crate) samples: MemorySamples,
    pub(crate) end: u32,
}

impl SampleSource for Documents {
    fn sample_len(&self) -> usize {
        self.samples.sample_len()
    }

    fn sample_count(&self) -> u64 {
        self.samples.sample_count()
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        self.samples.sample(id)
    }

    fn end_of_document(&self) -> Option<u32> {
        Some(self.end)
    }
}

pub(crate) fn learner_settings(micro_batch: usize, muon: bool) -> LearnerSettings {
    LearnerSettings {
        micro_batch,
        adamw: AdamWSettings::default(),
        muon: muon.then(MuonSettings::default),
        precision: Precision::Bf16,
    }
}

/// Steps of eight samples each: how the learning went, and what it left.
pub(crate) fn learn(
    device: &Cuda,
    config: &ModelConfig,
    settings: &LearnerSettings,
    steps: u64,
) -> Trained {
    let mut learner = device.cuda_learner(config, settings).unwrap();
    learner.load(&mut &model(config)).unwrap();
    let (source, mut losses) = (samples(config), Vec::new());
    for step in 0..steps {
        // Six: neither all ranks nor all rounds have the same work.
        let ids: Vec<u64> = (0..6).map(|sample| (step * 11 + sample * 5) % 64).collect();
        let gradient = learner.gradient(&source, &ids).unwrap();
        losses.push((gradient.loss.to_bits(), gradient.norm.to_bits()));
        learner.step(2e-3, gradient.clip_factor(1.0)).unwrap();
    }
    let kept = [Kept::Parameters, Kept::Mean, Kept::Square];
    Trained { losses, kept: kept.map(|kept| bits(&mut learner, kept, config)) }
}

/// What a training leaves, in bits.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Trained {
    /// Loss and gradient norm of each step.
    pub(crate) losses: Vec<(u32, u64)>,
    /// Parameters and averages.
    pub(crate) kept: [Vec<u32>; 3],
}

impl Trained {
    /// That nothing differs from `other`; says what does, but not all of it.
    pub(crate) fn assert_same(&self, other: &Self, what: &str) {
        assert_eq!(self.losses, other.losses, "{what}: losses and norms");
        for (name, (a, b)) in
            ["parameters", "means", "squares"].iter().zip(self.kept.iter().zip(&other.kept))
        {
            let different = a.iter().zip(b).filter(|(a, b)| a != b).count();
            assert_eq!(different, 0, "{what}: of {} {name}", a.len());
            assert_eq!(a.len(), b.len(), "{what}: {name}");
        }
    }
}

fn bits(learner: &mut dyn Learner, kept: Kept, config: &ModelConfig) -> Vec<u32> {
    let tensors = 0..config.arena().tensors.len();
    let all = tensors.flat_map(|tensor| {
        let values = learner.tensor(kept, tensor).unwrap().iter();
        values.map(|value| value.to_bits()).collect::<Vec<_>>()
    });
    all.collect()
}

/// The norm of the difference over the norm of the second.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b)))
}
