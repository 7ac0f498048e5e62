//! Many peers in one process, over loopback: how long one takes to announce a content, and others to find it.
//!
//! ```text
//! addresses              one of each peer
//! know FILE              each peer learns of some of those in the file, a line each, as from the chain
//! publish INDEX LEN      a peer serves the content of that length
//! announce INDEX LEN     and spreads the word of it by Kademlia
//! get INDEX LEN PEER...  a peer fetches it from one of these peers
//! find INDEX LEN         a peer fetches it from whom Kademlia names
//! ```

use std::{
    error::Error,
    fs,
    io::{self, BufRead},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::identity::Keypair;
use node_client::{
    clock::SystemClock,
    network::{start, Client, Network, NetworkConfig, PeerAddress},
    store::Store,
};
use serde_json::{json, Value};

use crate::content::{content, listen, peer_address, request, NAME};

/// How long an idle connection stays: both of its ends are open files.
const IDLE: Duration = Duration::from_secs(5);

/// After this it has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Peers of which each peer learns, spread over all: a table of Kademlia has 20 for each halving of the distance, and
/// all together are those that it would have of all.
const KNOWN: usize = 64;

/// Starts `count` peers, and does what lines say.
pub(crate) async fn run(count: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut clients: Vec<Client> = Vec::new();
    for index in 0..count {
        let config = NetworkConfig {
            name: NAME.to_owned(),
            listen: vec![listen(IpAddr::V4(Ipv4Addr::LOCALHOST), false)],
            idle_timeout: IDLE,
            ..NetworkConfig::default()
        };
        let store = Arc::new(Store::open(folder.path().join(index.to_string()), 1 << 20)?);
        let key = Keypair::generate_ed25519();
        clients.push(start(config, key, store, Arc::new(SystemClock)).await?);
    }
    println!("{}", json!({ "peers": count }));
    loop {
        let line = tokio::task::spawn_blocking(|| io::stdin().lock().lines().next()).await?;
        let Some(line) = line else {
            return Ok(());
        };
        println!("{}", obey(&clients, &line?).await?);
    }
}

async fn obey(clients: &[Client], line: &str) -> Result<Value, Box<dyn Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let client = |index: &str| -> Result<&Client, Box<dyn Error>> {
        Ok(clients.get(index.parse::<usize>()?).ok_or("there is no such peer")?)
    };
    let begin = Instant::now();
    let done = match words[..] {
        ["addresses"] => return addresses(clients).await,
        ["know", file] => {
            know(clients, &fs::read_to_string(file)?).await?;
            true
        }
        ["publish", index, len] => {
            let (id, bytes) = content(len.parse()?);
            client(index)?.publish(id, bytes).await.is_ok()
        }
        ["announce", index, len] => {
            let (id, _) = content(len.parse()?);
            tokio::time::timeout(TIMEOUT, client(index)?.announce(id)).await.is_ok()
        }
        ["get", index, len, ref peers @ ..] => {
            let peers: Result<Vec<_>, _> = peers.iter().map(|peer| peer_address(peer)).collect();
            get(client(index)?, len.parse()?, peers?).await
        }
        ["find", index, len] => get(client(index)?, len.parse()?, Vec::new()).await,
        _ => return Err(format!("what is `{line}`?").into()),
    };
    Ok(json!({ "millis": begin.elapsed().as_micros() as f64 / 1e3, "done": done }))
}

async fn addresses(clients: &[Client]) -> Result<Value, Box<dyn Error>> {
    let mut all = Vec::new();
    for client in clients {
        let addresses = client.listen_addresses().await?;
        let address = addresses.first().ok_or("listens nowhere")?;
        all.push(format!("{address}/p2p/{}", client.local_peer()));
    }
    Ok(json!({ "addresses": all }))
}

async fn know(clients: &[Client], all: &str) -> Result<(), Box<dyn Error>> {
    let all: Result<Vec<PeerAddress>, _> = all.lines().map(peer_address).collect();
    let all = all?;
    let step = (all.len() / KNOWN).max(1);
    for (index, client) in clients.iter().enumerate() {
        for other in all.iter().skip(index % step).step_by(step) {
            if other.peer != client.local_peer() {
                client.add_peer(other.clone()).await?;
            }
        }
    }
    Ok(())
}

async fn get(client: &Client, len: usize, peers: Vec<PeerAddress>) -> bool {
    let fetched = client.fetch_pieces(request(len, peers));
    matches!(tokio::time::timeout(TIMEOUT, fetched).await, Ok(Ok(_)))
}
