//! What miner and validator have in common: everything they open at the start, and how they end.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::{bail, Context, Result};
use node_client::{
    chain::{self, Call, Chain, RunInfo},
    clock::SystemClock,
    journal::{Journal, JournalKind},
    keys::{self, Keypair},
    network::{self, Network, NetworkConfig, PeerAddress},
    store::Store,
};
use protocol::{window::phase_at, AccountBytes, Hash, RunId, Window};
use rand::{rngs::OsRng, RngCore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trainer::{data::Split, Model, Threads};

use crate::{
    config::Participant, dataset::Data, diary::Diary, exit, heads::Heads, payloads::Payloads,
    peers::Peers, submitter::Submitter, telemetry, work::Work,
};

/// How long the start waits for the chain and for the run.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long services may take to end once they are told to.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the peers on the chain are looked up.
const PEERS_INTERVAL: Duration = Duration::from_secs(5);

/// The handles that every service of a participant shares.
#[derive(Clone)]
pub struct Handles {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The peers.
    pub network: Arc<dyn Network>,
    /// Who is announced.
    pub peers: Arc<Peers>,
    /// Payloads of miners.
    pub payloads: Arc<Payloads>,
    /// What has been committed to.
    pub journal: Arc<Journal>,
    /// What has been done.
    pub diary: Arc<Diary>,
    /// The finalised head.
    pub heads: Heads,
    /// Signs and submits.
    pub submitter: Submitter,
    /// The run.
    pub run: RunId,
    /// Its settings when this process started.
    pub info: Arc<RunInfo>,
    /// The chain's genesis hash.
    pub genesis: Hash,
    /// The hot key's account.
    pub hot: AccountBytes,
    /// The data set.
    pub dataset: Arc<Data>,
    /// Threads that compute.
    pub threads: Threads,
    /// Where what blocks is done.
    pub work: Work,
    /// What commitments are salted with.
    pub salts: Salts,
    /// Set when the process ends.
    pub shutdown: CancellationToken,
}

/// A salt for what is committed to in a window; nobody else can guess it. Whether two calls with the same arguments give
/// the same salt is no matter: the journal keeps the one that was used.
pub type Salts = Arc<dyn Fn(JournalKind, Window) -> Hash + Send + Sync>;

/// All that a participant meets of the world outside its folder: [`connect`] makes the real one, the simulation
/// (`tests/it/sim.rs`) one of fakes.
pub struct Surroundings {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The peers.
    pub network: Arc<dyn Network>,
    /// Ids of what the network serves already, from an earlier process.
    pub kept: Vec<Hash>,
    /// Threads that compute.
    pub threads: Threads,
    /// Where what blocks is done.
    pub work: Work,
    /// What commitments are salted with.
    pub salts: Salts,
}

/// The role in which a participant is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trains.
    Miner,
    /// Measures.
    Validator,
}

/// The services of a participant, started and ended together.
pub struct Services {
    tasks: JoinSet<(&'static str, Result<()>)>,
    shutdown: CancellationToken,
}

impl Services {
    /// None yet.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), shutdown }
    }

    /// Starts a service. When one ends, whatever the result, all end.
    pub fn start(
        &mut self,
        name: &'static str,
        service: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                result = service => (name, result),
                () = shutdown.cancelled() => (name, Ok(())),
            }
        });
    }

    /// Waits until a service ends, or `end` resolves, and ends the others. Returns the exit code.
    ///
    /// # Errors
    /// The error of the service that ended first.
    pub async fn wait(mut self, end: impl Future<Output = ()>) -> Result<u8> {
        let result = tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(Ok((name, result))) => result.map(|()| exit::SUCCESS).with_context(|| format!("service {name}")),
                Some(Err(error)) => Err(error).context("a service panicked"),
                None => Ok(exit::SUCCESS),
            },
            () = end => {
                tracing::info!("ending");
                Ok(exit::SUCCESS)
            }
        };
        self.shutdown.cancel();
        let others = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(END_TIMEOUT, others).await.is_err() {
            tracing::warn!("a service did not end in time");
        }
        result
    }
}

/// Connects a participant to chain and peers, as its configuration says.
///
/// # Errors
/// The chain, the disk or the network refuse.
pub async fn connect(config: &Participant) -> Result<Surroundings> {
    make_folder(&config.folder)?;
    if let Some(address) = config.metrics {
        telemetry::serve_metrics(address)?;
    }
    let chain: Arc<dyn Chain> = Arc::new(
        tokio::time::timeout(START_TIMEOUT, chain::connect(&config.chain.urls))
            .await
            .context("the chain does not answer")??,
    );
    let genesis = chain.genesis_hash().await?;
    let store = Arc::new(Store::open(config.folder.join("store"), config.store_bytes_max)?);
    let kept = store.pinned_ids();
    Ok(Surroundings {
        network: start_network(config, &genesis, store).await?,
        chain,
        kept,
        threads: Threads::new(config.threads)?,
        work: Work::on_threads(),
        salts: Arc::new(|_, _| {
            let mut salt = [0; 32];
            OsRng.fill_bytes(&mut salt);
            salt
        }),
    })
}

/// Opens everything of a participant, and checks that model and data are the run's. Starts the services that every
/// participant has: following the chain and its peers.
///
/// # Errors
/// The chain, the disk or the network refuse, or model or data are not the run's.
pub async fn open(
    config: &Participant,
    role: Role,
    surroundings: Surroundings,
) -> Result<(Handles, Services)> {
    make_folder(&config.folder)?;
    let Surroundings { chain, network, kept, threads, work, salts } = surroundings;
    let run = config.chain.run;
    let info = wait_for_run(chain.as_ref(), run).await?;
    let (place, cache) = (config.data.clone(), config.folder.join("data-cache"));
    let max = config.data_cache_bytes_max;
    // A store's answers are waited for.
    let opened = work.run(move || Data::open(&place, &cache, max, None));
    let dataset = opened.await??;
    check_data(&dataset, &info)?;

    let genesis = chain.genesis_hash().await?;
    let peers = Arc::new(Peers::new(network.local_peer()));
    let payloads = Arc::new(Payloads::new(
        network.clone(),
        peers.clone(),
        info.layout.clone(),
        info.settings.training.keep,
        config.archive.clone(),
    ));
    let (heads, follow) = Heads::follow(chain.clone()).await?;
    let now = phase_at(&info.settings.schedule, heads.now().number);
    payloads.adopt(now.map_or(0, |moment| moment.window), kept);
    let shutdown = CancellationToken::new();
    let handles = Handles {
        submitter: Submitter::new(chain.clone(), config.hot.clone(), heads.clone()),
        hot: keys::account(&config.hot),
        journal: Arc::new(Journal::open(config.folder.join("journal"))?),
        diary: Arc::new(Diary::open(&config.folder)?),
        shutdown: shutdown.clone(),
        dataset: Arc::new(dataset),
        info: Arc::new(info),
        chain,
        network,
        peers,
        payloads,
        heads,
        run,
        genesis,
        threads,
        work,
        salts,
    };
    let mut services = Services::new(shutdown);
    services.start("heads", follow);
    if let Some(cold) = &config.cold {
        register(&handles, role, cold, config.stake).await?;
    }
    services.start("peers", follow_peers(handles.clone()));
    Ok((handles, services))
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// The run's initial parameters, checked against the run.
///
/// # Errors
/// The model is not the run's.
pub fn initial_model(
    config: &trainer::ModelConfig,
    info: &RunInfo,
    threads: &Threads,
) -> Result<(Model, Hash)> {
    let training = &info.settings.training;
    let model = Model::init(config, training.model_seed)?;
    let root = model.state_root(threads);
    if *model.layout() != info.layout || root != training.genesis_state_root {
        bail!(
            "this model is not the run's: its initial parameters have the root {}, the run says {}",
            hex::encode(root),
            hex::encode(training.genesis_state_root)
        );
    }
    Ok((model, root))
}

/// Checks that the data set is the run's.
fn check_data(dataset: &Data, info: &RunInfo) -> Result<()> {
    let training = &info.settings.training;
    if dataset.root() != training.data_root {
        bail!(
            "this data set is not the run's: its root is {}, the run says {}",
            hex::encode(dataset.root()),
            hex::encode(training.data_root)
        );
    }
    let (count, len) = (dataset.sample_count(Split::Train), dataset.manifest().sample_len);
    if count != training.sample_count || len as u64 != u64::from(training.sample_len) {
        bail!("the run's samples are not the data set's: {count} of {len} tokens");
    }
    Ok(())
}

/// Waits until the run is on the chain.
async fn wait_for_run(chain: &dyn Chain, run: RunId) -> Result<RunInfo> {
    let look = async {
        loop {
            match chain.run(run, None).await {
                Ok(Some(info)) => return info,
                Ok(None) => tracing::info!(run, "the run is not on the chain yet"),
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
        bootstrap: config.peers.clone(),
        ..NetworkConfig::default()
    };
    if !config.listen.is_empty() {
        settings.listen.clone_from(&config.listen);
    }
    let client = network::start(settings, key, store, Arc::new(SystemClock)).await?;
    Ok(Arc::new(client))
}

/// Registers the hot key if it is not registered yet.
async fn register(
    handles: &Handles,
    role: Role,
    cold: &Keypair,
    stake: Option<u128>,
) -> Result<()> {
    let Handles { chain, run, hot, .. } = handles;
    let call = match role {
        Role::Miner => {
            if chain.miners(*run, None).await?.iter().any(|miner| miner.hot == *hot) {
                return Ok(());
            }
            Call::RegisterMiner { run: *run, hot: *hot }
        }
        Role::Validator => {
            if chain.validators(*run, None).await?.iter().any(|validator| validator.hot == *hot) {
                return Ok(());
            }
            let stake = stake.unwrap_or(handles.info.settings.incentive.validator_stake_min);
            Call::RegisterValidator { run: *run, hot: *hot, stake }
        }
    };
    tokio::time::timeout(START_TIMEOUT, chain.submit(cold, call))
        .await
        .context("the registration was not included in time")?
        .context("cannot register")?;
    tracing::info!(account = keys::address(&keys::account(cold)), "registered");
    Ok(())
}

/// Announces this peer when the chain has another announcement, and learns of the others.
async fn follow_peers(handles: Handles) -> Result<()> {
    loop {
        if let Err(error) = announce(&handles).await {
            tracing::warn!(error = format!("{error:#}"), "cannot announce this peer");
        }
        let Handles { chain, network, run, .. } = &handles;
        if let Err(error) = handles.peers.refresh(chain.as_ref(), network.as_ref(), *run).await {
            tracing::warn!(error = format!("{error:#}"), "cannot read the peers");
        }
        // Soon again at the start, when the others announce themselves too.
        let interval = if handles.peers.ordered(None).is_empty() {
            Duration::from_secs(2)
        } else {
            PEERS_INTERVAL
        };
        tokio::time::sleep(interval).await;
    }
}

/// The most addresses that the chain keeps of a peer.
const ANNOUNCED_ADDRESSES_MAX: usize = protocol::limits::ANNOUNCED_ADDRESSES_MAX as usize;

async fn announce(handles: &Handles) -> Result<()> {
    let Handles { chain, network, run, hot, .. } = handles;
    let addresses = network.listen_addresses().await?;
    let own = PeerAddress {
        peer: network.local_peer(),
        addresses: addresses.into_iter().take(ANNOUNCED_ADDRESSES_MAX).collect(),
    };
    let (peer_id, addresses) = own.to_announcement();
    let announced = chain.announcements(*run, None).await?;
    let is_there = announced.iter().any(|announcement| {
        announcement.hot == *hot
            && announcement.peer_id == peer_id
            && announcement.addresses == addresses
    });
    if !is_there && !addresses.is_empty() {
        let call = Call::Announce { run: *run, peer_id, addresses };
        handles.submitter.once(call).await?;
    }
    Ok(())
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
