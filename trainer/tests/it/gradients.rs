//! The hand-written backward pass against candle's autograd: every tensor's gradient.
//! A missing gradient is a failure.

use dataset::{SampleSource, Tokens};
use trainer::autograd::Autograd;
use trainer::engine::BatchError;
use trainer::plan::{Precision, BAND_ROWS, LOGITS};
use trainer::{AdamWSettings, Compute, Engine, MatrixUnit, Model, ModelConfig, Optimiser, Threads};

use crate::samples::MemorySamples;

/// Relative L2 distance per tensor. Both sides compute in f32; sums over some hundred terms in
/// different orders differ by about 1e-6.
const TOLERANCE: f64 = 1e-5;

fn config(heads: usize, kv_heads: usize, seq_len: usize, tied: bool) -> ModelConfig {
    ModelConfig {
        vocab: 256,
        hidden: 48,
        layers: 2,
        heads,
        kv_heads,
        ffn: 80,
        seq_len,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-5,
        tied,
    }
}

/// A model whose norms are not 1 and whose scores are not all alike, so that nothing cancels.
fn model(config: &ModelConfig) -> Model {
    let mut model = Model::init(config, 11).unwrap();
    for (index, value) in model.parameters_mut().iter_mut().enumerate() {
        *value = *value * 1.5 + 0.02 * (index as f32 * 0.37).sin();
    }
    model
}

/// Compares loss and all gradients, on each matrix unit that this machine has; `micro` cuts the batch to test accumulation.
fn check(config: ModelConfig, micro: usize, threads: usize) {
    let samples = MemorySamples::words(config.seq_len, 16, 5);
    check_on(&samples, config, micro, threads);
}

fn check_on(samples: &dyn SampleSource, config: ModelConfig, micro: usize, threads: usize) {
    for unit in MatrixUnit::ALL {
        let threads = Threads::new(threads).unwrap();
        let compute = Compute::new(threads).with_unit(unit);
        check_with(samples, &config, micro, compute);
    }
}

fn check_with(samples: &dyn SampleSource, config: &ModelConfig, micro: usize, compute: Compute) {
    let ids = [3, 7, 0, 12];
    let model = model(config);
    let scale = 1.0 / (ids.len() * config.seq_len) as f32;

    let oracle = Autograd::new(&model).unwrap();
    let expected_loss = oracle.loss(samples, &ids).unwrap();
    let store = expected_loss.backward().unwrap();
    let expected_loss = f64::from(expected_loss.to_scalar::<f32>().unwrap());

    let mut engine = Engine::new(config, micro, true, compute).unwrap();
    assert_eq!(engine.allocated_bytes(), engine.plan().bytes());
    let mut gradient = vec![f32::NAN; model.parameters().len()];
    let mut loss = 0.0;
    for (index, ids) in ids.chunks(micro).enumerate() {
        loss += engine
            .loss_and_gradient(model.parameters(), &mut gradient, samples, ids, scale, index > 0)
            .unwrap();
    }
    assert!((loss / expected_loss - 1.0).abs() < 1e-5, "loss {loss}, expected {expected_loss}");

    let views = model.arena().views(&gradient);
    for (info, found) in model.tensors().iter().zip(views) {
        let expected = oracle.gradient(&store, &info.name).unwrap();
        let (mut distance, mut length) = (0.0f64, 0.0f64);
        for (found, expected) in found.iter().zip(&expected) {
            let expected = f64::from(*expected) * f64::from(scale);
            distance += (f64::from(*found) - expected).powi(2);
            length += expected.powi(2);
        }
        assert!(length > 0.0, "{} has no gradient", info.name);
        let relative = (distance / length).sqrt();
        println!("{:50} {relative:.2e}", info.name);
        assert!(relative < TOLERANCE, "{}: relative distance {relative:e}", info.name);
    }
}

#[test]
fn gradients_equal_autograd_when_tied() {
    check(config(4, 4, 32, true), 4, 1);
}

#[test]
fn gradients_equal_autograd_when_untied() {
    check(config(4, 4, 32, false), 4, 1);
}

#[test]
fn gradients_equal_autograd_with_grouped_heads() {
    check(config(6, 2, 32, true), 4, 2);
}

#[test]
fn gradients_equal_autograd_over_several_blocks_of_attention() {
    // 150 rows: two whole blocks of 64 and a part of one.
    check(config(4, 2, 150, false), 4, 2);
}

#[test]
fn gradients_add_up_over_micro_batches() {
    check(config(4, 2, 32, false), 2, 1);
    check(config(4, 2, 32, true), 1, 2);
}

/// Samples whose documents end with a token.
struct Documents {
    samples: MemorySamples,
    end: u32,
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

#[test]
fn gradients_equal_autograd_with_documents() {
    // Ends within blocks of attention and many to a sample: a space; and so few (a `v`) that whole
    // blocks of a sample are one document and others are skipped.
    for end in [b' ', b'v'] {
        let config = config(6, 2, 200, false);
        let samples =
            Documents { samples: MemorySamples::words(config.seq_len, 16, 5), end: u32::from(end) };
        check_on(&samples, config, 2, 2);
    }
}

#[test]
fn a_document_does_not_see_the_one_before() {
    let config = config(4, 2, 150, true);
    let model = model(&config);
    let mut engine = Engine::new(&config, 1, false, Threads::single()).unwrap();
    let mut losses = |first: u8, end: u32| {
        let mut tokens: Vec<u8> = (0..=150).map(|i| b'a' + i % 17).collect();
        tokens[..99].fill(first);
        tokens[99] = 0;
        let samples = One(tokens, end);
        let losses = engine.token_losses(model.parameters(), &samples, &[0]).unwrap();
        losses.to_vec()
    };
    // Token 99 ends the first document: from 100 on nothing depends on what stands before.
    let (a, b) = (losses(b'x', 0), losses(b'y', 0));
    assert_ne!(a[..100], b[..100]);
    assert_eq!(a[100..], b[100..]);
    // Without an end it does.
    let (a, b) = (losses(b'x', 255), losses(b'y', 255));
    assert_ne!(a[100..], b[100..]);
}

/// One sample and the token that ends a document.
struct One(Vec<u8>, u32);

impl SampleSource for One {
    fn sample_len(&self) -> usize {
        self.0.len() - 1
    }

    fn sample_count(&self) -> u64 {
        1
    }

    fn sample(&self, _: u64) -> Option<Tokens<'_>> {
        Some(Tokens::U8(&self.0))
    }

    fn end_of_document(&self) -> Option<u32> {
        Some(self.1)
    }
}

#[test]
fn gradients_equal_autograd_over_several_chunks_of_logits() {
    let config =
        ModelConfig { vocab: LOGITS / BAND_ROWS, hidden: 16, layers: 1, ..config(2, 2, 72, true) };
    let plan = trainer::Plan::new(&config, 4, 1, true);
    assert!(plan.logit_rows < plan.tokens && !plan.tokens.is_multiple_of(plan.logit_rows));
    check(config, 4, 2);
}

#[test]
fn bf16_computes_with_the_rounded_parameters() {
    let config = config(4, 2, 32, false);
    let samples = MemorySamples::words(config.seq_len, 16, 5);
    let model = model(&config);
    let rounded: Vec<f32> =
        (model.parameters().iter()).map(|value| half::bf16::from_f32(*value).to_f32()).collect();
    let compute = |parameters: &[f32], precision: Precision| {
        let threads = Threads::new(2).unwrap();
        let mut engine = Engine::with_precision(&config, 4, true, threads, precision).unwrap();
        assert_eq!(engine.allocated_bytes(), engine.plan().bytes());
        let mut gradient = vec![f32::NAN; parameters.len()];
        let loss = engine
            .loss_and_gradient(parameters, &mut gradient, &samples, &[1, 2, 3], 1e-2, false)
            .unwrap();
        (loss, gradient)
    };
    let found = compute(model.parameters(), Precision::Bf16);
    assert_eq!(found, compute(&rounded, Precision::F32));
    assert_ne!(found, compute(model.parameters(), Precision::F32));
}

#[test]
fn loss_falls_in_bf16_and_does_not_depend_on_threads() {
    let config = config(4, 2, 32, true);
    let samples = MemorySamples::words(config.seq_len, 16, 5);
    let train = |threads: usize| {
        let threads = Threads::new(threads).unwrap();
        let mut engine =
            Engine::with_precision(&config, 4, true, threads.clone(), Precision::Bf16).unwrap();
        let mut parameters = Model::init(&config, 3).unwrap().parameters().to_vec();
        let mut gradient = vec![0.0; parameters.len()];
        let compute = Compute::new(threads);
        let mut optimiser =
            Optimiser::new(AdamWSettings::default(), None, &config.arena(), &compute);
        let scale = 1.0 / 128.0;
        let losses: Vec<f64> = (0..20)
            .map(|_| {
                let ids = [0, 1, 2, 3];
                let loss = engine
                    .loss_and_gradient(&parameters, &mut gradient, &samples, &ids, scale, false)
                    .unwrap();
                optimiser.step(&mut parameters, &gradient, 5e-3, 1.0);
                loss
            })
            .collect();
        (losses, parameters)
    };
    let (losses, parameters) = train(1);
    assert!(losses[19] < losses[0] * 0.8, "{losses:?}");
    assert_eq!((losses, parameters), train(2));
}

#[test]
fn a_batch_without_samples_is_refused_and_leaves_the_gradient() {
    let config = ModelConfig::preset("nano").unwrap();
    let samples = MemorySamples::words(4, config.seq_len, 1);
    let model = Model::init(&config, 1).unwrap();
    let mut engine = Engine::new(&config, 2, true, Threads::single()).unwrap();
    let mut gradient = vec![7.0; model.parameters().len()];
    let refused = engine.batch_gradient(model.parameters(), &mut gradient, &samples, &[]);
    assert_eq!(refused, Err(BatchError::Samples { given: 0, max: 2 }));
    assert!(gradient.iter().all(|value| *value == 7.0));
}
