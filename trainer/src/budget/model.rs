//! The numbers of a model by itself: parameters, and the size of an update. Its operations are in
//! [`crate::model::flops`].

use protocol::layout::{kept, Layout, CHUNK_LEN};
use protocol::update::{payload_bytes_max, rice_parameter, HEADER_BYTES};
use serde::Serialize;

use super::error::BudgetError;
use super::quantity::{product, sum};
use crate::model::config::ModelConfig;

/// The largest k with one byte a chunk in a payload's table of lengths, as `protocol::update` says.
const SHORT_TABLE_KEEP_MAX: u16 = 960;

/// Bytes of a chunk's scale.
const SCALE_BYTES: f64 = 2.0;

/// What follows from a model's configuration and k.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ModelCounts {
    /// Parameters, each counted once.
    pub parameters: u64,
    /// Parameters of one layer.
    pub layer_parameters: u64,
    /// Parameters of the embedding, which may be the output matrix too.
    pub embedding_parameters: u64,
    /// Tensors.
    pub tensors: u64,
    /// Chunks of up to 4096 values.
    pub chunks: u64,
    /// Values of an update.
    pub kept: u64,
    /// Bytes of an update, expected for positions that are spread evenly.
    pub payload_bytes: u64,
    /// Bytes of an update at most.
    pub payload_bytes_max: u64,
    /// Bits of an update for each of its values.
    pub bits_per_value: f64,
    /// Bytes of all parameters in f32 for each byte of an update.
    pub ratio: f64,
}

impl ModelCounts {
    /// The numbers of a model whose updates keep `keep` of 4096 values.
    pub fn new(config: &ModelConfig, keep: u16) -> Result<Self, BudgetError> {
        config.validate()?;
        let arena = config.arena();
        let parameters = sum("the model", [arena.len as u64])?;
        let embedding_parameters = arena.embedding.len() as u64;
        let layer_parameters = arena
            .layers
            .first()
            .map_or(0, |layer| layer.down.end.saturating_sub(layer.attention_norm.start) as u64);

        let layout = config.layout();
        let size = PayloadSize::new(&layout, keep)?;
        Ok(Self {
            parameters,
            layer_parameters,
            embedding_parameters,
            tensors: arena.tensors.len() as u64,
            chunks: size.chunks,
            kept: size.kept,
            payload_bytes: size.bytes,
            payload_bytes_max: payload_bytes_max(&layout, keep),
            bits_per_value: size.bytes as f64 * 8.0 / size.kept as f64,
            ratio: parameters as f64 * 4.0 / size.bytes as f64,
        })
    }

    /// Bytes of all parameters in f32.
    pub fn f32_bytes(&self) -> Result<u64, BudgetError> {
        product("parameters", &[self.parameters, 4])
    }
}

struct PayloadSize {
    chunks: u64,
    kept: u64,
    bytes: u64,
}

impl PayloadSize {
    fn new(layout: &Layout, keep: u16) -> Result<Self, BudgetError> {
        let (mut chunks, mut values) = (0u64, 0u64);
        let full_bytes = expected_chunk_bytes(CHUNK_LEN, keep);
        let mut bytes = HEADER_BYTES as f64;
        for len in &layout.0 {
            let full = len / u64::from(CHUNK_LEN);
            let rest = (len % u64::from(CHUNK_LEN)) as u32;
            chunks = sum("chunks", [chunks, full, u64::from(rest > 0)])?;
            let full_kept = product("an update", &[full, u64::from(kept(CHUNK_LEN, keep))])?;
            values = sum("an update", [values, full_kept])?;
            bytes += full as f64 * full_bytes;
            if rest > 0 {
                values = sum("an update", [values, u64::from(kept(rest, keep))])?;
                bytes += expected_chunk_bytes(rest, keep);
            }
        }
        if chunks > u64::from(u32::MAX) {
            return Err(BudgetError::TooLarge("an update's table of lengths"));
        }
        let bytes = bytes.round() as u64;
        Ok(Self { chunks, kept: values, bytes })
    }
}

/// Bytes of a chunk and its entry in the table, expected for positions drawn evenly without
/// replacement.
///
/// A gap is at least g with probability Π (len − g − i) / (len − i) over the kept positions i, so
/// that its Rice quotient is expected to be the sum of that over the multiples g of 2^a. Padding to
/// a byte adds half of seven bits.
pub fn expected_chunk_bytes(len: u32, keep: u16) -> f64 {
    let kept = kept(len, keep);
    let parameter = rice_parameter(len, kept);
    let at_least = |gap: u32| -> f64 {
        (0..u32::from(kept))
            .map(|i| f64::from((len - i).saturating_sub(gap)) / f64::from(len - i))
            .product()
    };
    let quotient: f64 = (1..=len >> parameter)
        .map(|multiple| at_least(multiple << parameter))
        .take_while(|probability| *probability > 1e-12)
        .sum();
    let bits = f64::from(kept) * (f64::from(parameter) + 3.0 + quotient);
    let entry = if keep <= SHORT_TABLE_KEEP_MAX { 1.0 } else { 2.0 };
    entry + SCALE_BYTES + (bits + 3.5) / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_of_4096_take_79_bytes() {
        let bytes = expected_chunk_bytes(CHUNK_LEN, 64);
        assert!((79.0..79.9).contains(&bytes), "{bytes}");
        // Everything kept: three bits each, nothing to skip.
        let all = expected_chunk_bytes(CHUNK_LEN, 4096);
        assert!((all - (4.0 + (4096.0 * 3.0 + 3.5) / 8.0)).abs() < 1e-9, "{all}");
    }
}
