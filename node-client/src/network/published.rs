//! Keeps what this peer serves, and spreads the word of it by Kademlia's provider records.

use std::collections::{HashMap, HashSet, VecDeque};

use libp2p::kad::{QueryId, RecordKey};
use protocol::Hash;
use tokio::sync::oneshot;

use super::{behaviour::Kademlia, NetworkConfig, NetworkError};

/// Provider records being spread at a time; the others wait for their turn.
const ANNOUNCING_MAX: usize = 16;

/// The published contents, and where the word of each stands.
pub(super) struct Published {
    /// What is served; at most `ids_max`.
    ids: HashSet<Hash>,
    ids_max: usize,
    /// Ids whose provider records wait to be spread; a subset of `ids`, each once.
    waiting: VecDeque<Hash>,
    announcing: HashMap<QueryId, Hash>,
    replies: HashMap<Hash, Vec<oneshot::Sender<()>>>,
    /// Replies that wait for one id, at most.
    replies_max: usize,
    /// Set when a peer became known that should perhaps keep our records.
    due: bool,
}

impl Published {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            ids: HashSet::new(),
            ids_max: config.published_max.min(config.records_max / 2),
            waiting: VecDeque::new(),
            announcing: HashMap::new(),
            replies: HashMap::new(),
            // Those who wait are the callers of as many clients; a bound all the same.
            replies_max: config.commands_max,
            due: false,
        }
    }

    pub(super) fn contains(&self, id: &Hash) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn add(&mut self, kademlia: &mut Kademlia, id: Hash) -> Result<(), NetworkError> {
        let count = self.ids.len();
        if !self.ids.contains(&id) {
            if count >= self.ids_max {
                return Err(NetworkError::TooMany { count });
            }
            self.ids.insert(id);
            self.waiting.push_back(id);
            self.announce_next(kademlia);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, kademlia: &mut Kademlia, id: &Hash) {
        self.ids.remove(id);
        self.waiting.retain(|waiting| waiting != id);
        self.replies.remove(id);
        kademlia.stop_providing(&RecordKey::new(id));
    }

    /// Spreads the record of one id before the others' turn; an id that is not published drops the reply, which says so.
    pub(super) fn announce(
        &mut self,
        kademlia: &mut Kademlia,
        id: Hash,
        reply: oneshot::Sender<()>,
    ) {
        if self.ids.contains(&id) {
            let replies = self.replies.entry(id).or_default();
            replies.retain(|reply| !reply.is_closed());
            if replies.len() < self.replies_max {
                replies.push(reply);
            }
            self.waiting.retain(|waiting| *waiting != id);
            self.waiting.push_front(id);
            self.announce_next(kademlia);
        }
    }

    /// Notes that a peer became known that should perhaps keep our records.
    pub(super) fn on_new_peer(&mut self) {
        self.due = true;
    }

    #[cfg(test)]
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// Spreads every record again, if peers became known since the last tick.
    pub(super) fn on_tick(&mut self, kademlia: &mut Kademlia) {
        if std::mem::take(&mut self.due) {
            self.waiting = self.ids.iter().copied().collect();
            self.announce_next(kademlia);
        }
    }

    pub(super) fn on_announced(&mut self, kademlia: &mut Kademlia, query: &QueryId) {
        if let Some(id) = self.announcing.remove(query) {
            for reply in self.replies.remove(&id).into_iter().flatten() {
                let _ = reply.send(());
            }
        }
        self.announce_next(kademlia);
    }

    fn announce_next(&mut self, kademlia: &mut Kademlia) {
        while self.announcing.len() < ANNOUNCING_MAX {
            let Some(id) = self.waiting.pop_front() else {
                return;
            };
            match kademlia.start_providing(RecordKey::new(&id)) {
                Ok(query) => {
                    self.announcing.insert(query, id);
                }
                // The table is full of others' records; the chain's hints still name us.
                Err(error) => {
                    tracing::debug!(%error, "provider record not kept");
                    self.replies.remove(&id);
                }
            }
        }
    }
}
