//! Who has a part of a content says which pieces it has.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use libp2p::{request_response, swarm::SwarmEvent};
use node_client::{
    network::{
        codec::{RangeCodec, RangeRequest, RangeResponse},
        Network, PeerAddress, PiecesRequest,
    },
    store::PieceMap,
};

use super::{address, content, honest, impostor, peer, stranger, Known, Transport};

const PIECE_LEN: usize = 1_000;

/// One question of somebody who is no participant.
async fn ask(server: &PeerAddress, request: RangeRequest) -> RangeResponse {
    let (mut swarm, _) = stranger(RangeCodec).await;
    for address in &server.addresses {
        swarm.add_peer_address(server.peer, address.clone());
    }
    swarm.behaviour_mut().send_request(&server.peer, request);
    loop {
        let event = swarm.select_next_some().await;
        let SwarmEvent::Behaviour(request_response::Event::Message { message, .. }) = event else {
            continue;
        };
        if let request_response::Message::Response { response, .. } = message {
            return response;
        }
    }
}

#[tokio::test]
async fn who_has_a_part_says_which_and_who_has_all_says_so() {
    let (id, bytes) = content(20 * PIECE_LEN);
    let right = bytes.clone();
    let answers = move |count, request| (count < 3).then(|| honest(&right, request));
    let (server, task) = impostor(Box::new(answers)).await;
    let late = peer(Transport::Tcp).await;
    let known = Known::new(&bytes, PIECE_LEN);
    let want = |providers| PiecesRequest { id, providers, pieces: known.clone(), whole: false };
    assert!(late.client.fetch_pieces(want(vec![server])).await.is_err());
    task.abort();

    let place = address(&late.client).await;
    let map = RangeRequest { id, piece: None, offset: 0, len: 0 };
    let here: Vec<bool> = known.here.lock().unwrap().iter().map(Option::is_some).collect();
    let count = here.iter().filter(|is_here| **is_here).count();
    assert!((1..=3).contains(&count), "{count}");
    let expected = RangeResponse::OtherPieces(PieceMap::of(here));
    assert_eq!(ask(&place, map).await, expected);

    let whole = peer(Transport::Tcp).await;
    whole.client.publish(id, bytes.clone()).await.unwrap();
    let all = RangeResponse::Found { total_len: bytes.len() as u64, bytes: Default::default() };
    assert_eq!(ask(&address(&whole.client).await, map).await, all);
    let other = RangeRequest { id: [9; 32], ..map };
    assert_eq!(ask(&place, other).await, RangeResponse::Missing);
}

#[tokio::test]
async fn who_has_a_part_is_asked_for_nothing_else() {
    let (id, bytes) = content(40 * PIECE_LEN);
    let has = |piece: usize| piece.is_multiple_of(8);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (right, log) = (bytes.clone(), asked.clone());
    let (partial, task) = impostor(Box::new(move |_, request| {
        let piece = request.offset as usize / PIECE_LEN;
        log.lock().unwrap().push((piece, request.len > 0));
        Some(match request.len > 0 && has(piece) {
            true => honest(&right, request),
            false => RangeResponse::OtherPieces(PieceMap::of((0..40).map(has))),
        })
    }))
    .await;
    let [server, reader] = [peer(Transport::Tcp).await, peer(Transport::Tcp).await];
    server.client.publish(id, bytes.clone()).await.unwrap();
    let known = Known::new(&bytes, PIECE_LEN);
    let providers = vec![partial, address(&server.client).await];
    let request = PiecesRequest { id, providers, pieces: known.clone(), whole: false };
    let fetched = reader.client.fetch_pieces(request).await.unwrap();
    assert!(known.has_all());
    assert_eq!(fetched.faults, []);
    // What it was asked for before the first map came, at most as many at a time as one is asked for.
    let asked = asked.lock().unwrap();
    let in_vain = asked.iter().filter(|(piece, is_piece)| *is_piece && !has(*piece)).count();
    assert!(in_vain <= 6, "{in_vain} of {asked:?}");
    task.abort();
}
