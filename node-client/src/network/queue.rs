//! Lets questions wait for their turn, fairly: roles share what there is by their weights, and peers of one role take
//! turns.
//!
//! Of the roles that have somebody waiting the one goes next that has had the least of its part (start-time fair
//! queueing, after Goyal, Vin and Cheng 1996): each role has a time at which it is due; a turn of n bytes puts it off
//! by n over the role's weight. Who had nobody waiting, or could not be served, saves up nothing.
//!
//! What has not left yet goes before what has, of one content and for a while: so all of it is soon with somebody, and
//! who asks for what others have already may have it of them meanwhile.

use std::{cmp::Reverse, collections::VecDeque};

use libp2p::PeerId;

use super::roles::{Role, ROLES};

/// Questions of one role that wait at the most; each costs about 200 bytes and a stream.
const WAITING_MAX: usize = 256;

/// The parts of the roles, from the stranger on, in powers of two.
const WEIGHTS: [u64; ROLES] = [1, 2, 4, 8];

/// The highest weight: a turn of one byte of that role puts it off by one.
const WEIGHT_MAX: u64 = 8;

/// A question that waits.
pub(super) struct Waiting<T> {
    pub(super) peer: PeerId,
    pub(super) role: Role,
    /// Bytes that it is charged for.
    pub(super) len: u32,
    /// Since when it waits, by the clock.
    pub(super) since_millis: u64,
    pub(super) item: T,
}

/// Where in the queue a question is, until the queue changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    role: usize,
    peer: usize,
    question: usize,
}

/// What is asked for, as far as it decides whose turn it is.
pub(super) struct Wanted<K> {
    /// The content that it is of.
    pub(super) content: K,
    /// Whether it goes after others of its content, as it has left before.
    pub(super) is_copy: bool,
}

/// The questions of one role.
struct Line<T> {
    /// Each peer that waits, the next first, with its questions in their order, of which there is one at least.
    peers: VecDeque<VecDeque<Waiting<T>>>,
    /// When it is this role's turn.
    due: u64,
}

impl<T> Line<T> {
    /// The peer whose turn it is, and which of its questions: the first that is no copy. Who asks for copies alone lets
    /// the first go before that asks for what is none, of the same content.
    fn next<K: PartialEq>(
        &self,
        may: &impl Fn(&Waiting<T>) -> bool,
        wanted: &impl Fn(&Waiting<T>) -> Wanted<K>,
    ) -> Option<(usize, usize)> {
        let mut copies: Vec<(usize, K)> = Vec::new();
        for (peer, own) in self.peers.iter().enumerate() {
            let Some(front) = own.front().filter(|front| may(front)) else { continue };
            let is_new = |waiting: &Waiting<T>| !wanted(waiting).is_copy && may(waiting);
            let Some(question) = own.iter().position(is_new) else {
                copies.push((peer, wanted(front).content));
                continue;
            };
            let content = wanted(own.get(question)?).content;
            let before = copies.into_iter().find(|(_, other)| *other != content);
            return Some(before.map_or((peer, question), |(peer, _)| (peer, 0)));
        }
        copies.first().map(|(peer, _)| (*peer, 0))
    }
}

/// The questions that wait.
pub(super) struct Queue<T> {
    lines: [Line<T>; ROLES],
    /// When the role was due that went last.
    now: u64,
    per_peer_max: usize,
}

impl<T> Queue<T> {
    /// Nobody waits yet; `per_peer_max` questions of one peer may.
    pub(super) fn new(per_peer_max: usize) -> Self {
        let line = |_| Line { peers: VecDeque::new(), due: 0 };
        Self { lines: std::array::from_fn(line), now: 0, per_peer_max }
    }

    /// Lets a question wait, or gives it back if too many do.
    pub(super) fn push(&mut self, waiting: Waiting<T>) -> Result<(), Waiting<T>> {
        let peers = &mut self.lines[waiting.role as usize].peers;
        if peers.iter().map(VecDeque::len).sum::<usize>() >= WAITING_MAX {
            return Err(waiting);
        }
        let is_own = |own: &&mut VecDeque<Waiting<T>>| own[0].peer == waiting.peer;
        match peers.iter_mut().find(is_own) {
            Some(own) if own.len() >= self.per_peer_max => return Err(waiting),
            Some(own) => own.push_back(waiting),
            None => peers.push_back(VecDeque::from([waiting])),
        }
        Ok(())
    }

    /// The question whose turn it is among those that `may` be served now; of a peer whose first may not none may.
    pub(super) fn next<K: PartialEq>(
        &self,
        may: impl Fn(&Waiting<T>) -> bool,
        wanted: impl Fn(&Waiting<T>) -> Wanted<K>,
    ) -> Option<Place> {
        let first = |(role, line): (usize, &Line<T>)| {
            let (peer, question) = line.next(&may, &wanted)?;
            Some((line.due.max(self.now), Reverse(role), peer, question))
        };
        let next = self.lines.iter().enumerate().filter_map(first).min()?;
        let (_, Reverse(role), peer, question) = next;
        Some(Place { role, peer, question })
    }

    pub(super) fn get(&self, place: Place) -> Option<&Waiting<T>> {
        self.lines[place.role].peers.get(place.peer)?.get(place.question)
    }

    /// Takes a question out for its turn; its peer is behind the others of its role then.
    pub(super) fn take(&mut self, place: Place) -> Option<Waiting<T>> {
        let line = &mut self.lines[place.role];
        let mut own = line.peers.remove(place.peer)?;
        let taken = own.remove(place.question)?;
        if !own.is_empty() {
            line.peers.push_back(own);
        }
        self.now = self.now.max(line.due);
        line.due = self.now + u64::from(taken.len) * (WEIGHT_MAX / WEIGHTS[place.role]);
        Some(taken)
    }

    /// Takes out what has waited since `since_millis` or longer.
    pub(super) fn expired(&mut self, since_millis: u64) -> Vec<Waiting<T>> {
        let mut expired = Vec::new();
        for line in &mut self.lines {
            for own in &mut line.peers {
                while own.front().is_some_and(|first| first.since_millis <= since_millis) {
                    expired.extend(own.pop_front());
                }
            }
            line.peers.retain(|own| !own.is_empty());
        }
        expired
    }

    /// Takes out the question that is `it`.
    pub(super) fn remove(&mut self, it: impl Fn(&T) -> bool) -> Option<Waiting<T>> {
        for line in &mut self.lines {
            for own in &mut line.peers {
                if let Some(place) = own.iter().position(|waiting| it(&waiting.item)) {
                    let removed = own.remove(place);
                    line.peers.retain(|own| !own.is_empty());
                    return removed;
                }
            }
        }
        None
    }

    /// Takes out what a peer waits for.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        for line in &mut self.lines {
            line.peers.retain(|own| own.front().is_some_and(|first| first.peer != *peer));
        }
    }

    /// The first question of each peer.
    pub(super) fn fronts(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.lines.iter().flat_map(|line| &line.peers).filter_map(VecDeque::front)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lines.iter().flat_map(|line| &line.peers).map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Role; ROLES] = [Role::Stranger, Role::Joiner, Role::Replica, Role::Validator];

    fn waiting(peer: PeerId, role: Role, item: u64) -> Waiting<u64> {
        Waiting { peer, role, len: 1_000, since_millis: item, item }
    }

    #[test]
    fn a_question_that_is_taken_out_leaves_the_others_in_their_order() {
        let (mut queue, peer) = (Queue::new(8), PeerId::random());
        for item in 0..3 {
            assert!(queue.push(waiting(peer, Role::Replica, item)).is_ok());
        }
        assert_eq!(queue.remove(|item| *item == 1).map(|waiting| waiting.item), Some(1));
        assert!(queue.remove(|item| *item == 1).is_none());
        for left in [0, 2] {
            let place = queue.next(|_| true, anything).unwrap();
            assert_eq!(queue.take(place).map(|waiting| waiting.item), Some(left));
        }
        assert_eq!((queue.len(), queue.next(|_| true, anything).is_none()), (0, true));
        // Whose only one is taken out is not in its line any more.
        assert!(queue.push(waiting(peer, Role::Stranger, 9)).is_ok());
        assert!(queue.remove(|item| *item == 9).is_some());
        assert!(queue.fronts().next().is_none());
    }

    /// All is of one content, and nothing has left.
    fn anything(_: &Waiting<u64>) -> Wanted<()> {
        Wanted { content: (), is_copy: false }
    }

    #[test]
    fn what_has_not_left_goes_before_copies_of_its_content_and_peers_take_turns() {
        let mut queue = Queue::new(8);
        let peers = [(); 3].map(|()| PeerId::random());
        // Content and piece; 1 of each content has left.
        for (peer, item) in [(0, 11), (0, 10), (1, 11), (1, 21), (2, 12), (2, 21), (2, 13)] {
            assert!(queue.push(waiting(peers[peer], Role::Replica, item)).is_ok());
        }
        let wanted = |waiting: &Waiting<u64>| Wanted {
            content: waiting.item / 10,
            is_copy: waiting.item % 10 == 1,
        };
        let mut order = Vec::new();
        while let Some(place) = queue.next(|_| true, wanted) {
            let next = queue.get(place).unwrap().item;
            assert_eq!(queue.take(place).unwrap().item, next);
            order.push(next);
        }
        assert_eq!(order, [10, 12, 13, 11, 11, 21, 21]);
        // What has not left of another content goes before nobody.
        for (peer, item) in [(0, 31), (1, 40)] {
            assert!(queue.push(waiting(peers[peer], Role::Replica, item)).is_ok());
        }
        let place = queue.next(|_| true, wanted).unwrap();
        assert_eq!(queue.get(place).unwrap().item, 31);
    }

    /// Serves `turns` questions, each followed by another one of its peer: how many each role had.
    fn turns(
        queue: &mut Queue<u64>,
        turns: usize,
        may: impl Fn(&Waiting<u64>) -> bool,
    ) -> [usize; ROLES] {
        let mut had = [0; ROLES];
        for _ in 0..turns {
            let Some(taken) = queue.next(&may, anything).and_then(|place| queue.take(place)) else {
                break;
            };
            had[taken.role as usize] += 1;
            assert!(queue.push(taken).is_ok());
        }
        had
    }

    #[test]
    fn roles_share_by_their_weights() {
        let mut queue = Queue::new(8);
        for role in ALL {
            for _ in 0..2 {
                assert!(queue.push(waiting(PeerId::random(), role, 0)).is_ok());
            }
        }
        assert_eq!(turns(&mut queue, 1_500, |_| true), [100, 200, 400, 800]);
        // Who could not be served for a while has no more than its part afterwards.
        let without = turns(&mut queue, 700, |waiting| waiting.role != Role::Replica);
        assert_eq!((without[2], without.iter().sum::<usize>()), (0, 700));
        let [strangers, _, replicas, validators] = turns(&mut queue, 1_500, |_| true);
        assert!((398..=402).contains(&replicas), "{replicas}");
        assert!((798..=802).contains(&validators) && (98..=102).contains(&strangers));
    }

    #[test]
    fn peers_of_one_role_take_turns_and_each_waits_with_a_few() {
        let mut queue = Queue::new(2);
        let [greedy, modest] = [(); 2].map(|()| PeerId::random());
        for item in 0..2 {
            assert!(queue.push(waiting(greedy, Role::Joiner, item)).is_ok());
        }
        assert!(queue.push(waiting(greedy, Role::Joiner, 2)).is_err());
        assert!(queue.push(waiting(modest, Role::Joiner, 3)).is_ok());
        let mut order = Vec::new();
        while let Some(taken) = queue.next(|_| true, anything).and_then(|place| queue.take(place)) {
            order.push(taken.item);
        }
        assert_eq!(order, [0, 3, 1]);
    }

    #[test]
    fn one_role_cannot_keep_another_from_waiting() {
        let mut queue = Queue::new(8);
        let strangers = |_| waiting(PeerId::random(), Role::Stranger, 0);
        let refused = (0..300).map(strangers).filter_map(|one| queue.push(one).err()).count();
        assert_eq!((queue.len(), refused), (WAITING_MAX, 300 - WAITING_MAX));
        assert!(queue.push(waiting(PeerId::random(), Role::Validator, 5)).is_ok());
        let next = queue.next(|_| true, anything).unwrap();
        assert_eq!(queue.get(next).unwrap().role, Role::Validator);
        assert_eq!(queue.expired(4).len(), WAITING_MAX);
        let left = queue.fronts().next().unwrap().peer;
        queue.forget(&left);
        assert_eq!(queue.len(), 0);
    }
}
