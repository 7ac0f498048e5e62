//! Peers that misbehave: what an honest peer gets beside them.

use std::{thread, time::Duration};

use serde_json::Value;

use super::{
    answers::{fetch, Fetch, FAR_LEN, PAYLOAD_LEN},
    figures::Figure,
    lab::{Lab, Link, Peer, Process},
};
use crate::failure::Failure;

/// Strangers take what slots they get and do not read; an honest peer fetches beside them.
pub(super) fn strangers(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const FETCHES: usize = 5;
    let link = Link::of(100.0, 100.0);
    let node = lab.node(link)?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    for index in 0..=2 * FETCHES {
        publisher.ask(&format!("publish {}", PAYLOAD_LEN + index))?;
    }
    let node = lab.node(link)?;
    let mut fetcher = lab.peer(&node, "tcp", "fetcher")?;
    // The chain names the fetcher alone.
    publisher.ask(&format!("relay {}", fetcher.address))?;
    let mut series = |first: usize| -> Result<(f64, f64), Failure> {
        let (mut seconds, mut done) = (0.0, 0.0);
        for index in first..first + FETCHES {
            let line = format!("fetch {} {}", PAYLOAD_LEN + index, publisher.address);
            let fetched = fetch(&fetcher.ask(&line)?)?;
            seconds += fetched.seconds;
            done += f64::from(fetched.is_done);
        }
        Ok((seconds, done))
    };
    let (alone, _) = series(1)?;
    let before = publisher.process.memory_mib()?;
    let node = lab.node(link)?;
    let len = PAYLOAD_LEN.to_string();
    let _strangers = lab.start(&node, &["strangers", &publisher.address, "64", "32", &len])?;
    thread::sleep(Duration::from_secs(10));
    let (beside, done) = series(FETCHES + 1)?;
    let memory = publisher.process.memory_mib()? - before;
    Ok(vec![
        Figure::at_least("strangers, fetches done of 5", done, "", FETCHES as f64),
        Figure::at_least("strangers, goodput beside none", 100.0 * alone / beside, "%", 90.0),
        Figure::at_most("strangers, memory over before", memory, "MiB", 64.0),
    ])
}

/// Of twelve providers the first k are rogues.
pub(super) fn rogues(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const PROVIDERS: usize = 12;
    let link = Link::of(100.0, 100.0);
    // What takes a moment, so that what a rogue costs is seen.
    let len = PAYLOAD_LEN.to_string();
    let mut nodes = Vec::new();
    for _ in 0..PROVIDERS {
        nodes.push(lab.node(link)?);
    }
    let mut honest = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut peer = lab.peer(node, "tcp", &format!("honest{index}"))?;
        peer.ask(&format!("publish {len}"))?;
        honest.push(peer);
    }
    let fetcher = lab.node(link)?;
    let run = |kind: &str, count: usize| -> Result<Fetch, Failure> {
        let mut rogues = Vec::new();
        let mut addresses = Vec::new();
        for node in &nodes[..count] {
            let (process, address) = lab.rogue(node, kind, PAYLOAD_LEN)?;
            addresses.push(address);
            rogues.push(process);
        }
        addresses.extend(honest[count..].iter().map(|peer| peer.address.clone()));
        let mut peer = lab.peer(&fetcher, "tcp", &format!("{kind}{count}"))?;
        fetch(&peer.ask(&format!("fetch {len} {}", addresses.join(" ")))?)
    };
    let base = run("liar", 0)?.seconds;
    let mut figures = vec![Figure::beside("rogues, none of 12", base, "s")];
    for kind in ["liar", "mute", "trickler"] {
        for count in [1, 6, 11] {
            let fetched = run(kind, count)?;
            let name = format!("rogues, {count} of 12, {kind}");
            figures.push(Figure::at_most(name.clone(), fetched.seconds, "s", 1.5 * base));
            let faults = format!("{name}, faults");
            figures.push(Figure::at_most(faults, fetched.faults, "", count as f64));
        }
    }
    Ok(figures)
}

/// Strangers connect and hang up, say who they are, and announce what nobody has; an honest peer fetches beside them.
pub(super) fn floods(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const SECONDS: u64 = 15;
    let link = Link::of(100.0, 100.0);
    let node = lab.node(link)?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    let len = FAR_LEN.to_string();
    publisher.ask(&format!("publish {len}"))?;
    publisher.ask("watch")?;
    let fetcher = lab.node(link)?;
    let stranger = lab.node(link)?;
    let goodput = |lab: &Lab, name: &str, publisher: &Peer| -> Result<f64, Failure> {
        let mut peer = lab.peer(&fetcher, "tcp", name)?;
        Ok(fetch(&peer.ask(&format!("fetch {len} {}", publisher.address))?)?.seconds)
    };
    let base = goodput(lab, "alone", &publisher)?;
    let before = publisher.ask("memory")?["mib"].as_f64().ok_or("no memory")?;
    let mut figures = vec![Figure::beside("floods, none", base, "s")];
    figures.push(turn(&mut publisher, "none", None)?);
    for (kind, rate) in [("reconnects", "200"), ("pushes", "10000"), ("records", "1000")] {
        let words = ["flood", kind, &publisher.address, &stranger.ip, rate, &len];
        let (mut flood, _) = lab.start(&stranger, &words)?;
        thread::sleep(Duration::from_secs(SECONDS));
        publisher.ask("turns")?;
        let beside = goodput(lab, kind, &publisher)?;
        figures.push(Figure::at_least(
            format!("floods, {kind}, goodput beside none"),
            100.0 * base / beside,
            "%",
            90.0,
        ));
        figures.push(turn(&mut publisher, kind, Some(5.0))?);
        let memory = publisher.ask("memory")?["mib"].as_f64().ok_or("no memory")? - before;
        figures.push(Figure::at_most(format!("floods, {kind}, memory"), memory, "MiB", 64.0));
        figures.extend(done(&mut flood, kind)?);
    }
    Ok(figures)
}

/// How long the peer's event loop took to answer, all but a hundredth of the times.
fn turn(peer: &mut Peer, kind: &str, bound: Option<f64>) -> Result<Figure, Failure> {
    let turns = peer.ask("turns")?;
    let millis = turns.get("p99").and_then(Value::as_f64).ok_or("no turns")?;
    let name = format!("floods, {kind}, event loop's answer, p99");
    Ok(match bound {
        Some(bound) => Figure::at_most(name, millis, "ms", bound),
        None => Figure::beside(name, millis, "ms"),
    })
}

/// How often a stranger did it, and over how many connections.
fn done(flood: &mut Process, kind: &str) -> Result<Vec<Figure>, Failure> {
    flood.tell("?")?;
    let answer = flood.answer()?;
    let number = |key: &str| answer.get(key).and_then(Value::as_f64).ok_or("no count");
    Ok(vec![
        Figure::beside(format!("floods, {kind}, tried"), number("done")?, "times"),
        Figure::beside(format!("floods, {kind}, connections"), number("connections")?, ""),
    ])
}

/// A content is looked for by Kademlia, where one stranger names twenty peers that there are not as having it.
pub(super) fn providers(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let link = Link::of(100.0, 100.0);
    let node = lab.node(link)?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    publisher.ask(&format!("publish {PAYLOAD_LEN}"))?;
    let (fetcher, stranger) = (lab.node(link)?, lab.node(link)?);
    let find = |lab: &Lab, name: &str, met: &[&str]| -> Result<Fetch, Failure> {
        let mut peer = lab.peer(&fetcher, "tcp", name)?;
        for other in met {
            peer.ask(&format!("meet {other}"))?;
        }
        thread::sleep(Duration::from_secs(2));
        fetch(&peer.ask(&format!("find {PAYLOAD_LEN}"))?)
    };
    let base = find(lab, "alone", &[&publisher.address])?.seconds;
    let len = PAYLOAD_LEN.to_string();
    let words = ["flood", "providers", &publisher.address, &stranger.ip, "1", &len];
    let (_flood, first) = lab.start(&stranger, &words)?;
    let address = first.get("address").and_then(Value::as_str).ok_or("no address")?.to_owned();
    let found = find(lab, "beside", &[&address, &publisher.address])?;
    Ok(vec![
        Figure::beside("providers, none made up", base, "s"),
        Figure::at_least("providers, found beside 20 made up", f64::from(found.is_done), "", 1.0),
        Figure::beside("providers, beside 20 made up", found.seconds, "s"),
    ])
}
