//! The emulator itself: what the prelude's functions give, and that mistakes are found.

use cuda_emulator::{
    agree_in_all_orders, finds, sanitised, Case, Copies, EmulatorError, Order, Sanitizer, Way,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::{Argument, Gpu, GpuError, Kernel, Launch, Stream};

pub(crate) const SOURCE: &str = include_str!("../kernels/probe.cu");

const fn probe(name: &'static str, threads: u32, shared_max: u32) -> Kernel {
    Kernel { name, file: "probe", defines: &[], threads, blocks: 1, shared_max }
}

static WORDS: Kernel = probe("words", 128, 0);
static SUMS: Kernel = probe("sums", 128, 0);
static NEIGHBOURS: Kernel = probe("neighbours", 128, 0);
static PRODUCTS: Kernel = probe("products", 128, 32768);
static UNWRITTEN: Kernel = probe("unwritten", 32, 128);
static WRONG: Kernel = probe("wrong", 32, 1024);
pub(crate) static FRAGMENTS: Kernel = probe("fragments", 32, 0);

pub(crate) fn start(
    kernel: &'static Kernel,
    blocks: u32,
    shared: u32,
    arguments: &[Argument],
) -> impl FnOnce(&dyn Gpu) -> Result<(), GpuError> {
    let arguments = arguments.to_vec();
    move |gpu| {
        gpu.launch(
            Stream::Compute,
            Launch { kernel, grid: [blocks, 1, 1], shared, arguments: &arguments },
        )
    }
}

fn bf16(value: f32) -> u32 {
    u32::from(half::bf16::from_f32(value).to_bits())
}

#[test]
fn every_function_of_the_prelude_gives_what_it_says() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut values: Vec<u32> =
        (0..128).map(|_| random.gen::<f32>().to_bits() >> random.gen_range(0..4)).collect();
    // Ties both ways, the largest, infinity, NaN, nothing.
    values[..8].copy_from_slice(&[
        0x3f80_8000,
        0x3f81_8000,
        0xbf80_8000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0001,
        0,
        1,
    ]);
    let (wide, scalar) = (5_u64 << 32 | 7, 0.1_f32);
    let mut case = Case::with_source(SOURCE);
    let (from, to) = (case.input("in", &values), case.fresh("out", 128 * 24 * 4));
    let arguments = [
        Argument::Address(from),
        Argument::Address(to),
        Argument::U64(wide),
        Argument::F32(scalar),
    ];
    case.launch(start(&WORDS, 1, 0, &arguments)).unwrap();
    let out: Vec<u32> = agree_in_all_orders(&case).unwrap().values("out");
    for (i, found) in out.chunks(24).enumerate() {
        let (warp, lane) = (i / 32 * 32, i % 32);
        let (value, of) = (values[i], |lane: usize| values[warp + lane]);
        let x = f32::from_bits(value);
        let y = f32::from_bits((0x3f80 + i as u32) << 16);
        let pack = |low: u32, high: u32| low | high << 16;
        let even = |value: f32| if value.is_nan() { 0x7fff } else { bf16(value) };
        let up = value.wrapping_add(0x8000) >> 16;
        let ballot =
            (0..32).filter(|lane| of(*lane) % 3 == 0).fold(0, |bits, lane| bits | 1 << lane);
        let expected = [
            of(lane ^ 5),
            if lane < 3 { value } else { of(lane - 3) },
            if lane > 28 { value } else { of(lane + 3) },
            of((lane * 7 + 1) % 32),
            of(lane ^ 16),
            of(lane ^ 1),
            of(lane ^ 2),
            ballot,
            value.count_ones(),
            value.leading_zeros(),
            if value == 0 { u32::MAX } else { value.trailing_zeros() },
            pack(even(x), even(-x)),
            pack(even(x), up),
            value << 16,
            value << 16,
            value & 0xffff_0000,
            (y * scalar).to_bits(),
            (y * scalar + (y - scalar)).to_bits(),
            (y / scalar).to_bits(),
            y.sqrt().to_bits(),
            (1.0 / y.sqrt()).to_bits(),
            5_u32.wrapping_add(value.min(7)).wrapping_add(value.max(9)),
            ((f64::from(y) * 3.0 + 1.0) as f32).to_bits(),
            (lane as f32).to_bits(),
        ];
        assert_eq!(found, expected, "lane {i}");
    }
}

/// 300 values in 3 blocks.
fn sums() -> (Case, Vec<u32>) {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let values: Vec<u32> = (0..300).map(|_| random.gen_range(0..1000)).collect();
    let mut case = Case::with_source(SOURCE);
    let from = case.input("in", &values);
    let to = case.fresh("out", 3 * 4);
    let mut before = [0_u32; 25];
    before[24] = 5;
    let histogram = case.output("histogram", &before);
    let arguments = [
        Argument::Address(from),
        Argument::Address(to),
        Argument::Address(histogram),
        Argument::U32(300),
    ];
    case.launch(start(&SUMS, 3, 0, &arguments)).unwrap();
    (case, values)
}

/// Two tiles and a ragged end: a and b of (150, 64), the sum over tiles of a · bᵀ.
fn products() -> (Case, Vec<f32>) {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut matrix =
        || -> Vec<f32> { (0..150 * 64).map(|_| random.gen_range(-4..=4) as f32).collect() };
    let (a, b) = (matrix(), matrix());
    let bits =
        |values: &[f32]| -> Vec<u16> { values.iter().map(|value| bf16(*value) as u16).collect() };
    let mut case = Case::with_source(SOURCE);
    let (from_a, from_b) = (case.input("a", &bits(&a)), case.input("b", &bits(&b)));
    let to = case.fresh("out", 64 * 64 * 4);
    let arguments = [
        Argument::Address(from_a),
        Argument::Address(from_b),
        Argument::Address(to),
        Argument::U32(150),
    ];
    case.launch(start(&PRODUCTS, 1, 4 * 8192, &arguments)).unwrap();
    let row = |of: &[f32], at: usize| {
        of.get(at * 64..at * 64 + 64).map_or_else(|| vec![0.0; 64], <[f32]>::to_vec)
    };
    let mut expected = Vec::new();
    for r in 0..64 {
        for c in 0..64 {
            let dot = |tile: usize| -> f32 {
                row(&a, tile * 64 + r).iter().zip(row(&b, tile * 64 + c)).map(|(x, y)| x * y).sum()
            };
            expected.push((0..3).map(dot).sum());
        }
    }
    (case, expected)
}

#[test]
fn a_sum_over_a_block_is_right_in_all_orders_and_clean() {
    let (case, values) = sums();
    let outcome = agree_in_all_orders(&case).unwrap();
    let expected: Vec<u32> = values.chunks(128).map(|chunk| chunk.iter().sum()).collect();
    assert_eq!(outcome.values::<u32>("out"), expected);
    let histogram = outcome.values::<u32>("histogram");
    for (block, chunk) in values.chunks(128).enumerate() {
        for rest in 0..8 {
            let count = chunk.iter().filter(|value| **value % 8 == rest).count();
            assert_eq!(histogram[block * 8 + rest as usize] as usize, count);
        }
    }
    sanitised(&case, Sanitizer::Address).unwrap();
    sanitised(&case, Sanitizer::Thread).unwrap();
}

#[test]
fn a_product_with_tiles_in_flight_is_right_in_all_orders_and_clean() {
    let (case, expected) = products();
    let outcome = agree_in_all_orders(&case).unwrap();
    assert_eq!(outcome.values::<f32>("out"), expected);
    // 3 tiles, 4 warps, 4 steps of 5 loads of 4 matrices.
    assert_eq!((outcome.counts.matrix_loads, outcome.counts.conflicts), (3 * 4 * 4 * 5 * 4, 0));
    sanitised(&case, Sanitizer::Address).unwrap();
    sanitised(&case, Sanitizer::Thread).unwrap();
}

/// Whether a bug is found in a way that is expected of it.
fn check(case: &Case, bug: &str, expected: fn(&Way) -> bool) {
    let finding = finds(case, bug).unwrap().unwrap_or_else(|| panic!("{bug} is not found"));
    println!("{finding}");
    assert!(expected(&finding.way), "{finding}");
}

#[test]
fn a_missing_barrier_is_found() {
    check(&sums().0, "BUG_NO_BARRIER", |way| matches!(way, Way::Orders(_)));
    check(&products().0, "BUG_NO_BARRIER_BEFORE", |way| matches!(way, Way::Orders(_)));
}

#[test]
fn a_missing_barrier_at_a_loops_end_is_found() {
    check(&products().0, "BUG_NO_BARRIER_AFTER", |way| matches!(way, Way::Orders(_)));
}

#[test]
fn a_missing_wait_for_a_copy_is_found() {
    check(&products().0, "BUG_NO_WAIT", |way| matches!(way, Way::Orders(_)));
}

#[test]
fn a_missing_swizzle_is_found() {
    check(&products().0, "BUG_NO_SWIZZLE", |way| matches!(way, Way::Conflicts { .. }));
}

#[test]
fn lanes_apart_at_a_barrier_or_in_a_warp_are_found() {
    let says = |way: &Way, what: &str| matches!(way, Way::Fails(text) if text.contains(what));
    let (case, _) = sums();
    for (bug, what) in [
        ("BUG_DIVERGENT_SHUFFLE", "deadlock"),
        ("BUG_DIVERGENT_BARRIER", "deadlock"),
        ("BUG_TWO_BARRIERS", "deadlock"),
        ("BUG_EARLY_END", "deadlock"),
    ] {
        let finding = finds(&case, bug).unwrap().unwrap_or_else(|| panic!("{bug} is not found"));
        println!("{finding}");
        assert!(says(&finding.way, what), "{finding}");
    }
}

#[test]
fn a_step_outside_of_memory_is_found() {
    let (case, _) = sums();
    check(&case, "BUG_END", |way| {
        matches!(way, Way::Report(Sanitizer::Address, _) | Way::Wrong(_))
    });
    check(&case, "BUG_OUTSIDE", |way| matches!(way, Way::Report(Sanitizer::Address, _)));
    check(&case, "BUG_OUTSIDE_SHARED", |way| matches!(way, Way::Report(Sanitizer::Address, _)));
}

#[test]
fn blocks_that_meet_in_memory_are_found() {
    check(&sums().0, "BUG_BLOCKS_MEET", |way| matches!(way, Way::Wrong(_)));
}

/// What no order shows: TSan alone, lanes and blocks being threads to it.
#[test]
fn a_race_that_changes_no_result_is_found() {
    let (case, _) = sums();
    check(
        &case,
        "BUG_ALL_WRITE",
        |way| matches!(way, Way::Report(Sanitizer::Thread, text) if text.contains("probe.cu:")),
    );
    check(&case, "BUG_BLOCKS_WRITE_ONE_WORD", |way| {
        matches!(way, Way::Report(Sanitizer::Thread, _))
    });
    let mut case = Case::with_source(SOURCE);
    let values: Vec<u32> = (0..128).collect();
    let (from, to) = (case.input("in", &values), case.fresh("out", 512));
    case.launch(start(&NEIGHBOURS, 1, 0, &[Argument::Address(from), Argument::Address(to)]))
        .unwrap();
    let swapped: Vec<u32> = (0..128).map(|i| i ^ 1).collect();
    assert_eq!(agree_in_all_orders(&case).unwrap().values::<u32>("out"), swapped);
    sanitised(&case, Sanitizer::Thread).unwrap();
    check(&case, "BUG_SHUFFLE_AS_BARRIER", |way| matches!(way, Way::Report(Sanitizer::Thread, _)));
}

#[test]
fn a_bug_that_the_source_does_not_have_is_an_error() {
    assert!(matches!(finds(&sums().0, "BUG_NO_BARRIE"), Err(EmulatorError::Case(_))));
}

#[test]
fn shared_memory_that_a_block_has_not_written_is_nan() {
    let mut case = Case::with_source(SOURCE);
    let to = case.fresh("out", 4 * 32 * 4);
    case.launch(start(&UNWRITTEN, 4, 128, &[Argument::Address(to)])).unwrap();
    assert_eq!(agree_in_all_orders(&case).unwrap().values::<u32>("out"), [3; 128]);
}

#[test]
fn what_must_not_be_asked_for_ends_the_launch_with_its_place() {
    let expected = [
        "row is not on 16 bytes at probe.cu",
        "copy is not on 16 bytes at probe.cu",
        "copy is not on 16 bytes at probe.cu",
        "not into shared memory at probe.cu",
        "not in shared memory at probe.cu",
        "a lane above 31 at probe.cu",
        "by more than 31 at probe.cu",
        "deadlock in block (0, 0, 0): lanes 0 to 30 wait for their warp at probe.cu",
        "a warp's lanes are apart",
        "not in shared memory at probe.cu",
    ];
    for (which, expected) in expected.into_iter().enumerate() {
        let mut case = Case::with_source(SOURCE);
        let (from, to) = (case.input("in", &[0_u32; 64]), case.fresh("out", 32 * 4));
        let arguments =
            [Argument::Address(from), Argument::Address(to), Argument::U32(which as u32)];
        case.launch(start(&WRONG, 1, 520, &arguments)).unwrap();
        let Err(EmulatorError::Launch { reason, .. }) = case.run(Order::Forwards, Copies::Late)
        else {
            panic!("{which} is not found");
        };
        assert!(reason.contains(expected), "{which}: {reason}");
        // A launch that failed leaves nothing behind that the next would trip over.
        let mut case = Case::with_source(SOURCE);
        let (from, to) = (case.input("in", &[0_u32; 64]), case.fresh("out", 32 * 4));
        let arguments = [Argument::Address(from), Argument::Address(to), Argument::U32(99)];
        case.launch(start(&WRONG, 1, 520, &arguments)).unwrap();
        assert_eq!(case.run(Order::Forwards, Copies::Late).unwrap().values::<u32>("out"), [0; 32]);
    }
}

#[test]
fn a_launch_writes_only_what_it_may() {
    let mut case = Case::with_source(SOURCE);
    let (from, to) = (case.input("in", &[7_u32; 128]), case.input("out", &[0_u32; 1]));
    let histogram = case.output("histogram", &[0_u32; 8]);
    let arguments = [
        Argument::Address(from),
        Argument::Address(to),
        Argument::Address(histogram),
        Argument::U32(128),
    ];
    case.launch(start(&SUMS, 1, 0, &arguments)).unwrap();
    assert!(matches!(case.run(Order::Forwards, Copies::Late), Err(EmulatorError::Wrote { .. })));
    let mut case = Case::with_source(SOURCE);
    let (from, to) = (case.input("in", &[7_u32; 128]), case.fresh("out", 4));
    let histogram = case.output("histogram", &[0_u32; 7]);
    let arguments = [
        Argument::Address(from),
        Argument::Address(to),
        Argument::Address(histogram),
        Argument::U32(128),
    ];
    case.launch(start(&SUMS, 1, 0, &arguments)).unwrap();
    let error = case.run(Order::Forwards, Copies::Late).unwrap_err().to_string();
    assert!(error.contains("byte 28 of histogram, which has 28, was written"), "{error}");
}

#[test]
fn threads_launch_beside_each_other() {
    let (case, expected) = products();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let case = &case;
                    move || case.run(Order::Ahead(seed), Copies::Late)
                })
            })
            .collect();
        for run in runs {
            assert_eq!(run.join().unwrap().unwrap().values::<f32>("out"), expected);
        }
    });
}
