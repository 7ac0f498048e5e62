//! Lists the scenarios: who takes part, under which rule, for how long.

use protocol::settings::{ConsensusKind, StandingKind, YumaSettings};

use crate::{miner::Conduct, validator::Validation};

/// Who is paid how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Which number a standing is.
    pub standing: StandingKind,
    /// How evaluations become shares.
    pub consensus: ConsensusKind,
    /// Shares are proportional to the standing to this power.
    pub power: u8,
}

impl Rule {
    /// The settings' example.
    pub const EXAMPLE: Rule =
        Rule { standing: StandingKind::Gain, consensus: ConsensusKind::Gauntlet, power: 16 };

    /// Every rule that is compared.
    pub const ALL: [Rule; 5] = [
        Rule::EXAMPLE,
        Rule { power: 1, ..Rule::EXAMPLE },
        Rule { standing: StandingKind::PlackettLuce, ..Rule::EXAMPLE },
        Rule { standing: StandingKind::PlackettLuce, power: 1, ..Rule::EXAMPLE },
        Rule { consensus: ConsensusKind::Yuma(YumaSettings::UPSTREAM), power: 1, ..Rule::EXAMPLE },
    ];

    /// Its name in tables.
    pub fn name(&self) -> String {
        let standing = match (self.consensus, self.standing) {
            (ConsensusKind::Yuma(_), _) => "Yuma",
            (ConsensusKind::Gauntlet, StandingKind::Gain) => "gain",
            (ConsensusKind::Gauntlet, StandingKind::PlackettLuce) => "Plackett-Luce",
        };
        format!("{standing}^{}", self.power)
    }
}

/// One population under one rule.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name in tables.
    pub name: &'static str,
    /// How many miners of which kind.
    pub miners: Vec<(Conduct, usize)>,
    /// How many validators of which kind, with how many units of stake each.
    pub validators: Vec<(Validation, usize, u32)>,
    /// Who asks a random honest miner for data in every window, without need.
    pub challengers: usize,
    /// Windows that are settled.
    pub windows: u64,
    /// Miners that a validator evaluates.
    pub evaluations: u16,
    /// The rule.
    pub rule: Rule,
}

/// Honest miners of an attack's scenario.
const HONEST: usize = 40;
/// Stake of a validator in units.
const STAKE: u32 = 1_000;
/// Windows of a scenario: those of the long aim, and some more to see what lasts.
const WINDOWS: u64 = 110;

impl Scenario {
    /// Forty honest miners and `miners`, twelve honest validators.
    fn against(name: &'static str, miners: Vec<(Conduct, usize)>) -> Scenario {
        let mut all = vec![(Conduct::Honest, HONEST)];
        all.extend(miners);
        Scenario {
            name,
            miners: all,
            validators: vec![(Validation::Honest, 12, STAKE)],
            challengers: 0,
            windows: WINDOWS,
            evaluations: 64,
            rule: Rule::EXAMPLE,
        }
    }

    /// Forty honest miners, and one computation under four names, with so many of sixteen positions in common.
    fn near_copy(name: &'static str, common: u8) -> Scenario {
        Scenario::against(name, vec![(Conduct::NearCopy { uids: 4, common }, 4)])
    }

    /// Forty honest miners, twelve validators of which `count` are of another kind, and the miners that these work for.
    fn judged_by(name: &'static str, kind: Validation, count: usize) -> Scenario {
        let friends = match kind {
            Validation::Colluding => vec![(Conduct::Praised, 6)],
            Validation::Grinding { .. } => vec![(Conduct::Favoured, 12)],
            _ => vec![],
        };
        Scenario {
            validators: vec![(Validation::Honest, 12 - count, STAKE), (kind, count, STAKE)],
            ..Scenario::against(name, friends)
        }
    }

    /// The scenarios under one rule.
    pub fn all(rule: Rule) -> Vec<Scenario> {
        let attacks = [
            Scenario::against("equal", vec![]),
            Scenario::against("weak", vec![(Conduct::Weak, 4)]),
            Scenario::against("noisy", vec![(Conduct::Noisy, 4)]),
            Scenario::against("newcomer", vec![(Conduct::Newcomer, 4)]),
            Scenario::against("lazy", vec![(Conduct::Lazy, 4)]),
            Scenario::against("garbage", vec![(Conduct::Garbage, 4)]),
            Scenario::against("copier", vec![(Conduct::Copier, 4)]),
            Scenario::against("free rider", vec![(Conduct::FreeRider, 4)]),
            Scenario::against("returning", vec![(Conduct::Returning, 4)]),
            Scenario::near_copy("near copy, same places", 16),
            Scenario::near_copy("near copy, three quarters", 12),
            Scenario::near_copy("near copy, other places", 0),
            Scenario::against("split", vec![(Conduct::Split { uids: 4 }, 4)]),
            Scenario::against("churn", vec![(Conduct::Churning, 12)]),
            Scenario::judged_by("collusion below", Validation::Colluding, 3),
            Scenario::judged_by("collusion above", Validation::Colluding, 7),
            Scenario::judged_by("blame by a third", Validation::Blaming, 4),
            Scenario::judged_by("repeats medians", Validation::Repeating, 2),
            Scenario::judged_by("copies scores", Validation::Copying, 2),
            Scenario::judged_by("absent", Validation::Absent, 2),
            Scenario::judged_by("salt grinder", Validation::Grinding { deviations: 0 }, 1),
            Scenario::judged_by("rare grinder", Validation::Grinding { deviations: 2 }, 1),
            Scenario { challengers: 4, ..Scenario::against("griefing", vec![]) },
        ];
        attacks.into_iter().map(|scenario| Scenario { rule, ..scenario }).collect()
    }

    /// The largest run that the types allow: every kind of miner at once.
    pub fn largest(miners: usize, windows: u64) -> Scenario {
        let part = |parts: usize| miners * parts / 64;
        let mut kinds = vec![
            (Conduct::Weak, part(4)),
            (Conduct::Noisy, part(4)),
            (Conduct::Lazy, part(4)),
            (Conduct::Garbage, part(2)),
            (Conduct::Copier, part(2)),
            (Conduct::FreeRider, part(2)),
            (Conduct::Returning, part(1)),
            (Conduct::NearCopy { uids: 4, common: 0 }, part(2)),
            (Conduct::Split { uids: 4 }, part(2)),
        ];
        let others: usize = kinds.iter().map(|(_, count)| count).sum();
        kinds.insert(0, (Conduct::Honest, miners - others));
        Scenario {
            name: "largest",
            miners: kinds,
            validators: vec![(Validation::Honest, 64, STAKE)],
            challengers: 0,
            windows,
            evaluations: 256,
            rule: Rule::EXAMPLE,
        }
    }
}
