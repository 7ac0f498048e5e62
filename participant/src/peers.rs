//! Lists the peers that the chain announces, in the order in which to ask them.

use std::sync::{Arc, Mutex, PoisonError};

use node_client::{
    chain::Chain,
    network::{Network, PeerAddress, PeerId},
};
use protocol::{AccountBytes, RunId};

use crate::error::Result;

/// The announced peers of a run, validators first because they hold every payload.
#[derive(Debug, Default)]
pub struct AnnouncedPeers {
    own: Option<PeerId>,
    // Held for a look or an exchange, never across an await.
    known: Mutex<Arc<Vec<(AccountBytes, PeerAddress)>>>,
}

impl AnnouncedPeers {
    /// No peers yet; `own` is never asked.
    pub fn new(own: PeerId) -> Self {
        Self { own: Some(own), known: Mutex::default() }
    }

    /// Reads the announcements at the head, and introduces new peers to the network.
    ///
    /// # Errors
    /// The chain or the network does not answer.
    pub async fn refresh(
        &self,
        chain: &dyn Chain,
        network: &dyn Network,
        run: RunId,
    ) -> Result<()> {
        let validators = chain.validators(run, None).await?;
        let mut announcements = chain.announcements(run, None).await?;
        announcements.sort_by_key(|announcement| {
            !validators.iter().any(|validator| validator.hot == announcement.hot)
        });
        let known: Vec<_> = announcements
            .iter()
            .filter_map(|announcement| {
                let address =
                    PeerAddress::from_announcement(&announcement.peer_id, &announcement.addresses)?;
                Some((announcement.hot, address))
            })
            .filter(|(_, address)| Some(address.peer) != self.own)
            .collect();
        let before = self.known();
        for (account, address) in &known {
            if !before.iter().any(|(a, b)| a == account && b == address) {
                network.add_peer(address.clone()).await?;
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    /// All peers, `first`'s own peer before the others.
    pub fn ordered(&self, first: Option<&AccountBytes>) -> Vec<PeerAddress> {
        let known = self.known();
        let (ahead, behind): (Vec<_>, Vec<_>) =
            known.iter().partition(|(account, _)| Some(account) == first);
        ahead.into_iter().chain(behind).map(|(_, address)| address.clone()).collect()
    }

    fn known(&self) -> Arc<Vec<(AccountBytes, PeerAddress)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
