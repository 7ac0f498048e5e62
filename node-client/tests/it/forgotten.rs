//! A router on the way that forgets a connection and tells nobody.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::multiaddr::Protocol;
use node_client::network::{Multiaddr, Network, PeerAddress};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::network::{address, content, peer, want, Transport};

/// Passes connections on to `to`, until it is told to forget those that there are: they stay open, and nothing passes.
async fn router(to: u16, forget: Arc<Notify>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let forget = forget.clone();
            tokio::spawn(async move {
                tokio::select! {
                    passed = copy_bidirectional(&mut near, &mut far) => drop(passed),
                    () = forget.notified() => std::future::pending().await,
                }
            });
        }
    });
    port
}

/// Review H11: a connection that a router has forgotten was asked for as long as the kernel kept it, and no other was made.
#[tokio::test]
async fn a_connection_that_a_router_forgot_is_replaced() {
    let (publisher, fetcher) = (peer(Transport::Tcp).await, peer(Transport::Tcp).await);
    let direct = address(&publisher.client).await;
    let port = direct.addresses.iter().flatten().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let forget = Arc::new(Notify::new());
    let routed = router(port.unwrap(), forget.clone()).await;
    let over = Multiaddr::from(Protocol::Ip4([127, 0, 0, 1].into())).with(Protocol::Tcp(routed));
    let routed = PeerAddress { addresses: vec![over], ..direct };

    let fetch = |seed| {
        let (publisher, fetcher, routed) = (&publisher.client, &fetcher.client, routed.clone());
        async move {
            let (id, bytes) = content(seed);
            publisher.publish(id, bytes.clone()).await.unwrap();
            let fetched = fetcher.fetch(want(id).from_peers([routed])).await;
            fetched.is_ok_and(|fetched| fetched.bytes == bytes)
        }
    };
    assert!(fetch(2_000).await);
    forget.notify_waiters();
    let started = Instant::now();
    while !fetch(3_000).await {
        assert!(started.elapsed() < Duration::from_secs(120), "it is still asked");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    println!("had again after {:.1} s", started.elapsed().as_secs_f64());
}
