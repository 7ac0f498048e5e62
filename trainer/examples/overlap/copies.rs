//! Makes copies that hide: from the values behind an update, as its owner can, and from the update's bytes alone, as
//! anybody can.

use std::error::Error;
use std::io::Cursor;

use protocol::layout::{Layout, CHUNK_LEN};
use protocol::update::{assemble, encode_chunk, top_k, Chunk, EncodedChunks, Payload};
use trainer::compress::{TensorPart, UpdateStream};
use trainer::{Model, Threads};

use crate::count::KEEP;

/// A copy, and how it was made.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Draws what copies need.
pub(crate) struct Copies {
    random: u64,
    threads: Threads,
}

impl Copies {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed, threads: Threads::single() }
    }

    /// From 0 to just below 1 (SplitMix64).
    fn unit(&mut self) -> f32 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Copies of the first of `updates`, which stands for the values `dense` in the order of the arena.
    pub(crate) fn of(
        &mut self,
        model: &Model,
        dense: &[f32],
        updates: &[Vec<u8>],
    ) -> Result<Vec<Made>, Box<dyn Error>> {
        let mut made = Vec::new();
        for noise in [0.1, 0.3, 1.0, 3.0] {
            let noisy = self.noisy(model, dense, noise);
            let bytes = self.encode(model, noisy)?;
            made.push(Made { name: format!("noise of {noise} rms before top-k"), bytes });
        }
        for percent in [10, 25, 50, 100] {
            let bytes = self.encode(model, left_out(model, dense, percent)?)?;
            let name = format!("runners-up for {percent} % of the positions");
            made.push(Made { name, bytes });
        }
        for percent in [10, 25, 50] {
            let bytes = self.moved(model.layout(), &updates[0], percent)?;
            made.push(Made { name: format!("{percent} % of the bytes' positions moved"), bytes });
        }
        Ok(made)
    }

    /// The values, with noise of so many root mean squares of their chunk.
    fn noisy(&mut self, model: &Model, dense: &[f32], noise: f32) -> Vec<f32> {
        let mut values = dense.to_vec();
        for tensor in model.arena().canonical_tensors() {
            for chunk in values[tensor.range.clone()].chunks_mut(CHUNK_LEN as usize) {
                let squares: f32 = chunk.iter().map(|value| value * value).sum();
                let size = noise * (squares / chunk.len() as f32).sqrt();
                for value in chunk {
                    // Twelve uniform numbers have variance 1.
                    let normal: f32 = (0..12).map(|_| self.unit()).sum::<f32>() - 6.0;
                    *value += size * normal;
                }
            }
        }
        values
    }

    /// An update that stands for `values`.
    fn encode(&self, model: &Model, mut values: Vec<f32>) -> Result<Vec<u8>, Box<dyn Error>> {
        let sink = Cursor::new(Vec::new());
        let mut stream = UpdateStream::new(&self.threads, sink, model.layout(), KEEP, 1.0)?;
        for feedback in model.arena().views_mut(&mut values) {
            let zeros = vec![0.0; feedback.len()];
            stream.encode([TensorPart { feedback, start: &zeros, local: &zeros }])?;
        }
        Ok(stream.finish()?.into_inner())
    }

    /// The update with so many of a chunk's positions replaced by others, of the smaller magnitude and any sign.
    fn moved(
        &mut self,
        layout: &Layout,
        bytes: &[u8],
        percent: usize,
    ) -> Result<Vec<u8>, Box<dyn Error>> {
        let payload = Payload::parse(bytes, layout, KEEP)?;
        let mut chunk = Chunk::default();
        let mut encoded = EncodedChunks::default();
        for (index, place) in (0u32..).zip(layout.chunks()) {
            payload.decode_into(index, place.len, &mut chunk)?;
            if chunk.scale_bf16 != 0 {
                self.move_positions(&mut chunk, place.len, percent);
            }
            let bytes = encode_chunk(&chunk, place.len, KEEP)?;
            encoded.lens.push(bytes.len() as u16);
            encoded.bytes.extend(bytes);
        }
        Ok(assemble(&[encoded], layout, KEEP)?)
    }

    fn move_positions(&mut self, chunk: &mut Chunk, len: u32, percent: usize) {
        let mut values: Vec<(u16, u8)> =
            chunk.indices.iter().copied().zip(chunk.codes.iter().copied()).collect();
        let kept = values.len();
        if len as usize <= 2 * kept {
            return;
        }
        // Of the smaller magnitude first.
        values.sort_by_key(|(_, code)| std::cmp::Reverse(code & 1));
        values.truncate(kept - (kept * percent).div_ceil(100));
        while values.len() < kept {
            let position = (self.unit() * len as f32) as u16;
            if !chunk.indices.contains(&position) && values.iter().all(|(at, _)| *at != position) {
                values.push((position, if self.unit() < 0.5 { 0 } else { 2 }));
            }
        }
        values.sort_unstable();
        (chunk.indices, chunk.codes) = values.into_iter().unzip();
    }
}

/// The values without the least of those that an update keeps, so that the next ones take their places.
fn left_out(model: &Model, dense: &[f32], percent: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut values = dense.to_vec();
    for tensor in model.arena().canonical_tensors() {
        for chunk in values[tensor.range.clone()].chunks_mut(CHUNK_LEN as usize) {
            let kept = usize::from(protocol::layout::kept(chunk.len() as u32, KEEP));
            let best = top_k(chunk, kept)?;
            let stay = top_k(chunk, kept - (kept * percent).div_ceil(100))?;
            for position in best.into_iter().filter(|position| !stay.contains(position)) {
                chunk[position as usize] = 0.0;
            }
        }
    }
    Ok(values)
}
