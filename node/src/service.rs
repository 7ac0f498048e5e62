//! A node's parts, and how they are wired.
//!
//! There are two ways to make blocks. On a development chain one node seals on a timer and every block is final at once.
//! On any other chain the authorities take turns by Aura and vote for finality by GRANDPA.

use std::{sync::Arc, time::Duration};

use futures::{stream, Stream};
use runtime::opaque::Block;
use sc_basic_authorship::ProposerFactory;
use sc_chain_spec::ChainType;
use sc_client_api::BlockBackend;
use sc_consensus::{DefaultImportQueue, LongestChain};
use sc_consensus_aura::{ImportQueueParams, SlotProportion, StartAuraParams};
use sc_consensus_grandpa::{GrandpaParams, SharedVoterState, VotingRulesBuilder};
use sc_consensus_manual_seal::{
    consensus::{aura::AuraConsensusDataProvider, timestamp::SlotTimestampProvider},
    EngineCommand, ManualSealParams,
};
use sc_network::{config::FullNetworkConfiguration, NetworkBackend, NotificationService};
use sc_service::{
    error::Error, BuildNetworkParams, Configuration, KeystoreContainer, SpawnTasksParams,
    TaskManager, WarpSyncConfig,
};
use sc_telemetry::{Telemetry, TelemetryWorker};
use sc_transaction_pool::TransactionPoolHandle;
use sc_transaction_pool_api::OffchainTransactionPoolFactory;
use sp_consensus_aura::{
    inherents::InherentDataProvider as SlotProvider, sr25519::AuthorityPair as AuraPair,
    SlotDuration,
};
use sp_runtime::traits::Block as BlockT;
use tokio::time::MissedTickBehavior;

use crate::{client::Client, rpc};

type Backend = sc_service::TFullBackend<Block>;
type SelectChain = LongestChain<Backend, Block>;
type Pool = TransactionPoolHandle<Block, Client>;
type GrandpaBlockImport =
    sc_consensus_grandpa::GrandpaBlockImport<Backend, Block, Client, SelectChain>;
type GrandpaLink = sc_consensus_grandpa::LinkHalf<Block, Client, SelectChain>;
type Hash = <Block as BlockT>::Hash;

/// Blocks between two finality proofs that are kept for nodes that synchronise later.
const JUSTIFICATION_PERIOD: u32 = 512;
/// How long GRANDPA waits for its messages to spread; a third of a second suits a network of a few nodes.
const GOSSIP_DURATION: Duration = Duration::from_millis(333);
/// The part of a slot in which an author fills its block; the rest is for spreading it.
const PROPOSAL_PART: f32 = 2.0 / 3.0;
/// Telemetry messages that may wait to be sent.
const TELEMETRY_BUFFER: usize = 16;

/// What a node needs before it meets a network; the subcommands make do with these.
pub(crate) struct Parts {
    pub(crate) client: Arc<Client>,
    pub(crate) task_manager: TaskManager,
    pub(crate) import_queue: DefaultImportQueue<Block>,
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

    let essential = task_manager.spawn_essential_handle();
    let registry = config.prometheus_registry();
    let (import_queue, grandpa) = if is_development(config) {
        let import = Box::new(client.clone());
        let queue = sc_consensus_manual_seal::import_queue(import, &essential, registry);
        (queue, None)
    } else {
        let (import, link) = sc_consensus_grandpa::block_import(
            client.clone(),
            JUSTIFICATION_PERIOD,
            &client,
            select_chain.clone(),
            telemetry_handle.clone(),
        )?;
        let slot_duration = sc_consensus_aura::slot_duration(&*client)?;
        let queue = sc_consensus_aura::import_queue::<AuraPair, _, _, _, _, _>(
            ImportQueueParams {
                block_import: import.clone(),
                justification_import: Some(Box::new(import.clone())),
                client: client.clone(),
                create_inherent_data_providers: move |_, ()| async move { Ok(inherents(slot_duration)) },
                spawner: &essential,
                registry,
                check_for_equivocation: Default::default(),
                telemetry: telemetry_handle,
                compatibility_mode: Default::default(),
            },
        )?;
        (queue, Some((import, link)))
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

/// Starts a node; it runs until the returned tasks end.
///
/// `block_millis` is the time between the blocks of a development chain, 0 for none; other chains ignore it.
pub(crate) fn start<N: NetworkBackend<Block, Hash>>(
    config: Configuration,
    block_millis: u64,
) -> Result<TaskManager, Error> {
    let Parts {
        client,
        mut task_manager,
        import_queue,
        backend,
        keystore,
        select_chain,
        pool,
        mut telemetry,
        grandpa,
    } = parts(&config)?;
    let telemetry_handle = telemetry.as_ref().map(|telemetry| telemetry.handle());
    let registry = config.prometheus_registry().cloned();

    let mut net_config = FullNetworkConfiguration::<Block, Hash, N>::new(
        &config.network,
        config.prometheus_registry().cloned(),
    );
    let metrics = N::register_notification_metrics(config.prometheus_registry());
    let grandpa = match grandpa {
        None => None,
        Some((import, link)) => {
            let genesis = client.block_hash(0)?.ok_or("there is no genesis block")?;
            let protocol =
                sc_consensus_grandpa::protocol_standard_name(&genesis, &config.chain_spec);
            let (protocol_config, notifications) =
                sc_consensus_grandpa::grandpa_peers_set_config::<_, N>(
                    protocol.clone(),
                    metrics.clone(),
                    net_config.peer_store_handle(),
                );
            net_config.add_notification_protocol(protocol_config);
            Some((import, link, protocol, notifications))
        }
    };
    let warp_sync_config = grandpa.as_ref().map(|(_, link, ..)| {
        WarpSyncConfig::WithProvider(Arc::new(
            sc_consensus_grandpa::warp_proof::NetworkProvider::new(
                backend.clone(),
                link.shared_authority_set().clone(),
                Vec::new(),
            ),
        ))
    });

    let (network, system_rpc_tx, tx_handler_controller, sync_service, _) =
        sc_service::build_network(BuildNetworkParams {
            config: &config,
            net_config,
            client: client.clone(),
            transaction_pool: pool.clone(),
            spawn_handle: task_manager.spawn_handle(),
            spawn_essential_handle: task_manager.spawn_essential_handle(),
            import_queue,
            block_announce_validator_builder: None,
            warp_sync_config,
            block_relay: None,
            metrics,
            gap_sync_body_policy: None,
        })?;

    let role = config.role;
    let force_authoring = config.force_authoring;
    let name = config.network.node_name.clone();
    let votes = !config.disable_grandpa;

    let rpc_builder = {
        let client = client.clone();
        let pool = pool.clone();
        Box::new(move |_| {
            rpc::extensions(client.clone(), pool.clone())
                .map_err(|error| Error::Application(error.into()))
        })
    };
    sc_service::spawn_tasks(SpawnTasksParams {
        config,
        client: client.clone(),
        backend,
        task_manager: &mut task_manager,
        keystore: keystore.keystore(),
        transaction_pool: pool.clone(),
        rpc_builder,
        network: network.clone(),
        system_rpc_tx,
        tx_handler_controller,
        sync_service: sync_service.clone(),
        telemetry: telemetry.as_mut(),
        tracing_execute_block: None,
    })?;

    let proposer_factory = ProposerFactory::new(
        task_manager.spawn_handle(),
        client.clone(),
        pool.clone(),
        registry.as_ref(),
        telemetry_handle.clone(),
    );

    let Some((block_import, link, protocol_name, notification_service)) = grandpa else {
        if role.is_authority() && block_millis > 0 {
            seal_on_timer(
                &task_manager,
                client,
                select_chain,
                pool,
                proposer_factory,
                block_millis,
            );
        }
        return Ok(task_manager);
    };

    if role.is_authority() {
        let slot_duration = sc_consensus_aura::slot_duration(&*client)?;
        let aura = sc_consensus_aura::start_aura::<AuraPair, _, _, _, _, _, _, _, _, _, _>(
            StartAuraParams {
                slot_duration,
                client,
                select_chain,
                block_import,
                proposer_factory,
                sync_oracle: sync_service.clone(),
                justification_sync_link: sync_service.clone(),
                create_inherent_data_providers: move |_, ()| async move { Ok(inherents(slot_duration)) },
                force_authoring,
                backoff_authoring_blocks: None::<()>,
                keystore: keystore.keystore(),
                block_proposal_slot_portion: SlotProportion::new(PROPOSAL_PART),
                max_block_proposal_slot_portion: None,
                telemetry: telemetry_handle.clone(),
                compatibility_mode: Default::default(),
            },
        )?;
        let tasks = task_manager.spawn_essential_handle();
        tasks.spawn_blocking("aura", Some("block-authoring"), aura);
    }

    if votes {
        let notification_service: Box<dyn NotificationService> = notification_service;
        let voter = sc_consensus_grandpa::run_grandpa_voter(GrandpaParams {
            config: sc_consensus_grandpa::Config {
                gossip_duration: GOSSIP_DURATION,
                justification_generation_period: JUSTIFICATION_PERIOD,
                observer_enabled: false,
                local_role: role,
                name: Some(name),
                keystore: role.is_authority().then(|| keystore.keystore()),
                telemetry: telemetry_handle.clone(),
                protocol_name,
            },
            link,
            network,
            sync: sync_service,
            notification_service,
            voting_rule: VotingRulesBuilder::default().build(),
            prometheus_registry: registry,
            shared_voter_state: SharedVoterState::empty(),
            telemetry: telemetry_handle,
            offchain_tx_pool_factory: OffchainTransactionPoolFactory::new(pool),
        })?;
        let tasks = task_manager.spawn_essential_handle();
        tasks.spawn_blocking("grandpa-voter", None, voter);
    }

    Ok(task_manager)
}

/// What an author adds to a block by itself: the wall clock's time and the slot that it falls in.
fn inherents(slot_duration: SlotDuration) -> (SlotProvider, sp_timestamp::InherentDataProvider) {
    let timestamp = sp_timestamp::InherentDataProvider::from_system_time();
    let slot = SlotProvider::from_timestamp_and_slot_duration(*timestamp, slot_duration);
    (slot, timestamp)
}

/// Seals and finalises a block every `block_millis`, empty or not.
///
/// The chain's time is its own: it starts from the wall clock and advances by one slot a block, as Aura's rule that a
/// slot has one block holds at any block time.
fn seal_on_timer(
    task_manager: &TaskManager,
    client: Arc<Client>,
    select_chain: SelectChain,
    pool: Arc<Pool>,
    env: ProposerFactory<Pool, Client>,
    block_millis: u64,
) {
    let clock_client = client.clone();
    let sealing = sc_consensus_manual_seal::run_manual_seal(ManualSealParams {
        block_import: client.clone(),
        env,
        client: client.clone(),
        pool,
        commands_stream: Box::pin(ticks(Duration::from_millis(block_millis))),
        select_chain,
        consensus_data_provider: Some(Box::new(AuraConsensusDataProvider::<Block>::new(client))),
        create_inherent_data_providers: move |_, ()| {
            // One slot after that of the best block.
            let slot = SlotTimestampProvider::new_aura(clock_client.clone());
            async move { slot.map_err(Into::into) }
        },
    });
    let tasks = task_manager.spawn_essential_handle();
    tasks.spawn_blocking("timed-seal", Some("block-authoring"), sealing);
}

/// Orders to seal, `period` apart; one that comes late postpones the next ones.
fn ticks(period: Duration) -> impl Stream<Item = EngineCommand<Hash>> + Send {
    stream::unfold(None, move |timer| async move {
        // The timer needs the executor that polls it, so it starts with the first poll.
        let mut timer = timer.unwrap_or_else(|| {
            let mut timer = tokio::time::interval(period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        timer.tick().await;
        let seal = EngineCommand::SealNewBlock {
            create_empty: true,
            finalize: true,
            parent_hash: None,
            sender: None,
        };
        Some((seal, Some(timer)))
    })
}
