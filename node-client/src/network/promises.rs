//! Counts how often a peer does not have a piece of which it said that it has it.
//!
//! An honest peer may let a content go at any time, so that once proves nothing, and what was asked before it said
//! otherwise counts with it. Who says again and again that it has what it then has not costs everybody who asks it a
//! way there and back, and lies.

/// So often a peer may not have what it said, of one content; then it is a liar. The first time is forgiven.
const BROKEN_MAX: u32 = 3;

/// What one peer has said that it has of one content.
#[derive(Default)]
pub(super) struct Promises {
    /// How often it has said it.
    said: u32,
    /// The last of these of which it is known that it was not so, or not any more.
    refuted: u32,
    broken: u32,
}

/// The saying on which a peer is asked for a piece; by default none.
#[derive(Clone, Copy, Default)]
pub(super) struct Word(u32);

/// What follows when a peer has not what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// Nothing: it said nothing, or it is the first time, or part of one that was counted.
    None,
    Failed,
    Lied,
}

impl Promises {
    /// It said what it has.
    pub(super) fn said(&mut self) {
        self.said = self.said.saturating_add(1);
    }

    /// What it said last.
    pub(super) fn word(&self) -> Word {
        Word(self.said)
    }

    /// Notes that it has not what it was asked for on its word.
    pub(super) fn broke(&mut self, word: Word) -> Breach {
        if word.0 <= self.refuted {
            return Breach::None;
        }
        self.refuted = self.said;
        self.broken = self.broken.saturating_add(1);
        match self.broken {
            0..=1 => Breach::None,
            2..BROKEN_MAX => Breach::Failed,
            _ => Breach::Lied,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use libp2p::PeerId;
    use protocol::Hash;

    use super::*;
    use crate::{
        clock::SystemClock,
        network::{
            codec::{RangeRequest, RangeResponse},
            download::{download, Shared},
            fetch::{FetchLimits, RangeSource},
            standing::Standing,
            Fault, FaultKind, FetchError, PeerAddress, Pieces, PiecesFetched, PiecesRequest,
        },
        store::PieceMap,
    };

    #[test]
    fn what_was_asked_on_one_word_is_broken_once_and_who_says_nothing_breaks_nothing() {
        let mut promises = Promises::default();
        let none = promises.word();
        assert_eq!(promises.broke(none), Breach::None);
        promises.said();
        let first = promises.word();
        assert_eq!([promises.broke(first), promises.broke(first)], [Breach::None; 2]);
        promises.said();
        let second = promises.word();
        assert_eq!(promises.broke(first), Breach::None);
        assert_eq!(promises.broke(second), Breach::Failed);
        promises.said();
        let third = promises.word();
        assert_eq!(promises.broke(third), Breach::Lied);
    }

    const PIECES: usize = 4;

    /// Pieces of one byte, each its own number.
    #[derive(Default)]
    struct Numbers(Mutex<[bool; PIECES]>);

    impl Pieces for Numbers {
        fn byte_len(&self) -> u64 {
            PIECES as u64
        }

        fn count(&self) -> usize {
            PIECES
        }

        fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
            Some((index as u64, 1, *self.0.lock().unwrap().get(index)?))
        }

        fn accept(&self, index: usize, bytes: &[u8]) -> bool {
            let is_right = bytes == [index as u8];
            self.0.lock().unwrap()[index] |= is_right;
            is_right
        }
    }

    /// One peer that has nothing, whatever it says; and another one that has all, which is asked when the first is asked
    /// no more.
    struct Source {
        /// What the first says to a question for so many bytes, asked so often before what it has.
        said: fn(u32, usize) -> RangeResponse,
        /// How often the first was asked for a piece, and what it has.
        asked: Mutex<(usize, usize)>,
        first: PeerId,
        other: PeerAddress,
        local: PeerId,
    }

    #[async_trait]
    impl RangeSource for Source {
        async fn range(
            &self,
            peer: &PeerAddress,
            request: RangeRequest,
        ) -> Result<Result<RangeResponse, FaultKind>, FetchError> {
            if *peer == self.other {
                let bytes = vec![request.offset as u8].into();
                return Ok(Ok(RangeResponse::Found { total_len: PIECES as u64, bytes }));
            }
            let mut asked = self.asked.lock().unwrap();
            let said = (self.said)(request.len, asked.1);
            match request.len {
                0 => asked.1 += 1,
                _ => asked.0 += 1,
            }
            Ok(Ok(said))
        }

        async fn providers(&self, _: Hash) -> Result<Vec<PeerAddress>, FetchError> {
            Ok(vec![self.other.clone()])
        }

        fn local_peer(&self) -> PeerId {
            self.local
        }
    }

    /// Fetches from such a peer: the faults that are its, and how often it was asked for a piece.
    async fn fetched(said: fn(u32, usize) -> RangeResponse) -> (Vec<FaultKind>, bool, usize) {
        let [first, other, local] = [(); 3].map(|()| PeerId::random());
        let address = |peer| PeerAddress { peer, addresses: Vec::new() };
        let source = Source { said, asked: Mutex::default(), first, other: address(other), local };
        let standing = Arc::new(Standing::new(Arc::new(SystemClock)));
        let shared = Shared::new(standing.clone(), 1 << 20);
        let limits = FetchLimits { range_len: 1, peers_max: 8 };
        let request = PiecesRequest {
            id: [7; 32],
            providers: vec![address(first)],
            pieces: Arc::<Numbers>::default(),
            whole: false,
        };
        let got = download(&source, &SystemClock, limits, &shared, request, None).await;
        let PiecesFetched { faults, .. } = got.unwrap();
        assert!(faults.iter().all(|fault| fault.peer == source.first));
        let is_liar = standing.known().iter().any(|(peer, record)| *peer == first && record.lied);
        let asked = source.asked.lock().unwrap().0;
        (faults.into_iter().map(|Fault { kind, .. }| kind).collect(), is_liar, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_again_and_again_that_it_has_what_it_has_not_is_a_liar() {
        let all = |_: u32, _: usize| RangeResponse::OtherPieces(PieceMap::of([true; PIECES]));
        let (faults, is_liar, asked) = fetched(all).await;
        assert!(faults.contains(&FaultKind::Contradicted), "{faults:?}");
        assert!(is_liar);
        assert!(asked <= (BROKEN_MAX as usize + 1) * PIECES, "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_let_a_content_go_is_none() {
        let once = |len: u32, looks: usize| match (len, looks) {
            // It begins as who has a part.
            (1, 0) => RangeResponse::OtherPieces(PieceMap::of([false; PIECES])),
            (0, 0) => RangeResponse::OtherPieces(PieceMap::of([true; PIECES])),
            _ => RangeResponse::Missing,
        };
        let (faults, is_liar, _) = fetched(once).await;
        assert_eq!((faults, is_liar), (vec![FaultKind::Missing], false));
    }
}
