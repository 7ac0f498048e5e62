//! Searches for peers that have a content, by Kademlia's provider records.

use std::collections::{HashMap, HashSet};

use libp2p::{
    kad::{QueryId, RecordKey},
    PeerId,
};
use protocol::Hash;
use tokio::sync::oneshot;

use super::behaviour::Kademlia;

/// Providers that end a search: more than a fetch needs to find one that delivers.
const PROVIDERS_MAX: usize = 8;

/// The searches under way.
#[derive(Default)]
pub(super) struct Searches(HashMap<QueryId, Search>);

struct Search {
    found: HashSet<PeerId>,
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
        let found = HashSet::new();
        self.0.insert(query, Search { found, reply });
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
        let mut new = Vec::new();
        for peer in providers {
            let has_room = search.found.len() < PROVIDERS_MAX;
            if has_room && peer != local && search.found.insert(peer) {
                new.push(peer);
            }
        }
        if search.found.len() >= PROVIDERS_MAX {
            if let Some(mut query) = kademlia.query_mut(query) {
                query.finish();
            }
        }
        new
    }

    /// Answers with all that were found, in the order of their ids.
    pub(super) fn end(&mut self, query: &QueryId) {
        if let Some(Search { found, reply }) = self.0.remove(query) {
            let mut found: Vec<_> = found.into_iter().collect();
            found.sort();
            let _ = reply.send(found);
        }
    }
}
