//! Holds what the services of a participant share, and starts and ends those services together.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use dataset::place::Data;
use node_client::{
    chain::{Chain, RunInfo},
    network::Network,
};
use protocol::{Hash, RunId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trainer::{Device, ModelConfig, Threads};

use crate::{
    copies::Copies,
    desk::{Desk, Salts},
    diary::Diary,
    error::{Attempt as _, Result},
    folder::FolderLock,
    heads::Heads,
    leave::Leave,
    payloads::Payloads,
    peers::AnnouncedPeers,
    snapshots::Snapshots,
    work::Work,
};

/// How long services may take to end once they are told to.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The handles that every service of a participant shares; clones are the same.
#[derive(Clone)]
pub struct Handles {
    /// Reads the chain, and submits what is signed.
    pub chain: Arc<dyn Chain>,
    /// Its last finalised block.
    pub heads: Heads,
    /// The run that this participant takes part in.
    pub run: Run,
    /// Reaches the other participants.
    pub peers: Peers,
    /// Signs and submits; no service has the hot key but through it.
    pub desk: Arc<Desk>,
    /// What this participant works with.
    pub machine: Machine,
}

/// A run, as it was when this process started.
#[derive(Clone)]
pub struct Run {
    /// Its number on the chain.
    pub id: RunId,
    /// Its settings and the layout of its model.
    pub info: Arc<RunInfo>,
    /// Shape of its model.
    pub model: Arc<ModelConfig>,
    /// Genesis hash of its chain.
    pub genesis: Hash,
    /// Its data set, in a folder or in a store.
    pub dataset: Arc<Data>,
}

impl Machine {
    /// The host's threads, for what is computed beside the device: updates, state roots.
    pub fn threads(&self) -> &Threads {
        self.device.threads()
    }
}

/// The other participants of a run, and what they serve.
#[derive(Clone)]
pub struct Peers {
    /// Publishes contents, and fetches them from connected peers.
    pub network: Arc<dyn Network>,
    /// The peers that the chain announces.
    pub announced: Arc<AnnouncedPeers>,
    /// The payloads that miners revealed.
    pub payloads: Arc<Payloads>,
    /// The older states that are served for those who join.
    pub snapshots: Arc<Snapshots>,
    /// Copies to the mirror what is served.
    pub copies: Copies,
}

/// What a participant works with.
#[derive(Clone)]
pub struct Machine {
    /// Trains and evaluates.
    pub device: Arc<dyn Device>,
    /// Runs blocking work off the async threads.
    pub work: Work,
    /// Notes what was done.
    pub diary: Arc<Diary>,
    /// Keeps others out of the folder.
    pub lock: Option<Arc<FolderLock>>,
    /// What it has promised, and whether it is asked to end.
    pub leave: Leave,
    /// Set when the process ends.
    pub shutdown: CancellationToken,
}

/// Gives a participant the world outside its folder: [`crate::open::connect`] makes the real one, the simulation
/// (`tests/it/sim.rs`) one of fakes.
pub struct Surroundings {
    /// Reads the chain, and submits what is signed.
    pub chain: Arc<dyn Chain>,
    /// Publishes contents, and fetches them from connected peers.
    pub network: Arc<dyn Network>,
    /// Held as long as the participant works in its folder: another process finds it taken.
    pub lock: Option<Arc<FolderLock>>,
    /// Ids of what the network serves already, from an earlier process.
    pub kept: Vec<Hash>,
    /// Trains and evaluates.
    pub device: Arc<dyn Device>,
    /// Runs blocking work off the async threads.
    pub work: Work,
    /// Draws the salts of commitments.
    pub salts: Salts,
}

/// The role in which a participant is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trains, and reveals one update a window.
    Miner,
    /// Attests and measures what miners reveal.
    Validator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Miner => "miner",
            Self::Validator => "validator",
        })
    }
}

/// The services of a participant, started and ended together.
pub struct Services {
    tasks: JoinSet<(&'static str, Result<()>)>,
    leave: Leave,
    shutdown: CancellationToken,
}

impl Services {
    /// No services yet; those that are started end with `shutdown`, after what `leave` waits for.
    pub fn new(leave: Leave, shutdown: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), leave, shutdown }
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

    /// Waits until a service ends, or `end` resolves and what was promised is kept, and ends the others.
    ///
    /// # Errors
    /// The error of the service that ended first.
    pub async fn wait(mut self, end: impl Future<Output = ()>) -> Result<()> {
        let leave = self.leave.clone();
        let end = async {
            end.await;
            tracing::info!("ending");
            leave.keep_promises().await;
        };
        let result = tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(Ok((name, result))) => result.with_context(|| format!("service {name}")),
                Some(Err(error)) => Err(error).context("a service panicked"),
                None => Ok(()),
            },
            () = end => Ok(()),
        };
        self.shutdown.cancel();
        let others = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(END_TIMEOUT, others).await.is_err() {
            tracing::warn!("a service did not end in time");
        }
        result
    }
}
