use super::*;
use trainer::cuda::kernels::values::{self, Halves, SQUARES_VALUES};
use trainer::cuda::Stream::Compute;

/// Around a vector's, a block's and two blocks' end.
const LENGTHS: [usize; 9] = [1, 7, 8, 9, 1023, 1024, 1025, 2047, 4103];

/// Floats where rounding, signs, exponents and payloads meet.
fn edges() -> Vec<u32> {
    let upper = [
        0, 1, 0x7f, 0x80, 0x3f7f, 0x3f80, 0x3f81, 0x7f7e, 0x7f7f, 0x7f80, 0x7f81, 0x7fbf, 0x7fc0,
        0x7fff,
    ];
    let lower = [0, 1, 2, 0x3fff, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0x8002, 0xc000, 0xfffe, 0xffff];
    let both = upper.into_iter().flat_map(|upper: u32| [upper, upper | 0x8000]);
    both.flat_map(|upper| lower.map(|lower: u32| upper << 16 | lower)).collect()
}

fn from_edges(len: usize) -> Vec<u32> {
    edges().into_iter().cycle().take(len).collect()
}

fn split_case(bits: &[u32]) -> Case {
    let mut case = Case::new();
    let from = case.input("from", bits);
    let halves =
        Halves { hi: case.fresh("hi", bits.len() * 2), lo: case.fresh("lo", bits.len() * 2) };
    let to = case.fresh("to", bits.len() * 4);
    let len = bits.len() as u64;
    case.launch(|gpu| values::split(gpu, Compute, from, halves, len)).unwrap();
    case.launch(|gpu| values::join(gpu, Compute, halves, to, len)).unwrap();
    case
}

#[test]
fn split_halves_restore_any_bits() {
    let mut all: Vec<Vec<u32>> = LENGTHS.map(from_edges).to_vec();
    all.push(edges());
    all.push(random(1, 4099, 1.0).into_iter().map(f32::to_bits).collect());
    for bits in all {
        let outcome = settled(&split_case(&bits));
        let (hi, lo): (Vec<u16>, Vec<i16>) = (outcome.values("hi"), outcome.values("lo"));
        for ((hi, lo), bits) in hi.iter().zip(&lo).zip(&bits) {
            assert_eq!(u32::from(*hi), bits.wrapping_add(0x8000) >> 16);
            assert_eq!((u32::from(*hi) << 16).wrapping_add_signed(i32::from(*lo)), *bits);
        }
        assert_eq!(outcome.values::<u32>("to"), bits);
    }
}

#[test]
fn nothing_is_read_or_written_outside() {
    clean(&split_case(&from_edges(1021)));
    clean(&add_case(&random(2, 1021, 1.0), &random(3, 1021, 1.0)));
    clean(&convert_case(&from_edges(1021)));
    clean(&squares_case(&random(4, 4099, 1.0)));
}

fn add_case(a: &[f32], b: &[f32]) -> Case {
    let mut case = Case::new();
    let (to, from) = (case.output("to", a), case.input("from", b));
    case.launch(|gpu| values::add_f32(gpu, Compute, to, from, a.len() as u64)).unwrap();
    case
}

#[test]
fn sums_have_the_bits_of_the_cpu() {
    for len in LENGTHS {
        let mut a = random(2, len, 1.0);
        let b = random(3, len, 1e-3);
        a.iter_mut().step_by(5).for_each(|value| *value = f32::from_bits(0x0000_0003));
        let expected: Vec<u32> = a.iter().zip(&b).map(|(a, b)| (a + b).to_bits()).collect();
        assert_eq!(settled(&add_case(&a, &b)).values::<u32>("to"), expected);
    }
}

fn convert_case(bits: &[u32]) -> Case {
    let len = bits.len();
    let mut case = Case::new();
    let from = case.input("from", bits);
    let (narrowed, widened) = (case.fresh("narrowed", len * 2), case.fresh("widened", len * 4));
    case.launch(|gpu| values::narrow(gpu, Compute, from, narrowed, len as u64)).unwrap();
    case.launch(|gpu| values::widen(gpu, Compute, narrowed, widened, len as u64)).unwrap();
    case
}

#[test]
fn narrowing_rounds_to_even_and_widening_is_exact() {
    for bits in LENGTHS.map(from_edges).into_iter().chain([edges()]) {
        let outcome = settled(&convert_case(&bits));
        let narrowed: Vec<u16> = outcome.values("narrowed");
        for (found, bits) in narrowed.iter().zip(&bits) {
            let value = f32::from_bits(*bits);
            let expected = if value.is_nan() { 0x7fff } else { bf16::from_f32(value).to_bits() };
            assert_eq!(*found, expected, "{bits:#010x}");
        }
        let expected: Vec<u32> = narrowed.iter().map(|half| u32::from(*half) << 16).collect();
        assert_eq!(outcome.values::<u32>("widened"), expected);
    }
}

/// The kernel's order: 128 threads, each with four values of each 512; warps by halving; four warps in order.
fn squares_twin(values: &[f32]) -> Vec<f64> {
    let part = |chunk: &[f32]| {
        let mut sums = [0.0_f64; 128];
        for (index, value) in chunk.iter().enumerate() {
            sums[index % 512 / 4] += f64::from(*value) * f64::from(*value);
        }
        let warps = sums.chunks_exact(32).map(|lanes| {
            let mut lanes = lanes.to_vec();
            for by in [16, 8, 4, 2, 1] {
                lanes = (0..32).map(|lane| lanes[lane] + lanes[lane ^ by]).collect();
            }
            lanes[0]
        });
        warps.reduce(|sum, warp| sum + warp).unwrap()
    };
    values.chunks(usize::try_from(SQUARES_VALUES).unwrap()).map(part).collect()
}

fn squares_case(values: &[f32]) -> Case {
    let mut case = Case::new();
    let from = case.input("values", values);
    let parts = case.fresh("parts", values.len().div_ceil(4096) * 8);
    case.launch(|gpu| values::squares(gpu, Compute, from, parts, values.len() as u64)).unwrap();
    case
}

#[test]
fn squares_have_the_bits_of_the_cpu() {
    for len in LENGTHS.into_iter().chain([4095, 4096, 4097, 9000]) {
        let mut values = random(4, len, 1.0);
        values.iter_mut().step_by(3).for_each(|value| *value *= 1e-30);
        values.iter_mut().step_by(11).for_each(|value| *value *= 1e30);
        let parts: Vec<u64> = settled(&squares_case(&values)).values("parts");
        let expected: Vec<u64> = squares_twin(&values).into_iter().map(f64::to_bits).collect();
        assert_eq!(parts, expected, "{len} values");
    }
}

#[test]
fn planted_bugs_are_found() {
    found(&split_case(&from_edges(1021)), &["BUG_VALUES_RAGGED", "BUG_SPLIT_EVEN"]);
    found(&squares_case(&random(4, 5000, 1.0)), &["BUG_SQUARES_NO_BARRIER"]);
}
