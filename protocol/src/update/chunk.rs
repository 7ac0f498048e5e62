//! Decodes and encodes one chunk; the chain runs the decoder, which is strict.

use alloc::vec::Vec;

use super::bits::{BitReader, BitWriter};
use super::form::{rice_parameter, Chunk, Form, SCALE_MAX_BF16, SCALE_MIN_BF16};
use super::read;
use super::ChunkError;
use crate::layout::{kept, CHUNK_LEN};

/// Bytes of any chunk under any `keep`, at most. The worst case keeps all 4096 values, at three
/// bits each and the scale; the test `chunk_bytes_max_is_a_bound` tries all.
pub const CHUNK_BYTES_MAX: u32 = 1538;

/// Bits of a chunk without the zeros of its quotients, and the most zeros there can be.
const fn chunk_bits(len: u32, keep: u16) -> (u32, u32) {
    let len = if len > CHUNK_LEN { CHUNK_LEN } else { len };
    let kept = kept(len, keep);
    let parameter = rice_parameter(len, kept);
    // Code, remainder and the one that ends a quotient; at most 16 + 4096 · 19 bits in all.
    let value_bits = parameter.saturating_add(3);
    let fixed = value_bits.saturating_mul(kept as u32).saturating_add(16);
    (fixed, len.saturating_sub(kept as u32) >> parameter)
}

/// Bytes of a chunk of `len` values under `keep`, at least.
pub const fn chunk_bytes_min(len: u32, keep: u16) -> u32 {
    chunk_bits(len, keep).0.div_ceil(8)
}

/// Bytes of a chunk of `len` values under `keep`, at most. At least [`chunk_bytes_min`].
pub const fn chunk_bytes_max(len: u32, keep: u16) -> u32 {
    let (fixed, zeros) = chunk_bits(len, keep);
    fixed.saturating_add(zeros).div_ceil(8)
}

/// How many values a chunk of `len` keeps under `keep`, or why there is no such chunk.
pub(super) fn checked_kept(len: u32, keep: u16) -> Result<u16, ChunkError> {
    if keep == 0 || u32::from(keep) > CHUNK_LEN {
        return Err(ChunkError::Keep(keep));
    }
    if len == 0 || len > CHUNK_LEN {
        return Err(ChunkError::Len(len));
    }
    Ok(kept(len, keep))
}

/// Whether `bits` is a scale that the format allows.
const fn is_scale(bits: u16) -> bool {
    bits == 0 || (bits >= SCALE_MIN_BF16 && bits <= SCALE_MAX_BF16)
}

/// Reads the chunk of `len` values that `bytes` is, under a run's `keep`.
///
/// Integer only, panics for no input, and allocates `3 · kept` bytes. Succeeds only if
/// [`encode_chunk`] of the answer gives `bytes` again.
pub fn decode_chunk(bytes: &[u8], len: u32, keep: u16) -> Result<Chunk, ChunkError> {
    let mut chunk = Chunk::default();
    decode_chunk_into(bytes, len, keep, &mut chunk)?;
    Ok(chunk)
}

/// [`decode_chunk`] into a chunk whose memory is used again; on an error its content means nothing.
pub fn decode_chunk_into(
    bytes: &[u8],
    len: u32,
    keep: u16,
    chunk: &mut Chunk,
) -> Result<(), ChunkError> {
    checked_kept(len, keep)?;
    let byte_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if byte_len < chunk_bytes_min(len, keep) || byte_len > chunk_bytes_max(len, keep) {
        return Err(ChunkError::ByteLen(bytes.len()));
    }
    let form = Form::new(len, keep);
    match read_fast(bytes, len, form, chunk) {
        true => Ok(()),
        false => read_strictly(bytes, len, form, chunk),
    }
}

/// Reads the chunk and says whether it is well formed. What it does not vouch for, the slow reader
/// refuses with a reason.
fn read_fast(bytes: &[u8], len: u32, form: Form, chunk: &mut Chunk) -> bool {
    chunk.scale_bf16 = read::scale(bytes);
    chunk.codes.resize(form.kept as usize, 0);
    chunk.indices.resize(form.kept as usize, 0);
    let mut slots = chunk.indices.iter_mut().zip(&mut chunk.codes);
    let last = read::values(bytes, form, |position, to_code| {
        if let Some((index, code)) = slots.next() {
            (*index, *code) = (position as u16, to_code);
        }
    });
    last.is_some_and(|last| last < len)
        && is_scale(chunk.scale_bf16)
        && (chunk.scale_bf16 != 0 || is_zero_form(&chunk.indices, &chunk.codes))
}

/// Reads one number after the other, and says what is wrong.
fn read_strictly(bytes: &[u8], len: u32, form: Form, chunk: &mut Chunk) -> Result<(), ChunkError> {
    let Form { kept, parameter } = form;
    let end = ChunkError::ByteLen(bytes.len());
    let mut reader = BitReader::new(bytes);

    let scale_bf16 = reader.read(16).ok_or(end)? as u16;
    if !is_scale(scale_bf16) {
        return Err(ChunkError::Scale(scale_bf16));
    }
    chunk.scale_bf16 = scale_bf16;
    chunk.codes.clear();
    for _ in 0..kept {
        chunk.codes.push(reader.read(2).ok_or(end)? as u8);
    }
    chunk.indices.clear();
    for _ in 0..kept {
        chunk.indices.push(reader.read(parameter).ok_or(end)? as u16);
    }
    // The lowest position that the next value may have.
    let mut next = 0u32;
    for index in &mut chunk.indices {
        let quotient = reader.read_unary().ok_or(end)?;
        // A quotient is below 8 · 1538 and a parameter at most 12: no bit is shifted out.
        let gap = quotient.wrapping_shl(parameter) | u32::from(*index);
        let position = next.checked_add(gap).filter(|position| *position < len);
        let position = position.ok_or(ChunkError::Index)?;
        *index = position as u16;
        next = position.saturating_add(1);
    }
    if !reader.is_finished() {
        return Err(ChunkError::Padding);
    }
    if scale_bf16 == 0 && !is_zero_form(&chunk.indices, &chunk.codes) {
        return Err(ChunkError::Zero);
    }
    Ok(())
}

/// Whether positions and codes are those of a chunk with scale 0: the first positions, codes 0.
fn is_zero_form(indices: &[u16], codes: &[u8]) -> bool {
    (0u16..).zip(indices).all(|(expected, index)| *index == expected)
        && codes.iter().all(|code| *code == 0)
}

/// The bytes of a chunk of `len` values under a run's `keep`, or what is wrong with the chunk.
pub fn encode_chunk(chunk: &Chunk, len: u32, keep: u16) -> Result<Vec<u8>, ChunkError> {
    let kept = checked_kept(len, keep)?;
    let Chunk { scale_bf16, indices, codes } = chunk;
    if indices.len() != usize::from(kept)
        || codes.len() != usize::from(kept)
        || codes.iter().any(|code| *code > 3)
    {
        return Err(ChunkError::Codes);
    }
    if !is_scale(*scale_bf16) {
        return Err(ChunkError::Scale(*scale_bf16));
    }
    let increasing = indices.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
    if !increasing || indices.last().is_some_and(|last| u32::from(*last) >= len) {
        return Err(ChunkError::Index);
    }
    if *scale_bf16 == 0 && !is_zero_form(indices, codes) {
        return Err(ChunkError::Zero);
    }
    let mut out = Vec::with_capacity(chunk_bytes_max(len, keep) as usize);
    write_chunk(*scale_bf16, indices, codes, len, &mut out);
    Ok(out)
}

/// Appends a chunk that is known to be well formed.
#[inline(always)]
pub(super) fn write_chunk(
    scale_bf16: u16,
    indices: &[u16],
    codes: &[u8],
    len: u32,
    out: &mut Vec<u8>,
) {
    let parameter = rice_parameter(len, indices.len() as u16);
    let mask = 1u32.wrapping_shl(parameter).wrapping_sub(1);
    let mut writer = BitWriter::new();
    writer.push(u32::from(scale_bf16), 16);
    let (eights, rest) = codes.as_chunks::<8>();
    for codes in eights {
        writer.push(sixteen_bits(*codes), 16);
    }
    for code in rest {
        writer.push(u32::from(*code), 2);
    }
    let mut next = 0u16;
    for index in indices {
        writer.push(u32::from(index.wrapping_sub(next)) & mask, parameter);
        next = index.wrapping_add(1);
    }
    let mut next = 0u16;
    for index in indices {
        writer.push_unary(u32::from(index.wrapping_sub(next)).wrapping_shr(parameter));
        next = index.wrapping_add(1);
    }
    writer.finish(out);
}

/// Eight codes of two bits, one behind the other.
#[inline(always)]
fn sixteen_bits(codes: [u8; 8]) -> u32 {
    let pairs = u64::from_le_bytes(codes);
    let fours = (pairs | pairs.wrapping_shr(6)) & 0x000F_000F_000F_000F;
    let eights = (fours | fours.wrapping_shr(12)) & 0x0000_00FF_0000_00FF;
    (eights as u32 & 0xFF) | (eights.wrapping_shr(24) as u32 & 0xFF00)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test")]
mod tests {
    use super::*;

    /// Bytes of every kind: valid chunks, each with each of its bits flipped, cut and extended.
    #[test]
    fn the_fast_reader_accepts_what_the_strict_one_does_and_reads_the_same() {
        let mut random = 1u64;
        let mut draw = |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (random >> 33) % bound
        };
        let mut accepted = 0;
        for (len, keep) in [(4096, 64), (4096, 3), (4096, 4096), (1, 1), (5, 4096), (100, 700)] {
            let kept = kept(len, keep);
            let form = Form::new(len, keep);
            for scale_bf16 in [0, SCALE_MIN_BF16, 0x3F81] {
                let mut all: Vec<u16> = (0..len as u16).collect();
                for at in 0..usize::from(kept) {
                    let other = at + draw(len as u64 - at as u64) as usize;
                    all.swap(at, other);
                }
                all.truncate(usize::from(kept));
                all.sort_unstable();
                let mut codes: Vec<u8> = all.iter().map(|_| draw(4) as u8).collect();
                if scale_bf16 == 0 {
                    all = (0..kept).collect();
                    codes.fill(0);
                }
                let mut bytes = Vec::new();
                write_chunk(scale_bf16, &all, &codes, len, &mut bytes);
                let mut variants = vec![bytes.clone(), bytes[..bytes.len() - 1].to_vec()];
                variants.push([bytes.as_slice(), &[0]].concat());
                variants.push([bytes.as_slice(), &[1]].concat());
                for bit in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    variants.push(flipped);
                }
                for bytes in variants {
                    let (mut fast, mut strict) = (Chunk::default(), Chunk::default());
                    let fast_accepts = read_fast(&bytes, len, form, &mut fast);
                    let result = read_strictly(&bytes, len, form, &mut strict);
                    assert_eq!(fast_accepts, result.is_ok(), "{result:?} of {len} {keep}");
                    if fast_accepts {
                        assert_eq!(fast, strict);
                        accepted += 1;
                    }
                }
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }
}
