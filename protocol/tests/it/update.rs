//! The update format: golden bytes, round trips, and refusal of everything else.

use proptest::prelude::*;
use protocol::{
    layout::{kept, Layout},
    merkle::verify,
    update::{
        accumulate_difference, assemble, chunk_bytes_max, chunk_bytes_min, chunk_values,
        code_value, decode_chunk, encode_chunk, encode_chunk_f32, payload_bytes_max, quantise,
        rice_parameter, top_k, Chunk, ChunkError, EncodedChunks, Encoder, Frame, Payload,
        UpdateError, UpdateWriter, CHUNK_BYTES_MAX, HEADER_BYTES, SCALE_MAX_BF16, SCALE_MIN_BF16,
    },
    variant::Variant,
};

/// Deterministic noise: SplitMix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A Laplace number.
    fn laplace(&mut self) -> f32 {
        let magnitude = -self.unit().ln();
        (if self.next() & 1 == 0 { magnitude } else { -magnitude }) as f32
    }

    fn laplaces(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.laplace()).collect()
    }
}

/// The slow obvious selection.
fn top_k_oracle(values: &[f32], count: usize) -> Vec<u32> {
    let mut positions: Vec<u32> = (0..values.len() as u32).collect();
    positions.sort_by(|a, b| {
        let magnitude = |i: &u32| values[*i as usize].abs();
        magnitude(b).partial_cmp(&magnitude(a)).unwrap().then(a.cmp(b))
    });
    positions.truncate(count);
    positions.sort_unstable();
    positions
}

fn encoded(values: &[f32], keep: u16) -> (Vec<u8>, Vec<f32>) {
    let mut residual = values.to_vec();
    let mut bytes = Vec::new();
    encode_chunk_f32(&mut residual, keep, &mut bytes).unwrap();
    (bytes, residual)
}

#[test]
fn golden_chunk() {
    // 16 values under keep 1024 keep 4: positions 1, 2, 9, 15 with gaps 1, 0, 6, 5. 13 · 12 = 156
    // is not below 27 · 4 = 108 but below 216, so a = 1. Scale 1 is 0x3F80.
    // Codes 0, 3, 2, 1: bits 00 11 01 10 (least significant first), bytes so far 80 3F, then
    // 0b01_10_11_00 = 6C. Remainders 1 0 0 1, quotients 0 0 3 2: 1, 1, 0001, 001.
    // Bits 1001 1 1 00 | 01 001 000: 0b0011_1001 = 39, 0b0001_0010 = 12.
    let chunk = Chunk { scale_bf16: 0x3F80, indices: vec![1, 2, 9, 15], codes: vec![0, 3, 2, 1] };
    let bytes = encode_chunk(&chunk, 16, 1024).unwrap();
    assert_eq!(hex::encode(&bytes), "803f6c3912");
    assert_eq!(decode_chunk(&bytes, 16, 1024), Ok(chunk.clone()));
    let values: Vec<(u16, f32)> = chunk_values(&chunk).collect();
    assert_eq!(values, [(1, 1.0), (2, -1.5), (9, -1.0), (15, 1.5)]);
}

#[test]
fn golden_payload() {
    let layout = Layout(vec![5000, 1, 300]);
    let mut tensors: Vec<Vec<f32>> = layout.0.iter().map(|len| vec![0.0; *len as usize]).collect();
    // Exactly representable, so that the platform's logarithm does not matter.
    for (position, value) in tensors.iter_mut().flatten().enumerate() {
        *value = ((position * 7919 + 13) % 2003) as f32 / 64.0 - 15.5;
    }
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    let bytes = Encoder::new().encode(&mut slices, &layout, 8).unwrap();
    assert_eq!(hex::encode(&bytes), GOLDEN_PAYLOAD);
    let payload = Payload::parse(&bytes, &layout, 8).unwrap();
    assert_eq!(hex::encode(payload.root()), GOLDEN_PAYLOAD_ROOT);
}

const GOLDEN_PAYLOAD: &str =
    "01080004000000020000007c410000c217178a1717178a15aa107c418076513441047c419c04";
const GOLDEN_PAYLOAD_ROOT: &str =
    "25354e7e8afd76c8ae3e6506240bcf94b3a2c4b5ef0b305e22e8df5b70b2942e";

#[test]
fn chunk_bytes_max_is_a_bound() {
    let mut most = 0;
    for keep in 1..=4096u16 {
        for len in [1, 2, 63, 64, 65, 1000, 2048, 4095, 4096] {
            let (least, bound) = (chunk_bytes_min(len, keep), chunk_bytes_max(len, keep));
            assert!(least <= bound && bound <= CHUNK_BYTES_MAX, "len {len} keep {keep}");
            assert!(bound - least <= if keep <= 960 { 255 } else { 65_535 });
            assert!(rice_parameter(len, kept(len, keep)) <= 12);
            most = most.max(bound);
        }
    }
    assert_eq!(most, CHUNK_BYTES_MAX);
}

#[test]
fn a_chunk_of_the_longest_form_is_within_its_bound() {
    // All positions at the end: the first gap takes all the zeros there are.
    for keep in [1u16, 64, 128, 960, 961, 1330, 2048, 4096] {
        let count = kept(4096, keep);
        let chunk = Chunk {
            scale_bf16: 0x3F80,
            indices: (4096 - count..4096).collect(),
            codes: vec![1; usize::from(count)],
        };
        let bytes = encode_chunk(&chunk, 4096, keep).unwrap();
        assert_eq!(bytes.len() as u32, chunk_bytes_max(4096, keep));
        assert_eq!(decode_chunk(&bytes, 4096, keep), Ok(chunk));
    }
}

#[test]
fn each_defect_has_its_error() {
    let good = Chunk { scale_bf16: 0x3F80, indices: vec![1, 2, 9, 15], codes: vec![0, 3, 2, 1] };
    let check = |change: fn(&mut Chunk), error| {
        let mut chunk = good.clone();
        change(&mut chunk);
        assert_eq!(encode_chunk(&chunk, 16, 1024), Err(error));
    };
    check(|c| c.indices[3] = 16, ChunkError::Index);
    check(|c| c.indices[3] = 9, ChunkError::Index);
    check(|c| c.codes[0] = 4, ChunkError::Codes);
    check(|c| c.codes.truncate(3), ChunkError::Codes);
    check(|c| c.scale_bf16 = 0, ChunkError::Zero);
    for bits in [1, SCALE_MIN_BF16 - 1, SCALE_MAX_BF16 + 1, 0x7F80, 0x7FC0, 0x8000, 0xBF80] {
        let mut chunk = good.clone();
        chunk.scale_bf16 = bits;
        assert_eq!(encode_chunk(&chunk, 16, 1024), Err(ChunkError::Scale(bits)));
        let mut bytes = encode_chunk(&good, 16, 1024).unwrap();
        bytes[..2].copy_from_slice(&bits.to_le_bytes());
        assert_eq!(decode_chunk(&bytes, 16, 1024), Err(ChunkError::Scale(bits)));
    }
    let bytes = encode_chunk(&good, 16, 1024).unwrap();
    let mut padded = bytes.clone();
    padded[4] |= 0x80;
    assert_eq!(decode_chunk(&padded, 16, 1024), Err(ChunkError::Padding));
    assert_eq!(decode_chunk(&bytes[..3], 16, 1024), Err(ChunkError::ByteLen(3)));
    assert_eq!(decode_chunk(&[0; 99], 16, 1024), Err(ChunkError::ByteLen(99)));
    assert_eq!(decode_chunk(&bytes, 16, 0), Err(ChunkError::Keep(0)));
    assert_eq!(decode_chunk(&bytes, 16, 4097), Err(ChunkError::Keep(4097)));
    assert_eq!(decode_chunk(&bytes, 0, 1024), Err(ChunkError::Len(0)));
    assert_eq!(decode_chunk(&bytes, 4097, 1024), Err(ChunkError::Len(4097)));
    let mut zero = bytes.clone();
    zero[..2].fill(0);
    assert_eq!(decode_chunk(&zero, 16, 1024), Err(ChunkError::Zero));
}

#[test]
fn zeros_have_one_form_and_leave_no_trace() {
    for value in [0.0f32, -0.0, 1e-30, -f32::MIN_POSITIVE / 2.0] {
        let values = vec![value; 4096];
        let (bytes, residual) = encoded(&values, 64);
        let chunk = decode_chunk(&bytes, 4096, 64).unwrap();
        assert_eq!(chunk.scale_bf16, 0);
        assert_eq!(chunk.indices, (0..64).collect::<Vec<u16>>());
        assert!(chunk.codes.iter().all(|code| *code == 0));
        assert!(residual.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn huge_values_are_cut_to_the_largest_scale() {
    let values = vec![f32::MAX; 100];
    let (bytes, residual) = encoded(&values, 4096);
    let chunk = decode_chunk(&bytes, 100, 4096).unwrap();
    assert_eq!(chunk.scale_bf16, SCALE_MAX_BF16);
    assert!(residual.iter().all(|value| value.is_finite()));
}

#[test]
fn values_that_are_not_finite_are_refused_wherever_they_are() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (len, at) in [(4096, 0), (4096, 4095), (4096, 1234), (4095, 17), (1, 0)] {
            for keep in [64, 4096] {
                let mut values = vec![1.0f32; len];
                values[at] = bad;
                let mut out = vec![9];
                let result = encode_chunk_f32(&mut values, keep, &mut out);
                assert_eq!(result, Err(ChunkError::NotFinite));
                assert_eq!(out, [9]);
            }
        }
    }
    let layout = Layout(vec![4096, 5000]);
    let (mut a, mut b) = (vec![1.0f32; 4096], vec![1.0f32; 5000]);
    b[4999] = f32::NAN;
    let error = Encoder::new().encode(&mut [&mut a, &mut b], &layout, 64);
    assert_eq!(error, Err(UpdateError::Chunk { index: 2, error: ChunkError::NotFinite }));
}

#[test]
fn ties_go_to_the_lowest_position_in_full_chunks() {
    let mut values = vec![0.5f32; 4096];
    assert_eq!(top_k(&values, 64).unwrap(), (0..64).collect::<Vec<u32>>());
    let (bytes, _) = encoded(&values, 64);
    assert_eq!(decode_chunk(&bytes, 4096, 64).unwrap().indices, (0..64).collect::<Vec<u16>>());
    values[4000] = -1.0;
    values[7] = -0.5;
    let (bytes, _) = encoded(&values, 64);
    let expected: Vec<u16> = (0..63).chain([4000]).collect();
    assert_eq!(decode_chunk(&bytes, 4096, 64).unwrap().indices, expected);
}

#[test]
fn sixty_four_of_4096_is_more_than_200_times_smaller() {
    let mut noise = Noise(2);
    let layout = Layout(vec![4096 * 250, 1000, 4096 * 7 + 5]);
    let mut tensors: Vec<Vec<f32>> =
        layout.0.iter().map(|len| noise.laplaces(*len as usize)).collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    let bytes = Encoder::new().encode(&mut slices, &layout, 64).unwrap();
    let ratio = layout.value_count().unwrap() as f64 * 4.0 / bytes.len() as f64;
    assert!(ratio > 204.0, "{ratio}");
    assert!(bytes.len() as u64 <= payload_bytes_max(&layout, 64));
}

#[test]
fn the_quantiser_is_near_the_best_for_its_levels() {
    // The best scale for every split of the sorted magnitudes, in f64.
    let best = |values: &[f32]| {
        let mut sorted: Vec<f64> = values.iter().map(|v| f64::from(v.abs())).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let energy: f64 = sorted.iter().map(|m| m * m).sum();
        (0..=sorted.len()).fold(f64::MAX, |least, split| {
            let (high, low) = sorted.split_at(split);
            let fit: f64 = low.iter().sum::<f64>() + 1.5 * high.iter().sum::<f64>();
            least.min(energy - fit * fit / (low.len() as f64 + 2.25 * high.len() as f64))
        })
    };
    let mut noise = Noise(3);
    let (mut error, mut least) = (0.0, 0.0);
    for _ in 0..50 {
        let chunk = noise.laplaces(4096);
        let kept: Vec<f32> =
            top_k(&chunk, 64).unwrap().into_iter().map(|i| chunk[i as usize]).collect();
        let mut codes = Vec::new();
        let scale = quantise(&kept, &mut codes);
        error += kept
            .iter()
            .zip(&codes)
            .map(|(value, code)| f64::from(value - code_value(scale, *code)).powi(2))
            .sum::<f64>();
        least += best(&kept);
    }
    // The rest is the rounding of the scale to eight bits.
    assert!(error < least * 1.02, "{error} against {least}");
}

#[test]
fn encoding_in_parts_gives_the_same_bytes() {
    let mut noise = Noise(4);
    let layout = Layout(vec![9000, 4096, 77]);
    let tensors: Vec<Vec<f32>> = layout.0.iter().map(|len| noise.laplaces(*len as usize)).collect();
    let mut whole = tensors.clone();
    let mut slices: Vec<&mut [f32]> = whole.iter_mut().map(Vec::as_mut_slice).collect();
    let bytes = Encoder::new().encode(&mut slices, &layout, 100).unwrap();
    let mut residuals = tensors.clone();
    let parts: Vec<EncodedChunks> = residuals
        .iter_mut()
        .map(|tensor| {
            let mut part = EncodedChunks::default();
            Encoder::new().encode_tensor(tensor, 100, &mut part).unwrap();
            part
        })
        .collect();
    assert_eq!(assemble(&parts, &layout, 100).unwrap(), bytes);
    assert_eq!(residuals, whole);
    assert_eq!(assemble(&parts[1..], &layout, 100), Err(UpdateError::Tensors));
    assert_eq!(
        Encoder::new().encode(&mut [&mut [0.0; 5]], &layout, 100),
        Err(UpdateError::Tensors)
    );
}

#[test]
fn error_feedback_adds_the_difference() {
    let mut error = [1.0f32, -2.0];
    accumulate_difference(&mut error, &[5.0, 5.0], &[4.0, 7.0], 0.5);
    assert_eq!(error, [1.5, -3.0]);
}

#[test]
fn feedback_in_one_pass_gives_the_same_bytes() {
    let mut noise = Noise(6);
    let (start, local) = (noise.laplaces(9001), noise.laplaces(9001));
    let error = noise.laplaces(9001);
    let (mut apart, mut together) = (error.clone(), error);
    let (mut first, mut second) = (EncodedChunks::default(), EncodedChunks::default());
    accumulate_difference(&mut apart, &start, &local, 0.95);
    Encoder::new().encode_tensor(&mut apart, 64, &mut first).unwrap();
    let mut encoder = Encoder::new();
    encoder.encode_difference(&mut together, &start, &local, 0.95, 64, &mut second).unwrap();
    assert_eq!(first, second);
    assert_eq!(apart, together);
    let short = encoder.encode_difference(&mut together, &start, &[], 0.95, 64, &mut second);
    assert_eq!(short, Err(UpdateError::Tensors));
}

fn sample_payload(keep: u16) -> (Layout, Vec<u8>) {
    let mut noise = Noise(5);
    let layout = Layout(vec![4096 + 300, 64, 1]);
    let mut tensors: Vec<Vec<f32>> =
        layout.0.iter().map(|len| noise.laplaces(*len as usize)).collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    let bytes = Encoder::new().encode(&mut slices, &layout, keep).unwrap();
    (layout, bytes)
}

#[test]
fn every_prefix_and_every_extension_of_a_payload_is_refused() {
    for keep in [64, 2000] {
        let (layout, bytes) = sample_payload(keep);
        Payload::parse(&bytes, &layout, keep).unwrap();
        for len in 0..bytes.len() {
            assert!(Payload::parse(&bytes[..len], &layout, keep).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Payload::parse(&longer, &layout, keep), Err(UpdateError::ByteLen(longer.len())));
    }
}

#[test]
fn a_payload_of_another_run_is_refused() {
    let (layout, bytes) = sample_payload(64);
    assert_eq!(Payload::parse(&bytes, &layout, 63), Err(UpdateError::KeepMismatch(64)));
    assert_eq!(Payload::parse(&bytes, &layout, 0), Err(UpdateError::Keep(0)));
    assert_eq!(Payload::parse(&bytes, &Layout(vec![]), 64), Err(UpdateError::Layout));
    let other = Layout(vec![4096]);
    assert_eq!(Payload::parse(&bytes, &other, 64), Err(UpdateError::ChunkCount(4)));
    let mut version = bytes.clone();
    version[0] = 2;
    assert_eq!(Payload::parse(&version, &layout, 64), Err(UpdateError::Version(2)));
    // A count that the bytes cannot back is refused before anything is allocated for it.
    let huge = Layout(vec![u64::from(u32::MAX) * 4096]);
    let mut header = bytes[..HEADER_BYTES].to_vec();
    header[3..].fill(0xFF);
    assert_eq!(Payload::parse(&header, &huge, 64), Err(UpdateError::ByteLen(HEADER_BYTES)));
}

#[test]
fn chunks_of_a_payload_are_proved_against_its_root() {
    let (layout, bytes) = sample_payload(64);
    let payload = Payload::parse(&bytes, &layout, 64).unwrap();
    let hashes = payload.leaf_hashes();
    assert_eq!(payload.chunk_count(), 4);
    for index in 0..4 {
        let shown = payload.chunk_proof(&hashes, index).unwrap();
        assert!(verify(&payload.root(), 4, index, &shown.chunk, &shown.proof));
        assert!(decode_chunk(&shown.chunk, layout.chunk_len(index).unwrap(), 64).is_ok());
    }
    assert_eq!(payload.chunk(4), None);
    assert_eq!(payload.chunk_proof(&hashes, 4), None);
}

/// Any length and `keep`, with full chunks and the usual `keep` often.
fn shapes() -> impl Strategy<Value = (u32, u16)> {
    (prop_oneof![Just(4096u32), 1u32..=4096, 1u32..100], prop_oneof![Just(64u16), 1u16..=4096])
}

/// Values with many ties, zeros, tiny and huge numbers.
fn chunk_of(len: u32, seed: u64, kind: u8) -> Vec<f32> {
    let mut noise = Noise(seed);
    (0..len)
        .map(|_| match kind % 5 {
            0 => noise.laplace(),
            1 => (noise.next() % 7) as f32 - 3.0,
            2 if noise.unit() < 0.98 => 0.0,
            2 => noise.laplace(),
            3 => f32::from_bits((noise.next() as u32) & 0xBFFF_FFFF),
            _ => noise.laplace() * 1e-38,
        })
        .collect()
}

proptest! {
    #[test]
    fn top_k_is_exact((len, keep) in shapes(), seed in any::<u64>(), kind in any::<u8>()) {
        let values = chunk_of(len, seed, kind);
        let count = usize::from(kept(len, keep));
        let expected = top_k_oracle(&values, count);
        prop_assert_eq!(&top_k(&values, count).unwrap(), &expected);
        // The quick way, seen through the bytes.
        let (bytes, _) = encoded(&values, keep);
        let chunk = decode_chunk(&bytes, len, keep).unwrap();
        if chunk.scale_bf16 != 0 {
            let found: Vec<u32> = chunk.indices.iter().map(|i| u32::from(*i)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn sent_and_residual_make_the_input(
        (len, keep) in shapes(), seed in any::<u64>(), kind in any::<u8>(),
    ) {
        let values = chunk_of(len, seed, kind);
        let (bytes, residual) = encoded(&values, keep);
        let chunk = decode_chunk(&bytes, len, keep).unwrap();
        let mut expected = values.clone();
        for (index, value) in chunk_values(&chunk) {
            expected[usize::from(index)] -= value;
        }
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&residual), bits(&expected));
        prop_assert!(residual.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn any_chunk_round_trips((len, keep) in shapes(), seed in any::<u64>()) {
        let count = kept(len, keep);
        let mut noise = Noise(seed);
        // A random subset by reservoir.
        let mut indices: Vec<u16> = (0..count).collect();
        for position in count..len as u16 {
            let at = noise.next() % (u64::from(position) + 1);
            if at < u64::from(count) {
                indices[at as usize] = position;
            }
        }
        indices.sort_unstable();
        let codes = (0..count).map(|_| (noise.next() & 3) as u8).collect();
        let scales = u64::from(SCALE_MAX_BF16 - SCALE_MIN_BF16) + 1;
        let scale_bf16 = SCALE_MIN_BF16 + (noise.next() % scales) as u16;
        let chunk = Chunk { scale_bf16, indices, codes };
        let bytes = encode_chunk(&chunk, len, keep).unwrap();
        let bounds = chunk_bytes_min(len, keep)..=chunk_bytes_max(len, keep);
        prop_assert!(bounds.contains(&(bytes.len() as u32)));
        prop_assert_eq!(decode_chunk(&bytes, len, keep), Ok(chunk));
    }

    #[test]
    fn random_bytes_never_panic_and_decode_only_if_canonical(
        (len, keep) in shapes(), seed in any::<u64>(), ones in 0u32..4,
    ) {
        // Any length that can be, valid scales often, and more or fewer ones than chance gives.
        let mut noise = Noise(seed);
        let (least, most) = (chunk_bytes_min(len, keep), chunk_bytes_max(len, keep));
        let byte_len = u64::from(least) + noise.next() % u64::from(most - least + 1);
        let mut bytes: Vec<u8> = (0..byte_len)
            .map(|_| (0..ones).fold(noise.next(), |all, _| all | noise.next()) as u8)
            .collect();
        if seed % 4 != 0 {
            bytes[..2].copy_from_slice(&[0x80, 0x3F]);
        }
        if let Ok(chunk) = decode_chunk(&bytes, len, keep) {
            prop_assert_eq!(encode_chunk(&chunk, len, keep), Ok(bytes));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        len in any::<u32>(),
        keep in any::<u16>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = decode_chunk(&bytes, len, keep);
        let _ = Payload::parse(&bytes, &Layout(vec![u64::from(len)]), keep);
    }

    #[test]
    fn a_mutated_chunk_is_refused_or_another_chunk(
        (len, keep) in shapes(), seed in any::<u64>(), bit in any::<prop::sample::Index>(),
    ) {
        let (bytes, _) = encoded(&chunk_of(len, seed, 0), keep);
        let bit = bit.index(bytes.len() * 8);
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(chunk) = decode_chunk(&changed, len, keep) {
            prop_assert_eq!(encode_chunk(&chunk, len, keep), Ok(changed));
            prop_assert_ne!(chunk, decode_chunk(&bytes, len, keep).unwrap());
        }
    }

    #[test]
    fn a_mutated_payload_is_refused_or_has_another_root(
        byte in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        for keep in [64, 2000] {
            let (layout, bytes) = sample_payload(keep);
            let at = byte.index(bytes.len());
            prop_assume!(bytes[at] != value);
            let mut changed = bytes.clone();
            changed[at] = value;
            if let Ok(payload) = Payload::parse(&changed, &layout, keep) {
                let original = Payload::parse(&bytes, &layout, keep).unwrap();
                prop_assert_ne!(payload.root(), original.root());
            }
        }
    }
}

/// Values that a selection or a quantiser could get wrong.
fn adversarial(len: usize, kind: usize, noise: &mut Noise) -> Vec<f32> {
    let mut next = |at: usize| match kind {
        0 => noise.laplace(),
        // Ties, of both signs.
        1 => [1.0, -1.0][at % 2],
        2 => (noise.next() % 4) as f32 - 1.5,
        // Zeros, of both signs, and few others.
        3 => [1e-3, -0.0, 0.0][(noise.next() % 64).min(2) as usize],
        4 => 0.0,
        // Subnormal numbers, alone and beside others.
        5 => f32::from_bits((noise.next() % 0x80_0000) as u32),
        6 => noise.laplace() * [1.0, 1e-40, 1e-30][at % 3],
        // The largest there are.
        7 => f32::MAX * [1.0, -1.0, 0.5][at % 3],
        8 => noise.laplace() * 1e38,
        // All in one group of the selection, rising, falling.
        9 => noise.laplace() * if at % 16 == 5 && at < 1024 { 1e6 } else { 1.0 },
        10 => at as f32,
        11 => -((len - at) as f32),
        // One value among equals.
        12 => 1.0 + if at == len / 2 { f32::EPSILON } else { 0.0 },
        _ => f32::from_bits(noise.next() as u32 & 0xBFFF_FFFF),
    };
    (0..len).map(&mut next).collect()
}

/// Every set of instructions that this machine has: the same bytes, residual and outer step.
#[test]
fn all_variants_give_the_same_bits() {
    let variants = Variant::available();
    assert_eq!(variants[0], Variant::PORTABLE);
    println!("{variants:?}");
    let mut noise = Noise(11);
    for len in [1usize, 2, 15, 63, 64, 100, 4095, 4096, 4097, 3 * 4096 + 17] {
        for kind in 0..14 {
            let error = adversarial(len, kind, &mut noise);
            let start = adversarial(len, (kind + noise.next() as usize % 3) % 14, &mut noise);
            let local: Vec<f32> = start.iter().map(|v| v * 0.75).collect();
            for keep in [1u16, 64, 192, 193, 1024, 4096] {
                let encode = |variant| {
                    let mut residual = error.clone();
                    let mut out = EncodedChunks::default();
                    let mut encoder = Encoder::with_variant(variant);
                    let result = encoder.encode_difference(
                        &mut residual,
                        &start,
                        &local,
                        0.95,
                        keep,
                        &mut out,
                    );
                    let bits: Vec<u32> = residual.iter().map(|value| value.to_bits()).collect();
                    (result, out, bits)
                };
                let expected = encode(Variant::PORTABLE);
                for variant in &variants {
                    assert_eq!(encode(*variant), expected, "{variant:?} {len} {kind} {keep}");
                }
            }
        }
    }
}

#[test]
fn a_writer_takes_chunks_in_any_portions_and_gives_the_encoders_bytes() {
    let layout = Layout(vec![3 * 4096 + 5, 1, 4096, 700]);
    let mut noise = Noise(3);
    for keep in [64u16, 2000] {
        let tensors: Vec<Vec<f32>> =
            layout.0.iter().map(|len| noise.laplaces(*len as usize)).collect();
        let mut whole = tensors.clone();
        let mut slices: Vec<&mut [f32]> = whole.iter_mut().map(Vec::as_mut_slice).collect();
        let expected = Encoder::new().encode(&mut slices, &layout, keep).unwrap();

        let mut sink = std::io::Cursor::new(b"before".to_vec());
        sink.set_position(6);
        let mut writer = UpdateWriter::new(sink, &layout, keep).unwrap();
        for tensor in &tensors {
            for part in tensor.clone().chunks_mut(2 * 4096) {
                let mut chunks = EncodedChunks::default();
                Encoder::new().encode_tensor(part, keep, &mut chunks).unwrap();
                writer.append(&chunks).unwrap();
            }
        }
        assert_eq!(writer.chunks_left(), 0);
        let written = writer.finish().unwrap().into_inner();
        assert_eq!(&written[6..], expected);
        assert_eq!(&written[..6], b"before");
    }
}

#[test]
fn a_writer_refuses_chunks_of_another_model() {
    let layout = Layout(vec![4096, 100]);
    let sink = || std::io::Cursor::new(Vec::new());
    let mut chunks = EncodedChunks::default();
    Encoder::new().encode_tensor(&mut [1.0; 4096], 64, &mut chunks).unwrap();
    let mut writer = UpdateWriter::new(sink(), &layout, 64).unwrap();
    writer.append(&chunks).unwrap();
    // A full chunk where a short one is due, then too few in all.
    assert!(writer.append(&chunks).is_err());
    let mut writer = UpdateWriter::new(sink(), &layout, 64).unwrap();
    writer.append(&chunks).unwrap();
    assert!(writer.finish().is_err());
    assert!(UpdateWriter::new(sink(), &layout, 0).is_err());
    assert!(UpdateWriter::new(sink(), &Layout(vec![]), 64).is_err());
}

#[test]
fn a_frame_shows_which_chunk_is_malformed_and_proves_it() {
    let layout = Layout(vec![4096, 5000]);
    let keep = 64;
    let tensors: Vec<Vec<f32>> =
        layout.0.iter().map(|len| Noise(3).laplaces(*len as usize)).collect();
    let mut whole = tensors;
    let mut slices: Vec<&mut [f32]> = whole.iter_mut().map(Vec::as_mut_slice).collect();
    let bytes = Encoder::new().encode(&mut slices, &layout, keep).unwrap();
    let frame = Frame::cut(&bytes, &layout, keep).unwrap();
    assert_eq!(frame.root(), Payload::parse(&bytes, &layout, keep).unwrap().root());
    assert_eq!(frame.malformed(&layout, CHUNK_BYTES_MAX as usize), None);

    // The scale of the second chunk is a NaN.
    let second = Payload::parse(&bytes, &layout, keep).unwrap().chunk(1).unwrap().len();
    let first = Payload::parse(&bytes, &layout, keep).unwrap().chunk(0).unwrap().len();
    let mut broken = bytes.clone();
    let at = HEADER_BYTES + 3 + first;
    broken[at..at + 2].fill(0xFF);
    assert!(matches!(
        Payload::parse(&broken, &layout, keep),
        Err(UpdateError::Chunk { index: 1, .. })
    ));
    let frame = Frame::cut(&broken, &layout, keep).unwrap();
    assert_eq!(frame.malformed(&layout, second), Some(1));
    assert_eq!(frame.malformed(&layout, second - 1), None, "too long to be shown");
    let shown = frame.chunk_proof(&frame.leaf_hashes(), 1).unwrap();
    assert!(verify(&frame.root(), frame.chunk_count(), 1, &shown.chunk, &shown.proof));
    assert!(Frame::cut(&broken[1..], &layout, keep).is_err());
    assert!(Frame::cut(&broken[..broken.len() - 1], &layout, keep).is_err());
}
