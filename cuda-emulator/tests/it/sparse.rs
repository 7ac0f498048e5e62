//! SparseLoCo's kernels give the bytes and bits of `protocol`, whatever the values and whatever valid updates say.

use cuda_emulator::{
    agree_in_all_orders, finds, sanitised, Case, Copies, Order, Outcome, Sanitizer,
};
use protocol::aggregate::{self, OuterRule, TensorUpdate};
use protocol::layout::{kept, Layout, CHUNK_LEN};
use protocol::update::{
    assemble, encode_chunk, Chunk, ChunkError, EncodedChunks, Encoder, Payload, UpdateError,
    SCALE_MAX_BF16, SCALE_MIN_BF16,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::kernels::sparse::{self as kernels, Apply, Encode, OuterStep, Staged, Values};
use trainer::cuda::{twin, Stream};

const STREAM: Stream = Stream::Compute;

/// Each bug in sparse.cu that shows when chunks are encoded, and what it is.
const ENCODING_BUGS: [(&str, &str); 6] = [
    ("BUG_NO_BARRIER_1", "a prefix sum reads the warps' totals before they are written"),
    ("BUG_NO_BARRIER_2", "a search's next digit begins before this one is known"),
    ("BUG_NO_BARRIER_5", "bytes leave before all bits are in them"),
    ("BUG_LANES_BACKWARDS", "the quantiser adds its lanes in another order"),
    ("BUG_NO_STRADDLE", "bits past the end of a word are lost"),
    ("BUG_TIES_TO_THE_HIGHEST", "of equal magnitudes the last are kept"),
];

/// Each that shows when they are decoded.
const DECODING_BUGS: [(&str, &str); 4] = [
    ("BUG_NO_BARRIER_1", "a prefix sum reads the warps' totals before they are written"),
    ("BUG_NO_BARRIER_3", "a chunk is decoded before all its bytes are there"),
    ("BUG_NO_BARRIER_4", "positions are read before all are written"),
    ("BUG_NO_BARRIER_6", "an update is added before the one before it is done"),
];

/// Kinds of values that a tensor may hold.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As gradients are: many small ones, few large ones.
    Ordinary,
    /// All alike but for the sign.
    Equal,
    /// A few different magnitudes.
    Few,
    /// Zeros of both signs.
    Zero,
    /// So small that the scale is 0, or next to it.
    Tiny,
    /// So large that sums leave f32 unless they are bounded.
    Huge,
    /// Subnormal numbers.
    Subnormal,
    /// Any finite bits.
    Any,
    /// Ascending magnitudes: the largest are the last.
    Ascending,
    /// Eight large ones in a chunk, whose mean is next to the middle of two scales, so that the order of their sum decides.
    Poised,
}

const KINDS: [Kind; 10] = [
    Kind::Ordinary,
    Kind::Equal,
    Kind::Few,
    Kind::Zero,
    Kind::Tiny,
    Kind::Huge,
    Kind::Subnormal,
    Kind::Any,
    Kind::Ascending,
    Kind::Poised,
];

impl Kind {
    fn draw(self, random: &mut ChaCha8Rng, at: usize) -> f32 {
        let sign = if random.gen() { 1.0f32 } else { -1.0 };
        let uniform: f32 = random.gen_range(1e-6..1.0);
        match self {
            Self::Ordinary => sign * uniform.ln() * 0.01,
            Self::Equal => sign * 0.125,
            Self::Few => sign * random.gen_range(0..4) as f32 * 0.3,
            Self::Zero => sign * 0.0,
            Self::Tiny => sign * uniform * 2f32.powi(-62),
            Self::Huge => sign * uniform * 1e37,
            Self::Subnormal => sign * f32::from_bits(random.gen_range(0..0x0080_0000)),
            Self::Any => f32::from_bits(random.gen::<u32>() & 0xFEFF_FFFF),
            Self::Ascending => sign * (at % 4096) as f32 * 1e-3,
            Self::Poised if at % 4096 >= 8 => sign * 1e-3 * uniform,
            Self::Poised => {
                sign * (1.0 + 2f32.powi(-8) + random.gen_range(-1..=2) as f32 * 2f32.powi(-23))
            }
        }
    }
}

/// A tensor's window: error feedback, parameters before and after.
struct Window {
    feedback: Vec<f32>,
    start: Vec<f32>,
    local: Vec<f32>,
    keep: u16,
    decay: f32,
}

impl Window {
    /// Values whose sum with the feedback is of a kind.
    fn of(kind: Kind, len: usize, keep: u16) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(len as u64 * 5000 + u64::from(keep));
        let start = (0..len).map(|at| kind.draw(&mut random, at)).collect();
        let zero = vec![0.0; len];
        Self { feedback: zero.clone(), start, local: zero, keep, decay: 0.95 }
    }

    /// What a window leaves after some training.
    fn trained(len: usize, keep: u16) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(len as u64 * 77 + u64::from(keep));
        let start: Vec<f32> = (0..len).map(|_| random.gen_range(-0.1..0.1)).collect();
        let local = start.iter().map(|start| start + Kind::Ordinary.draw(&mut random, 0)).collect();
        let feedback = (0..len).map(|_| Kind::Ordinary.draw(&mut random, 0)).collect();
        Self { feedback, start, local, keep, decay: 0.95 }
    }

    fn len(&self) -> usize {
        self.start.len()
    }

    /// `whole`: parameters as f32, not as halves.
    fn case(&self, whole: bool) -> Case {
        let mut case = Case::new();
        self.add(&mut case, "", whole);
        case
    }

    fn add(&self, case: &mut Case, name: &str, whole: bool) {
        let chunks = self.len().div_ceil(CHUNK_LEN as usize);
        let a = Encode {
            feedback: case.output(&format!("{name}feedback"), &self.feedback),
            start: given(case, &format!("{name}start"), &self.start, whole),
            local: given(case, &format!("{name}local"), &self.local, whole),
            slots: case
                .fresh(&format!("{name}slots"), chunks * kernels::slot_bytes(self.keep) as usize),
            lengths: case.fresh(&format!("{name}lengths"), 4 * chunks),
            len: self.len() as u64,
            keep: self.keep,
            decay: self.decay,
        };
        case.launch(|gpu| kernels::encode_chunks(gpu, STREAM, &a)).unwrap();
    }

    /// Bytes and feedback are protocol's.
    fn check(&self, outcome: &Outcome, name: &str) {
        let mut expected = EncodedChunks::default();
        let mut feedback = self.feedback.clone();
        let encode = |feedback: &mut [f32], out: &mut EncodedChunks| {
            Encoder::new().encode_difference(
                feedback,
                &self.start,
                &self.local,
                self.decay,
                self.keep,
                out,
            )
        };
        encode(&mut feedback, &mut expected).unwrap();
        let mut chunks = EncodedChunks::default();
        let slots = outcome.bytes(&format!("{name}slots"));
        let lengths: Vec<u32> = outcome.values(&format!("{name}lengths"));
        kernels::compact(slots, &lengths, self.len() as u64, self.keep, &mut chunks).unwrap();
        let what = format!("{name} of {} values, {} kept", self.len(), self.keep);
        assert_eq!(chunks.lens, expected.lens, "{what}");
        assert!(chunks.bytes == expected.bytes, "{what}: other bytes");
        let left: Vec<u32> = outcome.values(&format!("{name}feedback"));
        let wrong = left.iter().zip(&feedback).position(|(ours, theirs)| *ours != theirs.to_bits());
        assert_eq!(wrong, None, "{what}: feedback");
    }
}

/// Parameters that a kernel only reads.
fn given(case: &mut Case, name: &str, values: &[f32], whole: bool) -> Values {
    if whole {
        return Values::Whole(case.input(name, values));
    }
    let (hi, lo): (Vec<u16>, Vec<u16>) = values.iter().copied().map(twin::split).unzip();
    Values::Halves {
        hi: case.input(&format!("{name} hi"), &hi),
        lo: case.input(&format!("{name} lo"), &lo),
    }
}

/// Parameters that a kernel changes.
fn changed(case: &mut Case, values: &[f32], whole: bool) -> Values {
    if whole {
        return Values::Whole(case.output("theta", values));
    }
    let (hi, lo): (Vec<u16>, Vec<u16>) = values.iter().copied().map(twin::split).unzip();
    Values::Halves { hi: case.output("hi", &hi), lo: case.output("lo", &lo) }
}

/// The bits of parameters after a case.
fn bits(outcome: &Outcome, whole: bool) -> Vec<u32> {
    if whole {
        return outcome.values("theta");
    }
    let halves = outcome.values::<u16>("hi").into_iter().zip(outcome.values::<u16>("lo"));
    halves.map(|(hi, lo)| twin::join(hi, lo).to_bits()).collect()
}

#[test]
fn encoded_chunks_are_the_protocols_for_any_values() {
    for (number, kind) in (1u32..).zip(KINDS) {
        for keep in [1, 8, 32, 64, 128, 192, 193, 512, 1024, 4096] {
            let chunks = if keep == 8 { 12 } else { 1 };
            let window = Window::of(kind, chunks * 4096 + 777, keep);
            let outcome =
                window.case(number % 2 == 0).run(Order::Random(number), Copies::Late).unwrap();
            window.check(&outcome, "");
        }
    }
}

#[test]
fn encoded_chunks_are_the_protocols_for_any_length() {
    for (keep, by) in [(1, 400), (64, 7), (700, 300), (4096, 500)] {
        let lens = (1..40).chain((40..4090).step_by(by));
        let lens = lens.chain([63, 64, 65, 1023, 1024, 1025, 4093, 4094, 4095, 4096, 9000]);
        let windows: Vec<Window> = lens.map(|len| Window::trained(len, keep)).collect();
        let mut case = Case::new();
        for (number, window) in windows.iter().enumerate() {
            window.add(&mut case, &format!("{number} "), number % 3 == 0);
        }
        let outcome = case.run(Order::Forwards, Copies::Late).unwrap();
        for (number, window) in windows.iter().enumerate() {
            window.check(&outcome, &format!("{number} "));
        }
    }
}

#[test]
fn encoding_gives_the_same_bytes_in_all_orders() {
    for (window, whole) in
        [(Window::trained(5000, 64), true), (Window::of(Kind::Few, 4500, 300), false)]
    {
        window.check(&agree_in_all_orders(&window.case(whole)).unwrap(), "");
    }
}

#[test]
fn chunks_with_values_that_are_not_finite_are_refused_and_keep_their_feedback() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 4095, 4096, 5000] {
            let mut window = Window::trained(5001, 64);
            window.local[at] = bad;
            let outcome = window.case(at % 2 == 0).run(Order::Forwards, Copies::Late).unwrap();
            let lengths: Vec<u32> = outcome.values("lengths");
            let index = at / 4096;
            assert!(lengths[index] == 0 && lengths[1 - index] > 0);
            let mut chunks = EncodedChunks::default();
            let refused = kernels::compact(outcome.bytes("slots"), &lengths, 5001, 64, &mut chunks);
            let error = ChunkError::NotFinite;
            assert_eq!(refused, Err(UpdateError::Chunk { index: index as u32, error }));
            assert_eq!(chunks.lens.len(), index);
            let left: Vec<f32> = outcome.values("feedback");
            let range = if index == 0 { 0..4096 } else { 4096..5001 };
            assert_eq!(left[range.clone()], window.feedback[range]);
        }
    }
}

/// A model, and updates of it: some as miners make them, some as far from that as the format allows.
struct Model {
    layout: Layout,
    keep: u16,
    theta: Vec<Vec<f32>>,
    updates: Vec<Vec<u8>>,
}

impl Model {
    fn new(lens: &[u64], keep: u16, count: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(u64::from(keep) + count as u64);
        let layout = Layout(lens.to_vec());
        let tensor = |len: u64, random: &mut ChaCha8Rng, kind: Kind| -> Vec<f32> {
            (0..len as usize).map(|at| kind.draw(random, at)).collect()
        };
        let theta = lens.iter().map(|len| tensor(*len, &mut random, Kind::Ordinary)).collect();
        let updates = (0..count).map(|number| match number % 3 {
            0 => {
                let kind = KINDS[number % KINDS.len()];
                let mut tensors: Vec<Vec<f32>> =
                    lens.iter().map(|len| tensor(*len, &mut random, kind)).collect();
                let mut views: Vec<&mut [f32]> =
                    tensors.iter_mut().map(Vec::as_mut_slice).collect();
                Encoder::new().encode(&mut views, &layout, keep).unwrap()
            }
            _ => hostile(&layout, keep, number, &mut random),
        });
        let updates = updates.collect();
        Self { layout, keep, theta, updates }
    }

    fn payloads(&self) -> Vec<Payload<'_>> {
        self.updates
            .iter()
            .map(|bytes| Payload::parse(bytes, &self.layout, self.keep).unwrap())
            .collect()
    }

    /// Runs `case` and compares the tensor after it with what `expected` makes of the model.
    fn expected(&self, change: impl FnOnce(&mut [&mut [f32]])) -> Vec<Vec<f32>> {
        let mut theta = self.theta.clone();
        let mut views: Vec<&mut [f32]> = theta.iter_mut().map(Vec::as_mut_slice).collect();
        change(&mut views);
        theta
    }

    /// The outer step of a tensor's chunks from `first_chunk` on.
    fn outer_case(&self, tensor: usize, first_chunk: u32, rule: OuterRule, whole: bool) -> Case {
        let payloads = self.payloads();
        let parts: Vec<TensorUpdate<'_>> = payloads
            .iter()
            .map(|payload| TensorUpdate::new(payload, &self.layout, tensor as u32).unwrap())
            .collect();
        let factors = aggregate::tensor_factors(&parts).unwrap();
        let (first, count) = self.layout.tensor_chunks(tensor as u32).unwrap();
        let updates: Vec<&Payload<'_>> = payloads.iter().collect();
        let staged = Staged::new(&updates, first + first_chunk..first + count).unwrap();
        let mut case = Case::new();
        let theta = &self.theta[tensor][(first_chunk * CHUNK_LEN) as usize..];
        let a = OuterStep {
            theta: changed(&mut case, theta, whole),
            bytes: case.input("bytes", &staged.bytes),
            offsets: case.input("offsets", &staged.offsets),
            factors: case.input("factors", &factors),
            len: theta.len() as u64,
            updates: updates.len() as u32,
            keep: self.keep,
            rule,
        };
        case.launch(|gpu| kernels::outer_step(gpu, STREAM, &a)).unwrap();
        case
    }

    /// One update applied to a tensor, and taken back if `undone`.
    fn apply_case(
        &self,
        update: usize,
        tensor: usize,
        rate: f32,
        whole: bool,
        undone: bool,
    ) -> Case {
        let payload = Payload::parse(&self.updates[update], &self.layout, self.keep).unwrap();
        let (first, count) = self.layout.tensor_chunks(tensor as u32).unwrap();
        let staged = Staged::new(&[&payload], first..first + count).unwrap();
        let mut case = Case::new();
        let a = Apply {
            theta: changed(&mut case, &self.theta[tensor], whole),
            bytes: case.input("bytes", &staged.bytes),
            offsets: case.input("offsets", &staged.offsets),
            saved: case.fresh("saved", 4 * count as usize * usize::from(self.keep)),
            len: self.theta[tensor].len() as u64,
            keep: self.keep,
        };
        case.launch(|gpu| kernels::apply_update(gpu, STREAM, &a, rate)).unwrap();
        if undone {
            case.launch(|gpu| kernels::undo_update(gpu, STREAM, &a)).unwrap();
        }
        case
    }
}

/// Chunks that no quantiser makes: the largest and the smallest scales, positions in runs at either end or anywhere, any
/// codes.
fn hostile(layout: &Layout, keep: u16, number: usize, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut chunks = EncodedChunks::default();
    for (index, place) in layout.chunks().enumerate() {
        let kept = kept(place.len, keep);
        let scales = [SCALE_MAX_BF16, SCALE_MIN_BF16, 0x3F80, 0, random.gen_range(0x3000..0x4000)];
        let scale_bf16 = scales[(number + index) % scales.len()];
        let last = place.len as u16 - kept;
        let mut indices: Vec<u16> = match random.gen_range(0..4) {
            0 => (0..kept).collect(),
            1 => (last..last + kept).collect(),
            2 => (0..kept / 2)
                .chain(place.len as u16 - (kept - kept / 2)..place.len as u16)
                .collect(),
            _ => {
                let mut all: Vec<u16> = (0..place.len as u16).collect();
                for at in 0..usize::from(kept) {
                    let other = random.gen_range(at..all.len());
                    all.swap(at, other);
                }
                all.truncate(usize::from(kept));
                all.sort_unstable();
                all
            }
        };
        let mut codes: Vec<u8> = (0..kept).map(|_| random.gen_range(0..4)).collect();
        if scale_bf16 == 0 {
            indices = (0..kept).collect();
            codes.fill(0);
        }
        let bytes = encode_chunk(&Chunk { scale_bf16, indices, codes }, place.len, keep).unwrap();
        chunks.lens.push(bytes.len() as u16);
        chunks.bytes.extend(bytes);
    }
    assemble(&[chunks], layout, keep).unwrap()
}

const RULES: [(u32, u32); 6] = [
    (1_000_000, 1_000_000),
    (800_000, 0),
    (650_000, 500_000),
    (0, 0),
    (1, 999_999),
    (2_000_000, 2_000_000),
];

#[test]
fn outer_steps_are_the_protocols_for_any_rule_and_any_valid_updates() {
    for (number, (keep, count)) in
        [(64, 5), (1, 3), (32, 1), (128, 20), (512, 4), (2000, 6), (4096, 3)]
            .into_iter()
            .enumerate()
    {
        let model = Model::new(&[9000, 1, 4096, 333, 12_288, 17], keep, count);
        for (rate, senders) in RULES.into_iter().skip(number % 2).step_by(2) {
            let rule = OuterRule::new(rate, senders);
            let uids = (0u16..).zip(model.payloads()).collect::<Vec<_>>();
            let expected = model.expected(|views| {
                aggregate::outer_step(views, &model.layout, &uids, rule).unwrap()
            });
            for (tensor, expected) in expected.iter().enumerate() {
                let whole = (tensor + number) % 2 == 0;
                let order = Order::Random(tensor as u32 + 1);
                let outcome =
                    model.outer_case(tensor, 0, rule, whole).run(order, Copies::Late).unwrap();
                let expected: Vec<u32> = expected.iter().map(|value| value.to_bits()).collect();
                assert!(
                    bits(&outcome, whole) == expected,
                    "keep {keep}, rule {rule:?}, tensor {tensor}"
                );
            }
        }
    }
}

#[test]
fn parts_of_a_tensor_step_as_the_whole_does() {
    let model = Model::new(&[9000], 64, 4);
    let rule = OuterRule::new(700_000, 300_000);
    let whole = model.outer_case(0, 0, rule, false).run(Order::Forwards, Copies::Late).unwrap();
    for first in 1..3 {
        let part =
            model.outer_case(0, first, rule, false).run(Order::Forwards, Copies::Late).unwrap();
        assert_eq!(bits(&part, false), bits(&whole, false)[(first * CHUNK_LEN) as usize..]);
    }
}

#[test]
fn updates_are_applied_as_the_protocol_does_and_taken_back_to_the_bit() {
    for keep in [1, 64, 500, 4096] {
        let model = Model::new(&[9000, 5, 4096], keep, 6);
        for (update, payload) in model.payloads().iter().enumerate() {
            let rate = 0.7;
            let expected = model.expected(|views| {
                aggregate::apply_single(views, &model.layout, payload, rate).unwrap()
            });
            for (tensor, expected) in expected.iter().enumerate() {
                let whole = (tensor + update) % 2 == 0;
                let run = |undone| {
                    model
                        .apply_case(update, tensor, rate, whole, undone)
                        .run(Order::Backwards, Copies::Late)
                        .unwrap()
                };
                let to_bits = |values: &[f32]| {
                    values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
                };
                assert!(
                    bits(&run(false), whole) == to_bits(expected),
                    "keep {keep}, update {update}, tensor {tensor}"
                );
                assert!(
                    bits(&run(true), whole) == to_bits(&model.theta[tensor]),
                    "undone: keep {keep}, update {update}"
                );
            }
        }
    }
}

#[test]
fn decoding_gives_the_same_bits_in_all_orders() {
    let model = Model::new(&[4500], 300, 4);
    agree_in_all_orders(&model.outer_case(0, 0, OuterRule::new(900_000, 0), true)).unwrap();
    agree_in_all_orders(&model.apply_case(1, 0, 0.5, false, false)).unwrap();
    agree_in_all_orders(&model.apply_case(2, 0, 0.5, false, true)).unwrap();
}

/// Bytes that are no chunk never come here, for a payload is parsed on the host; if they did, they would stay inside
/// of their memory.
#[test]
fn bytes_that_are_no_chunk_write_nothing_else() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for keep in [1u16, 64, 4096] {
        let len = 4096 + 100u32;
        let bytes: Vec<u8> = (0..3000).map(|_| random.gen()).collect();
        let mut case = Case::new();
        let theta = vec![0.5f32; len as usize];
        let offsets = [0u32, 1500, 3000];
        let a = Apply {
            theta: changed(&mut case, &theta, false),
            bytes: case.input("bytes", &bytes),
            offsets: case.input("offsets", &offsets),
            saved: case.fresh("saved", 8 * usize::from(keep)),
            len: u64::from(len),
            keep,
        };
        case.launch(|gpu| kernels::apply_update(gpu, STREAM, &a, 0.5)).unwrap();
        sanitised(&case, Sanitizer::Address).unwrap();
    }
}

#[test]
fn sparse_kernels_stay_inside_their_memory_and_do_not_race() {
    let window = Window::trained(4500, 64);
    let model = Model::new(&[4500], 64, 3);
    let cases = [
        window.case(true),
        window.case(false),
        Window::of(Kind::Equal, 4097, 4096).case(false),
        model.outer_case(0, 0, OuterRule::new(900_000, 0), false),
        model.apply_case(1, 0, 0.5, true, true),
        model.apply_case(1, 0, 0.5, false, true),
    ];
    for case in &cases {
        sanitised(case, Sanitizer::Address).unwrap();
        sanitised(case, Sanitizer::Thread).unwrap();
    }
}

/// Says how each bug was found, or fails.
fn find_all<'a>(bugs: &[(&str, &str)], case: impl Fn(&str) -> &'a Case) {
    for (bug, what) in bugs {
        let finding = finds(case(bug), bug).unwrap();
        println!(
            "{what}: {}",
            finding.as_ref().map_or_else(|| "not found".to_owned(), ToString::to_string)
        );
        assert!(finding.is_some(), "{bug}: {what}");
    }
}

#[test]
fn bugs_in_encoding_are_found() {
    let few = Window::of(Kind::Few, 4500, 300).case(true);
    let poised = Window::of(Kind::Poised, 12 * 4096, 8).case(true);
    find_all(&ENCODING_BUGS, |bug| if bug == "BUG_LANES_BACKWARDS" { &poised } else { &few });
}

#[test]
fn bugs_in_decoding_are_found() {
    let case = Model::new(&[4500], 300, 4).outer_case(0, 0, OuterRule::new(900_000, 0), true);
    find_all(&DECODING_BUGS, |_| &case);
}
