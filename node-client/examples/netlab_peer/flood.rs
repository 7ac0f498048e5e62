//! Strangers that keep a peer busy with what costs them nothing: connections, messages about themselves, records.
//!
//! ```text
//! reconnects   connects and hangs up
//! pushes       says who it is, again and again
//! records      says that it has contents that nobody has
//! providers    says that many peers that there are not have a content
//! ```
//! Each line on its input is answered with how often it did so until then, and over how many connections.

use std::{error::Error, io, str::FromStr, time::Duration};

use futures::StreamExt;
use libp2p::{
    identify,
    kad::{self, store::MemoryStore, store::RecordStore, ProviderRecord, RecordKey},
    swarm::{
        dial_opts::{DialOpts, PeerCondition},
        NetworkBehaviour, SwarmEvent,
    },
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder,
};
use node_client::network::PeerAddress;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{interval, MissedTickBehavior},
};

use crate::content::{content, listen, NAME};

/// Ticks a second: what is done more often is done several times in one.
const TICKS: u64 = 100;

/// Peers that a false answer names: as many as are remembered of one content.
const FALSE_PROVIDERS: usize = 20;

/// What a stranger does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Reconnects,
    Pushes,
    Records,
    Providers,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reconnects" => Ok(Self::Reconnects),
            "pushes" => Ok(Self::Pushes),
            "records" => Ok(Self::Records),
            "providers" => Ok(Self::Providers),
            _ => Err(format!("there is no flood of `{text}`")),
        }
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kademlia: kad::Behaviour<MemoryStore>,
}

struct Stranger {
    kind: Kind,
    target: PeerAddress,
    swarm: Swarm<Behaviour>,
    done: u64,
    connections: u64,
}

/// Does it `rate` times a second until the process is ended.
pub(crate) async fn run(
    kind: Kind,
    target: PeerAddress,
    ip: std::net::IpAddr,
    rate: u64,
    len: usize,
) -> Result<(), Box<dyn Error>> {
    let mut swarm = swarm()?;
    swarm.listen_on(listen(ip, false))?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    if kind == Kind::Providers {
        let (id, _) = content(len);
        for _ in 0..FALSE_PROVIDERS {
            let nowhere: Multiaddr = format!("/ip4/{ip}/tcp/9").parse()?;
            let record = ProviderRecord::new(RecordKey::new(&id), PeerId::random(), vec![nowhere]);
            let added = swarm.behaviour_mut().kademlia.store_mut().add_provider(record);
            added.map_err(|error| error.to_string())?;
        }
    }
    println!("{}", json!({ "address": format!("{address}/p2p/{}", swarm.local_peer_id()) }));
    let mut stranger = Stranger { kind, target, swarm, done: 0, connections: 0 };
    stranger.dial()?;
    stranger.flood(rate).await
}

fn swarm() -> Result<Swarm<Behaviour>, Box<dyn Error>> {
    let kademlia = StreamProtocol::try_from_owned(format!("/gauntlet/{NAME}/kad/1"))?;
    let builder = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default().nodelay(true),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )?
        .with_behaviour(|key| {
            let peer = key.public().to_peer_id();
            let mut kademlia = kad::Behaviour::with_config(
                peer,
                MemoryStore::new(peer),
                kad::Config::new(kademlia),
            );
            kademlia.set_mode(Some(kad::Mode::Server));
            let name = format!("/gauntlet/{NAME}/1");
            let identify = identify::Config::new(name, key.public());
            Behaviour { identify: identify::Behaviour::new(identify), kademlia }
        })?;
    let idle = Duration::from_secs(3_600);
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(idle)).build())
}

impl Stranger {
    fn dial(&mut self) -> Result<(), Box<dyn Error>> {
        let options = DialOpts::peer_id(self.target.peer)
            .condition(PeerCondition::Always)
            .addresses(self.target.addresses.clone());
        self.swarm.dial(options.build())?;
        Ok(())
    }

    async fn flood(&mut self, rate: u64) -> Result<(), Box<dyn Error>> {
        let mut questions = questions();
        let mut ticks = interval(Duration::from_millis(1_000 / TICKS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    for _ in 0..rate.div_ceil(TICKS) {
                        self.act();
                    }
                }
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(()) = questions.recv() => {
                    println!("{}", json!({ "done": self.done, "connections": self.connections }));
                }
            }
        }
    }

    fn act(&mut self) {
        let peer = self.target.peer;
        self.done += match self.kind {
            Kind::Reconnects => u64::from(self.dial().is_ok()),
            Kind::Pushes => {
                self.swarm.behaviour_mut().identify.push([peer]);
                u64::from(self.swarm.is_connected(&peer))
            }
            Kind::Records => {
                let kademlia = &mut self.swarm.behaviour_mut().kademlia;
                let key = RecordKey::new(&PeerId::random().to_bytes().split_off(6));
                let begun = kademlia.start_providing(key.clone()).is_ok();
                kademlia.stop_providing(&key);
                u64::from(begun)
            }
            Kind::Providers => 0,
        };
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. }
                if peer_id == self.target.peer =>
            {
                self.connections += 1;
                if self.kind == Kind::Reconnects {
                    self.swarm.close_connection(connection_id);
                } else {
                    let addresses = self.target.addresses.clone();
                    for address in addresses {
                        self.swarm.behaviour_mut().kademlia.add_address(&peer_id, address);
                    }
                }
            }
            // Who is shut out comes again.
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. }
                if peer_id == self.target.peer && self.kind != Kind::Reconnects =>
            {
                let _ = self.dial();
            }
            _ => {}
        }
    }
}

/// One for each line on the input; a few wait.
fn questions() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if line.is_err() || sender.blocking_send(()).is_err() {
                return;
            }
        }
    });
    receiver
}
