//! Plays small scenarios on the real runtime.

use protocol::settings::StandingKind;
use simulator::{
    miner::Conduct,
    plot, report,
    scenario::{Rule, Scenario},
    statistics::{fairness, gini, mean_fairness, mean_rows, rows, spread, Row},
    validator::Validation,
    world::{play, History},
};

/// Twelve windows with a few of everybody.
fn small(miners: Vec<(Conduct, usize)>) -> Scenario {
    Scenario {
        name: "small",
        miners,
        validators: vec![(Validation::Honest, 4, 1_000)],
        challengers: 0,
        windows: 14,
        evaluations: 64,
        rule: Rule::EXAMPLE,
    }
}

fn played(scenario: &Scenario) -> (History, Vec<Row>) {
    let history = play(scenario, 7);
    let rows = rows(scenario, &history);
    (history, rows)
}

fn row<'a>(rows: &'a [Row], kind: &str) -> &'a Row {
    rows.iter().find(|row| row.kind == kind).expect("the kind took part")
}

#[test]
fn honest_miners_are_paid_alike_and_garbage_is_not_paid() {
    let scenario = small(vec![(Conduct::Honest, 8), (Conduct::Garbage, 2), (Conduct::Lazy, 2)]);
    let (history, rows) = played(&scenario);
    assert_eq!((history.minted.len(), history.void), (14, 0));
    assert_eq!(row(&rows, "garbage").pay_long, 0.0);
    assert_eq!(row(&rows, "garbage").unpaid, 1.0);
    assert!(row(&rows, "lazy").pay_long < 1.0);
    let honest = fairness(&scenario, &history);
    assert!(honest.ratio_short < 3.0, "{honest:?}");
    assert_eq!(honest.blamed, 0.0);
    // Trust grows over 20 windows, and what a miner has no trust for yet is carried: of 14 windows about two thirds.
    assert!((0.2..0.6).contains(&honest.carried), "{honest:?}");
}

#[test]
fn one_seed_is_one_history() {
    let scenario = small(vec![(Conduct::Honest, 4), (Conduct::Churning, 3), (Conduct::Copier, 2)]);
    let pays = |seed| -> Vec<Vec<f64>> {
        play(&scenario, seed).members.into_iter().map(|member| member.pay).collect()
    };
    assert_eq!(pays(7), pays(7));
    assert_ne!(pays(7), pays(8));
}

#[test]
fn a_miner_that_comes_back_keeps_its_history_under_one_member() {
    let (history, _) = played(&small(vec![(Conduct::Honest, 4), (Conduct::Returning, 1)]));
    let returning = &history.members[4];
    // It registered before window 0 and again in window 10, with two slots in that one.
    assert!(returning.worked[..14].iter().all(|worked| *worked));
    assert_eq!(returning.refused, 0);
}

#[test]
fn colluders_with_a_quarter_of_the_stake_move_nothing() {
    let miners = vec![(Conduct::Honest, 6), (Conduct::Praised, 2)];
    let validators = vec![(Validation::Honest, 3, 1_000), (Validation::Colluding, 1, 1_000)];
    let (_, rows) = played(&Scenario { validators, ..small(miners) });
    assert_eq!(row(&rows, "praised garbage").pay_long, 0.0);
    assert!(row(&rows, "colluding").pay_long < 0.5, "{rows:?}");
}

#[test]
fn copies_cost_a_bond_of_which_the_reporter_has_half_and_needless_requests_cost_who_makes_them() {
    let miners = vec![(Conduct::Honest, 6), (Conduct::Copier, 1)];
    let scenario = Scenario { challengers: 2, ..small(miners) };
    let (history, rows) = played(&scenario);
    let [honest, copier] = ["honest", "copier"].map(|kind| row(&rows, kind));
    // Two faults take a half of the bond of ten each.
    assert!((copier.slashed - 10.0).abs() < 1e-6, "{copier:?}");
    assert!(copier.net < copier.pay_long, "{copier:?}");
    assert_eq!(honest.slashed, 0.0);
    let rewards: f64 = history.judges.iter().map(|judge| judge.rewards).sum();
    assert!((rewards - 5.0).abs() < 1e-6, "{rewards}");
    let (asked, answered) = history.challenges;
    assert!(asked >= 14 && asked == answered, "{asked} and {answered}");
    // Each answer costs a bond of one unit, which the miner has.
    let lost = history.challengers_lost;
    assert!((lost - f64::from(asked)).abs() < 1e-6, "{lost} for {asked}");
    let spent: f64 = history.members.iter().map(|member| member.spent).sum();
    let prices = 10.0 * history.members.len() as f64;
    assert!((spent - (prices + copier.slashed - lost)).abs() < 1e-6, "{spent}");
    let fairness = fairness(&scenario, &history);
    assert_eq!(fairness.requests, (asked, answered));
    assert_eq!(fairness.requests_cost, lost);
}

#[test]
fn a_near_copy_is_proven_as_far_as_positions_are_common() {
    // A run asks for all of sixteen positions.
    for (common, slashed) in [(16, 10.0), (15, 0.0), (0, 0.0)] {
        let kind = Conduct::NearCopy { uids: 3, common };
        let (history, rows) = played(&small(vec![(Conduct::Honest, 6), (kind, 3)]));
        // The owner's first uid was earlier.
        let lost: Vec<f64> = history.members[6..].iter().map(|member| member.slashed).collect();
        assert_eq!(lost, [0.0, slashed, slashed], "{common} in common");
        assert_eq!(row(&rows, "honest").slashed, 0.0);
        assert_eq!(row(&rows, &kind.name()).owners, 1);
    }
}

#[test]
fn a_grinder_has_the_better_draw_and_pays_for_every_choice() {
    let grinding = |rule, deviations| {
        let kind = Validation::Grinding { deviations };
        let miners = vec![(Conduct::Honest, 6), (Conduct::Favoured, 4)];
        let validators = vec![(Validation::Honest, 3, 1_000), (kind, 1, 1_000)];
        let (_, rows) = played(&Scenario { validators, rule, ..small(miners) });
        let [miner, validator] = ["favoured", kind.name()].map(|kind| row(&rows, kind));
        (miner.pay_long, validator.pay_long)
    };
    // The better draw shows where pay follows a match, and hardly where equals are paid alike.
    let match_of = Rule { standing: StandingKind::PlackettLuce, power: 1, ..Rule::EXAMPLE };
    let (miner, validator) = grinding(match_of, 0);
    assert!(miner > 1.1 && validator < 0.5, "{miner} and {validator}");
    let (miner, validator) = grinding(Rule::EXAMPLE, 0);
    assert!((miner - 1.0).abs() < 0.02 && validator < 0.5, "{miner} and {validator}");
    // Beyond twelve deviations there is nothing: it is honest.
    let (_, validator) = grinding(Rule::EXAMPLE, 13);
    assert!((validator - 1.0).abs() < 0.05, "{validator}");
}

#[test]
fn the_means_of_seeds_lie_between_the_least_and_the_most() {
    let scenario = small(vec![(Conduct::Honest, 5), (Conduct::Weak, 1)]);
    let histories = [1, 2, 3].map(|seed| play(&scenario, seed));
    let all = histories.each_ref().map(|history| rows(&scenario, history));
    let means = mean_rows(&all);
    let weak = row(&means, "weak");
    let pays = all.each_ref().map(|rows| row(rows, "weak").pay_long);
    assert!((weak.pay_long - pays.iter().sum::<f64>() / 3.0).abs() < 1e-12);
    let [least, most] = weak.pay_long_range;
    assert!(least < weak.pay_long && weak.pay_long < most, "{weak:?}");
    let ratios = histories.each_ref().map(|history| fairness(&scenario, history));
    let mean = mean_fairness(&ratios).expect("there are seeds");
    assert!(mean.ratios_most[1] > mean.ratio_long, "{mean:?}");
    assert!(mean_rows(&[]).is_empty() && mean_fairness(&[]).is_none());
}

#[test]
fn every_rule_settles_every_window() {
    for rule in Rule::ALL {
        let scenario = Scenario { rule, ..small(vec![(Conduct::Honest, 5), (Conduct::Weak, 1)]) };
        let (history, rows) = played(&scenario);
        assert_eq!((history.minted.len(), history.void), (14, 0), "{}", rule.name());
        let weak = row(&rows, "weak").pay_long;
        assert!(weak < 1.0, "{}: {weak}", rule.name());
        assert!(row(&rows, "honest").emission > 0.0);
    }
}

#[test]
fn every_scenario_plays_and_is_written_down() {
    let mut all_rows = Vec::new();
    let mut all_fairness = Vec::new();
    for scenario in Scenario::all(Rule::EXAMPLE) {
        let scenario = Scenario { windows: 3, ..scenario };
        let history = play(&scenario, 1);
        assert_eq!(history.minted.len(), 3, "{}", scenario.name);
        all_rows.extend(rows(&scenario, &history));
        all_fairness.push(fairness(&scenario, &history));
    }
    let folder = std::env::temp_dir().join(format!("simulator-test-{}", std::process::id()));
    report::write(&folder, &all_rows, &all_fairness).expect("the folder can be written");
    plot::write(&folder, &all_rows, &all_fairness).expect("the folder can be written");
    let csv = std::fs::read_to_string(folder.join("incentive.csv")).expect("it was written");
    assert_eq!(csv.lines().count(), all_rows.len() + 1);
    let svg = std::fs::read_to_string(folder.join("incentive.svg")).expect("it was written");
    assert!(svg.ends_with("</svg>\n") && svg.contains("near copy of 4"));
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

#[test]
fn equality_has_a_gini_of_nothing_and_a_spread_of_one() {
    assert!(gini(&[2.0, 2.0, 2.0]).abs() < 1e-12);
    assert!((gini(&[0.0, 0.0, 0.0, 4.0]) - 0.75).abs() < 1e-12);
    assert_eq!(gini(&[]), 0.0);
    assert_eq!(spread(&[1.0, 3.0]), 3.0);
}
