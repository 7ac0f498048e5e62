//! Holds who is being served, and keeps some of the places for those who have the better right.

use std::{collections::HashMap, hash::Hash};

use libp2p::PeerId;

use super::{
    origin::Origin,
    roles::{Role, ROLES},
};

/// What a role and those below it may take of the slots together, in eighths, from the stranger on.
const EIGHTHS: [usize; ROLES] = [1, 4, 7, 8];

/// One who is being served.
pub(super) struct Slot {
    pub(super) peer: PeerId,
    pub(super) role: Role,
    pub(super) origin: Option<Origin>,
}

/// The ranges that were begun and have not left, by their requests.
pub(super) struct Slots<K> {
    count_max: usize,
    per_peer_max: usize,
    // Looked through for each question: there are a few dozen at the most.
    taken: HashMap<K, Slot>,
}

impl<K: Eq + Hash> Slots<K> {
    pub(super) fn new(count_max: usize, per_peer_max: usize) -> Self {
        Self { count_max: count_max.max(1), per_peer_max, taken: HashMap::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.taken.len()
    }

    /// Whether there is a slot for one more. The strangers of one origin have half of what strangers have.
    pub(super) fn has_room(&self, slot: &Slot) -> bool {
        let is_near = |other: &Slot| other.role == Role::Stranger && other.origin == slot.origin;
        let near_max = (self.count_max * EIGHTHS[0] / 16).max(1);
        let is_far = slot.role != Role::Stranger
            || slot.origin.is_none()
            || self.count_of(&is_near) < near_max;
        !self.is_full_for(slot)
            && is_far
            && self.count_of(&|other| other.peer == slot.peer) < self.per_peer_max
    }

    /// Whether others have all slots that those of this role may have together.
    pub(super) fn is_full_for(&self, slot: &Slot) -> bool {
        let mut limits = EIGHTHS.iter().enumerate().skip(slot.role as usize);
        limits.any(|(role, eighths)| {
            let most = (self.count_max * eighths / 8).max(1);
            self.count_of(&|other| other.role as usize <= role) >= most
        })
    }

    fn count_of(&self, of: &dyn Fn(&Slot) -> bool) -> usize {
        self.taken.values().filter(|slot| of(slot)).count()
    }

    pub(super) fn take(&mut self, request: K, slot: Slot) {
        self.taken.insert(request, slot);
    }

    /// Frees the slot of a request; whether it had one.
    pub(super) fn leave(&mut self, request: &K) -> bool {
        self.taken.remove(request).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many slots as there are for other peers of a role each time: whose they are.
    fn fill(slots: &mut Slots<PeerId>, role: Role, origin: Option<Origin>) -> Vec<PeerId> {
        let mut took = Vec::new();
        loop {
            let peer = PeerId::random();
            let slot = Slot { peer, role, origin };
            if !slots.has_room(&slot) {
                return took;
            }
            slots.take(peer, slot);
            took.push(peer);
        }
    }

    #[test]
    fn each_role_leaves_some_to_the_higher() {
        let mut slots = Slots::new(64, 8);
        let near = Some(Origin::V4([192, 0, 2]));
        assert_eq!(fill(&mut slots, Role::Stranger, near).len(), 4);
        assert_eq!(fill(&mut slots, Role::Stranger, None).len(), 4);
        assert_eq!(fill(&mut slots, Role::Joiner, near).len(), 24);
        assert_eq!(fill(&mut slots, Role::Replica, near).len(), 24);
        let validators = fill(&mut slots, Role::Validator, near);
        assert_eq!((validators.len(), slots.count()), (8, 64));
        slots.leave(&validators[0]);
        assert_eq!(fill(&mut slots, Role::Replica, None).len(), 0);
        assert_eq!(fill(&mut slots, Role::Validator, None).len(), 1);
        // The better right reaches as far as all slots.
        assert_eq!(fill(&mut Slots::new(64, 8), Role::Validator, None).len(), 64);
        assert_eq!(fill(&mut Slots::new(1, 8), Role::Stranger, near).len(), 1);
    }

    #[test]
    fn a_peer_has_a_few_at_a_time() {
        let mut slots = Slots::new(64, 2);
        let peer = PeerId::random();
        let slot = || Slot { peer, role: Role::Validator, origin: None };
        for request in 0..2 {
            assert!(slots.has_room(&slot()));
            slots.take(request, slot());
        }
        assert!(!slots.has_room(&slot()));
        slots.leave(&0);
        assert!(slots.has_room(&slot()));
    }
}
