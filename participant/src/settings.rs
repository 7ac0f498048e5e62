//! Configures a participant: a plain struct with defaults. Reading it from a file is the embedding program's.

use std::{path::PathBuf, sync::Arc};

use dataset::place::CACHE_BYTES_MAX;
use node_client::{
    keys::Keypair,
    mirror::{Mirror, MirrorPlace, PlaceError},
    network::{Multiaddr, PeerAddress},
};
use protocol::{Hash, Planck, RunId, Window};
use trainer::{DeviceKind, ModelConfig};

use crate::{
    miner::conduct::{Conduct, Honest},
    snapshots::SNAPSHOT_EVERY,
};

/// Bytes of payloads kept unless asked otherwise: 4 GiB.
const STORE_BYTES_MAX: u64 = 4 << 30;

/// Where a node of this machine answers.
const LOCAL_URL: &str = "ws://127.0.0.1:9944";

/// What a participant does about the faults of others. Reports are free; a bond is lost if the accusation is wrong.
#[derive(Clone, Default)]
pub struct Proofs {
    /// Report no copies and malformed chunks (validators only). Half of the slash goes to the cold key.
    pub is_silent: bool,
    /// Holds the bonds of accusations, and has half of what they take. Without it nobody is challenged and nothing disputed. A key
    /// of its own, with as much money as may be lost, keeps the cold key off the machine.
    pub bonds: Option<Keypair>,
    /// What this process may lose and have at risk, together, in planck.
    pub bonds_max: Planck,
    /// Miners that are asked on chain for a chunk of a payload that cannot be fetched, at most, a window (validators only).
    pub challenges_per_window: u32,
    /// Evaluations that are disputed, at most, a window (validators only).
    pub disputes_per_window: u32,
}

/// A bucket of an S3-compatible store with payloads and states of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Where it is.
    pub place: MirrorPlace,
    /// Whether payloads and states are copied there, and not only fetched.
    pub push: bool,
    /// Bytes that copies take of the uplink per second, at most, beside what peers are served; `None` for no limit.
    pub up_bytes_per_second: Option<u64>,
}

impl MirrorSettings {
    /// The mirror, of which the run has this folder. Asks nobody yet.
    ///
    /// # Errors
    /// The place is none, or nothing says who writes there.
    pub fn open(&self, folder: &str) -> Result<Mirror, PlaceError> {
        if self.push {
            Mirror::open_to_copy(&self.place, folder, self.up_bytes_per_second)
        } else {
            Mirror::open(&self.place, folder)
        }
    }
}

/// Configures one participant. [`Participant::new`] has defaults for everything but its identity; paths are absolute or
/// relative to the current folder.
#[derive(Clone)]
pub struct Participant {
    /// What logs and reports call this participant.
    pub name: String,
    /// Holds everything that it keeps: store, journal, checkpoints, network key, diary.
    pub folder: PathBuf,
    /// The model. Its initial parameters must have the run's genesis state root.
    pub model: ModelConfig,
    /// The data set's folder, or its address in a store. Its root must be the run's.
    pub data: PathBuf,
    /// Most that is kept of a data set in a store, in bytes.
    pub data_cache_bytes_max: u64,
    /// Trains and evaluates.
    pub device: DeviceKind,
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// Take part in windows before this one only.
    pub window_end: Option<u64>,
    /// What a miner does in a window.
    pub conduct: Arc<dyn Conduct>,
    /// Keep a copy of every fetched payload here, for auditors (validators only).
    pub archive: Option<PathBuf>,
    /// Bytes of payloads in the archive, at most: the oldest windows go. `None` for no bound.
    pub archive_bytes_max: Option<u64>,
    /// Measure the held-out loss of each window's parameters on so many samples; 0 for none (validators only).
    pub held_out_samples: usize,
    /// Bytes of payloads kept, at most; the states that are served, up to four times the parameters, and snapshots
    /// come on top.
    pub store_bytes_max: u64,
    /// Write a checkpoint every so many windows, at least 1. A process that is killed between two does the windows since the
    /// last one again from what peers serve; a miner's error feedback starts afresh, and its optimiser goes on from the checkpoint's.
    pub checkpoint_every: u64,
    /// Serve the state of every so many windows as long as others can replay from it, for those who join; 0 for none.
    /// That is on disk up to three times the parameters more where it is a half of the windows that the chain
    /// remembers, as by default.
    pub snapshot_every: Window,
    /// Bytes of memory that may be used. Default: what is available at the start, of which half is left if it can be.
    pub memory_bytes: Option<u64>,
    /// WebSocket addresses of the chain's nodes; the next one is asked when one fails. At least one.
    pub urls: Vec<String>,
    /// Hash of the chain's block 0. Without it, that of the first chain that this folder meets, which it remembers.
    pub genesis: Option<Hash>,
    /// Number of the run on the chain.
    pub run: RunId,
    /// Signs the work of each window.
    pub hot: Keypair,
    /// Owns the money; if given, it registers the hot key at the start.
    pub cold: Option<Keypair>,
    /// A validator's stake when it registers by itself.
    pub stake: Option<u128>,
    /// What a miner pays at most, in planck, when it registers by itself; by default twice what joining costs then.
    pub entry_price_max: Option<u128>,
    /// Where to listen; empty for the default.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses others reach this peer.
    pub external: Vec<Multiaddr>,
    /// Whether the router is asked to forward the ports that are listened on (UPnP), unless these are of this machine
    /// alone.
    pub upnp: bool,
    /// Peers to meet at the start.
    pub peers: Vec<PeerAddress>,
    /// Bytes that are served to all peers per second at most; `None` for no limit.
    pub up_bytes_per_second: Option<u64>,
    /// A bucket that is asked beside the peers.
    pub mirror: Option<MirrorSettings>,
    /// What it does about the faults of others.
    pub proofs: Proofs,
}

impl Participant {
    /// A participant of run 0 of the node on this machine, which signs with `hot` and keeps everything in `folder`.
    pub fn new(
        folder: impl Into<PathBuf>,
        model: ModelConfig,
        data: impl Into<PathBuf>,
        hot: Keypair,
    ) -> Self {
        Self {
            name: "participant".to_owned(),
            folder: folder.into(),
            model,
            data: data.into(),
            data_cache_bytes_max: CACHE_BYTES_MAX,
            device: DeviceKind::default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            window_end: None,
            conduct: Arc::new(Honest),
            archive: None,
            archive_bytes_max: None,
            held_out_samples: 0,
            store_bytes_max: STORE_BYTES_MAX,
            checkpoint_every: 1,
            snapshot_every: SNAPSHOT_EVERY,
            memory_bytes: None,
            urls: vec![LOCAL_URL.to_owned()],
            genesis: None,
            run: 0,
            hot,
            cold: None,
            stake: None,
            entry_price_max: None,
            listen: Vec::new(),
            external: Vec::new(),
            upnp: true,
            peers: Vec::new(),
            up_bytes_per_second: None,
            mirror: None,
            proofs: Proofs::default(),
        }
    }
}
