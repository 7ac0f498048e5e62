//! The optimisers' kernels give the bits of their twins, in every order of lanes and however a range is cut.

use cuda_emulator::{agree_in_all_orders, finds, sanitised, Case, Copies, Order, Sanitizer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::kernels::optimiser::{self as kernels, AdamW, Momentum, MuonApply, PART};
use trainer::cuda::{twin, Stream};
use trainer::AdamWSettings;

const STREAM: Stream = Stream::Compute;

/// Each bug in optimiser.cu, and what it is.
const BUGS: [(&str, &str); 5] = [
    ("BUG_NOISE_OF_THE_LAUNCH", "the noise is the same in every step"),
    ("BUG_NOISE_INTO_INFINITY", "noise makes infinity of the largest numbers"),
    ("BUG_TIES_EVEN", "a master's upper half is rounded ties to even"),
    ("BUG_NO_BARRIER_1", "sums are read before all warps have written theirs"),
    ("BUG_NO_TAIL", "the values after the last eight are forgotten"),
];

/// Numbers of ordinary sizes and now and then an odd one.
fn draw(random: &mut ChaCha8Rng) -> f32 {
    const ODD: [u32; 14] = [
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007F_FFFF,
        0x7F7F_FFFF,
        0xFF7F_FFFF,
        0x7F7F_8000,
        0x7F80_0000,
        0xFF80_0000,
        0x7FC0_0000,
        0x7F80_0001,
        0xFFFF_FFFF,
        0x3F80_8000,
    ];
    match random.gen_range(0..40) {
        0 => f32::from_bits(ODD[random.gen_range(0..ODD.len())]),
        1 => f32::from_bits(random.gen()),
        2 => random.gen_range(-1e-20..1e-20),
        _ => random.gen_range(-1.0..1.0),
    }
}

fn bf16s(random: &mut ChaCha8Rng, len: usize) -> Vec<u16> {
    (0..len).map(|_| twin::round(draw(random))).collect()
}

/// What a step begins with, and what it is told.
struct Step {
    hi: Vec<u16>,
    lo: Vec<u16>,
    mean: Vec<u16>,
    square: Vec<u16>,
    gradient: Vec<f32>,
    adamw: AdamW,
    beta: f32,
}

impl Step {
    fn new(len: usize, first: u64, step: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(first ^ step);
        let (hi, lo) = (0..len).map(|_| twin::split(draw(&mut random))).unzip();
        let nowhere = trainer::cuda::Address(0);
        let settings =
            AdamWSettings { decay: random.gen_range(0.0..0.2), ..AdamWSettings::default() };
        let (rate, scale) = (random.gen_range(1e-5..1e-2), random.gen_range(0.01..2.0));
        Self {
            hi,
            lo,
            mean: bf16s(&mut random, len),
            square: bf16s(&mut random, len).into_iter().map(|value| value & 0x7FFF).collect(),
            gradient: (0..len).map(|_| draw(&mut random)).collect(),
            adamw: AdamW {
                hi: nowhere,
                lo: nowhere,
                mean: nowhere,
                square: nowhere,
                gradient: nowhere,
                len: len as u64,
                first,
                settings,
                rate,
                scale,
                step,
            },
            beta: 0.95,
        }
    }

    /// With averages that all but leave bf16.
    fn extreme(mut self) -> Self {
        self.adamw.scale = 1.0;
        for (mean, gradient) in self.mean.iter_mut().zip(&mut self.gradient).step_by(3) {
            (*mean, *gradient) = (0x7F7F, f32::MAX);
        }
        self
    }

    /// A case with both optimisers' steps, in calls that begin at `cuts` and at 0.
    fn case(&self, cuts: &[usize]) -> Case {
        let mut case = Case::new();
        let len = self.hi.len();
        let hi = case.output("hi", &self.hi);
        let lo = case.output("lo", &self.lo);
        let mean = case.output("mean", &self.mean);
        let square = case.output("square", &self.square);
        let gradient = case.input("gradient", &self.gradient);
        let muon_mean = case.output("muon mean", &self.mean);
        let direction = case.fresh("direction", 2 * len);
        let parts = case.fresh("parts", 8 * len.div_ceil(PART as usize));
        let norm = case.fresh("norm", 8);
        let scaled = case.output("scaled", &self.mean);
        let muon_hi = case.output("muon hi", &self.hi);
        let muon_lo = case.output("muon lo", &self.lo);
        let ends = cuts.iter().copied().chain([len]);
        for (from, to) in [0].into_iter().chain(cuts.iter().copied()).zip(ends) {
            let (at, values) = (from as u64, (to - from) as u64);
            case.launch(|gpu| {
                let [hi, lo, mean, square, muon_mean, direction, scaled, muon_hi, muon_lo] =
                    [hi, lo, mean, square, muon_mean, direction, scaled, muon_hi, muon_lo]
                        .map(|address| address.plus(2 * at));
                let (gradient, first) = (gradient.plus(4 * at), self.adamw.first + at);
                let adamw =
                    AdamW { hi, lo, mean, square, gradient, len: values, first, ..self.adamw };
                kernels::adamw(gpu, STREAM, &adamw)?;
                let (scale, step) = (self.adamw.scale, self.adamw.step);
                let momentum = self.beta;
                let a = Momentum {
                    mean: muon_mean,
                    gradient,
                    direction,
                    len: values,
                    first,
                    momentum,
                    scale,
                    step,
                };
                kernels::momentum(gpu, STREAM, &a)?;
                if from == 0 {
                    // The norm is the whole matrix's.
                    kernels::squares_bf16(gpu, STREAM, scaled, parts, len as u64)?;
                    kernels::sum_parts(gpu, STREAM, parts, norm, (len as u64).div_ceil(PART))?;
                }
                kernels::muon_scale(gpu, STREAM, scaled, values, norm, 1e-7)?;
                let (rate, keep) = kernels::muon_factors(0.02, 0.1, 300);
                let a = MuonApply { hi: muon_hi, lo: muon_lo, direction, len: values, rate, keep };
                kernels::muon_apply(gpu, STREAM, &a)
            })
            .unwrap();
        }
        case
    }

    /// What the twins make of it: of a buffer its name and its bytes.
    fn expected(&self) -> Vec<(&'static str, Vec<u8>)> {
        let (mut hi, mut lo) = (self.hi.clone(), self.lo.clone());
        let (mut mean, mut square) = (self.mean.clone(), self.square.clone());
        let kept = twin::Kept { hi: &mut hi, lo: &mut lo, mean: &mut mean, square: &mut square };
        twin::adamw(kept, &self.gradient, &self.adamw);
        let (mut muon_mean, mut direction) = (self.mean.clone(), vec![0; self.mean.len()]);
        let how = (self.beta, self.adamw.scale, self.adamw.step);
        twin::momentum(&mut muon_mean, &self.gradient, &mut direction, self.adamw.first, how);
        let parts = twin::squares_bf16(&self.mean);
        let norm = twin::sum_parts(&parts);
        let mut scaled = self.mean.clone();
        twin::muon_scale(&mut scaled, norm, 1e-7);
        let (mut muon_hi, mut muon_lo) = (self.hi.clone(), self.lo.clone());
        let (rate, keep) = kernels::muon_factors(0.02, 0.1, 300);
        twin::muon_apply(&mut muon_hi, &mut muon_lo, &direction, rate, keep);
        let halves = [
            ("hi", hi),
            ("lo", lo),
            ("mean", mean),
            ("square", square),
            ("muon mean", muon_mean),
            ("direction", direction),
            ("scaled", scaled),
            ("muon hi", muon_hi),
            ("muon lo", muon_lo),
        ];
        let halves =
            halves.map(|(name, values)| (name, bytemuck::cast_slice::<u16, u8>(&values).to_vec()));
        let sums = [("parts", parts), ("norm", vec![norm])];
        let sums =
            sums.map(|(name, values)| (name, bytemuck::cast_slice::<f64, u8>(&values).to_vec()));
        halves.into_iter().chain(sums).collect()
    }

    fn check(&self, outcome: &cuda_emulator::Outcome) {
        for (name, bytes) in self.expected() {
            // NaN of a sum may be any.
            if ["parts", "norm"].contains(&name) {
                let ours: Vec<f64> = outcome.values(name);
                let theirs: &[[u8; 8]] = bytes.as_chunks().0;
                for (ours, theirs) in ours.iter().zip(theirs) {
                    let theirs = f64::from_le_bytes(*theirs);
                    let same =
                        ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
                    assert!(same, "{name}: {ours} {theirs}");
                }
                continue;
            }
            let wrong = outcome.bytes(name).iter().zip(&bytes).position(|(a, b)| a != b);
            assert_eq!((wrong, outcome.bytes(name).len()), (None, bytes.len()), "{name}");
        }
    }
}

#[test]
fn optimisers_are_their_twins_for_any_values() {
    let steps = [1, 2, 1000, (1 << 32) + 5];
    let firsts = [0, 4096, (1 << 32) - 9000, 72_000_000_000];
    let lens = [1, 7, 8, 9, 2047, 2048, 2049, 4096, 9001, 30_000];
    for (number, len) in lens.into_iter().enumerate() {
        let step = Step::new(len, firsts[number % 4], steps[number / 3]);
        step.check(&step.case(&[]).run(Order::Random(number as u32 + 1), Copies::Late).unwrap());
        let step = step.extreme();
        step.check(&step.case(&[]).run(Order::Forwards, Copies::Late).unwrap());
    }
}

#[test]
fn optimisers_give_the_same_bits_in_all_orders_and_calls() {
    let step = Step::new(9001, (1 << 32) - 5000, 3);
    let whole = agree_in_all_orders(&step.case(&[])).unwrap();
    step.check(&whole);
    step.check(&step.case(&[8, 4096, 4104, 8992]).run(Order::Ahead(1), Copies::Late).unwrap());
    step.check(&step.case(&[9000]).run(Order::Forwards, Copies::Late).unwrap());
}

#[test]
fn optimisers_stay_inside_their_memory() {
    let case = Step::new(4099, 8, 5).case(&[2048]);
    sanitised(&case, Sanitizer::Address).unwrap();
    sanitised(&case, Sanitizer::Thread).unwrap();
}

#[test]
fn bugs_in_the_optimisers_are_found() {
    let case = Step::new(9001, 0, 3).extreme().case(&[]);
    for (bug, what) in BUGS {
        let finding = finds(&case, bug).unwrap();
        println!(
            "{what}: {}",
            finding.as_ref().map_or_else(|| "not found".to_owned(), ToString::to_string)
        );
        assert!(finding.is_some(), "{bug}: {what}");
    }
}
