//! The types of values in GGUF files, and how they become `f32`.
//!
//! A row at a time, so that beside the model itself only a row for each thread is in memory.

use std::borrow::Cow;

use candle_core::quantized::{ggml_file::qtensor_from_ggml, GgmlDType};
use candle_core::Device;
use half::{bf16, f16};

/// The types that are read, in the words of an error.
pub(super) const READ: &str =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K and Q6_K are read";

/// ggml's numbers and names of types that are not read.
const OTHERS: [(u32, &str); 24] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// The type of ggml's number, or its name if it is not read.
pub(super) fn value_type(number: u32) -> Result<GgmlDType, Cow<'static, str>> {
    Ok(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => {
            let known = OTHERS.iter().find(|(other, _)| *other == number);
            return Err(match known {
                Some((_, name)) => Cow::Borrowed(name),
                None => Cow::Owned(format!("number {number}")),
            });
        }
    })
}

/// Bytes of so many values, if they are whole blocks.
pub(super) fn bytes_of(kind: GgmlDType, values: usize) -> Option<usize> {
    let blocks = values.is_multiple_of(kind.block_size());
    blocks.then_some(values / kind.block_size())?.checked_mul(kind.type_size())
}

/// Fills `values` from `bytes`, which are [`bytes_of`] as many.
///
/// # Errors
/// candle's.
pub(super) fn read(kind: GgmlDType, bytes: &[u8], values: &mut [f32]) -> candle_core::Result<()> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match kind {
        GgmlDType::F32 => {
            let words = bytes.as_chunks().0.iter();
            fill(values, words.map(|bytes| f32::from_le_bytes(*bytes)));
        }
        GgmlDType::F16 => fill(values, pairs().map(|b| f16::from_le_bytes(*b).to_f32())),
        GgmlDType::BF16 => fill(values, pairs().map(|b| bf16::from_le_bytes(*b).to_f32())),
        _ => {
            // candle takes the address for one of blocks: that of an allocation is one.
            let bytes = bytes.to_vec();
            let stored = qtensor_from_ggml(kind, &bytes, vec![values.len()], &Device::Cpu)?;
            let read = stored.dequantize(&Device::Cpu)?.to_vec1::<f32>()?;
            values.copy_from_slice(&read);
        }
    }
    Ok(())
}

fn fill(values: &mut [f32], from: impl Iterator<Item = f32>) {
    for (value, read) in values.iter_mut().zip(from) {
        *value = read;
    }
}
