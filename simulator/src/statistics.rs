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
    /// The same, least and most over the seeds.
    pub pay_long_range: [f64; 2],
    /// What an owner had of all windows after slots and faults were paid, in honest ones.
    pub net: f64,
    /// The same, least and most over the seeds.
    pub net_range: [f64; 2],
    /// What an owner was paid in all windows, in units.
    pub units: f64,
    /// What an owner spends, in honest ones.
    pub cost: f64,
    /// Part of the windows from the tenth on in which it was paid nothing: it was found out.
    pub unpaid: f64,
    /// Part of all emission for the role that the kind took.
    pub emission: f64,
    /// What proven faults cost an owner, in units.
    pub slashed: f64,
    /// What reports of faults brought an owner, in units.
    pub rewards: f64,
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
    /// Both, the most over the seeds.
    pub ratios_most: [f64; 2],
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
    /// Needless requests for data: made, and answered.
    pub requests: (u32, u32),
    /// What they cost who made them, in units.
    pub requests_cost: f64,
}

/// Windows of which nothing is said about being found out.
const GRACE: usize = 10;

fn paid(pay: &[f64], windows: usize) -> f64 {
    earned(pay, 0, windows)
}

fn earned(pay: &[f64], from: usize, to: usize) -> f64 {
    pay.iter().take(to).skip(from).sum()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 {
        sum / count
    } else {
        0.0
    }
}

/// 0 where there is next to nothing to compare with.
fn ratio(a: f64, b: f64) -> f64 {
    if b > a * 1e-3 && b > 0.0 {
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
            let left = |members: &[&Member]| {
                let spent = mean(members.iter().map(|member| member.spent));
                mean(members.iter().map(|member| earned(&member.pay, first, windows))) - spent
            };
            let (pay_long, net) = (relative(LONG), uids * ratio(left(members), left(&honest)));
            Row {
                scenario: scenario.name,
                rule: scenario.rule.name(),
                kind: conduct.name(),
                role: "miner",
                owners: members.len() / usize::from(conduct.uids()),
                pay_short: relative(SHORT),
                pay_long,
                pay_long_range: [pay_long; 2],
                net,
                net_range: [net; 2],
                units: uids * mean(members.iter().map(|member| paid(&member.pay, windows))),
                cost: conduct.cost(),
                unpaid: unpaid(members, windows),
                rewards: 0.0,
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
    let mut rewards: BTreeMap<Validation, f64> = BTreeMap::new();
    for judge in &history.judges {
        kinds.entry(judge.validation).or_default().push(&judge.pay);
        *rewards.entry(judge.validation).or_default() += judge.rewards;
    }
    let windows = scenario.windows as usize;
    let all: f64 = history.judges.iter().map(|judge| paid(&judge.pay, windows)).sum();
    let of = |kind: &[&[f64]], length: usize| mean(kind.iter().map(|pay| paid(pay, length)));
    let honest = kinds.get(&Validation::Honest).cloned().unwrap_or_default();
    let row = |(validation, kind): (&Validation, &Vec<&[f64]>)| {
        let later = kind.iter().flat_map(|pay| pay.iter().take(windows).skip(GRACE));
        let pay_long = ratio(of(kind, LONG), of(&honest, LONG));
        // No validator pays for its slot.
        let net = ratio(of(kind, windows), of(&honest, windows));
        Row {
            scenario: scenario.name,
            rule: scenario.rule.name(),
            kind: validation.name().into(),
            role: "validator",
            owners: kind.len(),
            pay_short: ratio(of(kind, SHORT), of(&honest, SHORT)),
            pay_long,
            pay_long_range: [pay_long; 2],
            net,
            net_range: [net; 2],
            units: of(kind, windows),
            cost: validation.cost(),
            rewards: rewards.get(validation).copied().unwrap_or(0.0) / kind.len() as f64,
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
    let (ratio_short, ratio_long) = (spread(&short), spread(&long));
    Fairness {
        scenario: scenario.name,
        rule: scenario.rule.name(),
        ratio_short,
        ratio_long,
        ratios_most: [ratio_short, ratio_long],
        gini_short: gini(&short),
        gini_long: gini(&long),
        blamed: unpaid(&honest, windows),
        carried: 1.0 - ratio(miners + validators, 0.9 * minted),
        void: history.void,
        requests: history.challenges,
        requests_cost: history.challengers_lost,
    }
}

/// The means over several seeds of one scenario's rows, which are the same kinds in the same order.
pub fn mean_rows(seeds: &[Vec<Row>]) -> Vec<Row> {
    let Some(first) = seeds.first() else {
        return Vec::new();
    };
    let row = |(at, row): (usize, &Row)| {
        let all = || seeds.iter().filter_map(move |rows| rows.get(at));
        let of = |value: fn(&Row) -> f64| mean(all().map(value));
        Row {
            pay_short: of(|row| row.pay_short),
            pay_long: of(|row| row.pay_long),
            pay_long_range: range(all().map(|row| row.pay_long)),
            net: of(|row| row.net),
            net_range: range(all().map(|row| row.net)),
            units: of(|row| row.units),
            unpaid: of(|row| row.unpaid),
            emission: of(|row| row.emission),
            slashed: of(|row| row.slashed),
            rewards: of(|row| row.rewards),
            ..row.clone()
        }
    };
    first.iter().enumerate().map(row).collect()
}

/// The means over several seeds of one scenario; of counts the sums. `None` without a seed.
pub fn mean_fairness(seeds: &[Fairness]) -> Option<Fairness> {
    let of = |value: fn(&Fairness) -> f64| mean(seeds.iter().map(value));
    let most = |value: fn(&Fairness) -> f64| seeds.iter().map(value).fold(0.0, f64::max);
    let first = seeds.first()?.clone();
    Some(Fairness {
        ratio_short: of(|row| row.ratio_short),
        ratio_long: of(|row| row.ratio_long),
        ratios_most: [most(|row| row.ratio_short), most(|row| row.ratio_long)],
        gini_short: of(|row| row.gini_short),
        gini_long: of(|row| row.gini_long),
        blamed: of(|row| row.blamed),
        carried: of(|row| row.carried),
        void: seeds.iter().map(|row| row.void).sum(),
        requests: (
            seeds.iter().map(|row| row.requests.0).sum(),
            seeds.iter().map(|row| row.requests.1).sum(),
        ),
        requests_cost: seeds.iter().map(|row| row.requests_cost).sum(),
        ..first
    })
}

fn range(values: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    [values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max)]
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
