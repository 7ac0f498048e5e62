//! What was fetched is had, whether there is room to keep it or not.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use node_client::{
    chain::RevealInfo,
    clock::ManualClock,
    network::{
        FetchError, FetchRequest, Fetched, MemoryHub, MemoryNetwork, Multiaddr, Network,
        NetworkError, PeerAddress, PeerId, PiecesFetched, PiecesRequest,
    },
    store::{Content, StoreError},
};
use participant::{payloads::Payloads, peers::AnnouncedPeers};
use protocol::{
    commitment::Opening,
    layout::Layout,
    update::{Encoder, Payload},
    Hash, Window,
};

const KEEP: u16 = 64;

/// A peer whose store has room for so many contents.
struct Cramped {
    inner: MemoryNetwork,
    room: usize,
    kept: Mutex<Vec<Hash>>,
}

#[async_trait]
impl Network for Cramped {
    fn local_peer(&self) -> PeerId {
        Network::local_peer(&self.inner)
    }

    fn sign(&self, message: &Hash) -> Option<[u8; 64]> {
        self.inner.sign(message)
    }

    async fn listen_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError> {
        self.inner.listen_addresses().await
    }

    async fn add_peer(&self, peer: PeerAddress) -> Result<(), NetworkError> {
        self.inner.add_peer(peer).await
    }

    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError> {
        {
            let mut kept = self.kept.lock().unwrap();
            if kept.len() >= self.room {
                let needed = bytes.len() as u64;
                return Err(StoreError::Full { needed, pinned: 0, bytes_max: 0 }.into());
            }
            kept.push(id);
        }
        self.inner.publish(id, bytes).await
    }

    async fn publish_content(
        &self,
        id: Hash,
        content: Arc<dyn Content>,
    ) -> Result<(), NetworkError> {
        self.inner.publish_content(id, content).await
    }

    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError> {
        self.kept.lock().unwrap().retain(|kept| *kept != id);
        self.inner.unpublish(id).await
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        self.inner.fetch(request).await
    }

    async fn fetch_pieces(&self, request: PiecesRequest) -> Result<PiecesFetched, FetchError> {
        self.inner.fetch_pieces(request).await
    }
}

/// A receiver with room for so many payloads, and a peer that has one for each of three windows.
struct Scene {
    network: Arc<Cramped>,
    payloads: Payloads,
    reveals: Vec<(RevealInfo, Bytes)>,
}

impl Scene {
    async fn new(room: usize) -> Self {
        let (hub, clock) = (MemoryHub::new(), Arc::new(ManualClock::new(0)));
        let (miner, own) = (hub.join(1, clock.clone()), hub.join(2, clock));
        let layout = Layout(vec![5_000]);
        let mut reveals = Vec::new();
        for window in 0..3 {
            let (reveal, bytes) = revealed(&layout, window);
            miner.publish(reveal.opening.payload_root, bytes.clone()).await.unwrap();
            reveals.push((reveal, bytes));
        }
        let network = Arc::new(Cramped { inner: own, room, kept: Mutex::default() });
        let peers = Arc::new(AnnouncedPeers::new(network.local_peer()));
        let payloads = Payloads::new(network.clone(), peers, layout, KEEP, None);
        Self { network, payloads, reveals }
    }

    async fn fetch(&self, window: Window) {
        let (reveal, bytes) = &self.reveals[window as usize];
        let fetched = self.payloads.fetch(window, &[1; 32], reveal).await.unwrap();
        assert_eq!(fetched, *bytes);
    }

    /// The windows whose payloads are kept.
    fn kept(&self) -> Vec<usize> {
        let kept = self.network.kept.lock().unwrap();
        let is_kept = |at: &usize| kept.contains(&self.reveals[*at].0.opening.payload_root);
        (0..self.reveals.len()).filter(is_kept).collect()
    }
}

fn revealed(layout: &Layout, window: Window) -> (RevealInfo, Bytes) {
    let mut values: Vec<f32> = (0..5_000).map(|at| ((at + window) % 97) as f32 - 48.0).collect();
    let bytes = Encoder::new().encode(&mut [&mut values], layout, KEEP).unwrap();
    let payload = Payload::parse(&bytes, layout, KEEP).unwrap();
    let opening = Opening {
        payload_root: payload.root(),
        chunk_count: payload.chunk_count(),
        byte_len: bytes.len() as u64,
        base_state_root: [0; 32],
        salt: [0; 32],
    };
    (RevealInfo { uid: 0, opening, committed_block: 1, order: 0 }, bytes.into())
}

#[tokio::test]
async fn the_oldest_window_makes_room_for_what_is_fetched() {
    let scene = Scene::new(2).await;
    for window in 0..3 {
        scene.fetch(window).await;
    }
    assert_eq!(scene.kept(), [1, 2]);
}

#[tokio::test]
async fn what_cannot_be_kept_is_had_all_the_same() {
    let scene = Scene::new(0).await;
    scene.fetch(0).await;
    assert_eq!(scene.kept(), [0; 0]);
}

#[tokio::test]
async fn a_new_process_serves_what_was_revealed_in_its_window_and_nothing_else() {
    let scene = Scene::new(4).await;
    let [old, new] = [0, 2].map(|at| scene.reveals[at].0.opening.payload_root);
    scene.network.kept.lock().unwrap().extend([old, new, [9; 32]]);
    scene.payloads.adopt(vec![old, new, [9; 32]], &[(0, old), (2, new)]).await;
    assert_eq!(scene.network.kept.lock().unwrap().as_slice(), [old, new]);
    // Each goes with its own window, not with that in which the process began.
    scene.payloads.forget_before(9).await;
    assert_eq!(scene.kept(), [2]);
}
