//! Builds a node's parts and wires them together.
//!
//! There are two ways to make blocks. On a development chain one node seals on a timer and every block is final before the
//! next one, or so many blocks later as it is told.
//! On any other chain the authorities take turns by Aura and vote for finality by GRANDPA.

use std::{sync::Arc, time::Duration};

use runtime::opaque::Block;
use sc_basic_authorship::ProposerFactory;
use sc_chain_spec::ChainType;
use sc_client_api::BlockBackend;
use sc_consensus::{DefaultImportQueue, LongestChain};
use sc_consensus_aura::{ImportQueueParams, SlotProportion, StartAuraParams};
use sc_consensus_grandpa::{
    warp_proof::NetworkProvider, GrandpaParams, SharedVoterState, VotingRulesBuilder,
};
use sc_consensus_manual_seal::{consensus::aura::AuraConsensusDataProvider, ManualSealParams};
use sc_network::{
    config::FullNetworkConfiguration,
    service::{traits::NetworkService, NotificationMetrics},
    NetworkBackend, NotificationService, ProtocolName,
};
use sc_network_sync::SyncingService;
use sc_service::{
    config::PrometheusConfig, error::Error, BuildNetworkParams, Configuration, KeystoreContainer,
    Role, SpawnTasksParams, TaskManager, WarpSyncConfig,
};
use sc_telemetry::{Telemetry, TelemetryHandle, TelemetryWorker};
use sc_transaction_pool_api::OffchainTransactionPoolFactory;
use sp_consensus_aura::{
    inherents::InherentDataProvider as SlotProvider, sr25519::AuthorityPair as AuraPair,
    SlotDuration,
};
use sp_runtime::traits::Block as BlockT;

use crate::{
    client::{Backend, Client, Pool, SelectChain},
    rpc,
    sealing::{finalise_after, orders, time_after},
};

type GrandpaBlockImport =
    sc_consensus_grandpa::GrandpaBlockImport<Backend, Block, Client, SelectChain>;
type GrandpaLink = sc_consensus_grandpa::LinkHalf<Block, Client, SelectChain>;
type ImportQueue = DefaultImportQueue<Block>;
type Proposers = ProposerFactory<Pool, Client>;
type Hash = <Block as BlockT>::Hash;

/// Blocks between two finality proofs that are kept for nodes that synchronise later.
const JUSTIFICATION_PERIOD: u32 = 512;
/// How long GRANDPA waits for its messages to spread; a third of a second suits a network of a few nodes.
const GOSSIP_DURATION: Duration = Duration::from_millis(333);
/// The part of a slot in which an author fills its block; the rest is for spreading it.
const PROPOSAL_PART: f32 = 2.0 / 3.0;
/// Telemetry messages that may wait to be sent.
const TELEMETRY_BUFFER: usize = 16;

/// A node's parts before it meets a network; the subcommands make do with these.
pub(crate) struct Parts {
    pub(crate) client: Arc<Client>,
    pub(crate) task_manager: TaskManager,
    pub(crate) import_queue: ImportQueue,
    backend: Arc<Backend>,
    keystore: KeystoreContainer,
    select_chain: SelectChain,
    pool: Arc<Pool>,
    telemetry: Option<Telemetry>,
    /// GRANDPA's hold on imported blocks; a development chain has none.
    grandpa: Option<(GrandpaBlockImport, GrandpaLink)>,
}

/// Whether the chain is one that a single node seals on a timer.
pub(crate) fn is_development(config: &Configuration) -> bool {
    config.chain_spec.chain_type() == ChainType::Development
}

/// Opens the database and sets up execution, the transaction pool and the import of blocks.
pub(crate) fn parts(config: &Configuration) -> Result<Parts, Error> {
    let worker = match &config.telemetry_endpoints {
        Some(endpoints) if !endpoints.is_empty() => {
            let worker = TelemetryWorker::new(TELEMETRY_BUFFER)?;
            let telemetry = worker.handle().new_telemetry(endpoints.clone());
            Some((worker, telemetry))
        }
        _ => None,
    };
    let telemetry_handle = worker.as_ref().map(|(_, telemetry)| telemetry.handle());

    let (client, backend, keystore, task_manager) = sc_service::new_full_parts(
        config,
        telemetry_handle.clone(),
        sc_service::new_wasm_executor(&config.executor),
        Vec::new(),
    )?;
    let client: Arc<Client> = Arc::new(client);
    let telemetry = worker.map(|(worker, telemetry)| {
        let tasks = task_manager.spawn_handle();
        tasks.spawn("telemetry", None, worker.run());
        telemetry
    });

    let select_chain = LongestChain::new(backend.clone());
    let pool = sc_transaction_pool::Builder::new(
        task_manager.spawn_essential_handle(),
        client.clone(),
        config.role.is_authority().into(),
    )
    .with_options(config.transaction_pool.clone())
    .with_prometheus(config.prometheus_registry())
    .build();

    let (import_queue, grandpa) = if is_development(config) {
        let essential = task_manager.spawn_essential_handle();
        let import = Box::new(client.clone());
        let registry = config.prometheus_registry();
        (sc_consensus_manual_seal::import_queue(import, &essential, registry), None)
    } else {
        let (queue, grandpa) =
            import_by_turns(config, &client, &select_chain, &task_manager, telemetry_handle)?;
        (queue, Some(grandpa))
    };

    Ok(Parts {
        client,
        task_manager,
        import_queue,
        backend,
        keystore,
        select_chain,
        pool: Arc::new(pool),
        telemetry,
        grandpa,
    })
}

/// Sets up the import of blocks that authorities make by turns (Aura) and finalise by votes (GRANDPA).
fn import_by_turns(
    config: &Configuration,
    client: &Arc<Client>,
    select_chain: &SelectChain,
    task_manager: &TaskManager,
    telemetry: Option<TelemetryHandle>,
) -> Result<(ImportQueue, (GrandpaBlockImport, GrandpaLink)), Error> {
    let (import, link) = sc_consensus_grandpa::block_import(
        client.clone(),
        JUSTIFICATION_PERIOD,
        client,
        select_chain.clone(),
        telemetry.clone(),
    )?;
    let slot_duration = sc_consensus_aura::slot_duration(&**client)?;
    let queue = sc_consensus_aura::import_queue::<AuraPair, _, _, _, _, _>(ImportQueueParams {
        block_import: import.clone(),
        justification_import: Some(Box::new(import.clone())),
        client: client.clone(),
        create_inherent_data_providers: move |_, ()| async move { Ok(inherents(slot_duration)) },
        spawner: &task_manager.spawn_essential_handle(),
        registry: config.prometheus_registry(),
        check_for_equivocation: Default::default(),
        telemetry,
        compatibility_mode: Default::default(),
    })?;
    Ok((queue, (import, link)))
}

/// How fast a development chain goes.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Milliseconds from block to block; 0 for no blocks.
    pub(crate) block_millis: u64,
    /// Blocks that the last final one is behind the newest.
    pub(crate) finality_lag: u32,
    /// Every so many blocks the last one is replaced; 0 for never.
    pub(crate) fork_every: u32,
    /// Whether another node makes the blocks.
    pub(crate) follows: bool,
}

/// Starts a node; it runs until the returned tasks end.
///
/// `pace` is a development chain's; other chains ignore it.
pub(crate) fn start<N: NetworkBackend<Block, Hash>>(
    config: Configuration,
    pace: Pace,
) -> Result<TaskManager, Error> {
    let force_authoring = config.force_authoring;
    let votes = !config.disable_grandpa;
    let (node, grandpa, task_manager) = join_network::<N>(config)?;
    let authors = node.role.is_authority();
    let proposers = node.proposers(&task_manager);
    match grandpa {
        None if pace.follows => node.finalise_on_timer(&task_manager, pace),
        None if authors && pace.block_millis > 0 => {
            node.finalise_on_timer(&task_manager, pace);
            node.seal_on_timer(&task_manager, proposers, pace)?;
        }
        None => (),
        Some(grandpa) => {
            if authors {
                let import = grandpa.import.clone();
                node.author_by_turns(&task_manager, proposers, import, force_authoring)?;
            }
            if votes {
                node.vote(&task_manager, grandpa)?;
            }
        }
    }
    Ok(task_manager)
}

/// A node in its network: what its making of blocks and its voting share.
struct Node {
    client: Arc<Client>,
    select_chain: SelectChain,
    pool: Arc<Pool>,
    keystore: KeystoreContainer,
    network: Arc<dyn NetworkService>,
    sync: Arc<SyncingService<Block>>,
    role: Role,
    name: String,
    prometheus: Option<PrometheusConfig>,
    telemetry: Option<TelemetryHandle>,
}

/// GRANDPA's hold on imported blocks, and its protocol in the network.
struct Grandpa {
    import: GrandpaBlockImport,
    link: GrandpaLink,
    protocol_name: ProtocolName,
    notifications: Box<dyn NotificationService>,
}

/// Starts a node but for what makes blocks and votes: network, transactions, RPC.
fn join_network<N: NetworkBackend<Block, Hash>>(
    config: Configuration,
) -> Result<(Node, Option<Grandpa>, TaskManager), Error> {
    let mut parts = parts(&config)?;
    let (client, pool) = (parts.client, parts.pool);
    let registry = config.prometheus_registry().cloned();
    let mut net_config = FullNetworkConfiguration::<Block, Hash, N>::new(&config.network, registry);
    let metrics = N::register_notification_metrics(config.prometheus_registry());
    let grandpa = parts
        .grandpa
        .map(|held| add_grandpa(held, &config, &client, &mut net_config, metrics.clone()))
        .transpose()?;
    let warp_sync_config = grandpa.as_ref().map(|grandpa| warp_sync(&grandpa.link, &parts.backend));

    let (network, system_rpc_tx, tx_handler_controller, sync, _) =
        sc_service::build_network(BuildNetworkParams {
            config: &config,
            net_config,
            client: client.clone(),
            transaction_pool: pool.clone(),
            spawn_handle: parts.task_manager.spawn_handle(),
            spawn_essential_handle: parts.task_manager.spawn_essential_handle(),
            import_queue: parts.import_queue,
            block_announce_validator_builder: None,
            warp_sync_config,
            block_relay: None,
            metrics,
            gap_sync_body_policy: None,
        })?;

    let node = Node {
        client: client.clone(),
        select_chain: parts.select_chain,
        pool: pool.clone(),
        keystore: parts.keystore,
        network: network.clone(),
        sync: sync.clone(),
        role: config.role,
        name: config.network.node_name.clone(),
        prometheus: config.prometheus_config.clone(),
        telemetry: parts.telemetry.as_ref().map(|telemetry| telemetry.handle()),
    };
    let (rpc_client, rpc_pool) = (client.clone(), pool.clone());
    sc_service::spawn_tasks(SpawnTasksParams {
        config,
        client,
        backend: parts.backend,
        task_manager: &mut parts.task_manager,
        keystore: node.keystore.keystore(),
        transaction_pool: pool,
        rpc_builder: Box::new(move |_| {
            rpc::extensions(rpc_client.clone(), rpc_pool.clone())
                .map_err(|error| Error::Application(error.into()))
        }),
        network,
        system_rpc_tx,
        tx_handler_controller,
        sync_service: sync,
        telemetry: parts.telemetry.as_mut(),
        tracing_execute_block: None,
    })?;
    Ok((node, grandpa, parts.task_manager))
}

/// Adds GRANDPA's protocol to the network that is being configured.
fn add_grandpa<N: NetworkBackend<Block, Hash>>(
    (import, link): (GrandpaBlockImport, GrandpaLink),
    config: &Configuration,
    client: &Client,
    net_config: &mut FullNetworkConfiguration<Block, Hash, N>,
    metrics: NotificationMetrics,
) -> Result<Grandpa, Error> {
    let genesis = client.block_hash(0)?.ok_or("there is no genesis block")?;
    let protocol_name = sc_consensus_grandpa::protocol_standard_name(&genesis, &config.chain_spec);
    let (protocol, notifications) = sc_consensus_grandpa::grandpa_peers_set_config::<_, N>(
        protocol_name.clone(),
        metrics,
        net_config.peer_store_handle(),
    );
    net_config.add_notification_protocol(protocol);
    Ok(Grandpa { import, link, protocol_name, notifications })
}

/// Lets a new node start from the newest final state, which proofs of finality lead to.
fn warp_sync(link: &GrandpaLink, backend: &Arc<Backend>) -> WarpSyncConfig<Block> {
    let authorities = link.shared_authority_set().clone();
    let provider = NetworkProvider::new(backend.clone(), authorities, Vec::new());
    WarpSyncConfig::WithProvider(Arc::new(provider))
}

impl Node {
    /// Fills blocks from the transaction pool.
    fn proposers(&self, task_manager: &TaskManager) -> Proposers {
        ProposerFactory::new(
            task_manager.spawn_handle(),
            self.client.clone(),
            self.pool.clone(),
            self.prometheus.as_ref().map(|config| &config.registry),
            self.telemetry.clone(),
        )
    }

    /// Makes a block in each slot that is this authority's turn.
    fn author_by_turns(
        &self,
        task_manager: &TaskManager,
        proposer_factory: Proposers,
        block_import: GrandpaBlockImport,
        force_authoring: bool,
    ) -> Result<(), Error> {
        let slot_duration = sc_consensus_aura::slot_duration(&*self.client)?;
        let aura = sc_consensus_aura::start_aura::<AuraPair, _, _, _, _, _, _, _, _, _, _>(
            StartAuraParams {
                slot_duration,
                client: self.client.clone(),
                select_chain: self.select_chain.clone(),
                block_import,
                proposer_factory,
                sync_oracle: self.sync.clone(),
                justification_sync_link: self.sync.clone(),
                create_inherent_data_providers: move |_, ()| async move { Ok(inherents(slot_duration)) },
                force_authoring,
                backoff_authoring_blocks: None::<()>,
                keystore: self.keystore.keystore(),
                block_proposal_slot_portion: SlotProportion::new(PROPOSAL_PART),
                max_block_proposal_slot_portion: None,
                telemetry: self.telemetry.clone(),
                compatibility_mode: Default::default(),
            },
        )?;
        let tasks = task_manager.spawn_essential_handle();
        tasks.spawn_blocking("aura", Some("block-authoring"), aura);
        Ok(())
    }

    /// Follows the votes for finality, and votes where this node is an authority.
    fn vote(self, task_manager: &TaskManager, grandpa: Grandpa) -> Result<(), Error> {
        let voter = sc_consensus_grandpa::run_grandpa_voter(GrandpaParams {
            config: sc_consensus_grandpa::Config {
                gossip_duration: GOSSIP_DURATION,
                justification_generation_period: JUSTIFICATION_PERIOD,
                observer_enabled: false,
                local_role: self.role,
                name: Some(self.name),
                keystore: self.role.is_authority().then(|| self.keystore.keystore()),
                telemetry: self.telemetry.clone(),
                protocol_name: grandpa.protocol_name,
            },
            link: grandpa.link,
            network: self.network,
            sync: self.sync,
            notification_service: grandpa.notifications,
            voting_rule: VotingRulesBuilder::default().build(),
            prometheus_registry: self.prometheus.map(|config| config.registry),
            shared_voter_state: SharedVoterState::empty(),
            telemetry: self.telemetry,
            offchain_tx_pool_factory: OffchainTransactionPoolFactory::new(self.pool),
        })?;
        let tasks = task_manager.spawn_essential_handle();
        tasks.spawn_blocking("grandpa-voter", None, voter);
        Ok(())
    }

    /// Makes final, half a block's time after each block that is made or comes, the one that is `finality_lag` behind.
    fn finalise_on_timer(&self, task_manager: &TaskManager, pace: Pace) {
        let delay = Duration::from_millis(pace.block_millis / 2);
        let (client, pool) = (self.client.clone(), self.pool.clone());
        let finalising = finalise_after(delay, pace.finality_lag, client, pool);
        let tasks = task_manager.spawn_essential_handle();
        tasks.spawn("finalise", Some("block-authoring"), finalising);
    }

    /// Seals a block every `block_millis`, empty or not, and replaces the last one now and then if it is told to.
    ///
    /// The chain's time is its own: it starts from the wall clock and advances by one slot a block, and by one more where a
    /// block is replaced, as Aura's rule that a slot has one block holds at any block time.
    fn seal_on_timer(
        self,
        task_manager: &TaskManager,
        env: Proposers,
        pace: Pace,
    ) -> Result<(), Error> {
        let client = self.client;
        let slot_duration = sc_consensus_aura::slot_duration(&*client)?;
        let (clock, period) = (client.clone(), Duration::from_millis(pace.block_millis));
        let tasks = task_manager.spawn_essential_handle();
        let sealing = sc_consensus_manual_seal::run_manual_seal(ManualSealParams {
            block_import: client.clone(),
            env,
            client: client.clone(),
            pool: self.pool,
            commands_stream: Box::pin(orders(period, pace.fork_every, client)),
            select_chain: self.select_chain,
            consensus_data_provider: Some(Box::new(
                AuraConsensusDataProvider::<Block>::new_with_slot_duration(slot_duration),
            )),
            create_inherent_data_providers: move |parent, ()| {
                let time = time_after(&clock, parent, slot_duration);
                async move { time.map_err(Into::into) }
            },
        });
        tasks.spawn_blocking("timed-seal", Some("block-authoring"), sealing);
        Ok(())
    }
}

/// Adds to a block what its author does by itself: the wall clock's time and the slot that it falls in.
fn inherents(slot_duration: SlotDuration) -> (SlotProvider, sp_timestamp::InherentDataProvider) {
    let timestamp = sp_timestamp::InherentDataProvider::from_system_time();
    let slot = SlotProvider::from_timestamp_and_slot_duration(*timestamp, slot_duration);
    (slot, timestamp)
}
