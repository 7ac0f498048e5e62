//! Takes parameters as they arrive, piece by piece in any order and from any thread, into the place where they stay.
//!
//! Each piece is checked by itself against the manifest that the state root stands for, so that what a peer sent is
//! read once, and a wrong piece costs that piece. Nothing is held but the model itself.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use protocol::state_root::{StateManifest, PIECE_VALUES};

use crate::model::config::ModelConfig;
use crate::model::parameters::{Model, ModelError};

const WANTED: u8 = 0;
const BUSY: u8 = 1;
const DONE: u8 = 2;

/// Where a piece goes.
struct Piece {
    /// The tensor in canonical order, and the piece's number in it.
    tensor: usize,
    index: usize,
    /// Its first byte among all bytes.
    offset: u64,
    /// Its first value in the arena.
    place: usize,
    len: usize,
    state: AtomicU8,
}

/// Parameters of which pieces are still to come.
pub struct ArrivingModel {
    config: ModelConfig,
    manifest: StateManifest,
    pieces: Vec<Piece>,
    missing: AtomicUsize,
    // Made from a vector that nothing else refers to; written through this pointer only, by who has claimed a piece.
    values: *mut f32,
    len: usize,
    capacity: usize,
}

// SAFETY: the pointer owns its memory as a vector does, and a piece's part of it is written by the one thread that took
// the piece from WANTED to BUSY.
unsafe impl Send for ArrivingModel {}
unsafe impl Sync for ArrivingModel {}

impl ArrivingModel {
    /// A model of `config` of which nothing has arrived. `manifest` has been checked against the state root.
    ///
    /// # Errors
    /// The configuration is not valid, or the manifest is of another model.
    pub fn new(config: &ModelConfig, manifest: StateManifest) -> Result<Self, ModelError> {
        config.validate()?;
        let arena = config.arena();
        let expected = arena.len as u64 * 4;
        let tensors = manifest.tensors();
        let given: u64 = tensors.iter().map(|tensor| tensor.value_count.saturating_mul(4)).sum();
        let same = tensors.len() == arena.tensors.len()
            && tensors.iter().zip(arena.canonical_tensors()).all(|(tensor, placed)| {
                let len = placed.range.len();
                tensor.name == placed.info.name
                    && tensor.value_count == len as u64
                    && tensor.pieces.len() == len.div_ceil(PIECE_VALUES)
            });
        if !same {
            return Err(ModelError::ByteLen { given, expected });
        }
        let mut pieces = Vec::new();
        let mut offset = 0;
        for (tensor, placed) in arena.canonical_tensors().enumerate() {
            for (index, first) in placed.range.clone().step_by(PIECE_VALUES).enumerate() {
                let len = PIECE_VALUES.min(placed.range.end - first);
                let state = AtomicU8::new(WANTED);
                pieces.push(Piece { tensor, index, offset, place: first, len, state });
                offset += len as u64 * 4;
            }
        }
        // Zeroed by the system: memory that is not written yet takes none.
        let mut values = ManuallyDrop::new(vec![0.0f32; arena.len]);
        Ok(Self {
            config: config.clone(),
            manifest,
            missing: AtomicUsize::new(pieces.len()),
            pieces,
            values: values.as_mut_ptr(),
            len: values.len(),
            capacity: values.capacity(),
        })
    }

    /// Bytes in all.
    pub fn byte_len(&self) -> u64 {
        self.len as u64 * 4
    }

    /// How many pieces there are.
    pub fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// How many are still to come.
    pub fn missing(&self) -> usize {
        self.missing.load(Ordering::Acquire)
    }

    /// First byte and length of a piece, and whether it has arrived; `None` past the last.
    pub fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let piece = self.pieces.get(index)?;
        let is_done = piece.state.load(Ordering::Acquire) == DONE;
        Some((piece.offset, piece.len as u32 * 4, is_done))
    }

    /// Takes the bytes of a piece if they are its bytes and finite; whether the piece is here now. May be called from several
    /// threads; a piece that another thread is taking at this moment is not here yet.
    pub fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let Some(piece) = self.pieces.get(index) else {
            return false;
        };
        match piece.state.compare_exchange(WANTED, BUSY, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {}
            Err(state) => return state == DONE,
        }
        let is_right = bytes.len() == piece.len * 4 && {
            // SAFETY: inside the vector's memory, by how pieces are made; disjoint from other pieces; and only who took
            // this one from WANTED to BUSY is here.
            let values =
                unsafe { std::slice::from_raw_parts_mut(self.values.add(piece.place), piece.len) };
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            let tensor = self.manifest.tensors().get(piece.tensor);
            values.iter().all(|value| value.is_finite())
                && tensor.is_some_and(|tensor| tensor.verify_piece(piece.index, values))
        };
        if is_right {
            self.missing.fetch_sub(1, Ordering::AcqRel);
        }
        piece.state.store(if is_right { DONE } else { WANTED }, Ordering::Release);
        is_right
    }

    /// The model, when every piece has arrived.
    pub fn finish(mut self) -> Option<Model> {
        let values = if self.missing() == 0 { self.take() } else { return None };
        Some(Model::with_parameters(&self.config, values))
    }

    /// The values, which leaves none.
    fn take(&mut self) -> Vec<f32> {
        let mut none = ManuallyDrop::new(Vec::new());
        let values = std::mem::replace(&mut self.values, none.as_mut_ptr());
        let len = std::mem::replace(&mut self.len, 0);
        let capacity = std::mem::replace(&mut self.capacity, 0);
        // SAFETY: the parts of a vector, exchanged for those of another, which holds nothing.
        unsafe { Vec::from_raw_parts(values, len, capacity) }
    }
}

impl Drop for ArrivingModel {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl std::fmt::Debug for ArrivingModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (of, missing) = (self.piece_count(), self.missing());
        f.debug_struct("ArrivingModel").field("missing", &missing).field("of", &of).finish()
    }
}
