//! kill -9 of a miner, of a validator, restart of the node: the run continues, and what was killed takes part again.

use gauntlet::commands::localnet::report::LocalnetReport;
use participant::diary::{DiaryRecord, Duty};

use crate::localnet::{is_alive, Localnet};

/// Two of three validators are enough, so that a window survives the death of one.
const OPTIONS: [&str; 3] = ["--miners=2", "--validators=3", "--windows=4"];

fn uid_of(report: &LocalnetReport, name: &str) -> u16 {
    report.participants.iter().find(|participant| participant.name == name).unwrap().uid
}

fn accepted_last(report: &LocalnetReport, name: &str) -> bool {
    report.windows.last().unwrap().accepted.contains(&uid_of(report, name))
}

#[test]
fn a_killed_miner_catches_up_and_is_accepted_again() {
    let mut localnet = Localnet::start(&OPTIONS);
    // Between its commitment and its reveal: the worst moment.
    localnet.wait_for("miner-1", |line| {
        matches!(line, DiaryRecord::Done { window: 1, duty: Duty::Commit, .. })
    });
    localnet.signal("miner-1", "-KILL");
    let (status, report, _localnet) = localnet.finish();
    assert!(status.success() && report.ok, "{:#?}", report.problems);
    assert_eq!(report.restarts.len(), 1, "{:?}", report.restarts);
    assert!(accepted_last(&report, "miner-1"), "{:#?}", report.windows);
}

#[test]
fn a_killed_validator_catches_up_and_is_paid_again() {
    let mut localnet = Localnet::start(&OPTIONS);
    // Between its scores' commitment and their reveal.
    localnet.wait_for("validator-2", |line| {
        matches!(line, DiaryRecord::Done { window: 0, duty: Duty::Score, .. })
    });
    localnet.signal("validator-2", "-KILL");
    let (status, report, _localnet) = localnet.finish();
    assert!(status.success() && report.ok, "{:#?}", report.problems);
    assert_eq!(report.restarts.len(), 1, "{:?}", report.restarts);
    let account = &report
        .participants
        .iter()
        .find(|participant| participant.name == "validator-2")
        .unwrap()
        .account;
    let paid_last = report.windows.last().unwrap().payouts.get(account).copied().unwrap_or(0);
    assert!(paid_last > 0, "{:#?}", report.windows);
}

#[test]
fn the_run_goes_on_after_the_node_restarts_and_the_audit_agrees() {
    let mut localnet = Localnet::start(&OPTIONS);
    localnet.wait_for("miner-0", |line| matches!(line, DiaryRecord::Trained { window: 1, .. }));
    localnet.signal("node", "-TERM");
    let (_, report, localnet) = localnet.finish();
    assert_eq!(report.restarts.len(), 1, "{:?}", report.restarts);
    // The window of the restart may have been missed by somebody; the last one was not.
    for name in ["miner-0", "miner-1"] {
        assert!(accepted_last(&report, name), "{:#?}", report.windows);
    }
    let (code, text) = localnet.audit();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn nothing_is_left_when_the_localnet_is_killed() {
    let mut localnet = Localnet::start(&["--miners=1", "--validators=1", "--windows=3"]);
    localnet.wait_for("miner-0", |line| matches!(line, DiaryRecord::Started { .. }));
    localnet.wait_for("validator-0", |line| matches!(line, DiaryRecord::Started { .. }));
    let ids = ["node", "miner-0", "validator-0"].map(|process| localnet.process_id(process));
    assert!(ids.iter().all(|id| is_alive(*id)));
    drop(localnet);
    let started = std::time::Instant::now();
    while ids.iter().any(|id| is_alive(*id)) {
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "a process is left");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
