//! Says which pieces of a content are whose share, so that those who fetch it at the same time have something for each
//! other.
//!
//! Each piece ranks all who may fetch it, as good as drawn, and all come to the same ranks. A peer asks first for the
//! pieces for which it is first, then for those for which it is second, and so on: so who has all sends each piece to
//! one peer first, and not some of them to several. And as long as others who fetch the content deliver, a piece of
//! somebody else's share is left to that one to fetch of those who have all, and is fetched of it then. Where nothing
//! comes for a while it is not waited for, nor longer in all than the own share took: a share binds nobody who serves
//! or asks.

use std::{collections::VecDeque, time::Duration};

use libp2p::PeerId;

/// Peers of whom it is kept whether they are before us; more are asked in no fetch.
const PEERS_MAX: usize = 64;

/// How long nothing comes, at the least and at the most, until what is another's share is asked for.
const PATIENCE_MIN: Duration = Duration::from_millis(300);
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// How often nothing may come for so long in one fetch.
const WAITS_MAX: u32 = 8;

/// Whose share each piece of a content is.
pub(super) struct Shares {
    /// Of each piece the peers that are before us, a bit for each in the order in which they were given.
    before: Vec<u64>,
    waits: u32,
    /// When the fetch began, and when nothing of the own share was left to ask for, by the clock.
    begun_at: u64,
    done_at: Option<u64>,
}

impl Shares {
    /// The shares in `pieces` of a content of `count`, and the order in which `local` asks for them, where it and these
    /// others may fetch it, which begins at `begun_at`.
    pub(super) fn new<'a>(
        local: &PeerId,
        others: impl Iterator<Item = &'a PeerId>,
        count: usize,
        pieces: impl Iterator<Item = usize>,
        begun_at: u64,
    ) -> (Self, VecDeque<usize>) {
        let own = seed(local);
        let others: Vec<u64> = others.take(PEERS_MAX).map(seed).collect();
        let mut before = vec![0; count];
        let mut ranked: Vec<(u32, u64, usize)> = Vec::new();
        for piece in pieces {
            let place = place(own, piece);
            let is_before = |other: &u64| u64::from(self::place(*other, piece) < place);
            let bit = |(index, other): (usize, &u64)| is_before(other) << index;
            let bits = others.iter().enumerate().map(bit).fold(0, |bits, bit| bits | bit);
            if let Some(before) = before.get_mut(piece) {
                *before = bits;
            }
            ranked.push((bits.count_ones(), place, piece));
        }
        ranked.sort_unstable();
        let order = ranked.into_iter().map(|(_, _, piece)| piece).collect();
        (Self { before, waits: 0, begun_at, done_at: None }, order)
    }

    /// Whether a piece is the share of one of `fetching`, a bit for each as [`Shares::new`] was given them, and not ours.
    pub(super) fn is_of(&self, piece: usize, fetching: u64) -> bool {
        self.before.get(piece).is_some_and(|before| before & fetching != 0)
    }

    /// How long nothing is to come until what is another's share is asked for, where a piece usually takes so long;
    /// `None` if it is not waited for.
    ///
    /// Since the own share was done others have as long for theirs, all waits together: who is slower than we were, or
    /// lies, costs that much once.
    pub(super) fn patience(&mut self, usual: Duration, now_millis: u64) -> Option<Duration> {
        let patience = usual.clamp(PATIENCE_MIN, PATIENCE_MAX);
        // The clock may be set back.
        let done_at = (*self.done_at.get_or_insert(now_millis)).min(now_millis);
        let whole = Duration::from_millis(done_at.saturating_sub(self.begun_at)).max(patience);
        let left = whole.saturating_sub(Duration::from_millis(now_millis - done_at));
        if left.is_zero() {
            self.waits = WAITS_MAX;
        }
        self.binds().then(|| patience.min(left))
    }

    /// Whether what is another's share is left to it.
    pub(super) fn binds(&self) -> bool {
        self.waits < WAITS_MAX
    }

    /// Notes that nothing came for so long.
    pub(super) fn waited(&mut self) {
        self.waits = self.waits.saturating_add(1);
    }
}

/// A number that stands for a peer.
fn seed(peer: &PeerId) -> u64 {
    as_number(blake3::hash(&peer.to_bytes()))
}

/// A number as good as drawn: the first bytes of a hash.
pub(super) fn as_number(hash: blake3::Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Where a peer is for a piece: as good as drawn, the lowest first. The mixing is SplitMix64's, whose constants these
/// are (Steele, Lea and Flood 2014).
fn place(seed: u64, piece: usize) -> u64 {
    let mixed = seed.wrapping_add((piece as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PIECES: usize = 640;

    fn peers() -> Vec<PeerId> {
        (0..12).map(|_| PeerId::random()).collect()
    }

    fn shares(peers: &[PeerId], own: usize) -> (Shares, Vec<usize>) {
        let others = peers.iter().filter(|peer| **peer != peers[own]);
        let (shares, order) = Shares::new(&peers[own], others, PIECES, 0..PIECES, 1_000);
        (shares, order.into())
    }

    #[test]
    fn each_piece_is_the_share_of_one_of_those_who_fetch() {
        let peers = peers();
        let all: Vec<_> = (0..peers.len()).map(|own| shares(&peers, own)).collect();
        for piece in 0..PIECES {
            let first = all.iter().filter(|(shares, _)| !shares.is_of(piece, u64::MAX)).count();
            assert_eq!(first, 1);
            // Where nobody else fetches, each piece is ours.
            assert!(all.iter().all(|(shares, _)| !shares.is_of(piece, 0)));
        }
        for (shares, order) in &all {
            let distinct: BTreeSet<usize> = order.iter().copied().collect();
            assert_eq!((order.len(), distinct.len()), (PIECES, PIECES));
            // The own share comes first.
            let own = order.iter().filter(|piece| !shares.is_of(**piece, u64::MAX)).count();
            assert!(order[..own].iter().all(|piece| !shares.is_of(*piece, u64::MAX)));
            assert!((PIECES / 24..PIECES / 6).contains(&own), "{own}");
        }
    }

    #[test]
    fn of_two_who_fetch_each_has_what_the_other_has_not() {
        let peers = peers();
        let (one, _) = shares(&peers, 0);
        let (two, _) = shares(&peers, 1);
        // Both are the first that the other was given.
        assert!((0..PIECES).all(|piece| one.is_of(piece, 1) != two.is_of(piece, 1)));
    }

    #[test]
    fn what_is_missing_later_is_asked_for_in_the_same_order() {
        let peers = peers();
        let (_, all) = shares(&peers, 0);
        let missing = (0..PIECES).filter(|piece| piece.is_multiple_of(3));
        let (_, rest) = Shares::new(&peers[0], peers[1..].iter(), PIECES, missing, 0);
        let expected: Vec<usize> =
            all.into_iter().filter(|piece| piece.is_multiple_of(3)).collect();
        assert_eq!(Vec::from(rest), expected);
    }

    #[test]
    fn others_are_waited_for_as_long_as_the_own_share_took_and_a_few_times() {
        let (mut own, _) = shares(&peers(), 0);
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        assert_eq!(own.patience(Duration::ZERO, 8_000), Some(PATIENCE_MIN));
        assert_eq!(own.patience(seconds(2), 9_000), Some(seconds(2)));
        assert_eq!(own.patience(seconds(5), 14_000), Some(seconds(1)));
        // The clock is set back.
        assert!(own.patience(seconds(1), 500).is_some());
        assert_eq!(own.patience(seconds(1), 15_000), None);
        assert!(!own.binds(), "and for good");
        let (mut own, _) = shares(&peers(), 0);
        for _ in 0..WAITS_MAX {
            assert_eq!(own.patience(seconds(9), 0), Some(seconds(9)));
            own.waited();
        }
        assert_eq!(own.patience(seconds(9), 0), None);
    }
}
