//! Plays a scenario window by window, and keeps who was paid what.

use std::collections::BTreeMap;

use protocol::{consensus::Evaluation, Hash, Uid, ValidatorIndex, Window};

use crate::{
    chain::{settings, Calls, Chain, Happened, Keys, Update},
    miner::Conduct,
    random::Random,
    scenario::Scenario,
    truth::Gain,
    validator::{in_typical_gains, Seen, Validation},
};

/// A miner through all its registrations.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it does.
    pub conduct: Conduct,
    /// Its pay by window, in units.
    pub pay: Vec<f64>,
    /// Whether it worked in a window: its reveal was taken.
    pub worked: Vec<bool>,
    /// Calls that the chain refused.
    pub refused: u32,
    keys: Keys,
    slot: Option<Uid>,
    registered: Window,
    first_window: Window,
    update: Option<Update>,
    gain: Gain,
}

/// A validator.
#[derive(Clone, Debug)]
pub struct Judge {
    /// What it does.
    pub validation: Validation,
    /// Its pay by window, in units.
    pub pay: Vec<f64>,
    keys: Keys,
    slot: Option<ValidatorIndex>,
    committed: Option<(Vec<Evaluation>, Hash)>,
}

/// What became of everybody.
#[derive(Clone, Debug)]
pub struct History {
    /// The miners.
    pub members: Vec<Member>,
    /// The validators.
    pub judges: Vec<Judge>,
    /// What each settled window minted, in units.
    pub minted: BTreeMap<Window, f64>,
    /// Windows that were void.
    pub void: u32,
}

/// What the validators know of a window when they score it.
#[derive(Default)]
struct Worked {
    window: Window,
    scale: f64,
    seen: Vec<Seen>,
}

struct World {
    chain: Chain,
    random: Random,
    windows: Window,
    next_key: u64,
    history: History,
    /// Who had which slot, by window.
    slots: BTreeMap<Window, BTreeMap<Uid, usize>>,
    /// The last medians of a slot, in typical gains.
    medians: BTreeMap<Uid, Gain>,
    /// What the first validator revealed last.
    shown: Vec<Evaluation>,
    worked: Worked,
}

/// Plays a scenario from one seed.
pub fn play(scenario: &Scenario, seed: u64) -> History {
    let mut world = World::begin(scenario, seed);
    // The last window's scores are revealed and settled in the one after it.
    for window in 0..=scenario.windows {
        world.window(window);
    }
    world.history
}

impl World {
    fn begin(scenario: &Scenario, seed: u64) -> World {
        let count: usize = scenario.miners.iter().map(|(_, count)| count).sum();
        let mut settings = settings(count);
        settings.incentive.standing = scenario.rule.standing;
        settings.incentive.consensus = scenario.rule.consensus;
        settings.incentive.power = scenario.rule.power;
        settings.incentive.evaluations_per_validator = scenario.evaluations;
        let mut next_key = 0;
        let mut keys = || {
            next_key += 1;
            Keys::new(next_key)
        };
        let empty = vec![0.0; scenario.windows as usize + 1];
        let kinds = scenario.miners.iter().flat_map(|(kind, count)| vec![*kind; *count]);
        let mut members: Vec<Member> = kinds
            .map(|conduct| Member {
                conduct,
                pay: empty.clone(),
                worked: vec![false; empty.len()],
                refused: 0,
                keys: keys(),
                slot: None,
                registered: 0,
                first_window: 0,
                update: None,
                gain: Gain::default(),
            })
            .collect();
        let kinds = scenario.validators.iter();
        let kinds = kinds.flat_map(|(kind, count, stake)| vec![(*kind, *stake); *count]);
        let mut judges: Vec<(Judge, u32)> = kinds
            .map(|(validation, stake)| {
                let (keys, pay) = (keys(), empty.clone());
                (Judge { validation, pay, keys, slot: None, committed: None }, stake)
            })
            .collect();
        let chain = Chain::begin(settings, |calls| {
            for member in members.iter_mut().filter(|member| member.conduct.joins() == 0) {
                calls.endow(&member.keys);
                member.slot = calls.register_miner(&member.keys);
                assert!(member.slot.is_some(), "there is room for every miner");
            }
            for (judge, stake) in &mut judges {
                calls.endow(&judge.keys);
                judge.slot = calls.register_validator(&judge.keys, *stake);
                assert!(judge.slot.is_some(), "there is room for every validator");
            }
        });
        let judges = judges.into_iter().map(|(judge, _)| judge).collect();
        World {
            chain,
            random: Random::new(seed, scenario.name),
            windows: scenario.windows,
            next_key,
            history: History { members, judges, minted: BTreeMap::new(), void: 0 },
            slots: BTreeMap::new(),
            medians: BTreeMap::new(),
            shown: Vec::new(),
            worked: Worked::default(),
        }
    }

    /// The four blocks of a window: commit, reveal, attest, apply; beside them the scores of the window before.
    fn window(&mut self, window: Window) {
        let works = window < self.windows;
        let scale = 1.0 + 0.15 * self.random.normal();
        self.choose_updates();
        let World { chain, random, history, slots, medians, shown, worked, next_key, .. } = self;
        let History { members, judges, .. } = history;

        let ((), mut events) = chain.block(|calls| {
            if works {
                come_and_go(calls, members, window, next_key, random);
                let held = members
                    .iter()
                    .enumerate()
                    .filter_map(|(at, member)| Some((member.slot_in(window)?, at)));
                slots.insert(window, held.collect());
                commit(calls, members, window);
            }
            commit_scores(calls, judges, worked, shown, random);
        });
        let (seen, more) = chain.block(|calls| {
            reveal_scores(calls, judges, worked, shown, random);
            reveal(calls, members, medians, window)
        });
        events.extend(more);
        let ((), more) = chain.block(|calls| {
            for judge in judges.iter().filter(|_| works) {
                let good = seen.iter().filter(|seen| judge.validation.attests(seen.conduct));
                let uids: Vec<Uid> = good.map(|seen| seen.uid).collect();
                calls.attest(&judge.keys, window, &uids);
            }
        });
        events.extend(more);
        let ((), more) = chain.block(|_| ());
        events.extend(more);
        *worked = Worked { window, scale: scale.max(0.3), seen };
        self.note(events);
    }

    /// What every miner will send.
    fn choose_updates(&mut self) {
        let World { random, history, .. } = self;
        let members = &mut history.members;
        let honest = |member: &&Member| member.conduct == Conduct::Honest;
        let sent: Vec<Update> =
            members.iter().filter(honest).filter_map(|member| member.update.clone()).collect();
        for member in members.iter_mut() {
            member.gain = member.conduct.gain(random).sampled(random);
            let source = sent.get(random.below(sent.len()));
            let update = match (member.conduct, source) {
                (Conduct::Copier, Some(source)) => source.copied(random),
                _ => Update::new(random),
            };
            member.update = Some(update);
        }
    }

    fn note(&mut self, events: Vec<Happened>) {
        for event in events {
            match event {
                Happened::Miner { window, uid, medians, paid, .. } => {
                    if let Some((own, random)) = medians {
                        self.medians.insert(uid, in_typical_gains(own, random));
                    }
                    let member = self.slots.get(&window).and_then(|slots| slots.get(&uid));
                    let pay = member.and_then(|at| self.history.members.get_mut(*at));
                    if let Some(pay) = pay.and_then(|found| found.pay.get_mut(window as usize)) {
                        *pay = paid;
                    }
                }
                Happened::Validator { window, index, paid } => {
                    let mut judges = self.history.judges.iter_mut();
                    let judge = judges.find(|judge| judge.slot == Some(index));
                    if let Some(pay) = judge.and_then(|found| found.pay.get_mut(window as usize)) {
                        *pay = paid;
                    }
                }
                Happened::Settled { window, minted } => {
                    self.history.minted.insert(window, minted);
                    self.slots.remove(&window);
                }
                Happened::Void { window } => {
                    self.history.void += 1;
                    self.slots.remove(&window);
                }
            }
        }
    }
}

impl Member {
    /// Its slot, if it takes part in a window.
    fn slot_in(&self, window: Window) -> Option<Uid> {
        self.slot.filter(|_| self.first_window <= window)
    }
}

/// Miners join, and leave and come back under new keys.
fn come_and_go(
    calls: &Calls,
    members: &mut [Member],
    window: Window,
    next_key: &mut u64,
    random: &mut Random,
) {
    for member in members {
        let age = window.saturating_sub(member.registered);
        match member.slot {
            Some(uid) if member.conduct.comes_back(age, random) => {
                if !calls.leave(&member.keys, uid) {
                    member.refused += 1;
                    continue;
                }
                member.slot = None;
                *next_key += 1;
                member.keys = Keys::new(*next_key);
            }
            None if member.conduct.joins() <= window => {}
            _ => continue,
        }
        calls.endow(&member.keys);
        member.slot = calls.register_miner(&member.keys);
        match member.slot {
            Some(uid) => {
                member.registered = window;
                member.first_window = calls.first_window(uid);
            }
            None => member.refused += 1,
        }
    }
}

fn commit(calls: &Calls, members: &mut [Member], window: Window) {
    for member in members {
        if let Some(update) = member.slot_in(window).and(member.update.as_ref()) {
            if !calls.commit(&member.keys, window, update) {
                member.refused += 1;
            }
        }
    }
}

/// Everybody reveals. Returns what validators then see.
fn reveal(
    calls: &Calls,
    members: &mut [Member],
    medians: &BTreeMap<Uid, Gain>,
    window: Window,
) -> Vec<Seen> {
    let mut seen = Vec::new();
    let Some(challenge) = calls.challenge(window) else {
        return seen;
    };
    for member in members {
        let (Some(uid), Some(update)) = (member.slot_in(window), &member.update) else {
            continue;
        };
        if !calls.reveal(&member.keys, uid, window, update, challenge) {
            member.refused += 1;
            continue;
        }
        if let Some(worked) = member.worked.get_mut(window as usize) {
            *worked = true;
        }
        let before = medians.get(&uid).copied();
        seen.push(Seen { uid, conduct: member.conduct, gain: member.gain, before });
    }
    seen
}

/// Validators measure what they are assigned, and commit to it.
fn commit_scores(
    calls: &Calls,
    judges: &mut [Judge],
    worked: &Worked,
    shown: &[Evaluation],
    random: &mut Random,
) {
    let uids: Vec<Uid> = worked.seen.iter().map(|seen| seen.uid).collect();
    let by_uid: BTreeMap<Uid, &Seen> = worked.seen.iter().map(|seen| (seen.uid, seen)).collect();
    let copied: BTreeMap<Uid, &Evaluation> =
        shown.iter().map(|evaluation| (evaluation.uid, evaluation)).collect();
    for judge in judges {
        let Some(index) = judge.slot.filter(|_| !uids.is_empty()) else {
            continue;
        };
        let assigned = calls.assigned(worked.window, index, &uids);
        let scores = assigned.iter().filter_map(|uid| {
            let (seen, copied) = (by_uid.get(uid)?, copied.get(uid).copied());
            judge.validation.score(seen, worked.scale, copied, random)
        });
        let scores: Vec<Evaluation> = scores.collect();
        let salt = random.hash();
        judge.committed = calls
            .commit_scores(&judge.keys, worked.window, &scores, salt)
            .then_some((scores, salt));
    }
}

fn reveal_scores(
    calls: &Calls,
    judges: &mut [Judge],
    worked: &Worked,
    shown: &mut Vec<Evaluation>,
    random: &mut Random,
) {
    for (at, judge) in judges.iter_mut().enumerate() {
        let Some((scores, salt)) = judge.committed.take() else {
            continue;
        };
        if judge.validation.reveals(random) {
            if at == 0 {
                *shown = scores.clone();
            }
            calls.reveal_scores(&judge.keys, worked.window, scores, salt);
        }
    }
}
