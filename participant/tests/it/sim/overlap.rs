//! Runs whose miners train in the next window while their updates travel. What holds without holds here: every honest
//! update is against the θ of an independent replay, every window has a final root, and what was committed to is
//! opened.

use participant::miner::adversary_kind::AdversaryKind;

use super::{
    faults::{Fault, FaultKind},
    story::{moment, Plan, Summary},
    tell,
};

/// A story without faults in which training overlaps.
fn overlapping(seed: u64, windows: u64) -> Plan {
    Plan { overlap: true, ..Plan::calm(seed, windows) }
}

/// Windows that each miner trained before their θ had arrived, by miner.
fn ahead_of(summary: &Summary, who: usize) -> Vec<u64> {
    summary.ahead.iter().filter(|(miner, _)| *miner == who).map(|(_, window)| *window).collect()
}

#[test]
fn every_window_but_the_first_is_trained_before_its_theta_is_there() {
    let plan = overlapping(1, 4);
    let (miners, windows) = (plan.miners, plan.windows);
    let summary = tell(plan);
    assert_eq!(summary.accepted, summary.accepted_max, "{summary:?}");
    assert_eq!(summary.finals, windows as usize, "{summary:?}");
    for who in 0..miners {
        // The story ends in window 4, which may be trained by then.
        let ahead = ahead_of(&summary, who);
        assert!(ahead.starts_with(&[1, 2, 3]), "{who}: {ahead:?}, {:#?}", summary.missed);
    }
}

#[test]
fn without_the_setting_nobody_trains_before_theta_is_there() {
    let summary = tell(Plan::calm(1, 3));
    assert!(summary.ahead.is_empty(), "{summary:?}");
}

#[test]
fn a_withheld_update_is_no_part_of_what_corrects_the_others() {
    for finality_lag in [0, 2] {
        let adversary = Some(AdversaryKind::Withholder);
        let plan = Plan { adversary, finality_lag, ..overlapping(2, 4) };
        let (honest, windows) = (plan.miners, plan.windows as usize);
        let summary = tell(plan);
        assert_eq!((summary.finals, summary.accepted), (windows, honest * windows), "{summary:?}");
        assert!(ahead_of(&summary, 0).starts_with(&[1, 2, 3]), "{summary:?}");
    }
}

/// One is killed when it has trained ahead and θ has not come, one when its update of the window before is not
/// revealed yet: both train from θ as ever, in the same window, and lose nothing.
#[test]
fn who_is_killed_in_the_middle_trains_from_theta() {
    let killed = |who, from, until| Fault {
        kind: FaultKind::Killed,
        whom: vec![who],
        from: moment(2, from),
        until: moment(2, until),
    };
    let plan = Plan { faults: vec![killed(0, 20, 21), killed(1, 13, 14)], ..overlapping(3, 6) };
    let summary = tell(plan);
    assert_eq!(summary.accepted, summary.accepted_max, "{:#?}", summary.missed);
    for who in [0, 1] {
        let ahead = ahead_of(&summary, who);
        assert!(!ahead.contains(&3), "{who}: {ahead:?}");
        assert!(ahead.contains(&2) && ahead.contains(&4), "{who}: {ahead:?}");
    }
    assert!(ahead_of(&summary, 2).contains(&3), "{summary:?}");
}

#[test]
fn faults_of_every_kind_are_survived_with_overlap() {
    let summary = tell(Plan { overlap: true, ..Plan::drawn(4) });
    assert!(!summary.ahead.is_empty(), "{summary:?}");
}
