//! Loss and every tensor's gradient against the CPU engine with parameters in bf16, which is checked against
//! candle's autograd elsewhere.

use dataset::SampleSource;
use trainer::cuda::device::CudaSettings;
use trainer::learner::Learner;
use trainer::{Device, Engine, ModelConfig, Precision, Threads};

use crate::emulators::Emulators;
use crate::models::{config, distance, learner_settings, model, samples, Documents};

/// Relative L2 distance per tensor. The CPU's activations are f32, the GPU's are rounded to bf16 (2^-9) after each
/// kernel; what differs beside is the order of sums.
const TOLERANCE: f64 = 2e-2;

/// Relative distance of losses.
const LOSS_TOLERANCE: f64 = 1e-2;

fn check(config: &ModelConfig, source: &dyn SampleSource, micro: usize, world: usize) {
    let (ids, model) = ([3, 7, 0, 12], model(config));
    let mut engine =
        Engine::with_precision(config, 4, true, Threads::single(), Precision::Bf16).unwrap();
    let mut expected = vec![f32::NAN; model.parameters().len()];
    let expected_loss =
        engine.batch_gradient(model.parameters(), &mut expected, source, &ids).unwrap();
    let expected_norm = expected.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();

    let device = Emulators::new(world).device(CudaSettings::default());
    let mut learner = device.cuda_learner(config, &learner_settings(micro, false)).unwrap();
    learner.load(&mut &model).unwrap();
    let found = learner.gradient(source, &ids).unwrap();
    println!("loss {} expected {expected_loss}", found.loss);
    let relative = f64::from(found.loss / expected_loss - 1.0).abs();
    assert!(relative < LOSS_TOLERANCE, "loss {} expected {expected_loss}", found.loss);
    let relative = (found.norm / expected_norm - 1.0).abs();
    assert!(relative < TOLERANCE, "norm {} expected {expected_norm}", found.norm);

    let mut worst = 0.0f64;
    for (tensor, place) in model.arena().tensors.iter().enumerate() {
        let found = learner.gradient_tensor(tensor).unwrap();
        let relative = distance(&found, &expected[place.range.clone()]);
        println!("{:50} {relative:.2e}", place.info.name);
        assert!(relative < TOLERANCE, "{}: relative distance {relative:e}", place.info.name);
        worst = worst.max(relative);
    }
    assert!(worst > 0.0, "nothing was rounded");

    // The forward pass alone has the same loss.
    let mut predictor = device.predictor(config, 2, false).unwrap();
    let mut loss = |ids: &[u64]| predictor.loss(&mut &model, source, ids).unwrap();
    let mean = (loss(&ids[..2]) + loss(&ids[2..])) / (4 * config.seq_len) as f64;
    assert!((mean / f64::from(found.loss) - 1.0).abs() < 1e-6, "{mean} {}", found.loss);
}

fn check_words(config: &ModelConfig, micro: usize, world: usize) {
    check(config, &samples(config), micro, world);
}

#[test]
fn gradients_are_the_cpus_with_heads_of_32() {
    check_words(&config((64, 2, 2), 64, true), 4, 1);
    check_words(&config((128, 4, 1), 40, false), 2, 1);
}

#[test]
fn gradients_are_the_cpus_with_heads_of_64() {
    check_words(&config((128, 2, 1), 72, true), 4, 1);
    check_words(&config((256, 4, 1), 33, false), 2, 1);
}

#[test]
fn gradients_are_the_cpus_with_heads_of_128() {
    check_words(&config((256, 2, 2), 70, true), 4, 1);
    check_words(&config((512, 4, 1), 24, false), 1, 1);
}

#[test]
fn gradients_are_the_cpus_over_several_blocks_of_attention() {
    // Two whole blocks of 64 and a part of one.
    check_words(&config((64, 1, 1), 150, false), 4, 1);
}

#[test]
fn gradients_are_the_cpus_where_no_matrix_fills_its_chunks() {
    // q, k and v do not lie without a gap between them, nor do gate and up.
    let narrow = ModelConfig { ffn: 104, vocab: 264, ..config((96, 3, 1), 40, false) };
    check_words(&narrow, 2, 1);
}

#[test]
fn gradients_are_the_cpus_with_documents() {
    // Many documents to a sample, and so few that whole blocks are one.
    for end in [b' ', b'v'] {
        let config = config((128, 2, 1), 150, false);
        let source = Documents { samples: samples(&config), end: u32::from(end) };
        check(&config, &source, 2, 1);
    }
}

#[test]
fn gradients_are_the_cpus_on_several_gpus() {
    check_words(&config((64, 2, 1), 40, true), 1, 2);
    check_words(&config((128, 2, 1), 40, false), 1, 4);
}
