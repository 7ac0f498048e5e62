//! Plays a scenario window by window, and keeps who was paid what.

use std::collections::BTreeMap;

use protocol::{consensus::Evaluation, settings::UID_MAX, Hash, Uid, ValidatorIndex, Window};

use crate::{
    chain::{settings, Calls, Chain, Happened, Keys, Update},
    miner::Conduct,
    random::Random,
    scenario::Scenario,
    truth::{Gain, SAMPLE_NOISE},
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
    /// What its slots and faults cost it, less what it was paid for needless requests, in units.
    pub spent: f64,
    /// Its place among the uids of its owner.
    place: u8,
    /// The update that it copied.
    source: Option<Source>,
    keys: Keys,
    /// What it was known by before.
    left: Vec<Keys>,
    slot: Option<Uid>,
    registered: Window,
    first_window: Window,
    /// Where it goes on when its slot, which it left, is over.
    next: Option<(Keys, Uid, Window)>,
    update: Option<Update>,
    gain: Gain,
}

/// An update that another one is a copy of.
#[derive(Clone)]
struct Source {
    window: Window,
    uid: Uid,
    update: Update,
}

/// A validator.
#[derive(Clone)]
pub struct Judge {
    /// What it does.
    pub validation: Validation,
    /// Its pay by window, in units.
    pub pay: Vec<f64>,
    /// What it was given for reports, in units.
    pub rewards: f64,
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
    /// What they cost who made them, in units.
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
    /// Those who ask for data.
    challengers: Vec<Keys>,
    /// Who had which slot, by window.
    slots: BTreeMap<Window, BTreeMap<Uid, usize>>,
    /// The last medians of a slot, in typical gains.
    medians: BTreeMap<Uid, Gain>,
    /// What the first validator revealed last.
    shown: Vec<Evaluation>,
    worked: Worked,
    /// What the other draw of samples would give a grinder's miners more, in standard deviations.
    better: f64,
}

/// Plays a scenario from one seed.
pub fn play(scenario: &Scenario, seed: u64) -> History {
    let mut world = World::begin(scenario, seed);
    // The last window's scores are revealed and settled in the one after it.
    for window in 0..=scenario.windows {
        world.window(window);
    }
    world.count_money();
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
        let incentive = &mut settings.incentive;
        incentive.evaluations_per_validator = scenario.evaluations;
        // As many as all permits together have room for.
        let room = u32::from(incentive.permits_max) * u32::from(scenario.evaluations);
        let evaluators = room / u32::from(incentive.uid_max);
        incentive.evaluators_per_miner = evaluators.clamp(1, 16) as u16;
        let mut next_key = 0;
        let mut keys = || {
            next_key += 1;
            Keys::new(next_key)
        };
        let empty = vec![0.0; scenario.windows as usize + 1];
        let kinds = scenario.miners.iter().flat_map(|(kind, count)| {
            (0..*count).map(|at| (*kind, (at % usize::from(kind.uids())) as u8))
        });
        let mut members: Vec<Member> = kinds
            .map(|(conduct, place)| Member {
                conduct,
                pay: empty.clone(),
                worked: vec![false; empty.len()],
                refused: 0,
                slashed: 0.0,
                spent: 0.0,
                place,
                source: None,
                keys: keys(),
                left: Vec::new(),
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
                (Judge { validation, pay, rewards: 0.0, keys, slot: None, committed: None }, stake)
            })
            .collect();
        let challengers: Vec<Keys> = (0..scenario.challengers).map(|_| keys()).collect();
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
            better: 0.0,
        }
    }

    /// What everybody gained and lost beside pay.
    fn count_money(&mut self) {
        let World { chain, history, challengers, .. } = self;
        let History { members, judges, challengers_lost, .. } = history;
        let _ = chain.block(|calls| {
            let lost = |keys: &Keys| Keys::ENDOWMENT_UNITS - calls.wealth(keys);
            for member in members.iter_mut().filter(|member| member.slot.is_some()) {
                let next = member.next.iter().map(|(keys, ..)| keys);
                let keys = member.left.iter().chain([&member.keys]).chain(next);
                member.spent = keys.map(lost).sum();
            }
            for judge in judges {
                judge.rewards = -lost(&judge.keys);
            }
            *challengers_lost = challengers.iter().map(lost).fold(0.0, |sum, lost| sum + lost);
        });
    }

    /// The six blocks of a window: commit; the challenge is drawn; reveal, commit to attestations, reveal them, apply; in
    /// the first two the scores of the window before.
    fn window(&mut self, window: Window) {
        let works = window < self.windows;
        let scale = 1.0 + 0.15 * self.random.normal();
        self.choose_updates(window);
        let World { chain, random, history, slots, medians, shown, worked, next_key, .. } = self;
        let better = self.better;
        let challengers = &self.challengers;
        let History { members, judges, challenges, .. } = history;

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
        let ((), more) =
            chain.block(|calls| reveal_scores(calls, judges, worked, shown, (better, random)));
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
        let good = |judge: &Judge| -> Vec<Uid> {
            let good = seen.iter().filter(|seen| judge.validation.attests(seen.conduct));
            good.map(|seen| seen.uid).collect()
        };
        let ((), more) = chain.block(|calls| {
            for judge in judges.iter().filter(|_| works) {
                calls.commit_attestation(&judge.keys, window, &good(judge));
            }
        });
        events.extend(more);
        let (asked, more) = chain.block(|calls| {
            for judge in judges.iter().filter(|_| works) {
                calls.reveal_attestation(&judge.keys, window, &good(judge));
            }
            report_copies(calls, judges, members, window);
            challenge(calls, challengers, members, window, random)
        });
        events.extend(more);
        let (answered, more) = chain.block(|calls| {
            let answers = asked.iter().filter(|at| answer(calls, &members[**at], window));
            answers.count() as u32
        });
        events.extend(more);
        challenges.0 += asked.len() as u32;
        challenges.1 += answered;
        *worked = Worked { window, scale: scale.max(0.3), seen };
        self.note(events);
    }

    /// What every miner will send.
    fn choose_updates(&mut self, window: Window) {
        let World { random, history, .. } = self;
        let members = &mut history.members;
        let sent: Vec<Source> = members
            .iter()
            .filter(|member| member.conduct == Conduct::Honest)
            .filter_map(|member| member.sent(window.checked_sub(1)?))
            .collect();
        // What the owner's first uid sends, and what that is worth.
        let mut first: Option<(Source, Gain)> = None;
        for member in members.iter_mut() {
            let mut gain = member.conduct.gain(random);
            let (update, source) = match (member.conduct, &first) {
                (Conduct::Copier, _) => match sent.get(random.below(sent.len())) {
                    Some(source) => (source.update.copied(random), Some(source.clone())),
                    None => (Update::new(random), None),
                },
                (Conduct::NearCopy { common, .. }, Some((source, worth))) if member.place > 0 => {
                    gain = *worth;
                    (source.update.near(common, random), Some(source.clone()))
                }
                _ => (Update::new(random), None),
            };
            (member.update, member.source) = (Some(update), source);
            if member.place == 0 {
                first = member.sent(window).map(|source| (source, gain));
            }
            member.gain = gain;
        }
        self.draw_samples(window);
    }

    /// Draws the samples of every evaluation. A grinder, where there is one, chooses between two draws of its miners'.
    fn draw_samples(&mut self, window: Window) {
        let World { random, history: History { members, judges, .. }, .. } = self;
        let grinder = judges.iter().find_map(|judge| match judge.validation {
            Validation::Grinding { deviations } => Some(f64::from(deviations)),
            _ => None,
        });
        let favoured = |member: &Member| member.conduct == Conduct::Favoured;
        let other: Vec<Gain> = members
            .iter()
            .filter(|member| favoured(member))
            .map(|member| member.gain.sampled(random))
            .collect();
        for member in members.iter_mut() {
            member.gain = member.gain.sampled(random);
        }
        self.better = 0.0;
        // The first window's scores are the first that can be withheld.
        let Some(deviations) = grinder.filter(|_| window > 0 && !other.is_empty()) else {
            return;
        };
        let own = members.iter().filter(|member| favoured(member)).map(|member| member.gain.random);
        let more = other.iter().map(|gain| gain.random).sum::<f64>() - own.sum::<f64>();
        self.better = more / (SAMPLE_NOISE * (2.0 * other.len() as f64).sqrt());
        if self.better > deviations {
            let own = members.iter_mut().filter(|member| favoured(member));
            own.zip(other).for_each(|(member, gain)| member.gain = gain);
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
    /// What it sends in a window, or sent in the one before.
    fn sent(&self, window: Window) -> Option<Source> {
        Some(Source { window, uid: self.slot?, update: self.update.clone()? })
    }

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
            member.left.push(std::mem::replace(&mut member.keys, keys));
            member.slot = Some(uid);
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
    (better, random): (f64, &mut Random),
) {
    for (at, judge) in judges.iter_mut().enumerate() {
        let Some((scores, salt)) = judge.committed.take() else {
            continue;
        };
        if judge.validation.reveals(better, random) {
            if at == 0 {
                *shown = scores.clone();
            }
            calls.reveal_scores(&judge.keys, worked.window, scores, salt);
        }
    }
}

/// The first honest validator, which saw both payloads, reports what looks like a copy. The chain decides whether it
/// is one.
fn report_copies(calls: &Calls, judges: &[Judge], members: &[Member], window: Window) {
    let honest = |judge: &&Judge| judge.validation == Validation::Honest;
    let Some(reporter) = judges.iter().find(honest) else {
        return;
    };
    for member in members {
        let worked = member.worked.get(window as usize) == Some(&true);
        let copied = member.source.as_ref().zip(member.slot).zip(member.update.as_ref());
        if let Some(((source, uid), update)) = copied.filter(|_| worked) {
            let original = (source.window, source.uid, &source.update);
            calls.report_copy(&reporter.keys, [original, (window, uid, update)]);
        }
    }
}

/// The challengers ask an honest miner each for what it revealed. Returns who was asked.
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
    challengers
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
