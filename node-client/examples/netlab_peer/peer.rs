//! Runs one honest peer that does what it is told by lines on its input.
//!
//! ```text
//! publish LEN          serves the content of that length
//! meet PEER            learns of a peer
//! keep PEER...         keeps connections to these peers
//! hold PEER...         holds those that these peers make
//! relay PEER...        is a validator, which relays for these peers
//! reachable            which addresses it announces, and those over relays
//! fetch LEN PEER...    fetches it from these peers in this order, and serves it from then on
//! find LEN             fetches it from whom Kademlia names
//! counters             what has been sent and received
//! watch                looks at itself from then on, for:
//! turns                how long the network took to answer since the last time that this was asked
//! memory               the most memory that was not of files, since the last time that this was asked
//! join VALIDATORS PEER...   takes part in a run, of which the first peers are validators
//! make LEN             serves a payload of that length
//! exchange ROOT:LEN:MINER...   fetches these payloads, and serves them
//! ```

use std::{
    error::Error,
    io::{self, BufRead},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{identity::Keypair, multiaddr::Protocol, Multiaddr};
use node_client::{
    clock::SystemClock,
    network::{start, Client, FetchError, Keep, Network, NetworkConfig, PeerAddress, Role},
    store::Store,
};
use serde_json::{json, Value};

use crate::{
    content::{content, listen, peer_address, request, NAME},
    exchange::Participant,
    health::Health,
};

/// After this a fetch has failed.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause between two attempts, as participants make it.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

const STORE_LEN_MAX: u64 = 2 << 30;

/// Runs until the input ends. Sends at most `up` bytes a second, if given; with `upnp` it has its router forward a port.
pub(crate) async fn run(
    transport: &str,
    ip: IpAddr,
    folder: &str,
    up: Option<u64>,
    upnp: bool,
) -> Result<(), Box<dyn Error>> {
    let config = NetworkConfig {
        name: NAME.to_owned(),
        listen: vec![listen(ip, transport == "quic")],
        up_bytes_per_second: up,
        upnp,
        ..NetworkConfig::default()
    };
    let store = Arc::new(Store::open(folder, STORE_LEN_MAX)?);
    let key = Keypair::generate_ed25519();
    let client = start(config, key, store, Arc::new(SystemClock)).await?;
    let addresses = client.listen_addresses().await?;
    let address = addresses.first().ok_or("listens nowhere")?;
    println!("{}", json!({ "address": format!("{address}/p2p/{}", client.local_peer()) }));
    let participant = Participant::new(client.clone());
    let mut peer = Peer { client, participant, health: Health::default() };
    loop {
        let line = tokio::task::spawn_blocking(|| io::stdin().lock().lines().next()).await?;
        let Some(line) = line else {
            return Ok(());
        };
        println!("{}", peer.obey(&line?).await?);
    }
}

struct Peer {
    client: Client,
    participant: Participant,
    health: Health,
}

impl Peer {
    async fn obey(&mut self, line: &str) -> Result<Value, Box<dyn Error>> {
        let client = &self.client;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["publish", len] => {
                let (id, bytes) = content(len.parse()?);
                client.publish(id, bytes).await?;
                Ok(json!({}))
            }
            ["meet", peer] => {
                client.add_peer(peer_address(peer)?).await?;
                Ok(json!({}))
            }
            ["keep", ref peers @ ..] => {
                let dialled = addresses(peers)?;
                client.keep(Keep { dialled, held: Vec::new() }).await?;
                Ok(json!({}))
            }
            ["hold", ref peers @ ..] => {
                let held = addresses(peers)?.into_iter().map(|peer| peer.peer).collect();
                client.keep(Keep { dialled: Vec::new(), held }).await?;
                Ok(json!({}))
            }
            ["relay", ref peers @ ..] => {
                let known = addresses(peers)?.into_iter().map(|peer| (peer.peer, Role::Joiner));
                let own = (client.local_peer(), Role::Validator);
                client.set_roles(known.chain([own]).collect()).await?;
                Ok(json!({}))
            }
            ["reachable"] => {
                let (relayed, direct): (Vec<_>, Vec<_>) =
                    client.reachable_addresses().await?.into_iter().partition(is_relayed);
                let at = |address| format!("{address}/p2p/{}", client.local_peer());
                let [direct, relayed] =
                    [direct, relayed].map(|all| all.into_iter().map(at).collect::<Vec<_>>());
                Ok(json!({ "addresses": direct.len(), "direct": direct, "relayed": relayed }))
            }
            ["fetch", len, ref peers @ ..] => fetch(client, len.parse()?, addresses(peers)?).await,
            ["find", len] => fetch(client, len.parse()?, Vec::new()).await,
            ["counters"] => {
                let counters = client.counters();
                Ok(json!({ "sent": counters.bytes_sent, "received": counters.bytes_received }))
            }
            ["watch"] => {
                self.health.watch(client.clone());
                Ok(json!({}))
            }
            ["turns"] => Ok(self.health.turns()),
            ["memory"] => Ok(self.health.memory()),
            ["join", validators, ref peers @ ..] => {
                self.participant.join(validators.parse()?, addresses(peers)?).await?;
                Ok(json!({}))
            }
            ["make", len] => self.participant.make(len.parse()?).await,
            ["exchange", ref payloads @ ..] => self.participant.exchange(payloads).await,
            _ => Err(format!("what is `{line}`?").into()),
        }
    }
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn addresses(peers: &[&str]) -> Result<Vec<PeerAddress>, Box<dyn Error>> {
    peers.iter().map(|peer| peer_address(peer)).collect()
}

/// Fetches as participants do: piece by piece, and again after a while when nobody delivered or what came could not be
/// kept, going on with the rest.
async fn fetch(
    client: &Client,
    len: usize,
    providers: Vec<PeerAddress>,
) -> Result<Value, Box<dyn Error>> {
    let request = request(len, providers);
    let begin = Instant::now();
    let mut tries = 0;
    let mut unkept = 0;
    let mut faults = 0;
    let attempts = async {
        loop {
            tries += 1;
            match client.fetch_pieces(request.clone()).await {
                Ok(fetched) => {
                    faults += fetched.faults.len();
                    return Ok(());
                }
                Err(FetchError::Unavailable { faults: more, .. }) => faults += more.len(),
                Err(FetchError::Unkept(_)) => unkept += 1,
                Err(closed) => return Err(closed),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    let fetched = tokio::time::timeout(FETCH_TIMEOUT, attempts).await;
    let mut answer = json!({
        "millis": begin.elapsed().as_millis() as u64,
        "tries": tries,
        "unkept": unkept,
        "faults": faults,
    });
    match fetched {
        Ok(fetched) => fetched?,
        Err(_) => answer["error"] = "not within its time".into(),
    }
    Ok(answer)
}
