//! One hot key on two machines: neither equivocates, nobody is slashed, and each says what is wrong.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use participant::diary::{DiaryRecord, Reader};

use crate::localnet::{gauntlet, Localnet};

#[test]
fn a_second_machine_with_the_same_key_says_so_and_costs_no_bond() {
    let mut localnet = Localnet::start(&["--miners=2", "--validators=1", "--windows=8"]);
    localnet.wait_for("miner-0", |line| matches!(line, DiaryRecord::Trained { window: 0, .. }));
    let config = std::fs::read_to_string(localnet.run().join("miner-0/config.toml")).unwrap();
    let own = localnet.run().join("again");
    std::fs::create_dir(&own).unwrap();
    // The same configuration in a folder of its own, as on another machine.
    std::fs::write(own.join("config.toml"), config).unwrap();
    let log = std::fs::File::create(own.join("log")).unwrap();
    let mut second = Command::new(gauntlet())
        .args(["miner", "--config"])
        .arg(own.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let (mut readers, started) =
        (["again", "miner-0"].map(|name| Reader::new(&localnet.run().join(name))), Instant::now());
    let says_so = |line: &DiaryRecord| matches!(line, DiaryRecord::Missed { reason, .. } if reason.contains("does another process use this key?"));
    // Which of the two is late in a window is chance.
    while !readers.iter_mut().any(|reader| reader.read().unwrap().iter().any(says_so)) {
        assert!(started.elapsed() < Duration::from_secs(200), "{}", localnet.output());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(second.try_wait().unwrap().is_none(), "it goes on");
    second.kill().unwrap();
    second.wait().unwrap();
    // Each announces itself once, and neither again.
    let announced = |path: std::path::PathBuf| {
        let said = std::fs::read_to_string(path).unwrap();
        said.matches("announces another peer for this hot key").count()
    };
    let told = announced(localnet.run().join("logs/miner-0.log")) + announced(own.join("log"));
    assert!(told <= 2, "it is said once: {told}");
    let (_, report, localnet) = localnet.finish();
    let miner = report.participants.iter().find(|one| one.name == "miner-0").unwrap();
    assert_eq!((miner.convictions, miner.slashed), (0, 0));
    let (code, text) = localnet.audit();
    assert_eq!(code, Some(0), "{text}");
}
