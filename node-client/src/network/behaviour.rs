//! Puts together the libp2p protocols that a peer speaks, with their limits.

use std::{collections::HashSet, sync::Arc, time::Duration};

use libp2p::{
    connection_limits::{self, ConnectionLimits},
    core::upgrade::Version,
    identify,
    identity::Keypair,
    kad::{
        self,
        store::{MemoryStore, MemoryStoreConfig},
    },
    ping, relay,
    swarm::NetworkBehaviour,
    PeerId, StreamProtocol, Swarm, SwarmBuilder,
};

use super::{
    attempts::Attempts,
    codec,
    dial_backs::DialBacks,
    dials::Rules,
    gate::{self, Gate},
    keep_alive::{self, Count},
    mapping::Mapping,
    pace::Pace,
    probes::Probes,
    punches::Punches,
    ranges::Ranges,
    relay::Relay,
    transport::{muxer, transport},
    NetworkConfig, StartError,
};
use crate::clock::Clock;

/// How long other peers remember that we have a content, and how often we remind them.
const RECORD_TTL: Duration = Duration::from_secs(60 * 60);
const RECORD_INTERVAL: Duration = Duration::from_secs(20 * 60);

/// How often the routing table is refreshed.
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Peers remembered as having one content.
const PROVIDERS_PER_KEY_MAX: usize = 20;

/// How often a connection is tried. It also tells a router on the way that the connection is used: those that forget
/// soonest do so after half a minute.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How long a connection may take to be set up. Who wants to be dialled back hears within ten seconds that it failed, or
/// takes it for no answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// Connections that this peer sets up at a time.
const CONNECTIONS_PENDING_MAX: u32 = 64;

/// Streams of which the protocol is being found out, at a time on one connection; what each protocol has of them it
/// bounds by itself.
const NEGOTIATING_MAX: usize = 32;

/// Kademlia, keeping its records in memory.
pub(super) type Kademlia = kad::Behaviour<MemoryStore>;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// First, so that a connection over the limit costs the others nothing.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) gate: Gate,
    pub(super) attempts: Attempts,
    pub(super) keep_alive: keep_alive::Behaviour,
    ping: ping::Behaviour,
    dial_backs: DialBacks,
    pub(super) probes: Probes,
    mapping: Mapping,
    pub(super) relay: Relay,
    relayed: relay::client::Behaviour,
    pub(super) punches: Punches,
    identify: identify::Behaviour,
    pub(super) kademlia: Kademlia,
    pub(super) ranges: Ranges,
}

/// The name of Kademlia's protocol on this network.
pub(super) fn kademlia_name(name: &str) -> Option<StreamProtocol> {
    StreamProtocol::try_from_owned(format!("/gauntlet/{name}/kad/1")).ok()
}

/// A swarm that listens nowhere yet. Must be called inside a tokio runtime.
pub(super) fn swarm(
    config: &NetworkConfig,
    key: Keypair,
    clock: Arc<dyn Clock>,
    pace: Arc<Pace>,
) -> Result<Swarm<Behaviour>, StartError> {
    let name = || StartError::Name { name: config.name.clone() };
    let ranges_name = codec::protocol_name(&config.name).ok_or_else(name)?;
    let kademlia_name = kademlia_name(&config.name).ok_or_else(name)?;
    let local = key.public().to_peer_id();
    let rules = Arc::new(Rules::new(config, clock.clone()));
    let behaviour = |key: &Keypair, relayed| Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits(
            config,
            Count { incoming: 0, all: 0 },
        )),
        relay: Relay::new(config, local, clock.clone()),
        relayed,
        punches: Punches::new(local, rules.clone()),
        attempts: Attempts::new(rules.clone()),
        gate: Gate::new(config, clock),
        keep_alive: keep_alive::Behaviour::new(config.connections_per_peer_max),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        dial_backs: DialBacks::new(rules.clone()),
        probes: Probes::new(local),
        mapping: Mapping::new(config),
        identify: identify::Behaviour::new(
            identify::Config::new(format!("/gauntlet/{}/1", config.name), key.public())
                .with_agent_version(format!("gauntlet/{}", env!("CARGO_PKG_VERSION")))
                // Addresses are remembered by Kademlia, bounded; a second cache is not needed.
                .with_cache_size(0),
        ),
        kademlia: kademlia(config, key, kademlia_name),
        ranges: Ranges::new(ranges_name, pace, config.request_timeout),
    };

    let failed =
        |error: &dyn std::fmt::Display| StartError::Transport { reason: error.to_string() };
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|key| transport(key, rules.clone()))
        .map_err(|error| failed(&error))?
        .with_relay_client(libp2p::noise::Config::new, muxer)
        .map_err(|error| failed(&error))?
        .with_behaviour(behaviour)
        .map_err(|error| failed(&error))?;
    Ok(builder
        .with_swarm_config(|swarm| {
            swarm
                .with_idle_connection_timeout(config.idle_timeout)
                // What is said first on a stream goes with the name of its protocol, and not one way there and back
                // later.
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        })
        .with_connection_timeout(CONNECT_TIMEOUT)
        .build())
}

/// Lets the connections of these peers stay open, beside as many of others as without them.
pub(super) fn hold(swarm: &mut Swarm<Behaviour>, config: &NetworkConfig, peers: HashSet<PeerId>) {
    let behaviour = swarm.behaviour_mut();
    for peer in behaviour.keep_alive.held().difference(&peers) {
        behaviour.limits.remove_peer_id(peer);
    }
    for peer in &peers {
        behaviour.limits.bypass_peer_id(peer);
    }
    behaviour.dial_backs.hold(peers.clone());
    behaviour.keep_alive.hold(peers);
    make_room(swarm, config);
}

/// Counts the connections of held peers out of the limits: to be called whenever one has come or gone. They are never
/// refused, so that what they have must not be missing to others.
pub(super) fn make_room(swarm: &mut Swarm<Behaviour>, config: &NetworkConfig) {
    let behaviour = swarm.behaviour_mut();
    let held = behaviour.keep_alive.count();
    *behaviour.limits.limits_mut() = connection_limits(config, held);
}

/// The limits where held peers have so many connections, which do not count.
fn connection_limits(config: &NetworkConfig, held: Count) -> ConnectionLimits {
    let with = |max: u32, held: usize| max.saturating_add(held.try_into().unwrap_or(u32::MAX));
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(gate::PENDING_MAX))
        .with_max_pending_outgoing(Some(CONNECTIONS_PENDING_MAX))
        // Half are for peers we chose, so that strangers cannot take them all.
        .with_max_established_incoming(Some(with(config.connections_max / 2, held.incoming)))
        .with_max_established(Some(with(config.connections_max, held.all)))
        .with_max_established_per_peer(Some(config.connections_per_peer_max))
}

fn kademlia(config: &NetworkConfig, key: &Keypair, name: StreamProtocol) -> Kademlia {
    let peer = key.public().to_peer_id();
    let records = MemoryStoreConfig {
        // Only provider records are kept.
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: PROVIDERS_PER_KEY_MAX,
        max_provided_keys: config.records_max,
    };
    let mut settings = kad::Config::new(name);
    settings
        .set_query_timeout(config.query_timeout)
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_provider_publication_interval(Some(RECORD_INTERVAL))
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_periodic_bootstrap_interval(Some(BOOTSTRAP_INTERVAL))
        // The event loop decides who is in the table.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // The event loop decides which records of others are kept.
        .set_record_filtering(kad::StoreInserts::FilterBoth);
    let store = MemoryStore::with_config(peer, records);
    let mut kademlia = Kademlia::with_config(peer, store, settings);
    // Every participant answers: there are few, and each announces addresses at which it can be reached.
    kademlia.set_mode(Some(kad::Mode::Server));
    kademlia
}
