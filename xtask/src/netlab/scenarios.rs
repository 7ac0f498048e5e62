//! What is measured: the measurements of docs/study/network.md that concern peers alone.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    answers::{counter, fetch, mbit_per_second, own_limit, DOWN, FAR_LEN, PAYLOAD_LEN, UP},
    attacks, crowd, failures,
    figures::Figure,
    lab::{Lab, Link, Nat, Node, Peer, ROUTER_PACKAGE},
    window,
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
pub(crate) const ALL: [Scenario; 20] = [
    Scenario { name: SHORT, run: short },
    Scenario { name: "swarm", run: swarm },
    Scenario { name: "far", run: far },
    Scenario { name: "loss", run: loss },
    Scenario { name: "nat", run: nat },
    Scenario { name: "upnp", run: upnp },
    Scenario { name: "window", run: window::sequential },
    Scenario { name: "overlap", run: window::overlapped },
    Scenario { name: "mirror", run: window::mirror },
    Scenario { name: "strangers", run: attacks::strangers },
    Scenario { name: "floods", run: attacks::floods },
    Scenario { name: "providers", run: attacks::providers },
    Scenario { name: "rogues", run: attacks::rogues },
    Scenario { name: "kill", run: failures::kill },
    Scenario { name: "state", run: failures::state },
    Scenario { name: "full", run: failures::full },
    Scenario { name: "cap", run: failures::cap },
    Scenario { name: "memory", run: failures::memory },
    Scenario { name: "crowd", run: crowd::announced },
    Scenario { name: "kademlia", run: crowd::kademlia },
];

/// Fetchers of a small content, behind a NAT and by IPv6, over QUIC and TCP.
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
        figures.extend(fetch_short(&mut fetcher, &publisher, &format!("short, {transport}"))?);
        let nodes = [lab.node(Link { is_far: true, ..link })?, lab.node(link)?];
        let [Some(far), Some(near)] = nodes.map(|node| node.by_six()) else {
            eprintln!("netlab: this machine has no IPv6, which is left out");
            continue;
        };
        let folders = ["publisher", "fetcher"].map(|role| format!("{transport}-{role}-six"));
        let mut publisher = lab.peer(&far, transport, &folders[0])?;
        publisher.ask("publish 500000")?;
        let mut fetcher = lab.peer(&near, transport, &folders[1])?;
        let name = format!("short, {transport}, IPv6");
        figures.extend(fetch_short(&mut fetcher, &publisher, &name)?);
    }
    Ok(figures)
}

fn fetch_short(fetcher: &mut Peer, publisher: &Peer, name: &str) -> Result<[Figure; 2], Failure> {
    let fetched = fetch(&fetcher.ask(&format!("fetch 500000 {}", publisher.address))?)?;
    Ok([
        Figure::at_most(name.to_owned(), fetched.seconds, "s", 10.0),
        Figure::at_most(format!("{name}, faults"), fetched.faults, "", 0.0),
    ])
}

/// One publisher, twelve fetchers at once: when has the last one all? Once they know what their uplinks carry, as
/// participants do, and once not.
fn swarm(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let mut figures = swarm_of(lab, "swarm", true)?;
    let without = swarm_of(lab, "swarm without a limit", false)?;
    let beside = |figure: Figure| Figure::beside(figure.name, figure.value, &figure.unit);
    figures.extend(without.into_iter().map(beside));
    Ok(figures)
}

fn swarm_of(lab: &mut Lab, name: &str, is_limited: bool) -> Result<Vec<Figure>, Failure> {
    const FETCHERS: usize = 12;
    let mut peers = Vec::new();
    for index in 0..=FETCHERS {
        let (node, folder) = (lab.node(Link::of(UP, DOWN))?, format!("{is_limited}{index}"));
        peers.push(match is_limited {
            true => lab.capped_peer(&node, "quic", &folder, &own_limit(UP))?,
            false => lab.peer(&node, "quic", &folder)?,
        });
    }
    let addresses: Vec<String> = peers.iter().map(|peer| peer.address.clone()).collect();
    peers[0].ask(&format!("publish {PAYLOAD_LEN}"))?;
    let line = format!("fetch {PAYLOAD_LEN} {}", addresses.join(" "));
    for peer in &mut peers[1..] {
        peer.tell(&line)?;
    }
    let mut seconds = Vec::new();
    let (mut missing, mut again) = (0.0, 0.0);
    for peer in &mut peers[1..] {
        let fetched = fetch(&peer.process.answer()?)?;
        seconds.push(fetched.seconds);
        missing += f64::from(!fetched.is_done);
        again += fetched.tries - 1.0;
    }
    let bits = PAYLOAD_LEN as f64 * 8.0 / 1e6;
    let uplinks = (FETCHERS + 1) as f64 * UP;
    let bound = (bits / UP).max(FETCHERS as f64 * bits / uplinks).max(bits / DOWN);
    let sent = counter(&mut peers[0], "sent")? / PAYLOAD_LEN as f64;
    seconds.sort_by(f64::total_cmp);
    Ok(vec![
        Figure::at_most(
            format!("{name}, last of 12 done"),
            seconds[FETCHERS - 1],
            "s",
            1.3 * bound,
        ),
        Figure::beside(format!("{name}, 6th of 12 done"), seconds[FETCHERS / 2 - 1], "s"),
        Figure::beside(format!("{name}, first of 12 done"), seconds[0], "s"),
        Figure::at_most(format!("{name}, not done in 120 s"), missing, "", 0.0),
        Figure::at_most(format!("{name}, begun again"), again, "times", 0.0),
        Figure::beside(format!("{name}, sent by the publisher"), sent, "contents"),
    ])
}

/// One fetch over 100 ms and 100 Mb/s, beside a plain copy.
fn far(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    lab.delay(50)?;
    let link = Link::of(100.0, 100.0);
    let near = lab.node(link)?;
    let plain = copy(lab, &near, link, FAR_LEN)?;
    let mut figures = vec![Figure::beside("far, plain TCP copy", plain, "Mb/s")];
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

/// A plain TCP copy from a far host, in Mb/s: what the link gives.
fn copy(lab: &mut Lab, near: &Node, link: Link, len: usize) -> Result<f64, Failure> {
    let node = lab.node(Link { is_far: true, ..link })?;
    let address = format!("{}:7000", node.ip);
    let (_sender, _) = lab.start(&node, &["send", &address, &len.to_string()])?;
    let (_receiver, answer) = lab.start(near, &["receive", &address])?;
    Ok(mbit_per_second(len, fetch(&answer)?.seconds))
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

/// What is fetched where packets get lost: a beginning, and what a line gives over time, where that takes no minutes.
const LOSSY_BEGIN: usize = 8 << 20;
const LOSSY_LEN: usize = 64 << 20;

/// Two of a hundred packets lost at each end, at 40 ms and 100 Mb/s, beside a plain copy; BBR is what an operator may
/// have the kernel use for TCP.
fn loss(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    lab.delay(20)?;
    let link = Link::of(100.0, 100.0);
    let lossy = Link { loss_percent: 2, ..link };
    let mut figures = Vec::new();
    let both = &[LOSSY_BEGIN, LOSSY_LEN][..];
    let ways = [
        ("plain TCP copy", None, false, both),
        ("plain TCP copy, BBR", None, true, both),
        ("quic", Some("quic"), false, &[LOSSY_BEGIN]),
        ("tcp", Some("tcp"), false, both),
        ("tcp, BBR", Some("tcp"), true, both),
    ];
    for (name, transport, is_bbr, lens) in ways {
        lab.use_bbr(is_bbr);
        let mut mbit = |link, len| match transport {
            Some(transport) => pair(lab, transport, link, len),
            None => {
                let near = lab.node(link)?;
                copy(lab, &near, link, len)
            }
        };
        let whole = mbit(link, FAR_LEN)?;
        figures.push(Figure::beside(format!("loss, {name}, none"), whole, "Mb/s"));
        for len in lens {
            let less = mbit(lossy, *len)?;
            let name = format!("loss, {name}, 2 %, {} MiB", len >> 20);
            let share = 100.0 * less / whole;
            figures.push(Figure::beside(name.clone(), less, "Mb/s"));
            let name = format!("{name} beside none");
            figures.push(match transport {
                Some(_) => Figure::at_least(name, share, "%", 60.0),
                None => Figure::beside(name, share, "%"),
            });
        }
    }
    Ok(figures)
}

/// A validator fetches from miners behind NATs, which keep a connection to it and find out that nobody dials them; two
/// miners behind NATs fetch from each other.
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

/// Miners at home whose router forwards a port when it is asked: how long until they announce where it is reached, and whether
/// somebody to whom they keep no connection reaches them there.
fn upnp(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    const SECONDS_MAX: f64 = 30.0;
    let link = Link::of(UP, DOWN);
    let Some(home) = lab.forwarding(link)? else {
        eprintln!("netlab: upnp is left out; `apt-get install {ROUTER_PACKAGE}` gets its router");
        return Ok(Vec::new());
    };
    let mut figures = Vec::new();
    for transport in ["quic", "tcp"] {
        let mut others = Vec::new();
        for name in ["validator", "stranger"] {
            let node = lab.node(link)?;
            lab.outside(&node)?;
            others.push(lab.peer(&node, transport, &format!("{transport}-{name}"))?);
        }
        let [validator, stranger] = &mut others[..] else { return Err("no peers".to_owned()) };
        let mut miner = lab.forwarded_peer(&home, transport, &format!("{transport}-miner"))?;
        validator.ask(&format!("hold {}", miner.address))?;
        miner.ask(&format!("keep {}", validator.address))?;
        miner.ask("publish 500000")?;
        let begun = Instant::now();
        let place = loop {
            let reachable = miner.ask("reachable")?;
            let places = reachable["direct"].as_array().into_iter().flatten();
            let place = places.filter_map(Value::as_str).find(|place| Lab::is_outside(place));
            if let Some(place) = place {
                break place.to_owned();
            }
            if begun.elapsed().as_secs_f64() > SECONDS_MAX {
                return Err(format!("upnp: {transport}: announced nothing in {SECONDS_MAX} s"));
            }
            thread::sleep(Duration::from_millis(100));
        };
        let seconds = begun.elapsed().as_secs_f64();
        figures.push(Figure::at_most(format!("upnp, {transport}, announced"), seconds, "s", 10.0));
        let fetched = fetch(&stranger.ask(&format!("fetch 500000 {place}"))?)?;
        let name = format!("upnp, {transport}, faults of who fetches there");
        figures.push(Figure::at_most(name, fetched.faults, "", 0.0));
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
