//! Plays small scenarios on the real runtime.

use simulator::{
    miner::Conduct,
    plot, report,
    scenario::{Rule, Scenario},
    statistics::{fairness, gini, rows, spread, Row},
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
fn copies_are_proven_and_cost_a_bond_and_needless_requests_cost_who_makes_them() {
    let miners = vec![(Conduct::Honest, 6), (Conduct::Copier, 1)];
    let (history, rows) = played(&Scenario { challengers: 2, ..small(miners) });
    assert!(row(&rows, "copier").slashed > 0.0, "{rows:?}");
    assert_eq!(row(&rows, "honest").slashed, 0.0);
    let (asked, answered) = history.challenges;
    assert!(asked >= 14 && asked == answered, "{asked} and {answered}");
    // Each answer costs a bond of one unit; half of a slash is the reporter's, who is one of them.
    let reward = row(&rows, "copier").slashed / 2.0;
    let lost = history.challengers_lost + reward;
    assert!((lost - f64::from(asked)).abs() < 1e-6, "{lost} for {asked}");
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
