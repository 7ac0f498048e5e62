//! Tensors in `.safetensors` files: mapped into memory when read, streamed when written.
//!
//! A file is eight bytes for the header's length, the header in JSON, and the tensors one behind the
//! other. The crate `safetensors` checks that the header's tensors cover the file exactly; what is
//! checked here on top is how long a header may be.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo as StoredInfo};
use safetensors::SafeTensors;

use super::error::FileError;
use crate::model::config::TensorInfo;

/// Longest header that is read; the largest LLaMA's has 0.2 MB.
const HEADER_BYTES_MAX: u64 = 1 << 24;

/// Values that are converted at a time.
const BLOCK: usize = 64 * 1024;

/// Types of values in which a model is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ValueType {
    /// 32 bits, as the parameters are held: nothing is lost.
    #[default]
    F32,
    /// The upper 16 bits of an `f32`, rounded to nearest even.
    Bf16,
    /// IEEE's 16 bits; values from 65520 on do not fit.
    F16,
}

impl ValueType {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    pub(super) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// Appends the bytes of `values`; whether all of them are finite.
    fn convert(self, values: &[f32], bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bf16 => {
                let rounded = values.iter().map(|&value| bf16::from_f32(value));
                bytes.extend(rounded.flat_map(bf16::to_le_bytes));
                return values.iter().all(|&value| bf16::from_f32(value).is_finite());
            }
            Self::F16 => {
                let rounded = values.iter().map(|&value| f16::from_f32(value));
                bytes.extend(rounded.flat_map(f16::to_le_bytes));
                return values.iter().all(|&value| f16::from_f32(value).is_finite());
            }
        }
        values.iter().all(|value| value.is_finite())
    }
}

/// A file whose tensors can be read.
pub(super) struct Shard {
    path: PathBuf,
    map: Mmap,
    header: Metadata,
    data_start: usize,
}

impl Shard {
    /// Maps a file and checks its header. The file must not be changed while this lives.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::io(path))?;
        // SAFETY: the map is only read, as bytes, which may have any value. Whoever shortens the
        // file meanwhile ends the process (SIGBUS), as with any program that maps its models.
        let map = unsafe { Mmap::map(&file) }.map_err(FileError::io(path))?;
        let len = map.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        match len {
            None => return Err(FileError::format(path, "shorter than a header")),
            Some(len) if len > HEADER_BYTES_MAX => {
                let reason = format!("a header of {len} bytes, more than {HEADER_BYTES_MAX}");
                return Err(FileError::format(path, reason));
            }
            Some(_) => {}
        }
        let (header_len, header) = SafeTensors::read_metadata(&map)
            .map_err(|error| FileError::format(path, format!("not safetensors: {error}")))?;
        Ok(Self { path: path.to_owned(), map, header, data_start: 8 + header_len })
    }

    /// The names of its tensors.
    pub(super) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Checks that `tensor` is here in its shape and in a type that is read.
    pub(super) fn check(&self, tensor: &TensorInfo) -> Result<(), FileError> {
        let found = self.info(&tensor.name)?;
        if found.shape != tensor.shape {
            return Err(FileError::Shape {
                name: tensor.name.clone(),
                found: found.shape.clone(),
                expected: tensor.shape.clone(),
            });
        }
        match found.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => {
                Err(FileError::Type { name: tensor.name.clone(), found: format!("{other:?}") })
            }
        }
    }

    /// Reads a tensor that [`Shard::check`] has let pass into `values`, which has its length.
    pub(super) fn read(&self, name: &str, values: &mut [f32]) -> Result<(), FileError> {
        let info = self.info(name)?;
        let (start, end) = info.data_offsets;
        let bytes = self
            .map
            .get(self.data_start + start..self.data_start + end)
            .ok_or_else(|| FileError::format(&self.path, "ends within a tensor"))?;
        let pairs = || bytes.as_chunks::<2>().0.iter();
        match info.dtype {
            Dtype::F32 => fill(values, bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Dtype::F16 => fill(values, pairs().map(|b| f16::from_le_bytes(*b).to_f32())),
            _ => fill(values, pairs().map(|b| bf16::from_le_bytes(*b).to_f32())),
        }
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(FileError::NotFinite(name.to_owned())),
        }
    }

    /// Something is wrong with this file.
    pub(super) fn error(&self, reason: &str) -> FileError {
        FileError::format(&self.path, reason)
    }

    fn info(&self, name: &str) -> Result<&StoredInfo, FileError> {
        self.header
            .info(name)
            .ok_or_else(|| FileError::Missing { first: name.to_owned(), count: 1 })
    }
}

fn fill(values: &mut [f32], from: impl Iterator<Item = f32>) {
    for (value, read) in values.iter_mut().zip(from) {
        *value = read;
    }
}

/// Writes a file of `tensors` to `path` and flushes it to the disk.
pub(super) fn write(
    path: &Path,
    tensors: &[(&TensorInfo, &[f32])],
    kind: ValueType,
) -> Result<(), FileError> {
    let mut end = 0;
    let infos = tensors.iter().map(|(tensor, _)| {
        let start = end;
        end += tensor.len() * kind.bytes();
        let info = StoredInfo {
            dtype: kind.stored(),
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.clone(), info)
    });
    let infos = infos.collect();
    // transformers refuses a file that does not say for which framework it is.
    let notes = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(notes), infos)
        .map_err(io::Error::other)
        .and_then(|header| serde_json::to_vec(&header).map_err(io::Error::other));
    let mut header = header.map_err(FileError::io(path))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = File::create(path).map_err(FileError::io(path))?;
    let mut out = BufWriter::new(file);
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header);
    out.write_all(&start).map_err(FileError::io(path))?;
    let mut bytes = Vec::with_capacity(BLOCK * kind.bytes());
    for (tensor, values) in tensors {
        for block in values.chunks(BLOCK) {
            bytes.clear();
            if !kind.convert(block, &mut bytes) {
                return Err(FileError::NotFinite(tensor.name.clone()));
            }
            out.write_all(&bytes).map_err(FileError::io(path))?;
        }
    }
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(FileError::io(path))
}
