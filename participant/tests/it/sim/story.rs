//! One story: participants, blocks, faults and checks, from the first block to the last window.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use codec::Encode;
use dataset::{Dataset, Document, SampleSource};
use node_client::{
    chain::{fake::FakeChain, Call, Chain, GauntletEvent, MinerInfo},
    keys::{self, Keypair},
    network::Serving,
};
use participant::{handles::Role, miner::adversary_kind::AdversaryKind, settings::Proofs};
use protocol::{
    limits::HISTORY_WINDOWS,
    merkle::blake2_256,
    settings::{Incentive, InnerOptimiser, OuterStep, Settings, Training},
    window::Schedule,
    BlockNumber, Hash, Planck,
};
use rand::{rngs::StdRng, Rng, SeedableRng};
use trainer::{Model, ModelConfig, Threads};

use crate::shelf::{serve, Shelf};

use super::{
    audit,
    checks::Checks,
    faults::{self, Fault, FaultKind},
    participants::{Common, Member},
    world::{Synced, World, BLOCK_MS, SLOTS},
};

/// Money of every account at the beginning.
pub(super) const BALANCE: Planck = 1_000_000_000_000_000_000;

/// Block in which the first window opens: time to register and to meet.
pub(super) const START_BLOCK: u32 = 16;

pub(super) const WINDOW_BLOCKS: u32 = 29;

/// Windows at the end that have no faults: the first is for recovering, in the others all must be well.
pub(super) const QUIET_WINDOWS: u64 = 3;

/// Ranges that a starved one is served: a manifest and some pieces.
const STARVED_RANGES: u32 = 4;

const SAMPLE_LEN: usize = 16;
const MODEL_SEED: u64 = 1;

/// What is decided before the first block.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Honest ones.
    pub(super) miners: usize,
    pub(super) adversary: Option<AdversaryKind>,
    pub(super) validators: usize,
    pub(super) windows: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) model: ModelConfig,
    pub(super) accusing: Accusing,
    /// How many blocks the last final one is behind the best.
    pub(super) finality_lag: u32,
    /// Whether best blocks that are not final are replaced now and then.
    pub(super) forks: bool,
    /// How many blocks the node of every second participant is behind the others'.
    pub(super) behind: BlockNumber,
    /// Whether training overlaps with the exchange.
    pub(super) overlap: bool,
    /// What somebody outside of the participants' processes does after each block.
    pub(super) script: Option<Script>,
}

/// What every validator may accuse others of, with its cold key's money.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Accusing {
    pub(super) challenges_per_window: u32,
    pub(super) disputes_per_window: u32,
}

/// Acts after a block of this number.
pub(super) type Script = fn(&Arc<World>, &[Member], BlockNumber);

impl Plan {
    /// A story without faults.
    pub(super) fn calm(seed: u64, windows: u64) -> Self {
        let (adversary, faults, model) = (None, Vec::new(), model_config());
        let (accusing, script) = (Accusing::default(), None);
        Self {
            seed,
            miners: 3,
            adversary,
            validators: 2,
            windows,
            faults,
            model,
            accusing,
            finality_lag: 0,
            forks: false,
            behind: 0,
            overlap: false,
            script,
        }
    }

    /// Whether a participant joins when the run is under way: until then it is dead.
    pub(super) fn joins(&self, who: usize) -> bool {
        let is_dead = |fault: &Fault| fault.kind == FaultKind::Killed && fault.from == 0;
        self.faults.iter().any(|fault| is_dead(fault) && fault.whom.contains(&who))
    }

    /// The story of this seed.
    pub(super) fn drawn(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (miners, validators) = (rng.gen_range(2..=4), rng.gen_range(2..=4));
        let windows = rng.gen_range(7..=14);
        let adversary = match rng.gen_range(0..6) {
            0 => Some(AdversaryKind::Garbage),
            1 => Some(AdversaryKind::Copier),
            2 => Some(AdversaryKind::Lazy),
            _ => None,
        };
        let count = rng.gen_range(3..=14);
        let millis =
            |window: u64| (u64::from(START_BLOCK) + window * u64::from(WINDOW_BLOCKS)) * BLOCK_MS;
        let until = millis(windows - QUIET_WINDOWS);
        let participants = miners + usize::from(adversary.is_some()) + validators;
        let mut faults = faults::draw(&mut rng, participants, count, millis(0), until);
        let (accusing, script, model) = (Accusing::default(), None, model_config());
        // Drawn last, so that the rest of a seed's story stays what it was.
        let finality_lag = rng.gen_range(0..=3);
        if rng.gen_bool(0.3) {
            let whom = vec![rng.gen_range(0..miners)];
            let until = millis(rng.gen_range(1..=windows - QUIET_WINDOWS));
            faults.push(Fault { kind: FaultKind::Killed, whom, from: 0, until });
        }
        Self {
            seed,
            miners,
            adversary,
            validators,
            windows,
            faults,
            model,
            accusing,
            finality_lag,
            forks: false,
            behind: 0,
            overlap: false,
            script,
        }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    /// Updates accepted in all windows.
    pub(super) accepted: usize,
    /// Updates that could have been.
    pub(super) accepted_max: usize,
    /// Windows with a final state root.
    pub(super) finals: usize,
    /// Over every event of every block.
    pub(super) digest: Hash,
    /// What happened of proofs of faults.
    pub(super) proofs: Vec<GauntletEvent>,
    /// The miners at the end.
    pub(super) miners: Vec<MinerInfo>,
    /// What everybody missed, and why.
    pub(super) missed: Vec<String>,
    /// What the script noted.
    pub(super) notes: Vec<String>,
    /// The states that somebody fetched from peers.
    pub(super) synced: Vec<Synced>,
    /// The windows that a miner began to train before their θ was there: its number, and the window.
    pub(super) ahead: Vec<(usize, u64)>,
}

/// Something that happens at a moment.
struct Act {
    at: u64,
    fault: usize,
    begins: bool,
}

pub(super) async fn tell(plan: &Plan) -> Summary {
    // On memory where there is such a folder: what is synced is synced in no time.
    let shared_memory = Path::new("/dev/shm");
    let folder = match shared_memory.is_dir() {
        true => tempfile::tempdir_in(shared_memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.unwrap();
    let common = Common {
        model: plan.model.clone(),
        data: data().to_owned(),
        data_url: data_url().to_owned(),
        folder: folder.path().to_owned(),
        proofs: Proofs {
            bonds_max: BALANCE,
            challenges_per_window: plan.accusing.challenges_per_window,
            disputes_per_window: plan.accusing.disputes_per_window,
            ..Proofs::default()
        },
    };
    let mut story = Story::new(plan, common);
    story.run(plan).await
}

struct Story {
    world: Arc<World>,
    common: Common,
    members: Vec<Member>,
    settings: Settings,
    checks: Checks,
    digest: Hash,
    /// How many blocks the last final one is behind the best where nothing goes wrong.
    finality_lag: u32,
    /// Faults that last now, by kind and participant.
    lasting: std::collections::BTreeMap<(FaultKind, Vec<usize>), usize>,
}

impl Story {
    fn new(plan: &Plan, common: Common) -> Self {
        let miners = plan.miners + usize::from(plan.adversary.is_some());
        let count = miners + plan.validators;
        let owner = keys::keypair_from_uri("//sim//owner").unwrap();
        let roles = (0..count).map(|number| match number < miners {
            true => Role::Miner,
            false => Role::Validator,
        });
        // The members need the hub, the hub's world the chain, and the chain the members' accounts.
        let empty = World::new(plan.seed, FakeChain::new(plan.seed, []), count);
        let members: Vec<Member> = roles
            .enumerate()
            .map(|(number, role)| {
                let adversary = plan.adversary.filter(|_| number == plan.miners);
                Member::new(&empty, number, role, adversary, &common)
            })
            .collect();
        let accounts = members.iter().map(|member| keys::account(&member.cold));
        let accounts = accounts.chain([keys::account(&owner), keys::account(&phantom())]);
        let chain = FakeChain::new(plan.seed, accounts.map(|account| (account, BALANCE)));
        let world = empty.with_chain(chain, plan.behind);

        let model = Model::init(&common.model, MODEL_SEED).unwrap();
        let settings = settings(plan, model.state_root(&Threads::single()));
        let create = Call::CreateRun {
            settings: Box::new(settings.clone()),
            layout: model.layout().clone(),
        };
        world.chain.execute(&owner, create).unwrap();
        world.chain.set_run_weight(0, 1);
        world.chain.set_finality_lag(plan.finality_lag);
        Self {
            world: Arc::new(world),
            common,
            members,
            checks: Checks::new(model, settings.clone()),
            settings,
            digest: [0; 32],
            finality_lag: plan.finality_lag,
            lasting: Default::default(),
        }
    }

    async fn run(&mut self, plan: &Plan) -> Summary {
        for member in &mut self.members {
            member.start(&self.world, &self.common);
        }
        let mut acts: Vec<Act> = Vec::new();
        for (index, fault) in plan.faults.iter().enumerate() {
            for (at, begins) in [(fault.from, true), (fault.until, false)] {
                // In the simulation's own milliseconds.
                let at = at / SLOTS * SLOTS;
                acts.push(Act { at, fault: index, begins });
            }
        }
        acts.sort_by_key(|act| (act.at, act.fault, act.begins));
        let mut acts = acts.into_iter().peekable();
        let last = self.settings.schedule.window_start(plan.windows).unwrap()
            + self.settings.schedule.score_reveal_end
            + 1;
        let mut checked = 0;
        let mut at = 0;
        loop {
            at += BLOCK_MS;
            while let Some(act) = acts.next_if(|act| act.at <= at) {
                self.world.until(act.at).await;
                self.act(&plan.faults[act.fault], act.begins).await;
            }
            self.world.until(at).await;
            for member in &mut self.members {
                member.supervise(&self.world, &self.common).await;
            }
            if self.lasts(FaultKind::ChainStalled) {
                continue;
            }
            self.world.make_block(self.replaced(plan)).await;
            let head = self.world.chain.finalized_head().await.unwrap();
            // What is not final yet is checked when it is.
            let first = if checked == 0 { head.number } else { checked + 1 };
            for number in first..=head.number {
                self.check(plan, number).await;
            }
            checked = head.number;
            if head.number >= last {
                break;
            }
        }
        for member in &mut self.members {
            member.end(&self.world).await;
        }
        let digest = self.digest;
        let summary = self.checks.end(&self.world, &self.members, plan, digest).await;
        // As long as the chain remembers all of it.
        if plan.overlap && plan.windows <= HISTORY_WINDOWS {
            let archive = self.common.folder.join("archive");
            let differences = audit::differences(&self.world, &plan.model, plan.windows, &archive);
            let differences = differences.await;
            assert!(differences.is_empty(), "{differences:#?}");
        }
        summary
    }

    /// Takes in a block that has become final.
    async fn check(&mut self, plan: &Plan, number: BlockNumber) {
        let hash = self.world.chain.block_hash(number).await.unwrap().unwrap();
        let events = self.world.chain.events_at(hash).await.unwrap();
        self.digest = blake2_256(&[&self.digest, &events.encode()]);
        self.checks.block(&self.world, &self.members, number).await;
        if let Some(script) = plan.script {
            script(&self.world, &self.members, number);
            // What it waits for comes with the next block.
            tokio::task::yield_now().await;
        }
    }

    /// How many blocks the next one replaces: with forks one to all that are not final, one time in six.
    fn replaced(&self, plan: &Plan) -> u32 {
        let draw = self.world.draw(0, "fork");
        match plan.forks && draw.is_multiple_of(6) {
            true => 1 + (draw / 6 % u64::from(plan.finality_lag.max(1))) as u32,
            false => 0,
        }
    }

    fn lasts(&self, kind: FaultKind) -> bool {
        self.lasting.iter().any(|((lasting, _), count)| *lasting == kind && *count > 0)
    }

    /// Begins or ends a fault.
    async fn act(&mut self, fault: &Fault, begins: bool) {
        let key = |whom: &[usize]| (fault.kind, whom.to_vec());
        if fault.whom.len() < 2 || fault.kind == FaultKind::CutOff {
            return self.change(key(&fault.whom), begins).await;
        }
        for who in &fault.whom {
            self.change(key(&[*who]), begins).await;
        }
    }

    /// The same fault may befall one participant twice at once: it ends when the last one does.
    async fn change(&mut self, (kind, whom): (FaultKind, Vec<usize>), begins: bool) {
        let count = self.lasting.entry((kind, whom.clone())).or_default();
        match begins {
            true => *count += 1,
            false => *count -= 1,
        }
        let on = *count > 0;
        let (world, common) = (self.world.clone(), &self.common);
        if kind == FaultKind::FinalityStalled {
            let blocks = if on { u32::MAX } else { self.finality_lag };
            return world.chain.set_finality_lag(blocks);
        }
        let Some(&who) = whom.first() else { return };
        let peer = self.members[who].peer();
        match kind {
            FaultKind::Restored if begins => {
                self.members[who].kill(&world).await;
                self.members[who].restore();
            }
            FaultKind::Killed if begins => self.members[who].kill(&world).await,
            FaultKind::Killed | FaultKind::Restored => self.members[who].revive(&world, common),
            FaultKind::Offline => self.members[who].set_offline(&world, on),
            FaultKind::CutOff => {
                let other = self.members[whom[1]].peer();
                world.hub.set_cut(peer, other, on);
            }
            FaultKind::Slow => world.set_link(who, |link| link.slow = on),
            FaultKind::ServesNothing => {
                world.hub.set_serving(peer, serving(on, Serving::Nothing));
            }
            FaultKind::Mute => world.hub.set_serving(peer, serving(on, Serving::Mute)),
            FaultKind::ServesWrong => world.hub.set_serving(peer, serving(on, Serving::Wrong)),
            FaultKind::ChainDown => world.set_link(who, |link| {
                link.chain_down = on;
                link.was_down |= on;
            }),
            FaultKind::ChainLossy => world.set_link(who, |link| link.chain_lossy = on),
            FaultKind::PayloadsLate => world.set_link(who, |link| link.no_payloads = on),
            FaultKind::Leaves if begins => self.members[who].leave(),
            FaultKind::Leaves => self.members[who].come_back(&world, common),
            FaultKind::Starved => world.hub.set_asks(peer, on.then_some(STARVED_RANGES)),
            FaultKind::ChainStalled | FaultKind::FinalityStalled => {}
        }
    }
}

/// A key with money that no participant has.
pub(super) fn phantom() -> Keypair {
    keys::keypair_from_uri("//sim//phantom").unwrap()
}

fn serving(on: bool, serving: Serving) -> Serving {
    match on {
        true => serving,
        false => Serving::Honest,
    }
}

/// Milliseconds since the beginning at a block of a window, where finality does not lag.
pub(super) fn moment(window: u64, offset: u64) -> u64 {
    (u64::from(START_BLOCK) + window * u64::from(WINDOW_BLOCKS) + offset) * BLOCK_MS
}

/// When what begins in a window.
pub(super) fn schedule() -> Schedule {
    schedule_behind(0)
}

/// By how many blocks phases are longer where there are forks: a validator attests when a third of its phase is left, and two forks one
/// after the other are to leave it in time.
const FORKS_DELAY: u32 = 7;

/// The same for a chain whose final blocks are `lag` behind: each phase begins with what is final.
fn schedule_behind(lag: u32) -> Schedule {
    Schedule {
        start_block: START_BLOCK + lag,
        window_blocks: WINDOW_BLOCKS + 5 * lag,
        commit_end: 12 + lag,
        reveal_end: 18 + 2 * lag,
        attest_commit_end: 23 + 3 * lag,
        attest_end: 26 + 4 * lag,
        score_commit_end: 12 + lag,
        score_reveal_end: 17 + 2 * lag,
    }
}

fn settings(plan: &Plan, genesis_state_root: Hash) -> Settings {
    let data = Dataset::open(data()).unwrap();
    let example = Settings::example();
    let settings = Settings {
        schedule: schedule_behind(
            plan.finality_lag + plan.behind + if plan.forks { FORKS_DELAY } else { 0 },
        ),
        training: Training {
            inner_steps: 6,
            batch_size: 4,
            sample_len: SAMPLE_LEN as u32,
            sample_count: data.train().sample_count(),
            data_root: data.root(),
            // Another rate in every window of a story, and the senders counted.
            outer: OuterStep {
                warm_up_windows: 2,
                decay_start: 3,
                decay_windows: 6,
                final_rate_ppm: 400_000,
                senders_min_ppm: 250_000,
                ..OuterStep::constant(1_000_000)
            },
            evaluation_rate_ppm: 300_000,
            optimiser: match plan.seed.is_multiple_of(2) {
                true => InnerOptimiser::AdamW,
                false => InnerOptimiser::Muon { rate_ppb: 6_000_000 },
            },
            inner_rate_ppb: 4_000_000,
            model_seed: MODEL_SEED,
            genesis_state_root,
            overlap: plan.overlap,
            ..example.training
        },
        incentive: Incentive {
            uid_max: plan.miners as u16 + 1,
            // So small a model learns as much on random samples as on a miner's own: an honest miner's proof is a coin's, and
            // the prior outlasts the story.
            proof_gate_ppm: 0,
            proof_prior_windows: 30,
            waiver_windows: 2,
            ..example.incentive
        },
        ..example
    };
    settings.validate().unwrap();
    settings
}

/// A model that trains in milliseconds.
pub(super) fn model_config() -> ModelConfig {
    let config = ModelConfig {
        vocab: 256,
        hidden: 16,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        ffn: 32,
        seq_len: SAMPLE_LEN,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-5,
        tied: true,
    };
    config.validate().unwrap();
    config
}

/// The data set of all stories of this process: sentences of few words, which a tiny model can learn from.
/// The address of the same data set in a store that lives as long as the process.
fn data_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let shelf = Arc::new(Shelf::default());
        for entry in std::fs::read_dir(data()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let mut objects = shelf.objects.lock().unwrap();
            objects.insert(format!("public/{name}"), std::fs::read(&path).unwrap());
        }
        format!("{}/public", serve(&shelf))
    })
}

fn data() -> &'static Path {
    static DATA: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DATA.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let words =
            ["a miner ", "trains ", "the model ", "and ", "a validator ", "scores ", "it. "];
        let mut rng = StdRng::seed_from_u64(0);
        let documents = (0..100).map(|number| {
            let text = (0..200).flat_map(|_| words[rng.gen_range(0..words.len())].bytes());
            Document { name: format!("{number:03}"), text: text.collect() }
        });
        let documents = documents.collect();
        let path = folder.path().join("data");
        dataset::build(documents, SAMPLE_LEN, &path).unwrap();
        (folder, path)
    });
    path
}
