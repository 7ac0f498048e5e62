//! What was fetched is had, whether there is room to keep it or not.

use std::sync::Arc;

use bytes::Bytes;
use node_client::{
    chain::RevealInfo,
    clock::ManualClock,
    mirror::Mirror,
    network::{MemoryHub, MemoryNetwork, Network, Serving},
};
use participant::{copies::Copies, payloads::Payloads, peers::AnnouncedPeers};
use protocol::{
    commitment::Opening,
    layout::Layout,
    update::{Encoder, Payload},
    Window,
};

const KEEP: u16 = 64;

/// A receiver with room for so many payloads, and a peer that has one for each of three windows.
struct Scene {
    hub: MemoryHub,
    network: Arc<MemoryNetwork>,
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
        let peer = Network::local_peer(&own);
        hub.set_room(peer, room);
        let (network, peers) = (Arc::new(own), Arc::new(AnnouncedPeers::new(peer)));
        let payloads = Payloads::new(network.clone(), peers, layout, KEEP, None);
        Self { hub, network, payloads, reveals }
    }

    async fn fetch(&self, window: Window) {
        let (reveal, bytes) = &self.reveals[window as usize];
        let fetched = self.payloads.fetch(window, &[1; 32], reveal).await.unwrap();
        assert_eq!(fetched, *bytes);
    }

    /// The windows whose payloads are kept.
    fn kept(&self) -> Vec<usize> {
        let kept = self.hub.published(Network::local_peer(&*self.network));
        let is_kept = |at: &usize| kept.contains(&self.reveals[*at].0.opening.payload_root);
        (0..self.reveals.len()).filter(is_kept).collect()
    }
}

fn revealed(layout: &Layout, window: Window) -> (RevealInfo, Bytes) {
    let mut values: Vec<f32> = (0..5_000).map(|at| ((at + window) % 97) as f32 - 48.0).collect();
    let bytes = Encoder::new().encode(&mut [&mut values], layout, KEEP).unwrap();
    let reveal = reveal_of(&Payload::parse(&bytes, layout, KEEP).unwrap(), bytes.len());
    (reveal, bytes.into())
}

/// The reveal of a payload of `len` bytes.
fn reveal_of(payload: &Payload<'_>, len: usize) -> RevealInfo {
    let opening = Opening {
        payload_root: payload.root(),
        chunk_count: payload.chunk_count(),
        byte_len: len as u64,
        base_state_root: [0; 32],
        salt: [0; 32],
    };
    RevealInfo { uid: 0, opening, committed_block: 1, order: 0 }
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

/// Others' of the same window go before the own one, on which its miner's pay depends.
#[tokio::test]
async fn the_own_payload_has_room_before_others() {
    let scene = Scene::new(2).await;
    scene.fetch(1).await;
    scene.fetch(2).await;
    let (own, bytes) = revealed(&Layout(vec![5_000]), 50);
    let root = own.opening.payload_root;
    scene.payloads.serve(1, root, bytes.clone()).await.unwrap_err();
    scene.payloads.serve_own(1, root, bytes).await.unwrap();
    let published = scene.hub.published(Network::local_peer(&*scene.network));
    assert!(published.contains(&root));
    assert_eq!(scene.kept(), [2]);
    // What another window has, too, stays: then there is nothing that could make room.
    let both = Scene::new(1).await;
    both.fetch(1).await;
    let [(shared, shared_bytes), (own, bytes)] = [1, 0].map(|at| &both.reveals[at]);
    both.payloads.serve(2, shared.opening.payload_root, shared_bytes.clone()).await.unwrap();
    both.payloads.serve_own(1, own.opening.payload_root, bytes.clone()).await.unwrap_err();
    assert_eq!(both.kept(), [1]);
    let none = Scene::new(0).await;
    let (own, bytes) = &none.reveals[0];
    none.payloads.serve_own(0, own.opening.payload_root, bytes.clone()).await.unwrap_err();
}

#[tokio::test]
async fn a_new_process_serves_what_was_revealed_in_its_window_and_nothing_else() {
    let scene = Scene::new(4).await;
    let [old, new] = [0, 2].map(|at| &scene.reveals[at]);
    let [old_root, new_root] = [old, new].map(|(reveal, _)| reveal.opening.payload_root);
    let strange = [9; 32];
    for (id, bytes) in [(old_root, &old.1), (new_root, &new.1), (strange, &new.1)] {
        scene.network.publish(id, bytes.clone()).await.unwrap();
    }
    let revealed = [(0, old_root), (2, new_root)];
    scene.payloads.adopt(vec![old_root, new_root, strange], &revealed).await;
    let kept = scene.hub.published(Network::local_peer(&*scene.network));
    assert_eq!(kept.len(), 2);
    assert_eq!(scene.kept(), [0, 2]);
    // Each goes with its own window, not with that in which the process began.
    scene.payloads.forget_before(9).await;
    assert_eq!(scene.kept(), [2]);
}

/// A payload of more than one piece goes the same way: its list is served with it and goes with it, and a liar costs a piece.
#[tokio::test]
async fn a_payload_of_several_pieces_is_checked_piece_by_piece() {
    let (hub, clock) = (MemoryHub::new(), Arc::new(ManualClock::new(0)));
    let [miner, liar, own] = [1, 2, 3].map(|seed| Arc::new(hub.join(seed, clock.clone())));
    let layout = Layout(vec![4096 * 20_000]);
    let mut values = vec![0.0f32; 4096 * 20_000];
    values.iter_mut().step_by(1_001).for_each(|value| *value = 1.0);
    let bytes: Bytes = Encoder::new().encode(&mut [&mut values], &layout, 1).unwrap().into();
    let payload = Payload::parse(&bytes, &layout, 1).unwrap();
    let reveal = reveal_of(&payload, bytes.len());
    let payloads = |network: &Arc<MemoryNetwork>| {
        let peers = Arc::new(AnnouncedPeers::new(Network::local_peer(&**network)));
        Payloads::new(network.clone(), peers, layout.clone(), 1, None)
    };
    for server in [&miner, &liar] {
        payloads(server).serve(7, reveal.opening.payload_root, bytes.clone()).await.unwrap();
    }
    let fetcher = payloads(&own);
    hub.set_serving(Network::local_peer(&*liar), Serving::Wrong);
    assert_eq!(fetcher.fetch(7, &[1; 32], &reveal).await.unwrap(), bytes);
    // The payload and its list are served in turn, and go together.
    let kept = || hub.published(Network::local_peer(&*own)).len();
    assert_eq!(kept(), 2);
    hub.set_offline(Network::local_peer(&*miner), true);
    let last = Arc::new(hub.join(4, clock.clone()));
    assert_eq!(payloads(&last).fetch(7, &[1; 32], &reveal).await.unwrap(), bytes);
    fetcher.forget_before(100).await;
    assert_eq!(kept(), 0);
    // Where there is room for the list alone, it goes with the payload that has none.
    let small = Arc::new(hub.join(5, clock.clone()));
    let peer = Network::local_peer(&*small);
    hub.set_room(peer, 1);
    let root = reveal.opening.payload_root;
    payloads(&small).serve_own(7, root, bytes.clone()).await.unwrap_err();
    assert!(hub.published(peer).is_empty());
    // A length on the chain that the pieces do not have is the miner's lie, and no peer's.
    let mut other = reveal.clone();
    other.opening.byte_len -= 1;
    assert!(payloads(&own).fetch(7, &[1; 32], &other).await.is_err());
}

/// Who reveals a payload copies it to the mirror; when it and all others are gone, the payload and its list come from
/// there.
#[tokio::test]
async fn what_nobody_serves_any_more_comes_from_the_mirror() {
    let (hub, clock) = (MemoryHub::new(), Arc::new(ManualClock::new(0)));
    let mirror = Mirror::in_memory();
    let miner = hub.join(1, clock.clone()).with_mirror(mirror.clone().copied_to(None));
    let (miner, late) = (Arc::new(miner), Arc::new(hub.join(2, clock).with_mirror(mirror)));
    let layout = Layout(vec![4096 * 20_000]);
    let mut values = vec![0.0f32; 4096 * 20_000];
    values.iter_mut().step_by(1_003).for_each(|value| *value = 1.0);
    let bytes: Bytes = Encoder::new().encode(&mut [&mut values], &layout, 1).unwrap().into();
    drop(values);
    let reveal = reveal_of(&Payload::parse(&bytes, &layout, 1).unwrap(), bytes.len());
    let payloads = |network: &Arc<MemoryNetwork>| {
        let peers = Arc::new(AnnouncedPeers::new(Network::local_peer(&**network)));
        Payloads::new(network.clone(), peers, layout.clone(), 1, None)
    };
    let (own, root) = (payloads(&miner), reveal.opening.payload_root);
    own.serve(7, root, bytes.clone()).await.unwrap();
    let (copies, service) = Copies::new(miner.clone());
    copies.payload(own.contents(root));
    // Nobody asks for more: the service ends when both are copied.
    drop(copies);
    service.await.unwrap();
    hub.set_offline(Network::local_peer(&*miner), true);
    assert_eq!(payloads(&late).fetch(7, &[1; 32], &reveal).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_state_is_copied_every_eight_windows() {
    let (hub, clock) = (MemoryHub::new(), Arc::new(ManualClock::new(0)));
    let mirror = Mirror::in_memory();
    let peer = Arc::new(hub.join(1, clock).with_mirror(mirror.clone().copied_to(None)));
    for window in 0..10u8 {
        peer.publish([window; 32], Bytes::from(vec![window; 9])).await.unwrap();
        let (copies, service) = Copies::new(peer.clone());
        copies.state(window.into(), [[window; 32]]);
        drop(copies);
        service.await.unwrap();
    }
    for window in 0..10u8 {
        let len = mirror.len_of(&[window; 32]).await.unwrap();
        assert_eq!(len.is_some(), window.is_multiple_of(8), "{window}");
    }
}
