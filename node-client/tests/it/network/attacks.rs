//! The attacks of docs/study/attacks.md that peers make, over real sockets and with real payloads and states: how many
//! are noticed, and how many honest peers are blamed, that is, named as liars.

#[path = "../../../../protocol/tests/it/attacks/mutated.rs"]
mod mutated;
#[path = "../../../../protocol/tests/it/attacks/tally.rs"]
mod tally;

use std::{
    collections::BTreeSet,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use node_client::network::codec::RANGE_LEN_MAX;
use protocol::{
    layout::Layout,
    state_root::{StateManifest, TensorManifest, PIECE_VALUES},
    update::{Encoder, Frame},
};
use rand::{rngs::StdRng, Rng, SeedableRng};

use super::*;
use mutated::mutated;
use tally::{tell, Rate};

const KEEP: u16 = 64;

/// What a peer of the test's own making says to whom; `None`: it takes the request and says nothing.
type Says = Box<dyn FnMut(PeerId, RangeRequest) -> Option<RangeResponse> + Send>;

/// A peer that speaks the protocol and tells each what it likes.
async fn two_faced(mut says: Says) -> PeerAddress {
    let (mut swarm, address) = stranger(RangeCodec).await;
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            let event = swarm.select_next_some().await;
            let SwarmEvent::Behaviour(request_response::Event::Message {
                peer,
                message: request_response::Message::Request { request, channel, .. },
                ..
            }) = event
            else {
                continue;
            };
            match says(peer, request) {
                Some(response) => {
                    let _ = swarm.behaviour_mut().send_response(channel, response);
                }
                // One that is dropped would be refused.
                None => unanswered.push(channel),
            }
        }
    });
    address
}

/// The piece of a payload that a miner revealed.
struct Revealed {
    root: Hash,
    byte_len: u64,
    is_here: AtomicBool,
}

fn layout() -> Layout {
    Layout(vec![4_096, 5_000, 64])
}

fn root_of(bytes: &[u8]) -> Option<Hash> {
    Frame::cut(bytes, &layout(), KEEP).ok().map(|frame| frame.root())
}

impl Pieces for Revealed {
    fn byte_len(&self) -> u64 {
        self.byte_len
    }

    fn count(&self) -> usize {
        1
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        (index == 0).then(|| (0, self.byte_len as u32, self.is_here.load(Ordering::Relaxed)))
    }

    fn accept(&self, _: usize, bytes: &[u8]) -> bool {
        let is_right = bytes.len() as u64 == self.byte_len && root_of(bytes) == Some(self.root);
        self.is_here.fetch_or(is_right, Ordering::Relaxed);
        is_right
    }
}

/// A real payload of this seed.
fn payload(seed: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(seed);
    let values = |len: &u64| (0..*len).map(|_| random.gen_range(-1.0f32..1.0)).collect();
    let mut tensors: Vec<Vec<f32>> = layout().0.iter().map(values).collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Encoder::new().encode(&mut slices, &layout(), KEEP).unwrap().into()
}

/// Asks `providers` in this order for the payload.
fn ask_for(bytes: &Bytes, providers: &[PeerAddress]) -> PiecesRequest {
    let (root, byte_len) = (root_of(bytes).unwrap(), bytes.len() as u64);
    let pieces = Revealed { root, byte_len, is_here: AtomicBool::new(false) };
    let providers = providers.to_vec();
    PiecesRequest { id: root, providers, pieces: Arc::new(pieces), whole: true }
}

/// Who is named as a liar.
fn liars(faults: &[Fault]) -> BTreeSet<PeerId> {
    let named = faults.iter().filter(|fault| fault.kind.is_malicious());
    named.map(|fault| fault.peer).collect()
}

/// A miner that shows one payload to some and another one to the others.
#[tokio::test]
async fn a2_who_shows_two_payloads_is_named_by_whom_it_lied_to() {
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let a = peer(Transport::Tcp).await;
    let (shown, other) = (payload(1), payload(2));
    a.client.publish(root_of(&shown).unwrap(), shown.clone()).await.unwrap();
    for to_whom in 0..2 {
        let both = [shown.clone(), other.clone()];
        let mut told = Vec::new();
        let miner = two_faced(Box::new(move |peer, request| {
            if !told.contains(&peer) {
                told.push(peer);
            }
            let number = told.iter().position(|known| *known == peer).unwrap();
            Some(honest(&both[(number + to_whom) % 2], request))
        }))
        .await;
        let providers = [miner.clone(), address(&a.client).await];
        for number in 0..10 {
            let reader = peer(Transport::Tcp).await;
            let fetched = reader.client.fetch_pieces(ask_for(&shown, &providers)).await.unwrap();
            assert_eq!(fetched.bytes, Some(shown.clone()));
            if (number + to_whom) % 2 == 1 {
                noticed.note(fetched.faults.iter().any(|fault| fault.peer == miner.peer));
            } else {
                assert_eq!(fetched.peers, [miner.peer], "who is told the truth has it");
            }
            blamed.note(liars(&fetched.faults).contains(&a.client.local_peer()));
        }
    }
    tell("A2 another payload for some readers", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// The piece of a state, as a joiner takes it.
struct StatePieces {
    manifest: StateManifest,
    here: Mutex<Vec<bool>>,
}

const PIECE_BYTES: usize = 4 * PIECE_VALUES;

impl Pieces for StatePieces {
    fn byte_len(&self) -> u64 {
        (self.count() * PIECE_BYTES) as u64
    }

    fn count(&self) -> usize {
        self.here.lock().unwrap().len()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let is_here = *self.here.lock().unwrap().get(index)?;
        Some(((index * PIECE_BYTES) as u64, PIECE_BYTES as u32, is_here))
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let is_right = self.manifest.tensors()[0].verify_piece(index, &values);
        self.here.lock().unwrap()[index] |= is_right;
        is_right
    }
}

/// One bit of one piece of the state that it serves is another: it is named, and the other pieces need not come again.
#[tokio::test]
async fn a6_who_serves_another_state_is_named_for_its_piece() {
    const COUNT: usize = 3;
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let mut random = StdRng::seed_from_u64(6);
    let values: Vec<f32> = (0..COUNT * PIECE_VALUES).map(|_| random.gen()).collect();
    let manifest = StateManifest::new(vec![TensorManifest::new("body", &values)]);
    let id = manifest.root();
    let bytes: Bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let large = || NetworkConfig { range_len: RANGE_LEN_MAX, ..config(Transport::Tcp) };
    let a = peer_with(large(), Impatient).await;
    a.client.publish(id, bytes.clone()).await.unwrap();
    for trial in 0..6 {
        let mut wrong = bytes.to_vec();
        wrong[(trial % COUNT) * PIECE_BYTES + random.gen_range(0..PIECE_BYTES)] ^= 1 << (trial % 8);
        let wrong = Bytes::from(wrong);
        let liar = two_faced(Box::new(move |_, request| Some(honest(&wrong, request)))).await;
        let joiner = peer_with(large(), Impatient).await;
        let here = Mutex::new(vec![false; COUNT]);
        let pieces = Arc::new(StatePieces { manifest: manifest.clone(), here });
        let of = |providers| PiecesRequest { id, providers, pieces: pieces.clone(), whole: true };
        let error = joiner.client.fetch_pieces(of(vec![liar.clone()])).await.unwrap_err();
        noticed.note(liars(&faults(error)).contains(&liar.peer));
        let before = a.client.counters().bytes_sent;
        let had = pieces.here.lock().unwrap().iter().filter(|is_here| **is_here).count();
        let fetched = joiner.client.fetch_pieces(of(vec![address(&a.client).await])).await.unwrap();
        assert_eq!(fetched.bytes, Some(bytes.clone()));
        let sent = a.client.counters().bytes_sent - before;
        assert_eq!(sent, ((COUNT - had) * PIECE_BYTES) as u64);
        blamed.note(!liars(&fetched.faults).is_empty());
    }
    tell("A6 a wrong piece of a state", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// A miner that serves validators, so that it is attested, and nobody else: who needs it has it from validators, and
/// nobody is named, as nobody can know whether it is the miner or the way to it.
#[tokio::test]
async fn a9_who_serves_validators_alone_keeps_it_from_nobody() {
    let (mut had, mut blamed) = (Rate::default(), Rate::default());
    let refusals = [None, Some(RangeResponse::Missing), Some(RangeResponse::Busy)];
    for (at, refusal) in (0..).zip(refusals) {
        let validators = [peer(Transport::Tcp).await, peer(Transport::Tcp).await];
        let served: Vec<PeerId> = validators.iter().map(|one| one.client.local_peer()).collect();
        let contents = [payload(20 + at), payload(30 + at)];
        let kept = contents.clone();
        let miner = two_faced(Box::new(move |peer, request| {
            let asked = kept.iter().find(|bytes| root_of(bytes) == Some(request.id)).unwrap();
            if served.contains(&peer) {
                Some(honest(asked, request))
            } else {
                refusal.clone()
            }
        }))
        .await;
        let mut providers = vec![miner.clone()];
        for validator in &validators {
            for bytes in &contents {
                let request = ask_for(bytes, std::slice::from_ref(&miner));
                let fetched = validator.client.fetch_pieces(request).await.unwrap();
                validator
                    .client
                    .publish(root_of(bytes).unwrap(), fetched.bytes.unwrap())
                    .await
                    .unwrap();
            }
            providers.push(address(&validator.client).await);
        }
        for _ in 0..4 {
            let clock = ManualClock::default();
            let replica = peer_with(config(Transport::Tcp), clock.clone()).await;
            for bytes in &contents {
                let fetched = tokio::select! {
                    fetched = replica.client.fetch_pieces(ask_for(bytes, &providers)) => fetched.unwrap(),
                    () = pass(&clock) => unreachable!("time passes for ever"),
                };
                had.note(
                    fetched.bytes.as_ref() == Some(bytes) && !fetched.peers.contains(&miner.peer),
                );
                blamed.note(!liars(&fetched.faults).is_empty());
            }
        }
    }
    println!("A9 payloads that replicas had from validators: {had}");
    tell("A9 who serves validators alone", Rate { found: 0, of: 3 }, blamed);
    assert!(had.all() && blamed.none());
}

/// Twelve providers of which so many lie, asked first: each liar costs the pieces that it was asked for at once, and is
/// named.
#[tokio::test]
async fn a11_liars_among_twelve_providers_are_all_named() {
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    for (round, count) in [1, 6, 11, 1, 6, 11].into_iter().enumerate() {
        let (id, bytes) = content(60_000 + round);
        let mut random = StdRng::seed_from_u64(round as u64);
        let (mut servers, mut providers) = (Vec::new(), Vec::new());
        for number in 0..12 {
            let server = peer(Transport::Tcp).await;
            let mut served = bytes.to_vec();
            if number < count {
                // One byte of each thousand.
                served.chunks_mut(1_000).for_each(|piece| {
                    let at = random.gen_range(0..piece.len());
                    piece[at] ^= random.gen_range(1..=255);
                });
            }
            server.client.publish(id, served.into()).await.unwrap();
            providers.push(address(&server.client).await);
            servers.push(server);
        }
        let reader = peer(Transport::Tcp).await;
        let pieces = Known::new(&bytes, 1_000);
        let request = PiecesRequest { id, providers: providers.clone(), pieces, whole: true };
        let fetched = reader.client.fetch_pieces(request).await.unwrap();
        assert_eq!(fetched.bytes, Some(bytes.clone()));
        let named = liars(&fetched.faults);
        let (lied, honest) = providers.split_at(count);
        lied.iter().for_each(|liar| noticed.note(named.contains(&liar.peer)));
        honest.iter().for_each(|honest| blamed.note(named.contains(&honest.peer)));
        // Each was asked for two pieces before anybody answered.
        let received = reader.client.counters().bytes_received;
        let most = bytes.len() as u64 + 2_000 * count as u64;
        assert!(received <= most, "{received} of {most}");
    }
    tell("A11 1, 6 and 11 liars of 12 providers", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// Answers rightly, a byte a second.
#[derive(Clone, Copy)]
struct Trickle;

impl request_response::Codec for Trickle {
    type Protocol = StreamProtocol;
    type Request = RangeRequest;
    type Response = RangeResponse;

    async fn read_request<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RangeRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        RangeCodec.read_request(name, io).await
    }

    async fn read_response<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RangeResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        RangeCodec.read_response(name, io).await
    }

    async fn write_request<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
        request: RangeRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        RangeCodec.write_request(name, io, request).await
    }

    async fn write_response<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
        response: RangeResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let mut whole = futures::io::Cursor::new(Vec::new());
        RangeCodec.write_response(name, &mut whole, response).await?;
        for byte in whole.into_inner() {
            io.write_all(&[byte]).await?;
            io.flush().await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }
}

/// A peer that trickles.
async fn trickler(bytes: Bytes) -> PeerAddress {
    let (mut swarm, address) = stranger(Trickle).await;
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(request_response::Event::Message {
                message: request_response::Message::Request { request, channel, .. },
                ..
            }) = swarm.select_next_some().await
            {
                let _ = swarm.behaviour_mut().send_response(channel, honest(&bytes, request));
            }
        }
    });
    address
}

/// Twelve providers of which so many say nothing, or next to nothing: the others deliver, and nobody is named.
async fn of_twelve_that_are_slow(trickles: bool) -> Rate {
    let mut blamed = Rate::default();
    for count in [1, 6, 11] {
        let (id, bytes) = content(60_000 + count);
        let (mut servers, mut providers) = (Vec::new(), Vec::new());
        for number in 0..12 {
            if number < count {
                providers.push(if trickles { trickler(bytes.clone()).await } else { mute().await });
                continue;
            }
            let server = peer(Transport::Tcp).await;
            server.client.publish(id, bytes.clone()).await.unwrap();
            providers.push(address(&server.client).await);
            servers.push(server);
        }
        let clock = ManualClock::default();
        let reader = peer_with(config(Transport::Tcp), clock.clone()).await;
        let pieces = Known::new(&bytes, 1_000);
        let request = PiecesRequest { id, providers: providers.clone(), pieces, whole: true };
        let fetched = tokio::select! {
            fetched = reader.client.fetch_pieces(request) => fetched.unwrap(),
            () = pass(&clock) => unreachable!("time passes for ever"),
        };
        assert_eq!(fetched.bytes, Some(bytes));
        let named = liars(&fetched.faults);
        providers.iter().for_each(|one| blamed.note(named.contains(&one.peer)));
        let delivered = providers[..count].iter().any(|slow| fetched.peers.contains(&slow.peer));
        assert!(!delivered, "who is slow delivers nothing in that time");
    }
    blamed
}

#[tokio::test]
async fn a9_mute_peers_among_twelve_keep_it_from_nobody() {
    let blamed = of_twelve_that_are_slow(false).await;
    tell("A9 1, 6 and 11 mute ones of 12 providers", Rate { found: 0, of: 18 }, blamed);
    assert!(blamed.none());
}

#[tokio::test]
async fn a9_tricklers_among_twelve_keep_it_from_nobody() {
    let blamed = of_twelve_that_are_slow(true).await;
    tell("A9 1, 6 and 11 tricklers of 12 providers", Rate { found: 0, of: 18 }, blamed);
    assert!(blamed.none());
}

/// Bytes of a real payload that were changed, cut or lengthened, of each seed another way: each is refused, and whoever
/// served it is on the list of faults.
#[tokio::test]
async fn a11_mutated_payloads_are_refused_and_who_served_them_is_named() {
    let (mut noticed, mut by_name, mut blamed) =
        (Rate::default(), Rate::default(), Rate::default());
    let right = payload(11);
    let served = Arc::new(Mutex::new(right.clone()));
    let current = served.clone();
    let liar =
        two_faced(Box::new(move |_, request| Some(honest(&current.lock().unwrap(), request))))
            .await;
    let reader = peer(Transport::Tcp).await;
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..500 {
        let other = Bytes::from(mutated(|end| random.gen_range(0..end), &right));
        if other == right {
            continue;
        }
        *served.lock().unwrap() = other;
        let request = ask_for(&right, std::slice::from_ref(&liar));
        let faults = faults(reader.client.fetch_pieces(request).await.unwrap_err());
        noticed.note(faults.iter().any(|fault| fault.peer == liar.peer));
        by_name.note(liars(&faults).contains(&liar.peer));
    }
    let a = peer(Transport::Tcp).await;
    a.client.publish(root_of(&right).unwrap(), right.clone()).await.unwrap();
    let providers = [liar, address(&a.client).await];
    let fetched = reader.client.fetch_pieces(ask_for(&right, &providers)).await.unwrap();
    assert_eq!(fetched.bytes, Some(right.clone()));
    blamed.note(liars(&fetched.faults).contains(&a.client.local_peer()));
    println!("A11 of them named as liars, the others as who has another length: {by_name}");
    tell("A11 mutated payloads from a peer", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// A miner reveals a payload that others serve, and a length that it does not have, which no chain can see: who says
/// its true length is no liar.
#[tokio::test]
async fn a11_a_false_length_on_the_chain_makes_nobody_a_liar() {
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let bytes = payload(15);
    let root = root_of(&bytes).unwrap();
    let (mut servers, mut providers) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let server = peer(Transport::Tcp).await;
        server.client.publish(root, bytes.clone()).await.unwrap();
        providers.push(address(&server.client).await);
        servers.push(server);
    }
    let true_len = bytes.len() as u64;
    for byte_len in [true_len + 1, true_len + 100, true_len - 1, 1] {
        let reader = peer(Transport::Tcp).await;
        let pieces = Arc::new(Revealed { root, byte_len, is_here: AtomicBool::new(false) });
        let request = PiecesRequest { id: root, providers: providers.clone(), pieces, whole: true };
        let fetched = reader.client.fetch_pieces(request).await;
        noticed.note(fetched.is_err());
        let named = liars(&faults(fetched.unwrap_err()));
        providers.iter().for_each(|one| blamed.note(named.contains(&one.peer)));
        // Who has it is not shown another content, and goes on having it.
        let pieces = Arc::new(Revealed { root, byte_len, is_here: AtomicBool::new(false) });
        let request = PiecesRequest { id: root, providers: Vec::new(), pieces, whole: true };
        noticed.note(servers[0].client.fetch_pieces(request).await.is_err());
        assert_eq!(servers[0].client.store().get(&root).unwrap(), Some(bytes.clone()));
    }
    tell("A11 a false length on the chain", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// Speaks no protocol: bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, name: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        RangeCodec.read_request(name, io).await.map(|request| request.id.to_vec())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.take(u64::from(RANGE_LEN_MAX)).read_to_end(&mut bytes).await.map(|_| bytes)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

/// An answer that no peer of ours gives: noise, lengths that are not so, an answer that ends in the middle.
fn junk_answer(random: &mut StdRng) -> Vec<u8> {
    let found = |total_len: u64, len: u32, bytes: usize| {
        let mut answer = vec![0];
        answer.extend(total_len.to_le_bytes());
        answer.extend(len.to_le_bytes());
        answer.resize(answer.len() + bytes, 7);
        answer
    };
    match random.gen_range(0..6) {
        0 => (0..random.gen_range(0..200)).map(|_| random.gen_range(4..=255)).collect(),
        1 => found(5_000, u32::MAX, 100),
        2 => found(u64::MAX, 1_000, 1_000),
        3 => found(5_000, 1_000, random.gen_range(0..1_000)),
        4 => found(random.gen_range(0..1 << 20), 1_000, 1_000),
        _ => found(0, 0, 0),
    }
}

/// Whatever a peer writes in the place of an answer is no content, and in the place of a request stops nobody else from
/// being served.
#[tokio::test]
async fn a11_junk_on_the_wire_is_refused_and_stops_nobody() {
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let [a, reader] = [peer(Transport::Tcp).await, peer(Transport::Tcp).await];
    let (mut swarm, liar) = stranger(Raw).await;
    let target = address(&a.client).await;
    let answering = tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(12);
        loop {
            if let SwarmEvent::Behaviour(request_response::Event::Message {
                message: request_response::Message::Request { channel, .. },
                ..
            }) = swarm.select_next_some().await
            {
                let answer = junk_answer(&mut random);
                let _ = swarm.behaviour_mut().send_response(channel, answer);
            }
        }
    });
    for number in 0..300 {
        let (id, _) = content(5_000 + number);
        let request = want(id).from_peers([liar.clone()]);
        let faults = faults(reader.client.fetch(request).await.unwrap_err());
        noticed.note(faults.iter().any(|fault| fault.peer == liar.peer));
    }
    answering.abort();

    let (mut swarm, _) = stranger(Raw).await;
    let (peer, address) = (target.peer, target.addresses[0].clone());
    swarm.dial(address.with(Protocol::P2p(peer))).unwrap();
    let mut random = StdRng::seed_from_u64(13);
    let mut answered = 0;
    while answered < 300 {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { .. } => (0..300).for_each(|_| {
                let junk = (0..random.gen_range(0..100)).map(|_| random.gen()).collect();
                swarm.behaviour_mut().send_request(&peer, junk);
            }),
            SwarmEvent::Behaviour(
                request_response::Event::OutboundFailure { .. }
                | request_response::Event::Message { .. },
            ) => answered += 1,
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
    let (id, bytes) = content(9_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let fetched = reader.client.fetch(want(id).from_peers([liar, target])).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    blamed.note(liars(&fetched.faults).contains(&a.client.local_peer()));
    tell("A11 junk in the place of answers", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// Eight peers that cannot be reached are nobody's lie.
#[tokio::test]
async fn a12_peers_that_cannot_be_reached_are_not_named() {
    let mut blamed = Rate::default();
    let mut gone = Vec::new();
    for _ in 0..8 {
        let server = peer(Transport::Tcp).await;
        gone.push(address(&server.client).await);
        server.client.shutdown().await;
    }
    let reader = peer(Transport::Tcp).await;
    let bytes = payload(12);
    let error = reader.client.fetch_pieces(ask_for(&bytes, &gone)).await.unwrap_err();
    let faults = faults(error);
    let unreachable = faults.iter().filter(|fault| fault.kind == FaultKind::Unreachable);
    assert_eq!(unreachable.count(), 8);
    gone.iter().for_each(|one| blamed.note(liars(&faults).contains(&one.peer)));
    tell("A12 8 of 8 peers unreachable", Rate::default(), blamed);
    assert!(blamed.none());
}

/// Answers of an honest peer, said again to another question: of another payload, and of another piece of one content.
#[tokio::test]
async fn a14_answers_to_other_questions_are_refused_and_named() {
    let mut noticed = Rate::default();
    for number in 0..30 {
        let (bytes, last) = (payload(100 + number), payload(99 + number));
        let replays = two_faced(Box::new(move |_, request| Some(honest(&last, request)))).await;
        let reader = peer(Transport::Tcp).await;
        let request = ask_for(&bytes, std::slice::from_ref(&replays));
        let faults = faults(reader.client.fetch_pieces(request).await.unwrap_err());
        noticed.note(faults.iter().any(|fault| fault.peer == replays.peer));
    }
    let mut pieces = Rate::default();
    for shift in 1..10 {
        let (id, bytes) = content(10_000);
        let served = bytes.clone();
        let replays = two_faced(Box::new(move |_, request: RangeRequest| {
            let offset = (request.offset + 1_000 * shift) % 10_000;
            Some(honest(&served, RangeRequest { offset, ..request }))
        }))
        .await;
        let reader = peer(Transport::Tcp).await;
        let known = Known::new(&bytes, 1_000);
        let providers = vec![replays.clone()];
        let request = PiecesRequest { id, providers, pieces: known.clone(), whole: true };
        let faults = faults(reader.client.fetch_pieces(request).await.unwrap_err());
        pieces.note(liars(&faults).contains(&replays.peer));
        assert!((0..10).all(|index| !known.piece(index).unwrap().2), "nothing was taken");
    }
    tell("A14 another payload's answers", noticed, Rate::default());
    tell("A14 another piece's answers", pieces, Rate::default());
    assert!(noticed.all() && pieces.all());
}
