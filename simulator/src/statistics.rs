//! Says what a scenario meant for whom, in the pay of an honest miner or validator.

use std::collections::BTreeMap;

use crate::{
    miner::Conduct,
    scenario::Scenario,
    validator::Validation,
    world::{History, Member},
};

/// The windows of the two aims.
pub const SHORT: usize = 12;
/// See [`SHORT`].
pub const LONG: usize = 100;

/// What a kind of miner, or of validator, got.
#[derive(Clone, Debug)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// The rule.
    pub rule: String,
    /// The kind.
    pub kind: String,
    /// `miner` or `validator`.
    pub role: &'static str,
    /// Owners of the kind; an owner may have several uids.
    pub owners: usize,
    /// What an owner was paid in the first windows, in honest ones.
    pub pay_short: f64,
    /// What an owner was paid in many windows, in honest ones.
    pub pay_long: f64,
    /// What an owner spends, in honest ones.
    pub cost: f64,
    /// Part of the windows from the tenth on in which it was paid nothing: it was found out.
    pub unpaid: f64,
    /// Part of all emission for the role that the kind took.
    pub emission: f64,
    /// What proven faults cost an owner, in units.
    pub slashed: f64,
}

/// How equal miners fared.
#[derive(Clone, Debug)]
pub struct Fairness {
    /// The scenario.
    pub scenario: &'static str,
    /// The rule.
    pub rule: String,
    /// Largest over smallest pay of honest miners in the first windows; infinite where one had none.
    pub ratio_short: f64,
    /// The same in many windows.
    pub ratio_long: f64,
    /// The Gini coefficient of the same in the first windows.
    pub gini_short: f64,
    /// The same in many windows.
    pub gini_long: f64,
    /// Part of the honest miners' worked windows from the tenth on in which they were paid nothing.
    pub blamed: f64,
    /// Part of the emission that nobody was paid, of miners and validators together.
    pub carried: f64,
    /// Windows that were void.
    pub void: u32,
}

/// Windows of which nothing is said about being found out.
const GRACE: usize = 10;

fn paid(pay: &[f64], windows: usize) -> f64 {
    pay.iter().take(windows).sum()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 {
        sum / count
    } else {
        0.0
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 {
        a / b
    } else {
        0.0
    }
}

/// The part of worked windows after the grace without pay.
fn unpaid(members: &[&Member], windows: usize) -> f64 {
    let worked = members.iter().flat_map(|member| {
        let rows = member.worked.iter().zip(&member.pay).enumerate();
        rows.filter(move |(window, (worked, _))| **worked && (GRACE..windows).contains(window))
    });
    mean(worked.map(|(_, (_, pay))| if *pay > 0.0 { 0.0 } else { 1.0 }))
}

/// Pay of members in the windows after they joined, per uid and window.
fn rate(members: &[&Member], from: usize, to: usize) -> f64 {
    mean(members.iter().flat_map(|member| member.pay.get(from..to).unwrap_or_default()).copied())
}

/// Rows for every kind of miner and validator.
pub fn rows(scenario: &Scenario, history: &History) -> Vec<Row> {
    let mut kinds: BTreeMap<Conduct, Vec<&Member>> = BTreeMap::new();
    for member in &history.members {
        kinds.entry(member.conduct).or_default().push(member);
    }
    let windows = scenario.windows as usize;
    let honest = kinds.get(&Conduct::Honest).cloned().unwrap_or_default();
    let all: f64 = history.members.iter().map(|member| paid(&member.pay, windows)).sum();
    let mut rows: Vec<Row> = kinds
        .iter()
        .map(|(conduct, members)| {
            let first = conduct.joins() as usize;
            let uids = f64::from(conduct.uids());
            let relative = |length: usize| {
                let (from, to) = (first.min(windows), (first + length).min(windows));
                uids * ratio(rate(members, from, to), rate(&honest, from, to))
            };
            Row {
                scenario: scenario.name,
                rule: scenario.rule.name(),
                kind: conduct.name(),
                role: "miner",
                owners: members.len() / usize::from(conduct.uids()),
                pay_short: relative(SHORT),
                pay_long: relative(LONG),
                cost: conduct.cost(),
                unpaid: unpaid(members, windows),
                slashed: uids * mean(members.iter().map(|member| member.slashed)),
                emission: ratio(members.iter().map(|m| paid(&m.pay, windows)).sum(), all),
            }
        })
        .collect();
    rows.extend(judges(scenario, history));
    rows
}

fn judges(scenario: &Scenario, history: &History) -> Vec<Row> {
    let mut kinds: BTreeMap<Validation, Vec<&[f64]>> = BTreeMap::new();
    for judge in &history.judges {
        kinds.entry(judge.validation).or_default().push(&judge.pay);
    }
    let windows = scenario.windows as usize;
    let all: f64 = history.judges.iter().map(|judge| paid(&judge.pay, windows)).sum();
    let of = |kind: &[&[f64]], length: usize| mean(kind.iter().map(|pay| paid(pay, length)));
    let honest = kinds.get(&Validation::Honest).cloned().unwrap_or_default();
    let row = |(validation, kind): (&Validation, &Vec<&[f64]>)| {
        let later = kind.iter().flat_map(|pay| pay.iter().take(windows).skip(GRACE));
        Row {
            scenario: scenario.name,
            rule: scenario.rule.name(),
            kind: validation.name().into(),
            role: "validator",
            owners: kind.len(),
            pay_short: ratio(of(kind, SHORT), of(&honest, SHORT)),
            pay_long: ratio(of(kind, LONG), of(&honest, LONG)),
            cost: validation.cost(),
            unpaid: mean(later.map(|pay| if *pay > 0.0 { 0.0 } else { 1.0 })),
            slashed: 0.0,
            emission: ratio(kind.iter().map(|pay| paid(pay, windows)).sum(), all),
        }
    };
    kinds.iter().map(row).collect()
}

/// How the honest miners fared among themselves.
pub fn fairness(scenario: &Scenario, history: &History) -> Fairness {
    let windows = scenario.windows as usize;
    let honest: Vec<&Member> =
        history.members.iter().filter(|member| member.conduct == Conduct::Honest).collect();
    let sums = |length: usize| honest.iter().map(move |member| paid(&member.pay, length));
    let (short, long): (Vec<f64>, Vec<f64>) = (sums(SHORT).collect(), sums(LONG).collect());
    let miners = history.members.iter().map(|member| paid(&member.pay, windows)).sum::<f64>();
    let validators = history.judges.iter().map(|judge| paid(&judge.pay, windows)).sum::<f64>();
    let minted: f64 = history.minted.range(..scenario.windows).map(|(_, minted)| minted).sum();
    Fairness {
        scenario: scenario.name,
        rule: scenario.rule.name(),
        ratio_short: spread(&short),
        ratio_long: spread(&long),
        gini_short: gini(&short),
        gini_long: gini(&long),
        blamed: unpaid(&honest, windows),
        carried: 1.0 - ratio(miners + validators, 0.9 * minted),
        void: history.void,
    }
}

/// Largest over smallest; infinite where somebody has nothing, 1 where all have nothing.
pub fn spread(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(0.0, f64::max);
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    if largest > 0.0 {
        largest / smallest
    } else {
        1.0
    }
}

/// Half of the mean difference between two, in means: 0 where all are equal.
pub fn gini(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (count, sum) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    let ranked: f64 = (1u32..).zip(&sorted).map(|(rank, value)| f64::from(rank) * value).sum();
    ratio(2.0 * ranked, count * sum) - if sum > 0.0 { (count + 1.0) / count } else { 0.0 }
}
