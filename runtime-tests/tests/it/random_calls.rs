//! Thousands of random calls in random order, every call of the pallet among them, on a run that lives on and on small
//! ones that come and go: whatever they do, the books balance in every block, as a node commits it.

use std::collections::BTreeMap;

use frame_support::traits::GetCallName;
use pallet_gauntlet::{Call, Event, Ledgers, RunSettings, Runs, ShownChunk};
use protocol::{
    commitment::ChunkProof,
    settings::Settings,
    window::{phase_at, Moment, Phase},
    RunId, Window,
};
use runtime::{AccountId, Runtime, RuntimeCall, RuntimeOrigin, System};
use sp_runtime::traits::Dispatchable;

use crate::{
    draws::Draws,
    network::{commit_block, endowed, settings, ExtBuilder, RUN},
    payload::{Flaw, MinerPayload},
};

mod runs;

mod seats;

mod money;

mod work;

mod proofs;

/// The default seed; the environment's `GAUNTLET_TEST_SEED` replaces it.
const SEED: u64 = 2_609;
const BLOCKS: u32 = 2_000;
const CALLS_PER_BLOCK: u32 = 16;
/// Accounts that the genesis endows.
const ENDOWED: u64 = 14;
/// Payloads without flaw.
const WHOLE: usize = 11;
/// A run that there never is.
const UNKNOWN_RUN: RunId = 9_999;
/// What has to happen in a walk.
const HAPPENED: [&str; 14] = [
    "window settled",
    "pay transferred",
    "settings applied",
    "miner slashed",
    "pool slashed",
    "miner displaced",
    "miner left",
    "hot key rotated",
    "stake withdrawn",
    "dispute closed",
    "run paused",
    "run handed over",
    "run swept",
    "run reaped",
];

/// A call with its origin.
struct Drawn {
    origin: RuntimeOrigin,
    call: Call<Runtime>,
    /// Whether the origin may not do this in any state.
    is_foul: bool,
}

impl Drawn {
    fn signed(who: AccountId, call: Call<Runtime>) -> Self {
        Drawn { origin: RuntimeOrigin::signed(who), call, is_foul: false }
    }
}

/// The run that a call is drawn for, and where the block lies in it.
struct Scene {
    run: RunId,
    settings: Settings,
    moment: Option<Moment>,
}

impl Scene {
    fn of(run: RunId) -> Self {
        let found = Runs::<Runtime>::get(run)
            .and_then(|record| RunSettings::<Runtime>::get(run, record.settings_version));
        let settings = found.unwrap_or_else(settings);
        let moment = phase_at(&settings.schedule, System::block_number());
        Scene { run, settings, moment }
    }

    fn window(&self) -> Window {
        self.moment.map_or(0, |moment| moment.window)
    }

    fn is_attesting(&self) -> bool {
        let phase = self.moment.map(|moment| moment.phase);
        matches!(phase, Some(Phase::AttestCommit | Phase::AttestReveal))
    }
}

/// Draws calls from a seed: mostly what somebody would do in the block's phase.
struct Script {
    draws: Draws,
    payloads: Vec<MinerPayload>,
}

impl Script {
    fn new(seed: u64) -> Self {
        let whole = (0..WHOLE as u8).map(|flavour| MinerPayload::new(flavour, Flaw::None));
        let flaws = [
            Flaw::FirstMalformed,
            Flaw::FirstMalformed,
            Flaw::Malformed,
            Flaw::ChunkCount,
            Flaw::OtherBase,
        ];
        let flawed =
            (WHOLE as u8..).zip(flaws).map(|(flavour, flaw)| MinerPayload::new(flavour, flaw));
        Script { draws: Draws::after(seed, 0), payloads: whole.chain(flawed).collect() }
    }

    /// The next call.
    fn draw(&mut self) -> Drawn {
        let scene = self.draw_scene();
        // The phases of attestations are brief.
        if scene.is_attesting() && !self.draws.one_in(4) {
            return self.fitting_work(&scene);
        }
        match self.draws.below(100) {
            0..=6 => self.of_runs(&scene),
            7..=18 => self.of_seats(&scene),
            19..=32 => self.of_money(&scene),
            33..=52 => self.of_proofs(&scene),
            53..=58 => self.any_work(&scene),
            _ => self.fitting_work(&scene),
        }
    }

    fn draw_scene(&mut self) -> Scene {
        let first = Scene::of(RUN);
        if first.is_attesting() && !self.draws.one_in(3) {
            return first;
        }
        match self.draws.below(40) {
            0 => Scene::of(UNKNOWN_RUN),
            1..=16 => first,
            _ => self.pick(Runs::<Runtime>::iter_keys()).map_or(first, Scene::of),
        }
    }

    /// One of some things, if there are any.
    fn pick<T>(&mut self, things: impl IntoIterator<Item = T>) -> Option<T> {
        let mut things: Vec<T> = things.into_iter().collect();
        let place = self.draws.below(things.len().max(1) as u64) as usize;
        (place < things.len()).then(|| things.swap_remove(place))
    }

    /// An account that the genesis endowed.
    fn somebody(&mut self) -> AccountId {
        endowed(self.draws.below(ENDOWED) as usize)
    }

    /// Mostly `who`, now and then somebody else.
    fn mostly(&mut self, who: Option<AccountId>) -> AccountId {
        let stranger = self.somebody();
        who.filter(|_| !self.draws.one_in(8)).unwrap_or(stranger)
    }
}

/// A chunk as a call shows it.
fn shown(chunk: ChunkProof) -> ShownChunk {
    ShownChunk {
        bytes: chunk.chunk.try_into().expect("a chunk fits"),
        proof: chunk.proof.try_into().expect("a proof fits"),
    }
}

/// What a walk did.
#[derive(Default)]
struct Walk {
    /// Of each call, how often it was done and refused.
    calls: BTreeMap<String, (u32, u32)>,
    happened: BTreeMap<&'static str, u32>,
}

impl Walk {
    fn call(&mut self, Drawn { origin, call, is_foul }: Drawn) {
        let name = call.get_call_name().to_owned();
        let is_done = RuntimeCall::from(call).dispatch(origin.clone()).is_ok();
        assert!(!(is_done && is_foul), "{origin:?} may not {name}");
        let (done, refused) = self.calls.entry(name).or_default();
        *(if is_done { done } else { refused }) += 1;
    }

    fn note(&mut self, events: Vec<Event<Runtime>>) {
        for name in events.iter().filter_map(name_of) {
            *self.happened.entry(name).or_default() += 1;
        }
    }

    /// Checks that the walk went everywhere: every call was drawn, done and refused.
    fn check(&self) {
        for name in Call::<Runtime>::get_call_names() {
            let (done, refused) = self.calls.get(*name).copied().unwrap_or_default();
            assert!(done > 0, "{name} was never done");
            assert!(refused > 0, "{name} was never refused");
        }
        for name in HAPPENED {
            assert!(self.happened.contains_key(name), "no {name}: {:?}", self.happened);
        }
    }
}

/// What an event is called in [`HAPPENED`].
fn name_of(event: &Event<Runtime>) -> Option<&'static str> {
    use pallet_gauntlet::Offender;

    Some(match event {
        Event::WindowSettled { .. } => "window settled",
        Event::Claimed { .. } => "pay transferred",
        Event::SettingsApplied { .. } => "settings applied",
        Event::Slashed { amount: 0, .. } => return None,
        Event::Slashed { offender: Offender::Miner { .. }, .. } => "miner slashed",
        Event::Slashed { offender: Offender::Pool(_), .. } => "pool slashed",
        Event::MinerDisplaced { .. } => "miner displaced",
        Event::MinerLeft { .. } => "miner left",
        Event::HotKeyRotated { .. } => "hot key rotated",
        Event::Withdrawn { .. } => "stake withdrawn",
        Event::DisputeClosed { .. } => "dispute closed",
        Event::RunPaused { .. } => "run paused",
        Event::RunHandedOver { .. } => "run handed over",
        Event::RunSwept { .. } => "run swept",
        Event::RunReaped { .. } => "run reaped",
        _ => return None,
    })
}

#[test]
fn the_books_balance_whatever_is_called() {
    let seed =
        std::env::var("GAUNTLET_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    println!("GAUNTLET_TEST_SEED={seed}");
    let mut script = Script::new(seed);
    let mut walk = Walk::default();
    let mut chain = ExtBuilder::default().participants(6, 5).build();
    for _ in 0..BLOCKS {
        chain.execute_with(|| {
            for _ in 0..CALLS_PER_BLOCK {
                let drawn = script.draw();
                walk.call(drawn);
            }
        });
        // Checks every invariant and the ledgers.
        walk.note(commit_block(&mut chain));
    }
    println!("calls (done, refused): {:?}", walk.calls);
    println!("happened: {:?}", walk.happened);
    walk.check();
    chain.execute_with(|| {
        let run = Runs::<Runtime>::get(RUN).expect("nobody closed the run");
        assert!(run.next_settlement >= 90, "{}", run.next_settlement);
        let ledger = Ledgers::<Runtime>::get(RUN);
        println!("{ledger:?}");
        assert!(ledger.paid > 0);
    });
}
