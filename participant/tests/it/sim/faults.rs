//! Draws what goes wrong, and when, from the seed before the first block.

use std::fmt;

use rand::{rngs::StdRng, Rng};

/// One fault: from when to when, to whom.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// Numbers of the participants that it befalls.
    pub(super) whom: Vec<usize>,
    /// Milliseconds since the beginning.
    pub(super) from: u64,
    pub(super) until: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum FaultKind {
    /// The process is killed, and started again on the same folder.
    Killed,
    /// Its peer cannot be reached and reaches nobody.
    Offline,
    /// The way to one other peer is cut.
    CutOff,
    /// Everything takes long.
    Slow,
    /// It says that it has nothing of what it published: a lost payload.
    ServesNothing,
    /// It serves other bytes than it was asked for.
    ServesWrong,
    /// Its node does not answer.
    ChainDown,
    /// Its node loses extrinsics and answers.
    ChainLossy,
    /// Nobody makes blocks.
    ChainStalled,
    /// Blocks are made and do not become final. Not drawn.
    FinalityStalled,
    /// No payload reaches it; states do. Not drawn: it is what other faults do to one.
    PayloadsLate,
    /// It is asked to end, and started again. Not drawn.
    Leaves,
    /// The process is killed, and started again on the folder as it was when a script copied it. Not drawn.
    Restored,
    /// It answers nobody who asks it for anything. Not drawn.
    Mute,
    /// Peers serve it some ranges and no more. Not drawn.
    Starved,
}

use FaultKind::*;

/// Every kind, so that each is drawn equally often.
const KINDS: [FaultKind; 9] = [
    Killed,
    Offline,
    CutOff,
    Slow,
    ServesNothing,
    ServesWrong,
    ChainDown,
    ChainLossy,
    ChainStalled,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, whom, from, until } = self;
        write!(f, "{kind:?} {whom:?} from {from} to {until} ms")
    }
}

/// `count` faults that befall `participants` between `from` and `until`, in the order in which they begin.
pub(super) fn draw(
    rng: &mut StdRng,
    participants: usize,
    count: usize,
    from: u64,
    until: u64,
) -> Vec<Fault> {
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let kind = KINDS[rng.gen_range(0..KINDS.len())];
            let who = rng.gen_range(0..participants);
            let longest = match (kind, rng.gen_range(0..3)) {
                // Nothing can be done in a window that has no blocks.
                (ChainStalled, _) => 8_000,
                // Back within the phase, within the window or the next, and windows later.
                (_, 0) => 3_000,
                (_, 1) => 45_000,
                _ => 120_000,
            };
            let begin = rng.gen_range(from..until - 2_000);
            let end = begin + rng.gen_range(1_000..longest);
            let whom = match kind {
                CutOff => vec![who, (who + rng.gen_range(1..participants)) % participants],
                // Now and then the node that all are connected to.
                ChainDown if rng.gen_bool(0.3) => (0..participants).collect(),
                ChainStalled => Vec::new(),
                _ => vec![who],
            };
            Fault { kind, whom, from: begin, until: end.min(until) }
        })
        .collect();
    faults.sort_by_key(|fault| fault.from);
    faults
}
