use super::*;
use trainer::cuda::kernels::loss::{cross_entropy, CrossEntropy};
use trainer::cuda::Stream::Compute;

const SCALE: f32 = 1.0 / 64.0;

fn targets(rows: usize, vocab: usize) -> Vec<u32> {
    (0..rows).map(|row| u32_of([0, vocab - 1, vocab / 2, row * 37 % vocab][row % 4])).collect()
}

fn loss_case(logits: &[u16], targets: &[u32], scale: Option<f32>) -> Case {
    let vocab = u32_of(logits.len() / targets.len());
    let mut case = Case::new();
    let of = CrossEntropy {
        logits: case.output("logits", logits),
        targets: case.input("targets", targets),
        losses: case.fresh("losses", targets.len() * 4),
        rows: u32_of(targets.len()),
        vocab,
        scale,
    };
    case.launch(|gpu| cross_entropy(gpu, Compute, &of)).unwrap();
    case
}

/// Losses and gradient in f64.
fn expected(logits: &[u16], targets: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let vocab = logits.len() / targets.len();
    let (mut losses, mut gradient) = (Vec::new(), Vec::new());
    for (row, target) in exact(logits).chunks_exact(vocab).zip(targets) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + row.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
        losses.push(log_sum - row[*target as usize]);
        let one = |i: usize| if i == *target as usize { 1.0 } else { 0.0 };
        gradient.extend(
            row.iter().enumerate().map(|(i, z)| ((z - log_sum).exp() - one(i)) * f64::from(SCALE)),
        );
    }
    (losses, gradient)
}

#[test]
fn losses_and_gradients_are_those_of_their_formulas() {
    let shapes = [(4, 8), (5, 256), (4, 1000), (4, 2056), (3, 32000), (2, 262_144)];
    for (rows, vocab) in shapes {
        for spread in [0.1, 3.0, 30.0] {
            let logits = random_bf16(1, rows * vocab, spread);
            let targets = targets(rows, vocab);
            let (losses, gradient) = expected(&logits, &targets);
            let (kept, made) =
                (loss_case(&logits, &targets, None), loss_case(&logits, &targets, Some(SCALE)));
            let (kept, made) = (settled(&kept), settled(&made));
            assert_eq!(kept.values::<u16>("logits"), logits);
            assert_eq!(kept.bytes("losses"), made.bytes("losses"));
            close("losses", made.values::<f32>("losses"), &losses, F32);
            close("gradient", widen(&made.values::<u16>("logits")), &gradient, BF16);
        }
    }
}

#[test]
fn a_target_that_is_no_column_makes_its_loss_nan_and_reads_nothing() {
    let logits = random_bf16(2, 4 * 256, 2.0);
    for wrong in [256, 257, u32::MAX] {
        let outcome = settled(&loss_case(&logits, &[3, wrong, 255, wrong], Some(SCALE)));
        let nan: Vec<bool> = outcome.values::<f32>("losses").into_iter().map(f32::is_nan).collect();
        assert_eq!(nan, [false, true, false, true]);
    }
}

#[test]
fn infinite_and_missing_logits_are_not_hidden() {
    let mut logits = random(3, 4 * 256, 2.0);
    // Columns that can't be: they take no part. The first lanes of a warp see nothing else.
    logits[..128].fill(f32::NEG_INFINITY);
    logits[256 + 9] = f32::NAN;
    logits[512 + 9] = f32::INFINITY;
    logits[768..].fill(-3.3e38);
    let logits = narrow(&logits);
    let outcome = settled(&loss_case(&logits, &[200, 1, 1, 5], Some(SCALE)));
    let losses: Vec<f32> = outcome.values("losses");
    close("masked", [losses[0]], &expected(&logits[..256], &[200]).0, F32);
    assert!(losses[1].is_nan() && losses[2].is_nan());
    close("all alike", [losses[3]], &[256.0_f64.ln()], F32);
    let gradient = widen(&outcome.values::<u16>("logits"));
    assert!(gradient[..128].iter().all(|value| *value == 0.0));
    assert!(gradient[768..].iter().all(|value| value.is_finite()));
}

#[test]
fn nothing_is_read_or_written_outside() {
    let logits = random_bf16(1, 3 * 328, 3.0);
    clean(&loss_case(&logits, &[0, 327, 328], Some(SCALE)));
}

#[test]
fn planted_bugs_are_found() {
    let logits = random_bf16(1, 3 * 2056, 3.0);
    let case = loss_case(&logits, &targets(3, 2056), Some(SCALE));
    found(&case, &["BUG_LOSS_NO_BARRIER", "BUG_LOSS_TARGET_LATE", "BUG_LOSS_RAGGED"]);
}
