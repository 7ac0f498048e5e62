//! Opens everything that miner and validator have in common, and registers and announces them.

use std::{path::Path, sync::Arc, time::Duration};

use dataset::place::Data;
use dataset::Split;
use node_client::{
    chain::{self, Chain, ChainError, RunInfo},
    clock::SystemClock,
    journal::Journal,
    keys::{self, Keypair},
    mirror::Mirror,
    network::{self, Network, NetworkConfig, PeerAddress},
    store::Store,
};
use protocol::{
    consent::peer_consent, state_root::StateManifest, update::payload_bytes_max, window::phase_at,
    AccountBytes, Hash, RunId, Window,
};
use rand::{rngs::OsRng, RngCore};
use tokio_util::sync::CancellationToken;
use trainer::{devices, Model, Threads};

use crate::{
    copies::Copies,
    desk::{Desk, Errand, Registration},
    diary::Diary,
    error::{miss, unfit, Attempt as _, Result},
    folder::{self, FolderLock},
    handles::{Handles, Machine, Peers, Role, Run, Services, Surroundings},
    heads::Heads,
    hindrance,
    leave::Leave,
    memory,
    payloads::{Payloads, SERVED_WINDOWS},
    peers::AnnouncedPeers,
    replica,
    settings::{MirrorSettings, Participant},
    slot,
    snapshots::Snapshots,
    work::Work,
};

/// How long the start waits for the chain and for the run.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The file that remembers where others have reached this peer.
const REACHED_NAME: &str = "reached";

/// How often the peers on the chain are looked up.
const PEERS_INTERVAL: Duration = Duration::from_secs(5);

/// Connects a participant to chain and peers, as its configuration says.
///
/// # Errors
/// The chain, the disk or the network refuse; another process has the folder, or the chain is not the folder's.
pub async fn connect(config: &Participant) -> Result<Surroundings> {
    make_folder(&config.folder)?;
    let lock = Arc::new(FolderLock::take(&config.folder)?);
    let (chain, genesis) = connect_chain(config).await?;
    let states = memory::copies(&config.model, replica::states_on_disk(config.snapshot_every))?;
    let bytes_max = config.store_bytes_max.saturating_add(states);
    let store = Arc::new(Store::open(config.folder.join("store"), bytes_max)?);
    let kept = store.pinned_ids();
    Ok(Surroundings {
        network: start_network(config, &genesis, store).await?,
        chain,
        lock: Some(lock),
        kept,
        device: devices::open(config.device, Threads::new(config.threads)?)?,
        work: Work::on_threads(),
        salts: Arc::new(|_, _| {
            let mut salt = [0; 32];
            OsRng.fill_bytes(&mut salt);
            salt
        }),
    })
}

/// Connects to a node of the configured chain, or of the one that the folder met first.
async fn connect_chain(config: &Participant) -> Result<(Arc<dyn Chain>, Hash)> {
    let known = folder::genesis(&config.folder)?;
    if let (Some(known), Some(named)) = (known, config.genesis) {
        if known != named {
            let [known, named] = [known, named].map(hex::encode);
            unfit!("the folder is of the chain 0x{known}, and [chain] genesis is 0x{named}");
        }
    }
    let wanted = config.genesis.or(known);
    let chain = tokio::time::timeout(START_TIMEOUT, chain::connect_to(&config.urls, wanted))
        .await
        .context("the chain does not answer")?;
    let wanted = wanted.map_or(String::new(), |hash| format!(", not 0x{}", hex::encode(hash)));
    let chain = match chain {
        Err(error @ ChainError::OtherChain { .. }) => {
            unfit!("{error}{wanted}, which this participant is for")
        }
        chain => chain?,
    };
    let genesis = chain.genesis_hash().await?;
    if known.is_none() {
        folder::remember_genesis(&config.folder, &genesis)?;
    }
    Ok((Arc::new(chain), genesis))
}

/// Opens everything of a participant, and checks that model and data are the run's. Starts the services that every
/// participant has: following the chain and its peers.
///
/// # Errors
/// The chain, the disk or the network refuse, or model or data are not the run's.
pub async fn open(config: &Participant, surroundings: Surroundings) -> Result<(Handles, Services)> {
    make_folder(&config.folder)?;
    let Surroundings { chain, network, lock, kept, device, work, salts } = surroundings;
    let run = config.run;
    let info = wait_for_run(chain.as_ref(), run).await?;
    let (place, cache) = (config.data.clone(), config.folder.join("data-cache"));
    let max = config.data_cache_bytes_max;
    // A store's answers are waited for.
    let opened = work.run(move || Data::open(&place, &cache, max, None));
    let dataset = opened.await??;
    check_data(&dataset, &info)?;

    let genesis = chain.genesis_hash().await?;
    let announced = Arc::new(AnnouncedPeers::new(network.local_peer()));
    let payloads = Payloads::new(
        network.clone(),
        announced.clone(),
        info.layout.clone(),
        info.settings.training.keep,
        config.archive.clone(),
    );
    let payloads = Arc::new(payloads.with_archive_bytes_max(config.archive_bytes_max));
    let (copies, copying) = Copies::new(network.clone());
    let (heads, follow) = Heads::follow(chain.clone()).await?;
    let now = phase_at(&info.settings.schedule, heads.now().number);
    let now = now.map_or(0, |moment| moment.window);
    let snapshots = Arc::new(Snapshots::new(config.snapshot_every));
    if !kept.is_empty() {
        let states = snapshots.adopt(chain.as_ref(), run, now, &kept).await?;
        let kept = kept.into_iter().filter(|id| !states.contains(id)).collect();
        payloads.adopt(kept, &revealed(chain.as_ref(), run, now).await?).await;
    }
    let shutdown = CancellationToken::new();
    let leave = Leave::new(heads.clone(), info.settings.schedule.clone());
    let journal = Arc::new(Journal::open(config.folder.join("journal"))?);
    let (hot, reader) = (config.hot.clone(), heads.clone());
    let desk = Desk::new(chain.clone(), hot, reader, journal, work.clone(), salts, run)
        .with_bonds(config.proofs.bonds.clone());
    let handles = Handles {
        chain,
        heads,
        run: Run {
            id: run,
            info: Arc::new(info),
            model: Arc::new(config.model.clone()),
            genesis,
            dataset: Arc::new(dataset),
        },
        peers: Peers { network, announced, payloads, snapshots, copies },
        desk: Arc::new(desk),
        machine: Machine {
            device,
            work,
            diary: Arc::new(Diary::open(&config.folder)?),
            lock,
            leave: leave.clone(),
            shutdown: shutdown.clone(),
        },
    };
    let mut services = Services::new(leave, shutdown);
    services.start("heads", follow);
    services.start("copies", copying);
    Ok((handles, services))
}

/// Registers a participant that is found fit, if its settings have a cold key, and starts the service that announces it. Before this
/// nothing is signed.
///
/// # Errors
/// It cannot pay, its hot key works for another cold key, or the chain refuses.
pub async fn join(
    config: &Participant,
    role: Role,
    handles: &Handles,
    services: &mut Services,
) -> Result<()> {
    if let Some(cold) = &config.cold {
        register(handles, role, cold, config).await?;
    }
    let Handles { chain, run: Run { id, info, .. }, .. } = handles;
    let payloads = match role {
        Role::Miner => usize::from(info.settings.incentive.accepted_max),
        Role::Validator => chain.miners(*id, None).await?.len(),
    };
    let payload_bytes = payload_bytes_max(&info.layout, info.settings.training.keep);
    if let Some(hint) = small_store(config.store_bytes_max, payloads as u64, payload_bytes) {
        tracing::warn!("{hint}");
    }
    services.start("peers", follow_peers(handles.clone()));
    services.start("hindrance", hindrance::follow(handles.clone(), role));
    Ok(())
}

/// What to say of a store that has no room for `payloads` payloads of `payload_bytes` bytes, those of one window.
fn small_store(bytes_max: u64, payloads: u64, payload_bytes: u64) -> Option<String> {
    let window = payloads.saturating_mul(payload_bytes);
    let all = window.saturating_mul(SERVED_WINDOWS);
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    (bytes_max < window).then(|| {
        format!(
            "store_bytes_max is {}, and {payloads} payloads of a window may have {}: what has no room is applied and not served to \
             others, and a validator fetches it again to measure it; {} hold all that they may ask for",
            gigabytes(bytes_max),
            gigabytes(window),
            gigabytes(all)
        )
    })
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// The payloads that were revealed in `now` and the windows before it that are served, by window.
async fn revealed(chain: &dyn Chain, run: RunId, now: Window) -> Result<Vec<(Window, Hash)>> {
    let mut found = Vec::new();
    for window in now.saturating_sub(SERVED_WINDOWS)..=now {
        let reveals = chain.reveals(run, window, None).await?;
        found.extend(reveals.iter().map(|reveal| (window, reveal.opening.payload_root)));
    }
    Ok(found)
}

/// The run's initial parameters, checked against the run, and their manifest.
///
/// # Errors
/// The model is not the run's.
pub fn initial_model(
    config: &trainer::ModelConfig,
    info: &RunInfo,
    threads: &Threads,
) -> Result<(Model, StateManifest)> {
    let training = &info.settings.training;
    let model = Model::init_on(threads, config, training.model_seed)?;
    let manifest = model.state_manifest(threads);
    let root = manifest.root();
    if *model.layout() != info.layout || root != training.genesis_state_root {
        unfit!(
            "this model is not the run's: its initial parameters have the root {}, the run says {}",
            hex::encode(root),
            hex::encode(training.genesis_state_root)
        );
    }
    Ok((model, manifest))
}

/// Checks that the data set is the run's.
fn check_data(dataset: &Data, info: &RunInfo) -> Result<()> {
    let training = &info.settings.training;
    if dataset.root() != training.data_root {
        unfit!(
            "this data set is not the run's: its root is {}, the run says {}",
            hex::encode(dataset.root()),
            hex::encode(training.data_root)
        );
    }
    let (count, len) = (dataset.sample_count(Split::Train), dataset.manifest().sample_len);
    if count != training.sample_count || len as u64 != u64::from(training.sample_len) {
        unfit!("the run's samples are not the data set's: {count} of {len} tokens");
    }
    Ok(())
}

/// Waits until the run is on the chain.
async fn wait_for_run(chain: &dyn Chain, run: RunId) -> Result<RunInfo> {
    let look = async {
        let mut is_told = false;
        loop {
            match chain.run(run, None).await {
                Ok(Some(info)) => return info,
                Ok(None) if is_told => {}
                Ok(None) => {
                    is_told = true;
                    let seconds = START_TIMEOUT.as_secs();
                    tracing::warn!(
                        "there is no run {run} on this chain: waits {seconds} s for it ([chain] run names it)"
                    );
                }
                Err(error) => tracing::warn!(%error, "cannot read the run"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, look)
        .await
        .with_context(|| format!("there is no run {run} on this chain"))
}

async fn start_network(
    config: &Participant,
    genesis: &Hash,
    store: Arc<Store>,
) -> Result<Arc<dyn Network>> {
    let key = keys::load_or_create_network_key(&config.folder.join("network-key"))?;
    let mut settings = NetworkConfig {
        name: hex::encode(genesis),
        external: config.external.clone(),
        scores: Some(config.folder.join("peer-scores")),
        upnp: config.upnp,
        reached: Some(config.folder.join(REACHED_NAME)),
        bootstrap: config.peers.clone(),
        up_bytes_per_second: config.up_bytes_per_second,
        ..NetworkConfig::default()
    };
    if !config.listen.is_empty() {
        settings.listen.clone_from(&config.listen);
    }
    let client = network::start(settings, key, store, Arc::new(SystemClock)).await?;
    Ok(match &config.mirror {
        Some(mirror) => Arc::new(client.with_mirror(open_mirror(mirror, genesis, config.run)?)),
        None => Arc::new(client),
    })
}

/// The mirror of a run, in a folder of its own.
fn open_mirror(settings: &MirrorSettings, genesis: &Hash, run: RunId) -> Result<Mirror> {
    let folder = format!("{}/{run}", hex::encode(genesis));
    match settings.open(&folder) {
        Ok(mirror) => Ok(mirror),
        Err(error) => unfit!("{error}"),
    }
}

/// Registers the hot key if it is not registered yet.
///
/// # Errors
/// It is registered for another cold key, which then has the pay.
async fn register(
    handles: &Handles,
    role: Role,
    cold: &Keypair,
    config: &Participant,
) -> Result<()> {
    let Handles { desk, .. } = handles;
    let owner = &keys::account(cold);
    let registration = match role {
        Role::Miner => Registration::Miner(config.entry_price_max),
        Role::Validator => {
            let stake_min = handles.run.info.settings.incentive.validator_stake_min;
            Registration::Validator(config.stake.unwrap_or(stake_min))
        }
    };
    let is_there = || async move {
        let Some(slot) = slot::find(handles, role, None).await? else {
            return Ok(false);
        };
        if slot.cold != *owner {
            unfit!(
                "this hot key works for the cold account {} on this chain, not for {}: its pay would go there",
                keys::address(&slot.cold),
                keys::address(owner)
            );
        }
        Ok(true)
    };
    if !is_there().await? {
        check_money(handles, owner, registration).await?;
    }
    desk.register(cold, registration, is_there, START_TIMEOUT).await
}

/// That the cold account can pay for its registration.
async fn check_money(
    handles: &Handles,
    cold: &AccountBytes,
    registration: Registration,
) -> Result<()> {
    let (chain, run) = (&handles.chain, handles.run.id);
    let (amount, what) = match registration {
        Registration::Miner(_) => {
            let price = chain.entry_price(run, None).await?.unwrap_or(0);
            let bond = handles.run.info.settings.incentive.miner_bond;
            let (price_units, bond_units) = (chain::units(price), chain::units(bond));
            let what = format!("joining costs {price_units} UNIT and holds a bond of {bond_units}");
            (price.saturating_add(bond), what)
        }
        Registration::Validator(stake) => {
            (stake, format!("the stake is {} UNIT", chain::units(stake)))
        }
    };
    let has = chain.balance(*cold, None).await?;
    if has < amount {
        unfit!(
            "the cold account {0} has {1} UNIT, and {what}: send it some (gauntlet wallet send --to {0})",
            keys::address(cold),
            chain::units(has)
        );
    }
    Ok(())
}

/// Announces this peer when the chain has another announcement, and learns of the others.
async fn follow_peers(handles: Handles) -> Result<()> {
    let (mut last, mut told) = (None, None);
    loop {
        let error = announce(&handles, &mut last).await.err().map(|error| error.line());
        if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
            tracing::warn!(error, "cannot announce this peer");
        }
        told = error;
        let Handles { chain, heads, peers: Peers { network, announced, .. }, run, .. } = &handles;
        let now = phase_at(&run.info.settings.schedule, heads.now().number);
        let window = now.map_or(0, |moment| moment.window);
        let refresh = announced.refresh(chain.as_ref(), network.as_ref(), run.id, window);
        if let Err(error) = refresh.await {
            tracing::warn!(error = error.line(), "cannot read the peers");
        }
        // Soon again at the start, when the others announce themselves too.
        let interval = if handles.peers.announced.ordered(None).is_empty() {
            Duration::from_secs(2)
        } else {
            PEERS_INTERVAL
        };
        tokio::time::sleep(interval).await;
    }
}

/// The most addresses that the chain keeps of a peer.
const ANNOUNCED_ADDRESSES_MAX: usize = protocol::limits::ANNOUNCED_ADDRESSES_MAX as usize;

/// How a peer is announced: its id, and its addresses.
type Announcement = (Vec<u8>, Vec<Vec<u8>>);

/// Announces this peer, if the chain has something else of it than `last`, which this process announced. Two processes with one
/// key do not pay for announcing themselves in turns.
async fn announce(handles: &Handles, last: &mut Option<Announcement>) -> Result<()> {
    let Handles { chain, peers: Peers { network, .. }, run: Run { id: run, genesis, .. }, .. } =
        handles;
    let hot = &handles.desk.account();
    let addresses = network.reachable_addresses().await?;
    let own = PeerAddress {
        peer: network.local_peer(),
        addresses: addresses.into_iter().take(ANNOUNCED_ADDRESSES_MAX).collect(),
    };
    let (peer_id, addresses) = own.to_announcement();
    let announced = chain.announcements(*run, None).await?;
    let found = announced.into_iter().find(|announcement| announcement.hot == *hot);
    let found = found.map(|found| (found.peer_id, found.addresses));
    let own = (peer_id.clone(), addresses.clone());
    if last.as_ref() == Some(&own) && found.is_some() && found.as_ref() != last.as_ref() {
        miss!("the chain announces another peer for this hot key: does another process use it?");
    }
    if found.as_ref() != Some(&own) {
        let proof = network.sign(&peer_consent(genesis, *run, hot));
        let proof = proof.context("the network key is no ed25519 key")?;
        handles.desk.errand_once(Errand::Announce { peer_id, addresses, proof }).await?;
        *last = Some(own);
    }
    Ok(())
}

/// Where a participant remembers which state is arriving.
pub(crate) fn memo(config: &Participant) -> std::path::PathBuf {
    config.folder.join("arriving")
}

/// Makes a folder of a participant's own, such as for checkpoints.
///
/// # Errors
/// The disk failed.
pub fn subfolder(config: &Participant, name: &str) -> Result<std::path::PathBuf> {
    let path = config.folder.join(name);
    make_folder(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 72 B parameters make payloads of 1.37 GB.
    #[test]
    fn a_store_without_room_for_a_window_is_told_what_has() {
        let hint = small_store(4 << 30, 20, 1_370_000_000).unwrap();
        for part in ["4.3 GB", "20 payloads", "27.4 GB", "219.2 GB"] {
            assert!(hint.contains(part), "{hint}");
        }
        assert_eq!(small_store(28_000_000_000, 20, 1_370_000_000), None);
        assert_eq!(small_store(4 << 30, 70, 5_000_000), None);
        assert!(small_store(u64::MAX - 1, u64::MAX, 2).is_some());
    }
}
