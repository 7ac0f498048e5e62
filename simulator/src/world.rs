//! Plays a scenario window by window, and keeps who was paid what.

use std::collections::BTreeMap;

use protocol::{consensus::Evaluation, settings::UID_MAX, Hash, Uid, ValidatorIndex, Window};

use crate::{
    chain::{settings, Calls, Chain, Happened, Keys, Update},
    miner::Conduct,
    random::Random,
    scenario::Scenario,
    truth::Gain,
    validator::{in_typical_gains, Seen, Validation},
};

/// A miner through all its registrations.
#[derive(Clone)]
pub struct Member {
    /// What it does.
    pub conduct: Conduct,
    /// Its pay by window, in units.
    pub pay: Vec<f64>,
    /// Whether it worked in a window: its reveal was taken.
    pub worked: Vec<bool>,
    /// Calls that the chain refused.
    pub refused: u32,
    /// What proven faults cost it, in units.
    pub slashed: f64,
    /// The update that it copied: its window and slot.
    source: Option<(Window, Uid)>,
    keys: Keys,
    slot: Option<Uid>,
    registered: Window,
    first_window: Window,
    /// Where it goes on when its slot, which it left, is over.
    next: Option<(Keys, Uid, Window)>,
    update: Option<Update>,
    gain: Gain,
}

/// A validator.
#[derive(Clone)]
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
#[derive(Clone)]
pub struct History {
    /// The miners.
    pub members: Vec<Member>,
    /// The validators.
    pub judges: Vec<Judge>,
    /// What each settled window minted, in units.
    pub minted: BTreeMap<Window, f64>,
    /// Windows that were void.
    pub void: u32,
    /// Requests for data without need: made, and answered.
    pub challenges: (u32, u32),
    /// What they cost who made them, less what reports of copies brought, in units.
    pub challengers_lost: f64,
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
    /// Those who ask for data; the last of them only reports copies.
    challengers: Vec<Keys>,
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
        // Who comes back has two slots for a window.
        let mut settings = settings((2 * count).min(usize::from(UID_MAX)));
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
                slashed: 0.0,
                source: None,
                keys: keys(),
                slot: None,
                registered: 0,
                first_window: 0,
                next: None,
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
        let challengers: Vec<Keys> = (0..=scenario.challengers).map(|_| keys()).collect();
        let chain = Chain::begin(settings, |calls| {
            challengers.iter().for_each(|keys| calls.endow(keys));
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
            history: History {
                members,
                judges,
                minted: BTreeMap::new(),
                void: 0,
                challenges: (0, 0),
                challengers_lost: 0.0,
            },
            challengers,
            slots: BTreeMap::new(),
            medians: BTreeMap::new(),
            shown: Vec::new(),
            worked: Worked::default(),
        }
    }

    /// The five blocks of a window: commit, the challenge's, reveal, attest, apply; beside them the scores of the window before.
    fn window(&mut self, window: Window) {
        let works = window < self.windows;
        let scale = 1.0 + 0.15 * self.random.normal();
        self.choose_updates(window);
        let World { chain, random, history, slots, medians, shown, worked, next_key, .. } = self;
        let challengers = &self.challengers;
        let History { members, judges, challenges, challengers_lost, .. } = history;

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
        let ((), more) = chain.block(|calls| reveal_scores(calls, judges, worked, shown, random));
        events.extend(more);
        let (seen, more) =
            chain.block(
                |calls| {
                    if works {
                        reveal(calls, members, medians, window)
                    } else {
                        Vec::new()
                    }
                },
            );
        events.extend(more);
        let (asked, more) = chain.block(|calls| {
            for judge in judges.iter().filter(|_| works) {
                let good = seen.iter().filter(|seen| judge.validation.attests(seen.conduct));
                let uids: Vec<Uid> = good.map(|seen| seen.uid).collect();
                calls.attest(&judge.keys, window, &uids);
            }
            report_copies(calls, challengers, members, window);
            challenge(calls, challengers, members, window, random)
        });
        events.extend(more);
        let ((answered, wealth), more) = chain.block(|calls| {
            let answers = asked.iter().filter(|at| answer(calls, &members[**at], window));
            let answered = answers.count() as u32;
            (answered, challengers.iter().map(|keys| calls.wealth(keys)).sum::<f64>())
        });
        events.extend(more);
        challenges.0 += asked.len() as u32;
        challenges.1 += answered;
        *challengers_lost = Keys::ENDOWMENT_UNITS * challengers.len() as f64 - wealth;
        *worked = Worked { window, scale: scale.max(0.3), seen };
        self.note(events);
    }

    /// What every miner will send.
    fn choose_updates(&mut self, window: Window) {
        let World { random, history, .. } = self;
        let members = &mut history.members;
        let honest = |member: &&Member| member.conduct == Conduct::Honest;
        let sent: Vec<(Update, Option<Uid>)> = members
            .iter()
            .filter(honest)
            .filter_map(|member| Some((member.update.clone()?, member.slot)))
            .collect();
        for member in members.iter_mut() {
            member.gain = member.conduct.gain(random).sampled(random);
            let source = sent.get(random.below(sent.len()));
            let update = match (member.conduct, source) {
                (Conduct::Copier, Some((source, uid))) => {
                    member.source = window.checked_sub(1).zip(*uid);
                    source.copied(random)
                }
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
                Happened::Slashed { uid, amount } => {
                    let mut members = self.history.members.iter_mut();
                    if let Some(member) = members.find(|member| member.slot == Some(uid)) {
                        member.slashed += amount;
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

/// Miners join; some leave at the end of the window, and have a new slot from then on under new keys.
fn come_and_go(
    calls: &Calls,
    members: &mut [Member],
    window: Window,
    next_key: &mut u64,
    random: &mut Random,
) {
    for member in members {
        if let Some((keys, uid, first)) = member.next.take_if(|(_, _, first)| *first <= window) {
            (member.keys, member.slot) = (keys, Some(uid));
            (member.registered, member.first_window) = (first, first);
        }
        let age = window.saturating_sub(member.registered);
        let keys = match member.slot {
            None if member.conduct.joins() <= window => member.keys.clone(),
            Some(_) if member.next.is_none() && member.conduct.comes_back(age, random) => {
                *next_key += 1;
                Keys::new(*next_key)
            }
            _ => continue,
        };
        calls.endow(&keys);
        let Some(uid) = calls.register_miner(&keys) else {
            member.refused += 1;
            continue;
        };
        let first = calls.first_window(uid);
        match member.slot {
            None => {
                (member.slot, member.registered, member.first_window) = (Some(uid), first, first);
            }
            Some(left) => {
                member.refused += u32::from(!calls.leave(&member.keys, left));
                member.next = Some((keys, uid, first));
            }
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

/// The last of the challengers, who saw both payloads, proves the copies of a window.
fn report_copies(calls: &Calls, challengers: &[Keys], members: &[Member], window: Window) {
    let Some(reporter) = challengers.last() else {
        return;
    };
    for member in members {
        let worked = member.worked.get(window as usize) == Some(&true);
        let copied = member.source.zip(member.slot).zip(member.update.as_ref());
        if let Some(((source, uid), update)) = copied.filter(|_| worked) {
            calls.report_copy(reporter, [source, (window, uid)], update);
        }
    }
}

/// All but the last of the challengers ask an honest miner each for what it revealed. Returns who was asked.
fn challenge(
    calls: &Calls,
    challengers: &[Keys],
    members: &[Member],
    window: Window,
    random: &mut Random,
) -> Vec<usize> {
    let worked = |member: &Member| member.worked.get(window as usize) == Some(&true);
    let honest = |member: &Member| member.conduct == Conduct::Honest && worked(member);
    let targets: Vec<usize> =
        members.iter().enumerate().filter(|(_, member)| honest(member)).map(|(at, _)| at).collect();
    let griefers = challengers.split_last().map_or(&[][..], |(_, griefers)| griefers);
    griefers
        .iter()
        .filter_map(|challenger| {
            let target = *targets.get(random.below(targets.len()))?;
            let uid = members.get(target)?.slot?;
            calls.challenge_data(challenger, window, uid).then_some(target)
        })
        .collect()
}

/// Shows what was asked for.
fn answer(calls: &Calls, member: &Member, window: Window) -> bool {
    let work = member.slot.zip(member.update.as_ref());
    work.is_some_and(|(uid, update)| calls.answer_data(&member.keys, window, uid, update))
}
