//! Encodes what a peer sends: chunked top-k of a vector, quantised in one of four ways.
//!
//! Selection, quantiser and bytes of format 1 are protocol's own functions; the other arms differ
//! in one thing each.

use protocol::layout::{kept, CHUNK_LEN};
use protocol::update::compatible::CompatibleCode;
use protocol::update::{code_value, encode_chunk, quantise, rice_parameter, top_k, Chunk};
use protocol::update::{ChunkError, SCALE_MIN_BF16};
use trainer::config::Arena;

use crate::arms::{Quantiser, Shape};

/// Side of a tile.
const SIDE: usize = 64;

/// The chunks of one tensor, each the places of its values in the arena.
struct TensorChunks(Vec<Vec<u32>>);

/// Cuts, selects and quantises.
pub(crate) struct Codec {
    tensors: Vec<TensorChunks>,
    keep: u16,
    quantiser: Quantiser,
}

/// An update, as those who receive it see it.
pub(crate) struct Sent {
    /// Place in the arena and value, for each tensor.
    pub(crate) tensors: Vec<Vec<(u32, f32)>>,
    /// Bytes on the wire.
    pub(crate) bytes: u64,
}

impl Sent {
    /// Every value with the opposite sign.
    pub(crate) fn opposite(mut self) -> Self {
        for (_, value) in self.tensors.iter_mut().flatten() {
            *value = -*value;
        }
        self
    }
}

impl Codec {
    pub(crate) fn new(arena: &Arena, keep: u16, shape: Shape, quantiser: Quantiser) -> Self {
        let cut = |tensor: &trainer::config::Placed| {
            let start = tensor.range.start;
            let places = |values: Vec<usize>| -> Vec<u32> {
                values.into_iter().map(|at| (start + at) as u32).collect()
            };
            match (shape, tensor.info.shape.as_slice()) {
                (Shape::Tiles, &[rows, columns]) if rows % SIDE == 0 && columns % SIDE == 0 => {
                    let tiles = (0..rows / SIDE).flat_map(|row| {
                        (0..columns / SIDE).map(move |column| (row * SIDE, column * SIDE))
                    });
                    let tile = |(row, column): (usize, usize)| {
                        (0..SIDE * SIDE)
                            .map(|at| (row + at / SIDE) * columns + column + at % SIDE)
                            .collect()
                    };
                    TensorChunks(tiles.map(tile).map(places).collect())
                }
                _ => {
                    let all: Vec<usize> = (0..tensor.range.len()).collect();
                    let chunks = all.chunks(CHUNK_LEN as usize);
                    TensorChunks(chunks.map(|chunk| places(chunk.to_vec())).collect())
                }
            }
        };
        Self { tensors: arena.canonical_tensors().map(cut).collect(), keep, quantiser }
    }

    /// Sends the largest of `error`, which becomes what is left out.
    pub(crate) fn send(&self, error: &mut [f32]) -> Result<Sent, ChunkError> {
        // The header, and a byte for each chunk's length.
        let chunks: usize = self.tensors.iter().map(|tensor| tensor.0.len()).sum();
        let mut bytes = 7 + chunks as u64;
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let mut sent = self.select(tensor, error)?;
            bytes += match self.quantiser {
                Quantiser::Reference => 20,
                _ => 0,
            };
            for chunk in &sent {
                bytes += self.chunk_bytes(chunk)?;
            }
            self.quantise(&mut sent);
            let values: Vec<(u32, f32)> = sent
                .iter()
                .flat_map(|chunk| chunk.places.iter().copied().zip(chunk.values.iter().copied()))
                .collect();
            for (place, value) in &values {
                error[*place as usize] -= value;
            }
            tensors.push(values);
        }
        Ok(Sent { tensors, bytes })
    }

    /// Sends, with the opposite sign and the size of what [`Codec::send`] would send, places that follow from
    /// `round` alone; `error` goes on as if it had been sent.
    pub(crate) fn send_apart(&self, error: &mut [f32], round: u64) -> Result<Sent, ChunkError> {
        let before = error.to_vec();
        let mut sent = self.send(error)?;
        for (tensor, values) in self.tensors.iter().zip(&mut sent.tensors) {
            let mut values = values.iter_mut();
            for chunk in &tensor.0 {
                let count = usize::from(kept(chunk.len() as u32, self.keep));
                // An odd step visits every place of a chunk whose length is a power of two.
                let (start, step) = (round as usize, (chunk.len() / count) | 1);
                for (at, value) in values.by_ref().take(count).enumerate() {
                    let place = chunk[(start + at * step) % chunk.len()];
                    *value = (place, value.1.abs().copysign(-before[place as usize]));
                }
            }
        }
        Ok(sent)
    }

    fn select(&self, tensor: &TensorChunks, error: &[f32]) -> Result<Vec<Selected>, ChunkError> {
        let select = |places: &Vec<u32>| {
            let values: Vec<f32> = places.iter().map(|place| error[*place as usize]).collect();
            let len = values.len() as u32;
            let positions = top_k(&values, usize::from(kept(len, self.keep)))?;
            let at = |position: &u32| *position as usize;
            Ok(Selected {
                len,
                places: positions.iter().map(|p| places[at(p)]).collect(),
                values: positions.iter().map(|p| values[at(p)]).collect(),
                positions: positions.iter().map(|p| *p as u16).collect(),
            })
        };
        tensor.0.iter().map(select).collect()
    }

    /// Bytes of a chunk whose values are not quantised yet.
    fn chunk_bytes(&self, chunk: &Selected) -> Result<u64, ChunkError> {
        let count = chunk.positions.len();
        if self.quantiser == Quantiser::TwoBit {
            let chunk_in_format = Chunk {
                scale_bf16: SCALE_MIN_BF16,
                indices: chunk.positions.clone(),
                codes: vec![0; count],
            };
            return Ok(encode_chunk(&chunk_in_format, chunk.len, self.keep)?.len() as u64);
        }
        let parameter = rice_parameter(chunk.len, count as u16);
        let mut bits = count as u64 * u64::from(parameter + 1);
        let mut next = 0u16;
        for position in &chunk.positions {
            bits += u64::from((position - next) >> parameter);
            next = position + 1;
        }
        bits += match self.quantiser {
            Quantiser::Sign => 16 + count as u64,
            Quantiser::Reference => 2 * count as u64,
            Quantiser::TwoBit | Quantiser::F32 => 32 * count as u64,
        };
        Ok(bits.div_ceil(8))
    }

    /// Replaces the values of a tensor's chunks by what the receiver reads.
    fn quantise(&self, chunks: &mut [Selected]) {
        match self.quantiser {
            Quantiser::F32 => {}
            Quantiser::TwoBit => {
                let mut codes = Vec::new();
                for chunk in chunks {
                    let scale = quantise(&chunk.values, &mut codes);
                    for (value, code) in chunk.values.iter_mut().zip(&codes) {
                        *value = code_value(scale, *code);
                    }
                }
            }
            Quantiser::Sign => {
                for chunk in chunks {
                    let sum: f32 = chunk.values.iter().map(|value| value.abs()).sum();
                    let scale = sum / chunk.values.len().max(1) as f32;
                    for value in &mut chunk.values {
                        *value = scale.copysign(*value);
                    }
                }
            }
            Quantiser::Reference => {
                let all: Vec<f32> = chunks.iter().flat_map(|c| c.values.clone()).collect();
                let code = CompatibleCode::quantise(&all);
                let values = chunks.iter_mut().flat_map(|chunk| &mut chunk.values);
                for (value, read) in values.zip(code.values()) {
                    *value = read;
                }
            }
        }
    }
}

/// What is kept of a chunk.
struct Selected {
    /// Values of the chunk.
    len: u32,
    /// Positions in the chunk, ascending.
    positions: Vec<u16>,
    /// The same as places in the arena.
    places: Vec<u32>,
    values: Vec<f32>,
}
