//! The network as one participant has it: the one in memory, with delays.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use node_client::{
    mirror::MirrorError,
    network::{
        FetchError, FetchRequest, Fetched, Keep, MemoryNetwork, Multiaddr, Network, NetworkError,
        PeerAddress, PeerId, PiecesFetched, PiecesRequest, Role,
    },
    store::{Content, Cut},
};
use protocol::Hash;

use super::world::World;

pub(super) struct SimNetwork {
    pub(super) world: Arc<World>,
    pub(super) who: usize,
    pub(super) inner: MemoryNetwork,
}

#[async_trait]
impl Network for SimNetwork {
    fn local_peer(&self) -> PeerId {
        Network::local_peer(&self.inner)
    }

    fn sign(&self, message: &Hash) -> Option<[u8; 64]> {
        self.inner.sign(message)
    }

    async fn listen_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        self.inner.listen_addresses().await
    }

    async fn reachable_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        self.inner.reachable_addresses().await
    }

    async fn add_peer(&self, peer: PeerAddress) -> Result<(), NetworkError> {
        self.inner.add_peer(peer).await
    }

    async fn set_roles(&self, roles: HashMap<PeerId, Role>) -> Result<(), NetworkError> {
        self.inner.set_roles(roles).await
    }

    async fn keep(&self, keep: Keep) -> Result<(), NetworkError> {
        self.inner.keep(keep).await
    }

    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError> {
        self.world.pass(self.who, &format!("publish {id:?}")).await;
        self.world.note_content(id, &bytes);
        self.inner.publish(id, bytes).await
    }

    async fn publish_content(
        &self,
        id: Hash,
        content: Arc<dyn Content>,
        cut: Option<Cut>,
    ) -> Result<(), NetworkError> {
        self.world.pass(self.who, &format!("publish {id:?}")).await;
        self.inner.publish_content(id, content, cut).await
    }

    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError> {
        self.world.pass(self.who, &format!("unpublish {id:?}")).await;
        self.inner.unpublish(id).await
    }

    async fn copy_to_mirror(&self, id: Hash) -> Result<bool, MirrorError> {
        self.world.note_copied(id).await;
        self.inner.copy_to_mirror(id).await
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        self.world.pass(self.who, &format!("fetch {:?}", request.id)).await;
        self.inner.fetch(request).await
    }

    async fn fetch_pieces(&self, request: PiecesRequest) -> Result<PiecesFetched, FetchError> {
        self.world.pass(self.who, &format!("fetch {:?}", request.id)).await;
        // Only of payloads is the content wanted in the answer.
        let is_state = !request.whole;
        if !is_state && self.world.link(self.who).borrow().no_payloads {
            return Err(FetchError::Unavailable { id: request.id, faults: Vec::new() });
        }
        if is_state {
            self.world.note_sync(self.who, self.local_peer(), request.id);
        }
        self.inner.fetch_pieces(request).await
    }
}
