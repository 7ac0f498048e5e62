//! Many peers in one process, over loopback: how long one takes to announce a content, and others to find it.

use std::{
    error::Error,
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
use serde_json::json;

use crate::content::{content, listen, request, NAME};

/// Bytes of what is announced and found.
const LEN: usize = 1_000;

/// Peers that each peer knows of at the start, drawn from those before it.
const KNOWN: usize = 3;

/// Peers that announce a content each, and that find one each.
const SAMPLES: usize = 64;

/// How long an idle connection stays: both of its ends are open files of this process.
const IDLE: Duration = Duration::from_secs(2);

/// Starts `count` peers, and measures.
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
        let client = start(config, key, store, Arc::new(SystemClock)).await?;
        for known in 0..KNOWN.min(index) {
            // A spread of earlier peers, the same each time.
            let other = &clients[(index * 7 + known * 31) % index];
            let addresses = other.listen_addresses().await?;
            client.add_peer(PeerAddress { peer: other.local_peer(), addresses }).await?;
        }
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    measure(&clients).await
}

async fn measure(clients: &[Client]) -> Result<(), Box<dyn Error>> {
    let samples = SAMPLES.min(clients.len() / 2);
    let (mut store_times, mut get_times) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        // Lengths differ, so contents do.
        let len = LEN + sample;
        let (id, bytes) = content(len);
        let client = &clients[sample * clients.len() / samples];
        client.publish(id, bytes).await?;
        let begin = Instant::now();
        client.announce(id).await?;
        store_times.push(begin.elapsed().as_secs_f64() * 1e3);
        let finder =
            &clients[(sample * clients.len() / samples + clients.len() / 2) % clients.len()];
        let begin = Instant::now();
        if finder.fetch_pieces(request(len, Vec::new())).await.is_ok() {
            get_times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    let found = get_times.len();
    println!(
        "{}",
        json!({
            "peers": clients.len(),
            "samples": samples,
            "found": found,
            "store_millis": median(&mut store_times),
            "get_millis": median(&mut get_times),
        })
    );
    Ok(())
}

/// The middle of the times; 0 of none.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
