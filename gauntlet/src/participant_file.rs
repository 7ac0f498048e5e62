//! Reads a participant's configuration: the TOML file as written, checked into the settings of the library `participant`.
//!
//! Unknown names are refused. Paths are relative to the file. Every value but the key has a default that runs against a
//! chain on this machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{anyhow, bail, Context, Result};
use dataset::place;
use node_client::{
    keys::{self, Keypair},
    mirror::MirrorPlace,
    network::{Multiaddr, PeerAddress, PeerId},
};
use participant::{
    handles::Role,
    miner::{adversary_kind::AdversaryKind, conduct::Honest},
    settings::{MirrorSettings, Participant, Proofs},
    snapshots::SNAPSHOT_EVERY,
};
use protocol::{AccountBytes, Planck, RunId};
use serde::{Deserialize, Serialize};
use trainer::ModelConfig;

use crate::{
    commands::wallet::{genesis_hash, warn_of_public_key},
    engine::DeviceArg,
    env::{self, DEFAULT_URL},
    limits::{self, said, within},
    text_file,
};

/// A participant's configuration, as its TOML file says it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ParticipantFile {
    /// This participant's name in logs and reports.
    #[serde(default = "default_name")]
    pub name: String,
    /// Folder of everything this participant keeps: store, journal, checkpoint, network key, diary.
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
    /// Where the model is computed: auto, cpu, cuda or cuda:NUMBER,….
    #[serde(default)]
    pub device: DeviceArg,
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
    /// Bytes of payloads in the archive, at most: the oldest windows go. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes_max: Option<u64>,
    /// Measure the held-out loss of each window's parameters on so many samples; 0 for none (validators only).
    #[serde(default)]
    pub held_out_samples: usize,
    /// Bytes of payloads kept; the states that are served, up to four times the parameters, and snapshots come on top.
    #[serde(default = "default_store_bytes")]
    pub store_bytes_max: u64,
    /// Write a checkpoint every so many windows.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u64,
    /// Serve the state of every so many windows for those who join; 0 for none (validators only).
    #[serde(default = "default_snapshot_every")]
    pub snapshot_every: u64,
    /// Bytes of memory that the process may use. Default: what is available at its start, of which it leaves half if it
    /// can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Section `chain`: the nodes to ask, and the run.
    #[serde(default)]
    pub chain: ChainSection,
    /// The keys that sign.
    pub keys: KeysSection,
    /// Section `network`: the addresses of this peer and of others.
    #[serde(default)]
    pub network: NetworkSection,
    /// Section `mirror`: a bucket that is asked beside the peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorSection>,
    /// Section `proofs`: what a validator does about the faults of others.
    #[serde(default)]
    pub proofs: ProofsSection,
}

/// The chain and the run on it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ChainSection {
    /// WebSocket addresses of nodes; the next one is asked when one fails.
    pub urls: Vec<String>,
    /// Hash of the chain's block 0, 0x and 64 hexadecimal digits. Default: that of the first chain that the folder meets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis: Option<String>,
    /// The run's number on the chain.
    pub run: RunId,
}

impl Default for ChainSection {
    fn default() -> Self {
        Self { urls: vec![DEFAULT_URL.to_owned()], genesis: None, run: 0 }
    }
}

/// The keys that sign.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KeysSection {
    /// Signs the work of each window; needs no money.
    pub hot: KeySource,
    /// Owns the money. Only needed to register by itself at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<KeySource>,
    /// Holds the bonds of accusations and has what they earn; with as much money as may be lost. May be the cold key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bonds: Option<KeySource>,
    /// A validator's stake when it registers by itself, in planck as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stake: Option<String>,
    /// What a miner pays at most when it registers by itself, in planck as text. Default: twice what joining costs then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_price_max: Option<String>,
}

/// What a validator does about the faults of others.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ProofsSection {
    /// Report copies and malformed chunks. It costs nothing.
    pub report: bool,
    /// Ask on chain, with a bond, for payloads that nobody delivers: of so many miners a window, at most.
    pub challenges_per_window: u32,
    /// Dispute, with a bond, evaluations that are far from the own ones: so many a window, at most.
    pub disputes_per_window: u32,
    /// What may be lost of bonds, and be at risk, until the process ends, in planck as text.
    pub bonds_max: String,
}

impl ProofsSection {
    /// Whether anything is asked for that costs a bond.
    fn is_bonded(&self) -> bool {
        self.challenges_per_window > 0 || self.disputes_per_window > 0
    }

    fn checked(&self, bonds: Option<Keypair>) -> Result<Proofs> {
        if self.is_bonded() && bonds.is_none() {
            bail!("proofs: who challenges or disputes needs keys.bonds");
        }
        let text = &self.bonds_max;
        Ok(Proofs {
            is_silent: !self.report,
            bonds,
            bonds_max: text.parse().with_context(|| format!("proofs.bonds_max = {text:?}"))?,
            challenges_per_window: self.challenges_per_window,
            disputes_per_window: self.disputes_per_window,
        })
    }
}

impl Default for ProofsSection {
    fn default() -> Self {
        Self {
            report: true,
            challenges_per_window: 0,
            disputes_per_window: 0,
            bonds_max: DEFAULT_BONDS_MAX.to_owned(),
        }
    }
}

/// 20 UNIT: a dispute and ten requests at the example's bonds.
const DEFAULT_BONDS_MAX: &str = "20000000000000";

/// Where a key comes from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum KeySource {
    /// A secret URI, for development only: anybody who reads the file has the key.
    Uri(String),
    /// An encrypted key file, whose password is in the environment.
    File(PathBuf),
}

impl KeySource {
    /// The account of the key; needs no password. A file's path is relative to `base`.
    ///
    /// # Errors
    /// It is no key, or the disk failed.
    pub(crate) fn account(&self, base: &Path) -> Result<AccountBytes> {
        match self {
            Self::Uri(uri) => Ok(keys::account(&keys::keypair_from_uri(uri)?)),
            Self::File(path) => Ok(keys::key_file_account(&base.join(path))?),
        }
    }
}

/// The addresses of this peer and of the first ones it meets.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSection {
    /// Multiaddresses to listen on. Default: any port of every interface, QUIC and TCP.
    pub listen: Vec<String>,
    /// Multiaddresses under which others reach this peer, where these differ.
    pub external: Vec<String>,
    /// Whether the router is asked to forward the ports that are listened on (UPnP). Default: true, unless these are of
    /// this machine alone.
    pub upnp: Option<bool>,
    /// Peers to meet at the start, as multiaddresses that end in `/p2p/<peer id>`; those on the chain are met anyway.
    pub peers: Vec<String>,
    /// Bytes that are served to all peers per second at most; default: no limit.
    pub up_bytes_per_second: Option<u64>,
}

/// A bucket of an S3-compatible store; credentials are in the environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MirrorSection {
    /// `s3://bucket/folder`.
    pub url: String,
    /// The service's address, `https://…`, or `http://…` in the clear. Default: that of the environment, or Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The service's region. Default: that of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Copy payloads and states there, too.
    #[serde(default)]
    pub push: bool,
    /// Bytes that copies take of the uplink per second, at most, beside what peers are served; default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_bytes_per_second: Option<u64>,
}

impl MirrorSection {
    fn checked(self) -> Result<MirrorSettings> {
        if self.up_bytes_per_second == Some(0) {
            bail!("up_bytes_per_second = 0 copies nothing: leave out push");
        }
        let Self { url, endpoint, region, push, up_bytes_per_second } = self;
        let place = MirrorPlace { url, endpoint, region, credentials: None };
        let settings = MirrorSettings { place, push, up_bytes_per_second };
        settings.open("")?;
        Ok(settings)
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
    place::CACHE_BYTES_MAX
}

fn default_checkpoint_every() -> u64 {
    1
}

fn default_snapshot_every() -> u64 {
    SNAPSHOT_EVERY
}

fn default_store_bytes() -> u64 {
    4 << 30
}

/// Reads and checks the file at `path`; returns its settings and where it wants metrics to be served.
///
/// # Errors
/// The file cannot be read, says something unknown, asks a validator to misbehave, or has an invalid key, model or address.
pub fn load(path: &Path, role: Role) -> Result<(Participant, Option<SocketAddr>)> {
    let file = read(path)?;
    let base = path.parent().unwrap_or(Path::new("."));
    if role == Role::Validator && file.adversary.is_some() {
        bail!("only a miner can be an adversary");
    }
    if role == Role::Miner && (file.keys.bonds.is_some() || file.proofs.is_bonded()) {
        bail!("only a validator accuses with a bond");
    }
    let metrics = file.metrics;
    let mut settings = check(file, base).with_context(|| format!("in {}", path.display()))?;
    if role == Role::Miner {
        settings.snapshot_every = 0;
    }
    Ok((settings, metrics))
}

/// Reads the file at `path`, as it is.
///
/// # Errors
/// It cannot be read, or says something unknown.
pub(crate) fn read(path: &Path) -> Result<ParticipantFile> {
    let text = text_file::read(path)?;
    toml::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// Checks what a file says; its paths are relative to `base`.
///
/// # Errors
/// As [`load`].
pub fn check(file: ParticipantFile, base: &Path) -> Result<Participant> {
    check_values(&file)?;
    let model =
        ModelConfig::preset(&file.model).with_context(|| format!("model = {:?}", file.model))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let open = |source: &KeySource| open_key(source, base);
    Ok(Participant {
        folder: base.join(&file.folder),
        data: match place::url(&file.data) {
            Some(_) => file.data.clone(),
            None => base.join(&file.data),
        },
        data_cache_bytes_max: file.data_cache_bytes_max,
        device: file.device.kind(None)?,
        threads: if file.threads == 0 { cores } else { file.threads },
        model,
        hot: open(&file.keys.hot).context("keys.hot")?,
        cold: file.keys.cold.as_ref().map(open).transpose().context("keys.cold")?,
        stake: file
            .keys
            .stake
            .as_deref()
            .map(|text| stake(text).with_context(|| format!("keys.stake = {text:?}")))
            .transpose()?,
        entry_price_max: file
            .keys
            .entry_price_max
            .as_deref()
            .map(|text| text.parse().with_context(|| format!("keys.entry_price_max = {text:?}")))
            .transpose()?,
        proofs: {
            let bonds = file.keys.bonds.as_ref().map(open).transpose().context("keys.bonds")?;
            file.proofs.checked(bonds)?
        },
        listen: addresses(&file.network.listen).context("network.listen")?,
        external: addresses(&file.network.external).context("network.external")?,
        upnp: file.network.upnp.unwrap_or(true),
        peers: file
            .network
            .peers
            .iter()
            .map(|text| peer(text))
            .collect::<Result<_>>()
            .context("network.peers")?,
        up_bytes_per_second: match file.network.up_bytes_per_second {
            Some(0) => bail!("network.up_bytes_per_second = 0: who serves nothing is not paid"),
            rate => rate,
        },
        mirror: file.mirror.map(MirrorSection::checked).transpose().context("mirror")?,
        archive: file.archive.as_ref().map(|path| base.join(path)),
        archive_bytes_max: file.archive_bytes_max,
        name: file.name,
        window_end: file.window_end,
        conduct: match file.adversary {
            Some(kind) => kind.conduct(),
            None => Arc::new(Honest),
        },
        held_out_samples: file.held_out_samples,
        store_bytes_max: file.store_bytes_max,
        checkpoint_every: file.checkpoint_every,
        snapshot_every: file.snapshot_every,
        memory_bytes: file.memory_bytes,
        urls: file.chain.urls.into_iter().map(|url| beside(base, url)).collect(),
        genesis: file
            .chain
            .genesis
            .as_deref()
            .map(|text| {
                genesis_hash(text).map_err(|error| anyhow!("chain.genesis = {text:?}: {error}"))
            })
            .transpose()?,
        run: file.chain.run,
    })
}

/// Refuses numbers and texts that nobody can mean. An empty path would be the file's own folder.
fn check_values(file: &ParticipantFile) -> Result<()> {
    if file.chain.urls.is_empty() {
        bail!("chain.urls is empty");
    }
    for url in &file.chain.urls {
        said("an address in chain.urls", url)?;
    }
    said("name", &file.name)?;
    said("folder", &file.folder)?;
    said("model", &file.model)?;
    said("data", &file.data)?;
    file.archive.as_ref().map_or(Ok(()), |path| said("archive", path))?;
    for (name, source) in [
        ("keys.hot", Some(&file.keys.hot)),
        ("keys.cold", file.keys.cold.as_ref()),
        ("keys.bonds", file.keys.bonds.as_ref()),
    ] {
        match source {
            Some(KeySource::File(path)) => said(name, path)?,
            Some(KeySource::Uri(uri)) => {
                said(name, uri)?;
                warn_of_public_key(uri, file.chain.urls.iter().map(String::as_str));
            }
            None => {}
        }
    }
    let threads = (file.threads != 0).then_some(file.threads as u64);
    for (name, value, bounds) in [
        ("threads", threads, limits::THREADS),
        ("window_end", file.window_end, limits::SOME),
        ("held_out_samples", Some(file.held_out_samples as u64), 0..=*limits::SAMPLES.end()),
        ("archive_bytes_max", file.archive_bytes_max, limits::SOME),
        ("store_bytes_max", Some(file.store_bytes_max), limits::SOME),
        ("checkpoint_every", Some(file.checkpoint_every), limits::SOME),
        ("memory_bytes", file.memory_bytes, limits::SOME),
    ] {
        value.map_or(Ok(()), |value| within(name, value, &bounds))?;
    }
    Ok(())
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

/// A stake in planck.
fn stake(text: &str) -> Result<Planck> {
    match text.parse()? {
        0 => bail!("a validator without a stake counts for nothing"),
        stake => Ok(stake),
    }
}

fn addresses(texts: &[String]) -> Result<Vec<Multiaddr>> {
    texts
        .iter()
        .map(|text| {
            let address: Option<Multiaddr> = text.parse().ok();
            // The empty text is one, too, of nowhere.
            let address = address.filter(|address| !address.is_empty());
            address.with_context(|| format!("{text:?} is not a multiaddress"))
        })
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

/// An address of a light client with the path of its specification relative to `base`; others as they are.
fn beside(base: &Path, url: String) -> String {
    match url.strip_prefix("light:") {
        Some(path) => format!("light:{}", base.join(path).display()),
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../examples/miner.toml");

    #[test]
    fn the_example_is_a_configuration() {
        let file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
        let checked = check(file, Path::new("/base")).unwrap();
        assert_eq!(checked.data, Path::new("/base/data"));
        assert!(checked.threads >= 1);

        // An address is no path.
        let url = "s3://bucket/data";
        let text = EXAMPLE.replace("data = \"data\"", &format!("data = {url:?}"));
        let file: ParticipantFile = toml::from_str(&text).unwrap();
        let checked = check(file, Path::new("/base")).unwrap();
        assert_eq!(checked.data, Path::new(url));
    }

    #[test]
    fn an_uplink_has_a_rate_or_no_limit() {
        let with = |line: &str| {
            let text = EXAMPLE.replace("[network]", &format!("[network]\n{line}"));
            check(toml::from_str(&text).unwrap(), Path::new("/base"))
        };
        assert_eq!(with("").unwrap().up_bytes_per_second, None);
        let rate = with("up_bytes_per_second = 11_000_000").unwrap().up_bytes_per_second;
        assert_eq!(rate, Some(11_000_000));
        assert!(with("up_bytes_per_second = 0").is_err());
    }

    #[test]
    fn the_specification_of_a_light_client_lies_beside_the_file() {
        let mut file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
        file.chain.urls = ["light:chain.json", "ws://host"].map(str::to_owned).to_vec();
        let checked = check(file, Path::new("/base")).unwrap();
        assert_eq!(checked.urls, ["light:/base/chain.json", "ws://host"]);
    }

    #[test]
    fn a_mirror_is_a_bucket_and_says_who_writes_there() {
        let with = |lines: &str| {
            let text = format!("{EXAMPLE}\n[mirror]\n{lines}");
            check(toml::from_str(&text).unwrap(), Path::new("/base"))
        };
        let url = "url = \"s3://bucket/gauntlet\"\n";
        let mirror = with(url).unwrap().mirror.unwrap();
        assert_eq!((mirror.place.url.as_str(), mirror.push), ("s3://bucket/gauntlet", false));
        for wrong in ["url = \"bucket\"", &format!("{url}endpoint = \"host\"")] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        let error = with(&format!("{url}up_bytes_per_second = 0")).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("mirror: up_bytes_per_second = 0"), "{error:#}");
    }

    #[test]
    fn the_router_is_asked_for_ports_unless_told_not_to() {
        let with = |line: &str| {
            let text = EXAMPLE.replace("[network]", &format!("[network]\n{line}"));
            check(toml::from_str(&text).unwrap(), Path::new("/base")).unwrap().upnp
        };
        assert!(with(""));
        assert!(!with("upnp = false"));
    }

    #[test]
    fn unknown_names_are_refused() {
        let text = format!("colour = \"red\"\n{EXAMPLE}");
        assert!(toml::from_str::<ParticipantFile>(&text).is_err());
    }

    #[test]
    fn numbers_and_texts_that_nobody_can_mean_are_refused() {
        let refused = |change: &dyn Fn(&mut ParticipantFile), expected: &str| {
            let mut file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
            change(&mut file);
            let error = check(file, Path::new("/base")).map(drop).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains(expected), "{text}");
        };
        refused(&|file| file.keys.hot = KeySource::Uri(String::new()), "keys.hot is empty");
        refused(&|file| file.keys.cold = Some(KeySource::Uri("///x".into())), "keys.cold");
        refused(&|file| file.keys.hot = KeySource::File(PathBuf::new()), "keys.hot is empty");
        refused(&|file| file.keys.stake = Some("0".into()), "a validator without a stake");
        refused(&|file| file.proofs.challenges_per_window = 1, "needs keys.bonds");
        refused(&|file| file.proofs.disputes_per_window = 1, "needs keys.bonds");
        refused(&|file| file.proofs.bonds_max = "-1".into(), "proofs.bonds_max = \"-1\"");
        refused(&|file| file.folder = PathBuf::new(), "folder is empty");
        refused(&|file| file.data = PathBuf::new(), "data is empty");
        refused(&|file| file.archive = Some(PathBuf::new()), "archive is empty");
        refused(&|file| file.name = " ".into(), "name is empty");
        refused(&|file| file.chain.urls.push(String::new()), "chain.urls is empty");
        refused(&|file| file.chain.genesis = Some("0x07".into()), "chain.genesis = \"0x07\"");
        refused(&|file| file.threads = usize::MAX, "threads is 18446744073709551615, not from 1");
        refused(&|file| file.window_end = Some(0), "window_end is 0");
        refused(&|file| file.held_out_samples = usize::MAX, "held_out_samples is");
        refused(&|file| file.store_bytes_max = 0, "store_bytes_max is 0");
        refused(&|file| file.checkpoint_every = 0, "checkpoint_every is 0");
        refused(&|file| file.memory_bytes = Some(0), "memory_bytes is 0");
    }

    #[test]
    fn bonded_accusations_are_off_until_somebody_asks_for_them() {
        let file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
        let proofs = check(file, Path::new("/base")).unwrap().proofs;
        assert!(!proofs.is_silent && proofs.bonds.is_none());
        assert_eq!((proofs.challenges_per_window, proofs.disputes_per_window), (0, 0));
        let text = EXAMPLE.replace("[network]", "bonds = { uri = \"//Bob//bonds\" }\n[network]");
        let text = format!("{text}\n[proofs]\ndisputes_per_window = 2\nbonds_max = \"7\"\n");
        let file: ParticipantFile = toml::from_str(&text).unwrap();
        let proofs = check(file, Path::new("/base")).unwrap().proofs;
        assert!(proofs.bonds.is_some());
        assert_eq!((proofs.disputes_per_window, proofs.bonds_max), (2, 7));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let file: ParticipantFile = toml::from_str(EXAMPLE).unwrap();
        let again: ParticipantFile = toml::from_str(&toml::to_string(&file).unwrap()).unwrap();
        assert_eq!(file, again);
    }
}
