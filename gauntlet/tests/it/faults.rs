//! Miners that cheat, in a whole localnet: who proves it is rewarded, who did it pays, and nobody else.

use gauntlet::commands::localnet::report::ParticipantReport;

use crate::localnet::Localnet;

#[test]
fn each_provable_fault_costs_its_miner_and_nobody_else() {
    let kinds = ["malformed", "replayer", "withholder"];
    let adversaries = kinds.map(|kind| format!("--adversary={kind}"));
    // With blocks that are final late, and are replaced before they are.
    let mut options =
        vec!["--miners=2", "--validators=2", "--windows=5", "--finality-lag=2", "--fork-every=7"];
    options.extend(adversaries.iter().map(String::as_str));
    // On a busy machine a window may not be final: a fault is one all the same.
    let (_, report, localnet) = Localnet::start(&options).finish();
    assert!(localnet.log("node").contains("Reorg on"), "{}", localnet.output());
    for participant in &report.participants {
        let is_guilty = kinds.contains(&participant.kind.as_str());
        let story = || format!("{participant:?}\n{}", localnet.log(&participant.name));
        assert_eq!(participant.convictions > 0, is_guilty, "{}", story());
        assert_eq!(participant.slashed > 0, is_guilty, "{participant:?}");
    }
    let sum = |of: fn(&ParticipantReport) -> u128| report.participants.iter().map(of).sum::<u128>();
    assert_eq!(sum(|participant| participant.rewarded), sum(|participant| participant.slashed) / 2);
}
