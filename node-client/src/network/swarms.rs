//! Swarms on loopback, for tests of what single protocols do.

use std::{collections::HashMap, sync::Arc};

use futures::{future::select_all, FutureExt, StreamExt};
use libp2p::{
    core::transport::ListenerId, identify, identity::Keypair, swarm::SwarmEvent, Multiaddr, PeerId,
    Swarm,
};

use super::{
    behaviour::{swarm, Behaviour, BehaviourEvent},
    pace::Pace,
    roles::{Role, Roles},
    NetworkConfig,
};
use crate::clock::{Clock, ManualClock};

/// A swarm that listens by QUIC (0) or TCP (1), and on whose clock no time passes.
pub(super) async fn listening(config: &NetworkConfig, transport: usize) -> Swarm<Behaviour> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let pace = Pace::new(clock.clone());
    let mut swarm = swarm(config, Keypair::generate_ed25519(), clock, pace).unwrap();
    let listener = swarm.listen_on(config.listen[transport].clone()).unwrap();
    let is_it = |event: &SwarmEvent<BehaviourEvent>| matches!(event, SwarmEvent::NewListenAddr { listener_id, .. } if *listener_id == listener);
    while !is_it(&swarm.select_next_some().await) {}
    swarm
}

/// Tells a swarm what all of these peers are.
pub(super) fn set_roles(swarm: &mut Swarm<Behaviour>, roles: &[(PeerId, Role)]) {
    let roles: HashMap<_, _> = roles.iter().copied().collect();
    for peer in swarm.behaviour_mut().relay.set_roles(&Roles::new(roles)) {
        swarm.disconnect_peer_id(peer).unwrap();
    }
}

/// Listens over a relay.
pub(super) fn reserve(swarm: &mut Swarm<Behaviour>, relay: &Swarm<Behaviour>) -> ListenerId {
    swarm.listen_on(over(relay)).unwrap()
}

/// The address of what is behind a relay.
pub(super) fn over(relay: &Swarm<Behaviour>) -> Multiaddr {
    format!("{}/p2p/{}/p2p-circuit", relay.listeners().next().unwrap(), relay.local_peer_id())
        .parse()
        .unwrap()
}

/// What happens next at any of these swarms, and at which. Where others see them is taken for true.
pub(super) async fn next(
    swarms: &mut [&mut Swarm<Behaviour>],
) -> (usize, SwarmEvent<BehaviourEvent>) {
    let events = swarms.iter_mut().map(|swarm| swarm.select_next_some().boxed_local());
    let (event, at, _) = select_all(events).await;
    if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
        connection_id,
        info,
        ..
    })) = &event
    {
        let behaviour = swarms[at].behaviour_mut();
        behaviour.punches.on_observed(&info.observed_addr);
        let protocols = info.protocols.iter().map(AsRef::as_ref);
        behaviour.probes.on_protocols(*connection_id, protocols);
    }
    (at, event)
}
