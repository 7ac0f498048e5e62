//! The processes: started, killed, started again on the same folder, as a supervisor would.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use node_client::{
    journal::Journal,
    keys::{self, Keypair},
    network::{MemoryNetwork, Network, PeerId},
};
use participant::{
    diary::{DiaryRecord, Reader},
    handles::{Role, Surroundings},
    miner::{adversary_kind::AdversaryKind, conduct::Honest},
    settings::{Participant, Proofs},
    snapshots::SNAPSHOT_EVERY,
    work::Work,
    Miner, Validator,
};
use protocol::{merkle::blake2_256, AccountBytes};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trainer::{Cpu, DeviceKind, ModelConfig, Threads};

use super::{
    chain::SimChain,
    network::SimNetwork,
    world::{World, BLOCK_MS},
};

/// How long a slow disk takes over a checkpoint: most of a window.
const SLOW_DISK_MS: u64 = 26 * BLOCK_MS;

/// After so long, a process that ended by itself is started again.
const SUPERVISOR_MS: u64 = 4 * BLOCK_MS;

pub(super) struct Member {
    pub(super) number: usize,
    role: Role,
    pub(super) name: String,
    pub(super) adversary: Option<AdversaryKind>,
    pub(super) hot: Keypair,
    pub(super) cold: Keypair,
    folder: PathBuf,
    network: MemoryNetwork,
    /// Killed so often by faults that last now.
    killed: usize,
    /// Off the network although its process runs.
    offline: bool,
    /// Its folder was once put back to what it had been.
    pub(super) is_restored: bool,
    /// Processes so far.
    incarnation: u64,
    process: Option<JoinHandle<participant::Result<()>>>,
    /// Asks the process to end.
    leave: CancellationToken,
    /// When the supervisor starts it again.
    again_at: Option<u64>,
}

/// What every participant is configured with.
pub(super) struct Common {
    pub(super) model: ModelConfig,
    pub(super) data: PathBuf,
    /// The same in a store.
    pub(super) data_url: String,
    pub(super) folder: PathBuf,
    /// What they do about faults; each has its cold key for bonds.
    pub(super) proofs: Proofs,
}

impl Member {
    pub(super) fn new(
        world: &World,
        number: usize,
        role: Role,
        adversary: Option<AdversaryKind>,
        common: &Common,
    ) -> Self {
        let name = format!("{role:?}-{number}").to_lowercase();
        let key = |suffix: &str| keys::keypair_from_uri(&format!("//sim//{name}{suffix}")).unwrap();
        Self {
            number,
            role,
            hot: key("//hot"),
            cold: key(""),
            folder: common.folder.join(&name),
            name,
            adversary,
            network: world.hub.join(number as u64, Arc::new(world.clock.clone())),
            killed: 0,
            offline: false,
            is_restored: false,
            incarnation: 0,
            process: None,
            leave: CancellationToken::new(),
            again_at: None,
        }
    }

    pub(super) fn peer(&self) -> PeerId {
        Network::local_peer(&self.network)
    }

    pub(super) fn account(&self) -> AccountBytes {
        keys::account(&self.hot)
    }

    pub(super) fn is_honest(&self) -> bool {
        self.adversary.is_none()
    }

    /// Why it missed what it missed.
    pub(super) fn missed(&self) -> Vec<String> {
        let lines = Reader::new(&self.folder).read().unwrap();
        let missed = lines.into_iter().filter_map(|line| match line {
            DiaryRecord::Missed { window, duty, reason } => {
                Some(format!("{duty:?} of window {window}: {reason}"))
            }
            _ => None,
        });
        missed.collect()
    }

    /// Puts a file in the place of its folder of checkpoints, once it has one.
    pub(super) fn take_checkpoints_away(&self) {
        let folder = self.folder.join("checkpoints");
        if folder.is_dir() {
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::write(&folder, "no folder").unwrap();
        }
    }

    /// Copies its folder as it is now.
    pub(super) fn back_up(&self) {
        copy(&self.folder, &self.backup());
    }

    /// Puts its folder back as it was copied.
    pub(super) fn restore(&mut self) {
        self.is_restored = true;
        std::fs::remove_dir_all(&self.folder).unwrap();
        std::fs::rename(self.backup(), &self.folder).unwrap();
    }

    fn backup(&self) -> PathBuf {
        self.folder.with_extension("backup")
    }

    /// Its update of `window`, if it is on disk.
    pub(super) fn update(&self, window: u64) -> Option<Vec<u8>> {
        std::fs::read(self.folder.join(format!("updates/window-{window:06}.update"))).ok()
    }

    /// Its number with each window that it began to train before the window's θ was there.
    pub(super) fn trained_ahead(&self) -> Vec<(usize, u64)> {
        let lines = Reader::new(&self.folder).read().unwrap();
        let ahead = lines.into_iter().filter_map(|line| match line {
            DiaryRecord::Trained { window, steps_ahead, .. } if steps_ahead > 0 => {
                Some((self.number, window))
            }
            _ => None,
        });
        ahead.collect()
    }

    /// The journal of a process that has ended.
    pub(super) fn journal(&self) -> Journal {
        Journal::open(self.folder.join("journal")).unwrap()
    }

    pub(super) fn start(&mut self, world: &Arc<World>, common: &Common) {
        assert!(self.process.is_none());
        self.again_at = None;
        self.incarnation += 1;
        let who = self.number;
        world.hub.set_offline(self.peer(), self.offline);
        world.set_link(who, |link| link.was_down = link.chain_down);
        let surroundings = self.surroundings(world);
        let config = self.config(common);
        self.leave = CancellationToken::new();
        let end = self.leave.clone().cancelled_owned();
        self.process = Some(match self.role {
            Role::Miner => {
                tokio::spawn(async move { Miner::open(config, surroundings).await?.run(end).await })
            }
            Role::Validator => {
                tokio::spawn(
                    async move { Validator::open(config, surroundings).await?.run(end).await },
                )
            }
        });
    }

    fn surroundings(&self, world: &Arc<World>) -> Surroundings {
        let who = self.number;
        let salt_seed = blake2_256(&[
            &world.seed.to_le_bytes(),
            self.name.as_bytes(),
            &self.incarnation.to_le_bytes(),
        ]);
        let (pauser, folder) = (world.clone(), self.folder.join("checkpoints"));
        let known = Mutex::new(names(&folder));
        Surroundings {
            chain: Arc::new(SimChain { world: world.clone(), who, is_honest: self.is_honest() }),
            network: Arc::new(SimNetwork {
                world: world.clone(),
                who,
                inner: self.network.clone(),
            }),
            kept: world.hub.published(self.peer()),
            lock: None,
            device: Arc::new(Cpu::new(Threads::single())),
            work: Work::inline(move || {
                let world = pauser.clone();
                let found = names(&folder);
                let is_new = std::mem::replace(&mut *known.lock().unwrap(), found.clone()) != found;
                Box::pin(async move {
                    world.pass(who, "work").await;
                    if is_new && world.link(who).borrow().slow_disk {
                        world.until(world.now() + SLOW_DISK_MS).await;
                        world.pass(who, "work").await;
                    }
                })
            }),
            salts: Arc::new(move |kind, window| {
                let what = format!("{kind:?} {window}");
                blake2_256(&[&salt_seed, what.as_bytes()])
            }),
        }
    }

    fn config(&self, common: &Common) -> Participant {
        Participant {
            name: self.name.clone(),
            folder: self.folder.clone(),
            model: common.model.clone(),
            // Half of them read the data set from a store: the same samples, the same states.
            data: match self.number % 2 {
                0 => common.data.clone(),
                _ => common.data_url.clone().into(),
            },
            data_cache_bytes_max: 1 << 30,
            device: DeviceKind::default(),
            threads: 1,
            window_end: None,
            conduct: match self.adversary {
                Some(kind) => kind.conduct(),
                None => Arc::new(Honest),
            },
            archive: None,
            archive_bytes_max: None,
            held_out_samples: 0,
            store_bytes_max: 1 << 30,
            // Some of them seldom.
            checkpoint_every: 1 + self.number as u64 % 3,
            snapshot_every: match self.role {
                Role::Miner => 0,
                Role::Validator => SNAPSHOT_EVERY,
            },
            memory_bytes: None,
            urls: Vec::new(),
            genesis: None,
            run: 0,
            hot: self.hot.clone(),
            cold: Some(self.cold.clone()),
            stake: None,
            // Many join in one block, each at a higher price.
            entry_price_max: Some(u128::MAX),
            listen: Vec::new(),
            external: Vec::new(),
            peers: Vec::new(),
            upnp: false,
            up_bytes_per_second: None,
            mirror: None,
            proofs: Proofs {
                is_silent: false,
                bonds: Some(self.cold.clone()),
                ..common.proofs.clone()
            },
        }
    }

    /// Ends the process wherever it is; what it has on disk and in the pool stays.
    pub(super) async fn kill(&mut self, world: &World) {
        self.killed += 1;
        self.again_at = None;
        self.end(world).await;
    }

    /// Asks the process to end, as a supervisor does.
    pub(super) fn leave(&mut self) {
        self.leave.cancel();
    }

    /// Starts the process again that was asked to end, which it has.
    pub(super) fn come_back(&mut self, world: &Arc<World>, common: &Common) {
        assert!(self.process.is_none(), "{} has not left", self.name);
        self.start(world, common);
    }

    pub(super) async fn end(&mut self, world: &World) {
        world.hub.set_offline(self.peer(), true);
        if let Some(process) = self.process.take() {
            process.abort();
            let _ = process.await;
            // Its services are dropped when the runtime comes to them.
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes its peer off the network or back on.
    pub(super) fn set_offline(&mut self, world: &World, offline: bool) {
        self.offline = offline;
        let is_dead = self.process.is_none();
        world.hub.set_offline(self.peer(), offline || is_dead);
    }

    /// Ends one of the faults that keep it dead.
    pub(super) fn revive(&mut self, world: &Arc<World>, common: &Common) {
        self.killed -= 1;
        if self.killed == 0 && self.process.is_none() {
            self.start(world, common);
        }
    }

    /// Looks whether the process has ended by itself, which it may only when the chain was down, and starts it again.
    pub(super) async fn supervise(&mut self, world: &Arc<World>, common: &Common) {
        let was_down = world.link(self.number).borrow().was_down;
        if let Some(process) = self.process.take_if(|process| process.is_finished()) {
            let name = &self.name;
            match process.await {
                Ok(Ok(())) if self.leave.is_cancelled() => {
                    world.hub.set_offline(self.peer(), true);
                }
                Ok(Err(error)) if was_down => {
                    let line = error.line();
                    assert!(!line.contains("panic"), "{name}: {line}");
                    world.hub.set_offline(self.peer(), true);
                    self.again_at = Some(world.now() + SUPERVISOR_MS);
                }
                other => panic!("{name} ended by itself: {other:?}"),
            }
        }
        if self.killed == 0 && self.again_at.is_some_and(|at| at <= world.now()) {
            self.start(world, common);
        }
    }
}

/// What a folder has in it; nothing if there is none.
fn names(folder: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Copies a folder and all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(std::fs::copy(&from, &to).unwrap()),
        }
    }
}
