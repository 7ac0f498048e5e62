//! A participant's configuration: the TOML file as written, and the checked struct that the services use.
//!
//! Unknown names are refused. Paths are relative to the file. Every value but the key has a default that runs against a
//! chain on this machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{bail, Context, Result};
use node_client::{
    keys::{self, Keypair},
    network::{Multiaddr, PeerAddress, PeerId},
};
use protocol::RunId;
use serde::{Deserialize, Serialize};
use trainer::ModelConfig;

use crate::{
    dataset,
    env::{self, DEFAULT_URL},
};

/// A participant's configuration, as its TOML file says it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ParticipantFile {
    /// What logs and reports call this participant.
    #[serde(default = "default_name")]
    pub name: String,
    /// Everything this participant keeps: store, journal, checkpoint, network key, diary.
    #[serde(default = "default_folder")]
    pub folder: PathBuf,
    /// The model: a preset's name. Its initial parameters must have the run's genesis state root.
    #[serde(default = "default_model")]
    pub model: String,
    /// The data set's folder, or its address in a store (`s3://bucket/folder`, `https://host/folder`). Its root must be the
    /// run's.
    pub data: PathBuf,
    /// Most that is kept of a data set in a store, in bytes; in `data-cache` in the folder.
    #[serde(default = "default_data_cache_bytes")]
    pub data_cache_bytes_max: u64,
    /// Threads that compute; 0 means one for each core.
    #[serde(default)]
    pub threads: usize,
    /// Take part in windows before this one only, and end when the last one is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_end: Option<u64>,
    /// Serve Prometheus metrics here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Misbehave, to test the rules (miners only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversary: Option<AdversaryKind>,
    /// Keep a copy of every fetched payload here, for auditors (validators only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
    /// Measure the held-out loss of each window's parameters on so many samples; 0 for none (validators only).
    #[serde(default)]
    pub held_out_samples: usize,
    /// Bytes of payloads and states kept.
    #[serde(default = "default_store_bytes")]
    pub store_bytes_max: u64,
    /// Bytes of memory that the process may use. Default: what is available at its start, of which it leaves half if it
    /// can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The chain.
    #[serde(default)]
    pub chain: ChainSection,
    /// Who signs.
    pub keys: KeysSection,
    /// The peers.
    #[serde(default)]
    pub network: NetworkSection,
}

/// Which chain, which run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ChainSection {
    /// WebSocket addresses of nodes; the next one is asked when one fails.
    pub urls: Vec<String>,
    /// The run.
    pub run: RunId,
}

impl Default for ChainSection {
    fn default() -> Self {
        Self { urls: vec![DEFAULT_URL.to_owned()], run: 0 }
    }
}

/// Who signs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KeysSection {
    /// Signs the work of each window; needs a balance for fees that are given back.
    pub hot: KeySource,
    /// Owns the money. Only needed to register by itself at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<KeySource>,
    /// A validator's stake when it registers by itself, in planck as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stake: Option<String>,
}

/// Where a key comes from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum KeySource {
    /// A secret URI, for development only: anybody who reads the file has the key.
    Uri(String),
    /// An encrypted key file, whose password is in the environment.
    File(PathBuf),
}

/// The peers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSection {
    /// Multiaddresses to listen on. Default: any port of every interface, QUIC and TCP.
    pub listen: Vec<String>,
    /// Multiaddresses under which others reach this peer, where these differ.
    pub external: Vec<String>,
    /// Peers to meet at the start, as multiaddresses that end in `/p2p/<peer id>`; those on the chain are met anyway.
    pub peers: Vec<String>,
}

/// How an adversary misbehaves; see [`crate::adversary`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum AdversaryKind {
    /// Sends well-formed noise.
    Garbage,
    /// Tries to open another miner's payload as its own.
    Copier,
    /// Sends its first update again and again.
    Lazy,
}

impl AdversaryKind {
    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Copier => "copier",
            Self::Lazy => "lazy",
        }
    }
}

impl FromStr for AdversaryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Garbage, Self::Copier, Self::Lazy]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("{text:?} is not garbage, copier or lazy"))
    }
}

fn default_name() -> String {
    "participant".to_owned()
}

fn default_folder() -> PathBuf {
    PathBuf::from("state")
}

fn default_model() -> String {
    "nano".to_owned()
}

fn default_data_cache_bytes() -> u64 {
    dataset::CACHE_BYTES_MAX
}

fn default_store_bytes() -> u64 {
    4 << 30
}

/// A participant's configuration, checked: keys are open, addresses are addresses, paths are absolute or relative to
/// the current folder.
#[derive(Clone)]
pub struct Participant {
    /// See [`ParticipantFile::name`].
    pub name: String,
    /// See [`ParticipantFile::folder`].
    pub folder: PathBuf,
    /// The model that the preset names.
    pub model: ModelConfig,
    /// See [`ParticipantFile::data`].
    pub data: PathBuf,
    /// See [`ParticipantFile::data_cache_bytes_max`].
    pub data_cache_bytes_max: u64,
    /// Threads that compute, at least 1.
    pub threads: usize,
    /// See [`ParticipantFile::window_end`].
    pub window_end: Option<u64>,
    /// See [`ParticipantFile::metrics`].
    pub metrics: Option<SocketAddr>,
    /// See [`ParticipantFile::adversary`].
    pub adversary: Option<AdversaryKind>,
    /// See [`ParticipantFile::archive`].
    pub archive: Option<PathBuf>,
    /// See [`ParticipantFile::held_out_samples`].
    pub held_out_samples: usize,
    /// See [`ParticipantFile::store_bytes_max`].
    pub store_bytes_max: u64,
    /// See [`ParticipantFile::memory_bytes`].
    pub memory_bytes: Option<u64>,
    /// See [`ChainSection`].
    pub chain: ChainSection,
    /// Signs the work of each window.
    pub hot: Keypair,
    /// Registers, if given.
    pub cold: Option<Keypair>,
    /// A validator's stake when it registers by itself.
    pub stake: Option<u128>,
    /// Where to listen; empty for the default.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses others reach this peer.
    pub external: Vec<Multiaddr>,
    /// Peers to meet at the start.
    pub peers: Vec<PeerAddress>,
}

impl Participant {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, says something unknown, or names a key, model or address that is none.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let file: ParticipantFile =
            toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        Self::check(file, base).with_context(|| format!("in {}", path.display()))
    }

    /// Checks what a file says; its paths are relative to `base`.
    ///
    /// # Errors
    /// As [`Participant::load`].
    pub fn check(file: ParticipantFile, base: &Path) -> Result<Self> {
        if file.chain.urls.is_empty() {
            bail!("chain.urls is empty");
        }
        let model = ModelConfig::preset(&file.model)
            .with_context(|| format!("model = {:?}", file.model))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let open = |source: &KeySource| open_key(source, base);
        Ok(Self {
            folder: base.join(&file.folder),
            data: match dataset::url(&file.data) {
                Some(_) => file.data.clone(),
                None => base.join(&file.data),
            },
            data_cache_bytes_max: file.data_cache_bytes_max,
            threads: if file.threads == 0 { cores } else { file.threads },
            model,
            hot: open(&file.keys.hot).context("keys.hot")?,
            cold: file.keys.cold.as_ref().map(open).transpose().context("keys.cold")?,
            stake: file
                .keys
                .stake
                .as_deref()
                .map(|text| text.parse().with_context(|| format!("keys.stake = {text:?}")))
                .transpose()?,
            listen: addresses(&file.network.listen).context("network.listen")?,
            external: addresses(&file.network.external).context("network.external")?,
            peers: file
                .network
                .peers
                .iter()
                .map(|text| peer(text))
                .collect::<Result<_>>()
                .context("network.peers")?,
            archive: file.archive.as_ref().map(|path| base.join(path)),
            name: file.name,
            window_end: file.window_end,
            metrics: file.metrics,
            adversary: file.adversary,
            held_out_samples: file.held_out_samples,
            store_bytes_max: file.store_bytes_max,
            memory_bytes: file.memory_bytes,
            chain: file.chain,
        })
    }
}

fn open_key(source: &KeySource, base: &Path) -> Result<Keypair> {
    match source {
        KeySource::Uri(uri) => Ok(keys::keypair_from_uri(uri)?),
        KeySource::File(path) => {
            let password = std::env::var(env::PASSWORD)
                .with_context(|| format!("a key file needs its password in {}", env::PASSWORD))?;
            Ok(keys::load_key_file(&base.join(path), &password)?)
        }
    }
}

fn addresses(texts: &[String]) -> Result<Vec<Multiaddr>> {
    texts
        .iter()
        .map(|text| text.parse().with_context(|| format!("{text:?} is not a multiaddress")))
        .collect()
}

/// A peer from a multiaddress that ends in `/p2p/<peer id>`.
fn peer(text: &str) -> Result<PeerAddress> {
    let (address, peer) = text
        .rsplit_once("/p2p/")
        .with_context(|| format!("{text:?} does not end in /p2p/<peer id>"))?;
    let peer: PeerId = peer.parse().with_context(|| format!("{peer:?} is not a peer id"))?;
    Ok(PeerAddress { peer, addresses: addresses(&[address.to_owned()])? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../examples/miner.toml");

    #[test]
    fn the_example_is_a_configuration() {
        let file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
        let checked = Participant::check(file, Path::new("/base")).unwrap();
        assert_eq!(checked.data, Path::new("/base/data"));
        assert!(checked.threads >= 1);

        // An address is no path.
        let url = "s3://bucket/data";
        let text = EXAMPLE.replace("data = \"data\"", &format!("data = {url:?}"));
        let file: ParticipantFile = toml::from_str(&text).unwrap();
        let checked = Participant::check(file, Path::new("/base")).unwrap();
        assert_eq!(checked.data, Path::new(url));
    }

    #[test]
    fn unknown_names_are_refused() {
        let text = format!("colour = \"red\"\n{EXAMPLE}");
        assert!(toml::from_str::<ParticipantFile>(&text).is_err());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
        let again: ParticipantFile = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(file, again);
    }
}
