//! Checks the pieces of one payload as they arrive, and says where they lie in it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use node_client::{
    network::Pieces,
    store::{Cut, Span},
};
use protocol::{
    layout::Layout,
    update::{Frame, PieceForm, PieceList, PieceParts},
    Hash,
};

/// Whether `bytes` are cut as a payload is and have this root.
pub fn has_root(bytes: &[u8], layout: &Layout, keep: u16, root: &Hash) -> bool {
    Frame::cut(bytes, layout, keep).is_ok_and(|frame| frame.root() == *root)
}

/// What says of a piece whether it is right.
enum Check {
    /// The payload is one piece, which has this root.
    Whole { layout: Layout, keep: u16, root: Hash },
    /// The list of its pieces, which folds to its root.
    List(PieceList),
}

/// The pieces of a payload of which the root is known.
pub(super) struct PayloadPieces {
    form: PieceForm,
    byte_len: u64,
    check: Check,
    /// The place of each piece of a list: its first byte, and the most bytes that it may have.
    slots: Vec<(u64, u32)>,
    // The bytes of each piece, 0 until it is here. Held for a look or a change.
    lens: Mutex<Vec<u32>>,
}

impl PayloadPieces {
    /// The only piece of a payload of `byte_len` bytes.
    pub(super) fn whole(
        form: PieceForm,
        layout: Layout,
        keep: u16,
        root: Hash,
        byte_len: u64,
    ) -> Self {
        let slots = vec![(0, u32::try_from(byte_len).unwrap_or(u32::MAX))];
        let check = Check::Whole { layout, keep, root };
        Self { form, byte_len, check, slots, lens: Mutex::new(vec![0]) }
    }

    /// The pieces of a payload of `byte_len` bytes with this list, which has been checked against its root.
    pub(super) fn listed(form: PieceForm, list: PieceList, byte_len: u64) -> Self {
        let mut end = 0;
        let lens = (0..form.count()).map_while(|index| form.byte_lens(index));
        let slots: Vec<(u64, u32)> = lens
            .map(|(_, most)| {
                let begin = end;
                end += u64::from(most);
                (begin, most)
            })
            .collect();
        let lens = Mutex::new(vec![0; slots.len()]);
        Self { form, byte_len, check: Check::List(list), slots, lens }
    }

    fn lens(&self) -> MutexGuard<'_, Vec<u32>> {
        self.lens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pieces for PayloadPieces {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn count(&self) -> usize {
        self.slots.len()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let (offset, len) = *self.slots.get(index)?;
        let is_here = self.lens().get(index).is_some_and(|len| *len > 0);
        Some((offset, len, is_here))
    }

    fn is_numbered(&self) -> bool {
        matches!(self.check, Check::List(_))
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let is_right = match &self.check {
            Check::Whole { layout, keep, root } => {
                bytes.len() as u64 == self.byte_len && has_root(bytes, layout, *keep, root)
            }
            Check::List(list) => {
                u32::try_from(index).is_ok_and(|index| list.verify(&self.form, index, bytes))
            }
        };
        if let Some(len) = self.lens().get_mut(index).filter(|_| is_right) {
            *len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        }
        is_right
    }

    fn cut(&self) -> Option<(Bytes, Cut)> {
        if !self.is_numbered() {
            return None;
        }
        let parts = self.form.parts(&self.lens())?;
        Some((Bytes::copy_from_slice(&self.form.header()), cut(&parts)))
    }
}

/// What a payload of several pieces is served with: its list, and where the pieces lie. `None` for bytes that are cut otherwise.
/// Hashes all of them.
pub(super) fn list_and_cut(
    bytes: &[u8],
    form: &PieceForm,
    layout: &Layout,
    keep: u16,
) -> Option<(Bytes, Cut)> {
    let frame = Frame::cut(bytes, layout, keep).ok()?;
    let parts = form.parts_of(&frame)?;
    Some((PieceList::new(&frame.leaf_hashes()).to_bytes().into(), cut(&parts)))
}

fn cut(parts: &[PieceParts]) -> Cut {
    let spans = parts.iter().map(|parts| {
        let PieceParts { table_start, table_len, chunks_start, chunks_len } = *parts;
        [
            Span { offset: table_start, len: table_len },
            Span { offset: chunks_start, len: chunks_len },
        ]
    });
    Cut(spans.collect())
}
