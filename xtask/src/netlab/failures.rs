//! What a fetch loses when its process, its disk or its line fails, and what it takes of them.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    answers::{counter, fetch, mbit_per_second, DOWN, UP},
    figures::Figure,
    lab::{Lab, Link},
};
use crate::{command::run, failure::Failure};

/// Fetchers are killed on the way, ten times each, and started again.
pub(super) fn kill(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const LEN: usize = 256 << 20;
    const KILLS: usize = 10;
    let node = lab.node(Link::of(200.0, 200.0))?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    publisher.ask(&format!("publish {LEN}"))?;
    let node = lab.node(Link::of(200.0, 200.0))?;
    let line = format!("fetch {LEN} {}", publisher.address);
    let mut figures = Vec::new();
    for round in 0..2 {
        let folder = format!("fetcher{round}");
        let before = counter(&mut publisher, "sent")?;
        for kill in 1..=KILLS {
            let mut fetcher = lab.peer(&node, "tcp", &folder)?;
            fetcher.tell(&line)?;
            let share = kill as f64 / (KILLS + 1) as f64;
            while counter(&mut publisher, "sent")? - before < LEN as f64 * share {
                thread::sleep(Duration::from_millis(100));
            }
        }
        let mut fetcher = lab.peer(&node, "tcp", &folder)?;
        let fetched = fetch(&fetcher.ask(&line)?)?;
        let again = (counter(&mut publisher, "sent")? - before - LEN as f64) / f64::from(1 << 20);
        let name = format!("kill, 256 MiB, {KILLS} times from 9 to 91 %, round {round}");
        figures.push(Figure::at_most(format!("{name}, fetched again"), again, "MiB", 64.0));
        figures.push(Figure::beside(format!("{name}, the rest"), fetched.seconds, "s"));
        std::fs::remove_dir_all(format!("/run/netlab/{folder}"))
            .map_err(|error| format!("cannot remove {folder}: {error}"))?;
    }
    Ok(figures)
}

/// A joiner fetches the state of a model of 25 million parameters from four peers, of which one lies and one is killed.
pub(super) fn state(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const LEN: usize = 100_000_000;
    const KILLED_AT: f64 = 0.3;
    const PATIENCE: Duration = Duration::from_secs(120);
    let link = Link::of(DOWN, DOWN);
    let node = lab.node(link)?;
    let (_liar, address) = lab.rogue(&node, "liar", LEN)?;
    let mut line = format!("fetch {LEN} {address}");
    let mut honest = Vec::new();
    for index in 0..3 {
        let node = lab.node(link)?;
        let mut peer = lab.peer(&node, "tcp", &format!("honest{index}"))?;
        peer.ask(&format!("publish {LEN}"))?;
        line.extend([" ", &peer.address]);
        honest.push(peer);
    }
    let node = lab.node(link)?;
    let mut joiner = lab.peer(&node, "tcp", "joiner")?;
    let before = joiner.process.memory_mib()?;
    joiner.tell(&line)?;
    let (begun, mut killed) = (Instant::now(), honest.pop());
    while let Some(peer) = &mut killed {
        if begun.elapsed() > PATIENCE {
            return Err("the joiner fetches nothing".to_owned());
        }
        let mut sent = counter(peer, "sent")?;
        for peer in &mut honest {
            sent += counter(peer, "sent")?;
        }
        if sent >= KILLED_AT * LEN as f64 {
            killed = None;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let fetched = fetch(&joiner.process.answer()?)?;
    let share = 100.0 * mbit_per_second(LEN, fetched.seconds) / DOWN;
    let memory = joiner.process.memory_mib()? - before;
    let most = (LEN as f64 + f64::from(64 << 20)) / f64::from(1 << 20);
    Ok(vec![
        Figure::at_least("state of 100 MB, one lies, one is killed: of the line", share, "%", 90.0),
        Figure::beside("state, all here after", fetched.seconds, "s"),
        Figure::at_most("state, faults", fetched.faults, "", 2.0),
        Figure::at_most("state, memory over before", memory, "MiB", most),
    ])
}

/// A fetcher's disk is full for a minute; then there is room.
pub(super) fn full(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const LEN: usize = 24 << 20;
    const FULL: Duration = Duration::from_secs(60);
    let link = Link::of(100.0, 100.0);
    let node = lab.node(link)?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    publisher.ask(&format!("publish {LEN}"))?;
    let folder = "/run/netlab/full";
    fs::create_dir_all(folder).map_err(|error| format!("cannot make {folder}: {error}"))?;
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]))?;
    let node = lab.node(link)?;
    let mut fetcher = lab.peer(&node, "tcp", "full")?;
    fetcher.tell(&format!("fetch {LEN} {}", publisher.address))?;
    thread::sleep(FULL);
    run(Command::new("mount").args(["-o", "remount,size=256m", folder]))?;
    let answer = fetcher.process.answer()?;
    let unkept = answer.get("unkept").and_then(Value::as_f64).ok_or("no count")?;
    let fetched = fetch(&answer)?;
    let sent = counter(&mut publisher, "sent")? / f64::from(1 << 20);
    Ok(vec![
        Figure::at_least("full, met a full disk", unkept, "times", 1.0),
        Figure::at_least("full, done without a restart", f64::from(fetched.is_done), "", 1.0),
        Figure::at_most("full, done", fetched.seconds, "s", FULL.as_secs_f64() + 10.0),
        Figure::beside("full, sent for 24 MiB", sent, "MiB"),
    ])
}

/// A publisher with a limit on its uplink, which is a little wider.
pub(super) fn cap(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const LEN: usize = 16 << 20;
    /// What two blocks take, in which a commitment is to be included.
    const TWO_BLOCKS: f64 = 12.0;
    let node = lab.node(Link::of(UP / 0.8, 100.0))?;
    let bytes_per_second = (UP * 1e6 / 8.0).to_string();
    let mut publisher = lab.capped_peer(&node, "quic", "publisher", &bytes_per_second)?;
    let near = lab.node(Link::of(100.0, 100.0))?;
    let mut fetcher = lab.peer(&near, "quic", "fetcher")?;
    // What may leave at once has left after the first.
    for len in [LEN / 4, LEN] {
        publisher.ask(&format!("publish {len}"))?;
    }
    fetch(&fetcher.ask(&format!("fetch {} {}", LEN / 4, publisher.address))?)?;
    fetcher.tell(&format!("fetch {LEN} {}", publisher.address))?;
    thread::sleep(Duration::from_secs(5));
    let address = format!("{}:7000", node.ip);
    let (_sender, _) = lab.start(&node, &["send", &address, "10000"])?;
    let (_receiver, answer) = lab.start(&near, &["receive", &address])?;
    let beside = fetch(&answer)?.seconds;
    let mbit = mbit_per_second(LEN, fetch(&fetcher.process.answer()?)?.seconds);
    let off = 100.0 * (mbit - UP).abs() / UP;
    Ok(vec![
        Figure::beside("cap of 5.5 Mb/s, goodput", mbit, "Mb/s"),
        Figure::at_most("cap of 5.5 Mb/s, off by", off, "%", 5.0),
        Figure::at_most("cap, 10 kB by another program meanwhile", beside, "s", TWO_BLOCKS),
    ])
}

/// A validator fetches 70 payloads at once: what memory it takes.
pub(super) fn memory(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const PAYLOADS: usize = 70;
    const LEN: usize = 16_000_000;
    const MINERS: usize = 7;
    let mut peers = Vec::new();
    for index in 0..=MINERS {
        let node = lab.node(Link::default())?;
        peers.push(lab.peer(&node, "tcp", &format!("peer{index}"))?);
    }
    let addresses: Vec<String> = peers.iter().map(|peer| peer.address.clone()).collect();
    for peer in &mut peers {
        peer.ask(&format!("join 1 {}", addresses.join(" ")))?;
    }
    let mut wanted = Vec::new();
    for payload in 0..PAYLOADS {
        let (miner, len) = (1 + payload % MINERS, LEN + payload);
        let answer = peers[miner].ask(&format!("make {len}"))?;
        let root = answer.get("root").and_then(Value::as_str).ok_or("no root")?;
        wanted.push(format!("{root}:{len}:{miner}"));
    }
    let validator = &mut peers[0];
    validator.ask("watch")?;
    thread::sleep(Duration::from_secs(1));
    let before = validator.ask("memory")?["mib"].as_f64().ok_or("no memory")?;
    let answer = validator.ask(&format!("exchange {}", wanted.join(" ")))?;
    let after = validator.ask("memory")?["mib"].as_f64().ok_or("no memory")?;
    let seconds = answer.get("millis").and_then(Value::as_f64).ok_or("no time")? / 1e3;
    let missing = answer.get("missing").and_then(Value::as_f64).ok_or("no count")?;
    Ok(vec![
        Figure::at_most("memory, payloads missing of 70 of 16 MB", missing, "", 0.0),
        Figure::beside("memory, all fetched", seconds, "s"),
        Figure::beside("memory before", before, "MiB"),
        Figure::at_most("memory, over before", after - before, "MiB", 64.0),
    ])
}
