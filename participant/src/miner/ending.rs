//! Remembers how many blocks an update takes from a window's last step until it is on disk: encoding, hashing and writing go with the
//! model's size and the machine, and are planned by what they took.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::BlockNumber;

/// Blocks that are planned at the least, and before any update was made.
pub(super) const BLOCKS_MIN: u32 = 4;

/// Endings that are remembered; the longest is planned with.
const ENDINGS_MAX: usize = 4;

/// The endings of the last windows.
#[derive(Debug, Default)]
pub(super) struct Ending(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The best block when the last step was taken, of an ending under way.
    begun: Option<BlockNumber>,
    blocks: VecDeque<u32>,
}

impl Ending {
    /// The last step was taken when this was the best block.
    pub(super) fn begin(&self, best: BlockNumber) {
        self.seen().begun = Some(best);
    }

    /// The update is on disk.
    pub(super) fn end(&self, best: BlockNumber) {
        let mut seen = self.seen();
        let Some(begun) = seen.begun.take() else { return };
        seen.blocks.push_back(best.saturating_sub(begun));
        if seen.blocks.len() > ENDINGS_MAX {
            seen.blocks.pop_front();
        }
    }

    /// Blocks to plan with: one more than were counted, as the first of them was not whole.
    pub(super) fn blocks(&self) -> u32 {
        let longest = self.seen().blocks.iter().copied().max();
        longest.map_or(0, |blocks| blocks.saturating_add(1)).max(BLOCKS_MIN)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_the_last_endings_is_planned_with() {
        let ending = Ending::default();
        let after = |blocks: u32| {
            ending.begin(100);
            ending.end(100 + blocks);
            ending.blocks()
        };
        assert_eq!(ending.blocks(), BLOCKS_MIN);
        assert_eq!([after(0), after(9), after(2)], [BLOCKS_MIN, 10, 10]);
        assert_eq!([after(1), after(1)], [10, 10]);
        assert_eq!(after(1), BLOCKS_MIN);
        // A window without a last step has no ending.
        ending.end(200);
        assert_eq!(ending.blocks(), BLOCKS_MIN);
    }
}
