//! What a participant does with the payloads of a window: it serves its own, fetches those of others, and serves these
//! in turn.
//!
//! A payload is fetched as participants fetch it: first the list of its pieces' hashes, under an id of its own, then
//! the pieces by number, from whoever has them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use node_client::{
    network::{
        Client, FetchError, FetchRequest, Keep, Network, PeerAddress, Pieces, PiecesRequest, Role,
    },
    store::{Cut, Span},
};
use protocol::Hash;
use serde_json::{json, Value};
use tokio::task::JoinSet;

use crate::content::content;

/// Bytes of a piece of 72 B, which longer payloads are cut into; of shorter ones, which stand for such of 72 B, it is a
/// 64th.
const PIECE_BYTES: usize = 1_300_000;
const LONG: usize = 8_000_000;

/// Bytes of a hash in a list.
const HASH_LEN: usize = 32;

/// Windows whose payloads are served.
const SERVED: usize = 2;

/// After this an exchange has failed.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(300);

/// The pause between two attempts, as participants make it.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// The peers of the run, and what this one serves.
pub(crate) struct Participant {
    client: Client,
    peers: Vec<PeerAddress>,
    validators: usize,
    served: VecDeque<Vec<Hash>>,
}

impl Participant {
    /// Nobody else is known, and nothing served.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, peers: Vec::new(), validators: 0, served: VecDeque::new() }
    }

    /// Learns who takes part, the first `validators` being validators and the others miners whose updates count, and
    /// keeps the connections that participants keep.
    pub(crate) async fn join(
        &mut self,
        validators: usize,
        peers: Vec<PeerAddress>,
    ) -> Result<(), Box<dyn Error>> {
        let role = |index| if index < validators { Role::Validator } else { Role::Replica };
        let roles = peers.iter().enumerate().map(|(index, peer)| (peer.peer, role(index)));
        self.client.set_roles(roles.collect::<HashMap<_, _>>()).await?;
        let own = self.client.local_peer();
        let others = |peer: &&PeerAddress| peer.peer != own;
        let dialled = peers[..validators].iter().filter(others).cloned().collect();
        let held = peers[validators..].iter().filter(others).map(|peer| peer.peer).collect();
        for peer in peers.iter().filter(others) {
            self.client.add_peer(peer.clone()).await?;
        }
        self.client.keep(Keep { dialled, held }).await?;
        (self.peers, self.validators) = (peers, validators);
        Ok(())
    }

    /// Serves a payload of `len` bytes, and says its root.
    pub(crate) async fn make(&mut self, len: usize) -> Result<Value, Box<dyn Error>> {
        let (_, bytes) = content(len);
        let list: Bytes = bytes
            .chunks(piece_len(len))
            .flat_map(|piece| *blake3::hash(piece).as_bytes())
            .collect::<Vec<u8>>()
            .into();
        let root = *blake3::hash(&list).as_bytes();
        serve(&self.client, root, list, bytes).await?;
        Ok(json!({ "root": hex::encode(root) }))
    }

    /// Fetches payloads at once, each of which is said as `ROOT:LEN:INDEX of its miner`; says when the last one was
    /// here.
    pub(crate) async fn exchange(&mut self, payloads: &[&str]) -> Result<Value, Box<dyn Error>> {
        let mut fetches = JoinSet::new();
        let mut window = Vec::new();
        let begin = Instant::now();
        for payload in payloads {
            let parts: Vec<&str> = payload.split(':').collect();
            let [root, len, miner] = parts[..] else {
                return Err(format!("no payload: {payload}").into());
            };
            let root: Hash = hex::decode(root)?.try_into().map_err(|_| "no root")?;
            window.extend([root, list_id(&root)]);
            let providers = self.ordered(miner.parse()?);
            fetches.spawn(fetch(self.client.clone(), root, len.parse()?, providers));
        }
        self.serve_from(window).await?;
        let mut faults: BTreeMap<String, usize> = BTreeMap::new();
        let mut done = Vec::new();
        let wait = async {
            while let Some(fetched) = fetches.join_next().await {
                let (at, more) = fetched??;
                done.push(at.duration_since(begin).as_millis() as u64);
                for (kind, count) in more {
                    *faults.entry(kind).or_default() += count;
                }
            }
            Ok::<_, Box<dyn Error>>(())
        };
        if let Ok(ended) = tokio::time::timeout(EXCHANGE_TIMEOUT, wait).await {
            ended?;
        }
        Ok(json!({
            "millis": done.iter().max(),
            "first_millis": done.iter().min(),
            "missing": payloads.len() - done.len(),
            "faults": faults,
        }))
    }

    /// The providers of a payload as participants ask them: its miner, the validators, the other miners.
    fn ordered(&self, miner: usize) -> Vec<PeerAddress> {
        let others = (0..self.peers.len()).filter(|index| *index != miner);
        let order = std::iter::once(miner).chain(others);
        order.filter_map(|index| self.peers.get(index).cloned()).collect()
    }

    /// Serves a further window, and no longer the oldest.
    async fn serve_from(&mut self, window: Vec<Hash>) -> Result<(), Box<dyn Error>> {
        self.served.push_back(window);
        if self.served.len() > SERVED {
            for id in self.served.pop_front().unwrap_or_default() {
                self.client.unpublish(id).await?;
            }
        }
        Ok(())
    }
}

type Faults = BTreeMap<String, usize>;

/// Fetches one payload, however often nobody has it, and serves it: when it was here, and what went wrong.
async fn fetch(
    client: Client,
    root: Hash,
    len: usize,
    providers: Vec<PeerAddress>,
) -> Result<(Instant, Faults), String> {
    let mut faults = Faults::new();
    let mut pieces = None;
    loop {
        match attempt(&client, root, len, &providers, &mut pieces).await {
            Ok((list, bytes, more)) => {
                count(&mut faults, more);
                let at = Instant::now();
                let served = serve(&client, root, list, bytes).await;
                return served.map(|()| (at, faults)).map_err(|error| error.to_string());
            }
            Err(FetchError::Unavailable { faults: more, .. }) => {
                *faults.entry("Again".to_owned()).or_default() += 1;
                count(&mut faults, more);
            }
            Err(error) => return Err(error.to_string()),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn count(faults: &mut Faults, more: Vec<node_client::network::Fault>) {
    for fault in more {
        *faults.entry(format!("{:?}", fault.kind)).or_default() += 1;
    }
}

type Attempt = (Bytes, Bytes, Vec<node_client::network::Fault>);

async fn attempt(
    client: &Client,
    root: Hash,
    len: usize,
    providers: &[PeerAddress],
    pieces: &mut Option<Arc<Numbered>>,
) -> Result<Attempt, FetchError> {
    let pieces = match pieces {
        Some(pieces) => pieces,
        None => {
            let list_len = (len.div_ceil(piece_len(len)) * HASH_LEN) as u64;
            let is_list = move |bytes: &[u8]| *blake3::hash(bytes).as_bytes() == root;
            let request = FetchRequest::new(list_id(&root), list_len, is_list).exactly();
            let fetched = client.fetch(request.from_peers(providers.iter().cloned())).await?;
            pieces.insert(Arc::new(Numbered::new(len, fetched.bytes)))
        }
    };
    let request = PiecesRequest {
        id: root,
        providers: providers.to_vec(),
        pieces: pieces.clone(),
        whole: true,
    };
    let fetched = client.fetch_pieces(request).await?;
    let unavailable = || FetchError::Unavailable { id: root, faults: Vec::new() };
    Ok((pieces.list.clone(), fetched.bytes.ok_or_else(unavailable)?, fetched.faults))
}

/// Serves a payload and the list of its pieces.
async fn serve(
    client: &Client,
    root: Hash,
    list: Bytes,
    bytes: Bytes,
) -> Result<(), node_client::network::NetworkError> {
    let cut = cut(bytes.len());
    client.publish(list_id(&root), list).await?;
    client.publish_content(root, Arc::new(bytes), Some(cut)).await
}

fn list_id(root: &Hash) -> Hash {
    *blake3::Hasher::new().update(b"list").update(root).finalize().as_bytes()
}

fn piece_len(len: usize) -> usize {
    if len >= LONG {
        PIECE_BYTES
    } else {
        len.div_ceil(64).max(1)
    }
}

/// Where the pieces of a payload lie: each in two parts, as those of payloads do.
fn cut(len: usize) -> Cut {
    let span = |offset: usize, len: usize| Span { offset: offset as u64, len: len as u32 };
    let pieces = (0..len).step_by(piece_len(len)).map(|offset| {
        let piece_len = piece_len(len).min(len - offset);
        let first = piece_len / 8;
        [span(offset, first), span(offset + first, piece_len - first)]
    });
    Cut(pieces.collect())
}

/// The pieces of a payload whose list is known.
struct Numbered {
    len: usize,
    list: Bytes,
    here: Vec<AtomicBool>,
}

impl Numbered {
    fn new(len: usize, list: Bytes) -> Self {
        let here = list.chunks(HASH_LEN).map(|_| AtomicBool::new(false)).collect();
        Self { len, list, here }
    }
}

impl Pieces for Numbered {
    fn byte_len(&self) -> u64 {
        self.len as u64
    }

    fn count(&self) -> usize {
        self.here.len()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let here = self.here.get(index)?.load(Ordering::Relaxed);
        let offset = index * piece_len(self.len);
        Some((offset as u64, (self.len - offset).min(piece_len(self.len)) as u32, here))
    }

    fn is_numbered(&self) -> bool {
        true
    }

    fn cut(&self) -> Option<(Bytes, Cut)> {
        Some((Bytes::new(), cut(self.len)))
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let hash = self.list.chunks(HASH_LEN).nth(index);
        let is_right = hash.is_some_and(|hash| hash == blake3::hash(bytes).as_bytes());
        if is_right {
            self.here[index].store(true, Ordering::Relaxed);
        }
        is_right
    }
}
