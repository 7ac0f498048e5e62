//! Knows who of the peers takes part in what the chain says, and how.

use std::{collections::HashMap, sync::Arc};

use libp2p::PeerId;

/// Peers whose role is remembered: more than a run has slots (64 validators and 4,096 miners). Of more the highest
/// stay.
const ROLES_MAX: usize = 8_192;

/// How many roles there are.
pub(super) const ROLES: usize = 4;

/// What a peer is by the chain. The higher comes first when there is not enough for all.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nobody the chain knows.
    #[default]
    Stranger,
    /// A registered miner that has earned nothing yet.
    Joiner,
    /// A miner whose updates count.
    Replica,
    /// A validator, who must fetch before anybody else may be paid.
    Validator,
}

/// The roles of the peers; clones share them.
#[derive(Clone, Default)]
pub(super) struct Roles(Arc<HashMap<PeerId, Role>>);

impl Roles {
    pub(super) fn new(mut roles: HashMap<PeerId, Role>) -> Self {
        if roles.len() > ROLES_MAX {
            let mut highest: Vec<_> = roles.into_iter().collect();
            highest.sort_by_key(|(_, role)| std::cmp::Reverse(*role));
            highest.truncate(ROLES_MAX);
            roles = highest.into_iter().collect();
        }
        Self(Arc::new(roles))
    }

    /// The role of a peer. Until the chain has named anybody there is nobody to put first: all are replicas.
    pub(super) fn of(&self, peer: &PeerId) -> Role {
        if self.0.is_empty() {
            return Role::Replica;
        }
        self.0.get(peer).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_the_highest_stay() {
        let validator = PeerId::random();
        let joiners = (0..ROLES_MAX).map(|_| (PeerId::random(), Role::Joiner));
        let roles = Roles::new(joiners.chain([(validator, Role::Validator)]).collect());
        assert_eq!(roles.0.len(), ROLES_MAX);
        assert_eq!(roles.of(&validator), Role::Validator);
        assert_eq!(roles.of(&PeerId::random()), Role::Stranger);
        assert_eq!(Roles::default().of(&validator), Role::Replica);
    }
}
