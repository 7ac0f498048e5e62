//! Searches for peers that have a content, by Kademlia's provider records.

use std::collections::{HashMap, HashSet};

use libp2p::{
    kad::{QueryId, RecordKey},
    PeerId,
};
use protocol::Hash;
use tokio::sync::oneshot;

use super::behaviour::Kademlia;

/// Providers that a search takes of one answer, so that none says who is found: anybody may make providers up.
const PROVIDERS_PER_ANSWER_MAX: usize = 8;

/// Providers that a search takes of all answers, and that end it: as many peers as a fetch asks by default.
const PROVIDERS_MAX: usize = 32;

/// The searches under way.
#[derive(Default)]
pub(super) struct Searches(HashMap<QueryId, Search>);

struct Search {
    /// Each once, in the order of the answers; at most [`PROVIDERS_MAX`].
    found: Vec<PeerId>,
    reply: oneshot::Sender<Vec<PeerId>>,
}

impl Searches {
    pub(super) fn begin(
        &mut self,
        kademlia: &mut Kademlia,
        id: Hash,
        reply: oneshot::Sender<Vec<PeerId>>,
    ) {
        let query = kademlia.get_providers(RecordKey::new(&id));
        self.0.insert(query, Search { found: Vec::new(), reply });
    }

    /// Takes what one peer says, and returns the providers that are new and not `local`. Kademlia knows their
    /// addresses only while the query runs: connect to them now.
    pub(super) fn on_providers(
        &mut self,
        kademlia: &mut Kademlia,
        local: PeerId,
        query: &QueryId,
        providers: HashSet<PeerId>,
    ) -> Vec<PeerId> {
        let Some(search) = self.0.get_mut(query) else {
            return Vec::new();
        };
        let room = PROVIDERS_MAX.saturating_sub(search.found.len()).min(PROVIDERS_PER_ANSWER_MAX);
        let is_new = |peer: &PeerId| *peer != local && !search.found.contains(peer);
        let new: Vec<_> = providers.into_iter().filter(is_new).take(room).collect();
        search.found.extend(&new);
        if search.found.len() >= PROVIDERS_MAX {
            if let Some(mut query) = kademlia.query_mut(query) {
                query.finish();
            }
        }
        new
    }

    /// Answers with all that were found, those of the first answer first.
    pub(super) fn end(&mut self, query: &QueryId) {
        if let Some(Search { found, reply }) = self.0.remove(query) {
            let _ = reply.send(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::kad::store::MemoryStore;

    use super::*;

    fn made_up(count: usize) -> HashSet<PeerId> {
        (0..count).map(|_| PeerId::random()).collect()
    }

    /// A search under way.
    struct Begun {
        local: PeerId,
        kademlia: Kademlia,
        searches: Searches,
        query: QueryId,
        answer: oneshot::Receiver<Vec<PeerId>>,
    }

    impl Begun {
        fn new() -> Self {
            let local = PeerId::random();
            let mut kademlia = Kademlia::new(local, MemoryStore::new(local));
            let mut searches = Searches::default();
            let (reply, answer) = oneshot::channel();
            searches.begin(&mut kademlia, [7; 32], reply);
            let query = *searches.0.keys().next().unwrap();
            Self { local, kademlia, searches, query, answer }
        }
    }

    #[test]
    fn providers_that_one_peer_makes_up_neither_end_a_search_nor_fill_it() {
        let Begun { local, mut kademlia, mut searches, query, mut answer } = Begun::new();

        let first = searches.on_providers(&mut kademlia, local, &query, made_up(1_000));
        assert_eq!(first.len(), PROVIDERS_PER_ANSWER_MAX);
        let honest = PeerId::random();
        let providers = HashSet::from([local, honest, first[0]]);
        assert_eq!(searches.on_providers(&mut kademlia, local, &query, providers), [honest]);

        searches.end(&query);
        let found = answer.try_recv().unwrap();
        assert_eq!(found.len(), PROVIDERS_PER_ANSWER_MAX + 1);
        assert_eq!(found.last(), Some(&honest));
    }

    #[test]
    fn a_search_takes_so_many_providers_and_no_more() {
        let Begun { local, mut kademlia, mut searches, query, mut answer } = Begun::new();
        for _ in 0..=PROVIDERS_MAX {
            searches.on_providers(&mut kademlia, local, &query, made_up(3));
        }
        searches.end(&query);
        assert_eq!(answer.try_recv().unwrap().len(), PROVIDERS_MAX);
    }
}
