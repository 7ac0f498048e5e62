//! What is measured: the measurements of docs/study/network.md that concern peers alone.

use std::{thread, time::Duration};

use serde_json::Value;

use super::{
    figures::Figure,
    lab::{Lab, Link, Nat, Node, Peer},
};
use crate::failure::Failure;

/// A measurement.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Lab) -> Result<Vec<Figure>, Failure>,
}

/// The one that takes seconds.
pub(crate) const SHORT: &str = "short";

/// All of them, in order.
pub(crate) const ALL: [Scenario; 9] = [
    Scenario { name: SHORT, run: short },
    Scenario { name: "swarm", run: swarm },
    Scenario { name: "far", run: far },
    Scenario { name: "loss", run: loss },
    Scenario { name: "nat", run: nat },
    Scenario { name: "strangers", run: strangers },
    Scenario { name: "rogues", run: rogues },
    Scenario { name: "kill", run: kill },
    Scenario { name: "crowd", run: crowd },
];

/// A payload of 72 B, by 400, on links of 110 and 500 Mb/s, by 20.
const PAYLOAD_LEN: usize = 3_400_000;
const UP: f64 = 5.5;
const DOWN: f64 = 25.0;

/// What is fetched over long or lossy links.
const FAR_LEN: usize = 24 << 20;

/// What a failed fetch counts as, in seconds: as long as a peer tries.
const FAILED_SECONDS: f64 = 120.0;

/// How one fetch ended.
struct Fetch {
    seconds: f64,
    /// How often it began; callers begin again when nobody delivered.
    tries: f64,
    faults: f64,
    is_done: bool,
}

fn fetch(answer: &Value) -> Result<Fetch, Failure> {
    let number = |key: &str| answer.get(key).and_then(Value::as_f64);
    let millis = number("millis").ok_or_else(|| format!("no fetch: {answer}"))?;
    let is_done = answer.get("error").is_none();
    if !is_done {
        eprintln!("netlab: {answer}");
    }
    let seconds = if is_done { millis / 1e3 } else { FAILED_SECONDS };
    let (tries, faults) = (number("tries").unwrap_or(1.0), number("faults").unwrap_or_default());
    // A fetch that never ends well is a fault, too.
    Ok(Fetch { seconds, tries, faults: faults + f64::from(!is_done), is_done })
}

fn mbit_per_second(len: usize, seconds: f64) -> f64 {
    len as f64 * 8.0 / 1e6 / seconds
}

fn counter(peer: &mut Peer, key: &str) -> Result<f64, Failure> {
    let counters = peer.ask("counters")?;
    counters.get(key).and_then(Value::as_f64).ok_or_else(|| format!("no counters: {counters}"))
}

/// Two fetchers of a small content, one of them behind a NAT, over QUIC and TCP.
fn short(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    lab.delay(10)?;
    let mut figures = Vec::new();
    let link = Link::of(50.0, 50.0);
    for transport in ["quic", "tcp"] {
        let node = lab.node(Link { is_far: true, ..link })?;
        let mut publisher = lab.peer(&node, transport, &format!("{transport}-publisher"))?;
        publisher.ask("publish 500000")?;
        let node = lab.behind(Nat::Cone, link)?;
        let mut fetcher = lab.peer(&node, transport, &format!("{transport}-fetcher"))?;
        let fetched = fetch(&fetcher.ask(&format!("fetch 500000 {}", publisher.address))?)?;
        figures.push(Figure::at_most(format!("short, {transport}"), fetched.seconds, "s", 10.0));
        figures.push(Figure::at_most(
            format!("short, {transport}, faults"),
            fetched.faults,
            "",
            0.0,
        ));
    }
    Ok(figures)
}

/// One publisher, twelve fetchers at once: when has the last one all?
fn swarm(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const FETCHERS: usize = 12;
    let mut peers = Vec::new();
    for index in 0..=FETCHERS {
        let node = lab.node(Link::of(UP, DOWN))?;
        peers.push(lab.peer(&node, "quic", &format!("peer{index}"))?);
    }
    let addresses: Vec<String> = peers.iter().map(|peer| peer.address.clone()).collect();
    peers[0].ask(&format!("publish {PAYLOAD_LEN}"))?;
    let line = format!("fetch {PAYLOAD_LEN} {}", addresses.join(" "));
    for peer in &mut peers[1..] {
        peer.tell(&line)?;
    }
    let mut last: f64 = 0.0;
    let (mut missing, mut again) = (0.0, 0.0);
    for peer in &mut peers[1..] {
        let fetched = fetch(&peer.process.answer()?)?;
        last = last.max(fetched.seconds);
        missing += f64::from(!fetched.is_done);
        again += fetched.tries - 1.0;
    }
    let bits = PAYLOAD_LEN as f64 * 8.0 / 1e6;
    let uplinks = (FETCHERS + 1) as f64 * UP;
    let bound = (bits / UP).max(FETCHERS as f64 * bits / uplinks).max(bits / DOWN);
    let sent = counter(&mut peers[0], "sent")? / PAYLOAD_LEN as f64;
    Ok(vec![
        Figure::at_most("swarm, last of 12 done", last, "s", 1.3 * bound),
        Figure::at_most("swarm, not done in 120 s", missing, "", 0.0),
        Figure::at_most("swarm, begun again", again, "times", 0.0),
        Figure::beside("swarm, sent by the publisher", sent, "contents"),
    ])
}

/// One fetch over 100 ms and 100 Mb/s, beside a plain copy.
fn far(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    lab.delay(50)?;
    let link = Link::of(100.0, 100.0);
    let near = lab.node(link)?;
    let mut figures = vec![copy(lab, &near, link)?];
    for transport in ["tcp", "quic"] {
        let mbit = pair(lab, transport, link, FAR_LEN)?;
        figures.push(Figure::at_least(format!("far, {transport}"), mbit, "Mb/s", 85.0));
    }
    let mut providers = Vec::new();
    for index in 0..8 {
        let node = lab.node(Link { is_far: true, ..link })?;
        let mut peer = lab.peer(&node, "quic", &format!("provider{index}"))?;
        peer.ask(&format!("publish {FAR_LEN}"))?;
        providers.push(peer);
    }
    let addresses: Vec<&str> = providers.iter().map(|peer| peer.address.as_str()).collect();
    let mut fetcher = lab.peer(&near, "quic", "of-eight")?;
    let fetched = fetch(&fetcher.ask(&format!("fetch {FAR_LEN} {}", addresses.join(" ")))?)?;
    let mbit = mbit_per_second(FAR_LEN, fetched.seconds);
    figures.push(Figure::at_least("far, quic, 8 providers", mbit, "Mb/s", 90.0));
    Ok(figures)
}

/// A plain TCP copy from a far host: what the link gives.
fn copy(lab: &mut Lab, near: &Node, link: Link) -> Result<Figure, Failure> {
    let node = lab.node(Link { is_far: true, ..link })?;
    let address = format!("{}:7000", node.ip);
    let (_sender, _) = lab.start(&node, &["send", &address, &FAR_LEN.to_string()])?;
    let (_receiver, answer) = lab.start(near, &["receive", &address])?;
    let mbit = mbit_per_second(FAR_LEN, fetch(&answer)?.seconds);
    Ok(Figure::beside("far, plain TCP copy", mbit, "Mb/s"))
}

/// One fetch from a far peer to a near one, in Mb/s.
fn pair(lab: &mut Lab, transport: &str, link: Link, len: usize) -> Result<f64, Failure> {
    let node = lab.node(Link { is_far: true, ..link })?;
    let mut publisher = lab.peer(&node, transport, &format!("{}-publisher", node.ip))?;
    publisher.ask(&format!("publish {len}"))?;
    let node = lab.node(link)?;
    let mut fetcher = lab.peer(&node, transport, &format!("{}-fetcher", node.ip))?;
    let fetched = fetch(&fetcher.ask(&format!("fetch {len} {}", publisher.address))?)?;
    Ok(mbit_per_second(len, fetched.seconds))
}

/// Two of a hundred packets lost at each end, at 40 ms and 100 Mb/s.
fn loss(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    lab.delay(20)?;
    let link = Link::of(100.0, 100.0);
    let whole = pair(lab, "quic", link, FAR_LEN)?;
    let lossy = pair(lab, "quic", Link { loss_percent: 2, ..link }, FAR_LEN)?;
    Ok(vec![
        Figure::beside("loss, none", whole, "Mb/s"),
        Figure::beside("loss, 2 %", lossy, "Mb/s"),
        Figure::at_least("loss, 2 % beside none", 100.0 * lossy / whole, "%", 60.0),
    ])
}

/// A validator fetches from miners behind NATs, which keep a connection to it and find out that nobody dials them; two miners behind NATs fetch from each other.
fn nat(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let link = Link::of(UP, DOWN);
    let node = lab.node(link)?;
    let mut direct = lab.peer(&node, "quic", "direct")?;
    let node = lab.node(link)?;
    let mut validator = lab.peer(&node, "quic", "validator")?;
    direct.ask(&format!("publish {PAYLOAD_LEN}"))?;
    let base = fetch(&validator.ask(&format!("fetch {PAYLOAD_LEN} {}", direct.address))?)?.seconds;
    let mut figures = vec![Figure::beside("nat, direct", base, "s")];

    // Lengths differ, so that the validator has none of them.
    let mut len = PAYLOAD_LEN;
    let (mut miners, mut held) = (Vec::new(), Vec::new());
    for (name, kind) in [("cone", Nat::Cone), ("symmetric", Nat::Symmetric)] {
        let node = lab.behind(kind, link)?;
        let mut miner = lab.peer(&node, "quic", name)?;
        held.push(miner.address.clone());
        validator.ask(&format!("hold {}", held.join(" ")))?;
        miner.ask(&format!("keep {}", validator.address))?;
        for (when, wait) in [("at once", 5), ("after 70 s", 70)] {
            len += 1;
            miner.ask(&format!("publish {len}"))?;
            thread::sleep(Duration::from_secs(wait));
            let fetched = fetch(&validator.ask(&format!("fetch {len} {}", miner.address))?)?;
            let name = format!("nat, {name}, {when}");
            figures.push(Figure::at_most(name.clone(), fetched.seconds, "s", 1.2 * base));
            figures.push(Figure::at_most(format!("{name}, faults"), fetched.faults, "", 0.0));
        }
        let announced = miner.ask("reachable")?["addresses"].as_f64().ok_or("no count")?;
        figures.push(Figure::at_most(format!("nat, {name}, announced"), announced, "", 0.0));
        miners.push(miner);
    }
    let node = lab.behind(Nat::Cone, link)?;
    let mut other = lab.peer(&node, "quic", "other")?;
    held.push(other.address.clone());
    validator.ask(&format!("hold {}", held.join(" ")))?;
    validator.ask(&format!("relay {}", held.join(" ")))?;
    other.ask(&format!("keep {}", validator.address))?;
    for (miner, name) in miners.iter_mut().zip(["cone", "symmetric"]) {
        let place = relayed(miner)?;
        len += 1;
        miner.ask(&format!("publish {len}"))?;
        let fetched = fetch(&other.ask(&format!("fetch {len} {place}"))?)?;
        let name = format!("nat, {name} from cone");
        figures.push(Figure::at_most(name, fetched.seconds, "s", 2.4 * base));
    }
    Ok(figures)
}

/// Where a peer says that a validator relays to it, as soon as one does.
fn relayed(peer: &mut Peer) -> Result<String, Failure> {
    const SECONDS_MAX: u32 = 60;
    for _ in 0..SECONDS_MAX {
        let answer = peer.ask("reachable")?;
        if let Some(place) = answer["relayed"][0].as_str() {
            return Ok(place.to_owned());
        }
        thread::sleep(Duration::from_secs(1));
    }
    Err(format!("nobody relays to a miner within {SECONDS_MAX} s"))
}

/// Strangers take what slots they get and do not read; an honest peer fetches beside them.
fn strangers(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const FETCHES: usize = 5;
    let link = Link::of(100.0, 100.0);
    let node = lab.node(link)?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    for index in 0..=2 * FETCHES {
        publisher.ask(&format!("publish {}", PAYLOAD_LEN + index))?;
    }
    let node = lab.node(link)?;
    let mut fetcher = lab.peer(&node, "tcp", "fetcher")?;
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
fn rogues(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const PROVIDERS: usize = 12;
    let link = Link::of(100.0, 100.0);
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
            let (process, first) = lab.start(node, &["rogue", kind, &node.ip, &len])?;
            let address = first.get("address").and_then(Value::as_str);
            addresses.push(address.ok_or("a rogue without address")?.to_owned());
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
            figures.push(Figure::at_most(name, fetched.seconds, "s", 1.5 * base));
        }
    }
    Ok(figures)
}

/// A fetcher is killed on the way, and started again.
fn kill(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const LEN: usize = 256 << 20;
    let node = lab.node(Link::of(200.0, 200.0))?;
    let mut publisher = lab.peer(&node, "tcp", "publisher")?;
    publisher.ask(&format!("publish {LEN}"))?;
    let node = lab.node(Link::of(200.0, 200.0))?;
    let line = format!("fetch {LEN} {}", publisher.address);
    let mut figures = Vec::new();
    for share in [50, 90] {
        let folder = format!("fetcher{share}");
        let before = counter(&mut publisher, "sent")?;
        let mut fetcher = lab.peer(&node, "tcp", &folder)?;
        fetcher.tell(&line)?;
        while counter(&mut publisher, "sent")? - before < LEN as f64 * f64::from(share) / 100.0 {
            thread::sleep(Duration::from_millis(100));
        }
        drop(fetcher);
        let mut fetcher = lab.peer(&node, "tcp", &folder)?;
        let fetched = fetch(&fetcher.ask(&line)?)?;
        let again = (counter(&mut publisher, "sent")? - before - LEN as f64) / f64::from(1 << 20);
        let name = format!("kill at {share} % of 256 MiB");
        figures.push(Figure::at_most(format!("{name}, fetched again"), again, "MiB", 64.0));
        figures.push(Figure::beside(format!("{name}, the rest"), fetched.seconds, "s"));
    }
    Ok(figures)
}

/// Many peers in one process: store and get, beside what hivemind's benchmark says of its own table.
fn crowd(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const PEERS: &str = "32";
    let node = lab.node(Link::default())?;
    let (_crowd, answer) = lab.start(&node, &["crowd", PEERS])?;
    let number = |key: &str| {
        answer.get(key).and_then(Value::as_f64).ok_or_else(|| format!("no `{key}`: {answer}"))
    };
    let found = 100.0 * number("found")? / number("samples")?;
    let name = |what: &str| format!("crowd of {PEERS}, {what}");
    Ok(vec![
        Figure::at_least(name("found"), found, "%", 100.0),
        Figure::at_most(name("store"), number("store_millis")?, "ms", 14.9),
        Figure::at_most(name("get"), number("get_millis")?, "ms", 6.6),
    ])
}
