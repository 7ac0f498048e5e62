//! Writes an update piece by piece, for models that are larger than memory: the chunks as they
//! come, the table of their lengths at the end.

use std::io::{self, Cursor, Seek, SeekFrom, Write};

use super::chunk::{checked_kept, chunk_bytes_max, chunk_bytes_min};
use super::payload::{header, table_entry_bytes, HEADER_BYTES};
use super::UpdateError;
use crate::layout::{Layout, CHUNK_LEN};

/// Chunks that have been encoded and not yet put behind a header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EncodedChunks {
    /// Bytes of each chunk.
    pub lens: Vec<u16>,
    /// All chunks, one after the other.
    pub bytes: Vec<u8>,
}

/// Why an update could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The chunks are not the layout's.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The sink failed.
    #[error("cannot write the update: {0}")]
    Io(#[from] io::Error),
}

/// Writes an update to a sink, tensor by tensor in the layout's order, any number of chunks at a
/// time. Holds the table of lengths, one or two bytes a chunk, and no chunk.
pub struct UpdateWriter<W> {
    sink: W,
    /// Where the update starts in the sink.
    start: u64,
    keep: u16,
    /// Values of the tensors that are not complete, the current one's less what has been written;
    /// the current one is the last.
    left: Vec<u64>,
    table: Vec<u8>,
    /// Chunks to come.
    chunks_left: u32,
}

impl<W: Write + Seek> UpdateWriter<W> {
    /// Starts an update of a model of this layout at the sink's position.
    pub fn new(mut sink: W, layout: &Layout, keep: u16) -> Result<Self, WriteError> {
        let chunk_count = layout.chunk_count().ok_or(UpdateError::Layout)?;
        checked_kept(CHUNK_LEN, keep).map_err(|_| UpdateError::Keep(keep))?;
        let start = sink.stream_position()?;
        sink.write_all(&header(keep, chunk_count))?;
        let table_bytes = (chunk_count as usize).saturating_mul(table_entry_bytes(keep));
        // The table's place, to be filled in at the end.
        io::copy(&mut io::Read::take(io::repeat(0), table_bytes as u64), &mut sink)?;
        Ok(Self {
            sink,
            start,
            keep,
            left: layout.0.iter().rev().copied().collect(),
            table: Vec::with_capacity(table_bytes),
            chunks_left: chunk_count,
        })
    }

    /// Chunks still to come.
    pub fn chunks_left(&self) -> u32 {
        self.chunks_left
    }

    /// Writes the next chunks, which come from an [`super::Encoder`]: their number and lengths are
    /// checked, not their content.
    pub fn append(&mut self, chunks: &EncodedChunks) -> Result<(), WriteError> {
        let entry_bytes = table_entry_bytes(self.keep);
        let mut total = 0usize;
        for byte_len in &chunks.lens {
            let len = self.next_len().ok_or(UpdateError::Tensors)?;
            let byte_len = u32::from(*byte_len);
            let least = chunk_bytes_min(len, self.keep);
            if byte_len < least || byte_len > chunk_bytes_max(len, self.keep) {
                return Err(UpdateError::ByteLen(byte_len as usize).into());
            }
            total = total.saturating_add(byte_len as usize);
            let excess = byte_len.saturating_sub(least).to_le_bytes();
            self.table.extend(excess.iter().take(entry_bytes));
        }
        if total != chunks.bytes.len() {
            return Err(UpdateError::ByteLen(chunks.bytes.len()).into());
        }
        Ok(self.sink.write_all(&chunks.bytes)?)
    }

    /// The number of values of the next chunk, which is then the current tensor's.
    fn next_len(&mut self) -> Option<u32> {
        let left = self.left.last_mut()?;
        let len = (*left).min(u64::from(CHUNK_LEN));
        *left = left.saturating_sub(len);
        if *left == 0 {
            self.left.pop();
        }
        self.chunks_left = self.chunks_left.saturating_sub(1);
        Some(len as u32)
    }

    /// Puts the table in its place and gives the sink back, at the update's end.
    pub fn finish(mut self) -> Result<W, WriteError> {
        if self.chunks_left > 0 {
            return Err(UpdateError::Tensors.into());
        }
        let end = self.sink.stream_position()?;
        let table = self.start.saturating_add(HEADER_BYTES as u64);
        self.sink.seek(SeekFrom::Start(table))?;
        self.sink.write_all(&self.table)?;
        self.sink.seek(SeekFrom::Start(end))?;
        Ok(self.sink)
    }
}

/// Puts header and table before encoded chunks: those of `parts` one after the other are the
/// chunks of the layout. [`UpdateWriter`] does the same without holding them all.
///
/// Checks number and lengths of the chunks, not their content, which comes from an [`super::Encoder`].
pub fn assemble(
    parts: &[EncodedChunks],
    layout: &Layout,
    keep: u16,
) -> Result<Vec<u8>, UpdateError> {
    let chunks: usize = parts.iter().map(|part| part.lens.len()).sum();
    if chunks != layout.chunk_count().ok_or(UpdateError::Layout)? as usize {
        return Err(UpdateError::Tensors);
    }
    let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
    let table = chunks.saturating_mul(table_entry_bytes(keep));
    let total = HEADER_BYTES.saturating_add(table).saturating_add(bytes);
    let sink = Cursor::new(Vec::with_capacity(total));
    let assembled = UpdateWriter::new(sink, layout, keep).and_then(|mut writer| {
        for part in parts {
            writer.append(part)?;
        }
        writer.finish()
    });
    match assembled {
        Ok(sink) => Ok(sink.into_inner()),
        Err(WriteError::Update(error)) => Err(error),
        // A vector in memory takes all that it is given.
        Err(WriteError::Io(_)) => Err(UpdateError::ByteLen(total)),
    }
}
