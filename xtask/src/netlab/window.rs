//! The window of 72 B, scaled: 24 miners train, publish and fetch what 20 of them made; validators fetch all.
//!
//! Bytes are divided by 400, links by 20 and time by 20: a payload has 3.4 MB, a miner's link 5.5 Mb/s up and 25 down,
//! training takes 60 s. With a mirror, links and time are slower by four again. What it is compared with is arithmetic:
//! no exchange is faster than the uplinks together, and than one downlink.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    answers::{counter, own_limit, DOWN, PAYLOAD_LEN, UP},
    figures::Figure,
    lab::{Lab, Link, Peer},
};
use crate::failure::Failure;

const MINERS: usize = 24;
const ACCEPTED: usize = 20;
const VALIDATORS: usize = 4;

/// What a validator's link gives in each direction: 1 Gb/s by 20.
const VALIDATOR: f64 = 50.0;

/// What a mirror's link gives: 10 Gb/s by 20.
const MIRROR: f64 = 500.0;

/// How much slower links and time are with a mirror, so that two processors have time to spare.
const MIRROR_SLOWER: u32 = 4;

/// What training takes.
const TRAINING: Duration = Duration::from_secs(60);

const WINDOWS: usize = 3;

/// How much longer than by the uplinks together the review's model of pieces takes: 2,030 s for 1,966 s.
const MODEL: f64 = 1.033;

/// What the exchange may take beside that.
const SLACK: f64 = 1.15;

/// Training, then exchange: what the exchange takes.
pub(super) fn sequential(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let mut crew = Crew::new(lab, &[VALIDATOR; VALIDATORS], 1)?;
    crew.sequential("window", WINDOWS)
}

/// One window of the same with a validator more that has a mirror's link.
pub(super) fn mirror(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let mut links = vec![VALIDATOR; VALIDATORS];
    links.push(MIRROR);
    let mut crew = Crew::new(lab, &links, MIRROR_SLOWER)?;
    crew.sequential("window, mirror", 1)
}

/// Each window's payloads are exchanged while the next one is trained.
pub(super) fn overlapped(lab: &mut Lab) -> Result<Vec<Figure>, Failure> {
    let mut crew = Crew::new(lab, &[VALIDATOR; VALIDATORS], 1)?;
    let mut figures = Vec::new();
    let begin = Instant::now();
    for window in 0..WINDOWS {
        let roots = crew.make(window)?;
        crew.begin_exchange(&roots)?;
        thread::sleep(crew.training);
        let seconds = crew.end_exchange()?;
        figures.push(Figure::beside(format!("overlap, exchange {window}"), seconds, "s"));
    }
    let trained = crew.training.as_secs_f64() * WINDOWS as f64;
    let share = 100.0 * trained / begin.elapsed().as_secs_f64();
    figures.push(Figure::at_least("overlap, utilisation", share, "%", 97.0));
    Ok(figures)
}

/// The participants of a run; the validators come first.
struct Crew {
    peers: Vec<Peer>,
    validators: usize,
    /// What training takes.
    training: Duration,
    /// The least that an exchange takes, in seconds.
    floor: f64,
}

impl Crew {
    /// Starts the miners, and validators with these links in Mb/s; links and time are so many times slower.
    fn new(lab: &mut Lab, validators: &[f64], slower: u32) -> Result<Self, Failure> {
        let miners = [(UP, DOWN); MINERS];
        let links = validators.iter().map(|mbit| (*mbit, *mbit)).chain(miners);
        let mut peers = Vec::new();
        for (index, (up, down)) in links.enumerate() {
            let (up, down) = (up / f64::from(slower), down / f64::from(slower));
            let node = lab.node(Link::of(up, down))?;
            let name = format!("peer{index}");
            peers.push(lab.capped_peer(&node, "tcp", &name, &own_limit(up))?);
        }
        let addresses: Vec<String> = peers.iter().map(|peer| peer.address.clone()).collect();
        let line = format!("join {} {}", validators.len(), addresses.join(" "));
        for peer in &mut peers {
            peer.tell(&line)?;
        }
        for peer in &mut peers {
            peer.process.answer()?;
        }
        // Until the connections are there.
        thread::sleep(Duration::from_secs(5));
        let floor = f64::from(slower) * floor(validators);
        Ok(Self { peers, validators: validators.len(), training: TRAINING * slower, floor })
    }

    fn sequential(&mut self, name: &str, windows: usize) -> Result<Vec<Figure>, Failure> {
        let mut figures = vec![Figure::beside(format!("{name}, least possible"), self.floor, "s")];
        let begin = Instant::now();
        let mut most: f64 = 0.0;
        for window in 0..windows {
            thread::sleep(self.training);
            let roots = self.make(window)?;
            let before = [self.cpu_seconds()?, self.sent()?];
            self.begin_exchange(&roots)?;
            let seconds = self.end_exchange()?;
            let cpu = self.cpu_seconds()? - before[0];
            let sent = (self.sent()? - before[1]) / self.wanted();
            eprintln!("netlab: exchange {window}: {seconds:.1} s, {cpu:.1} s of the processors, sent {sent:.3} times what was wanted");
            figures.push(Figure::beside(format!("{name}, exchange {window}"), seconds, "s"));
            let cpu_name = format!("{name}, exchange {window}, of the processors");
            figures.push(Figure::beside(cpu_name, cpu, "s"));
            let sent_name = format!("{name}, exchange {window}, content sent for what was wanted");
            figures.push(Figure::beside(sent_name, sent, "×"));
            most = most.max(seconds);
        }
        let aim = SLACK * MODEL * self.floor;
        figures.push(Figure::at_most(format!("{name}, longest exchange"), most, "s", aim));
        let trained = self.training.as_secs_f64() * windows as f64;
        let share = 100.0 * trained / begin.elapsed().as_secs_f64();
        figures.push(Figure::beside(format!("{name}, utilisation without overlap"), share, "%"));
        Ok(figures)
    }

    /// Every miner publishes: the roots of their payloads.
    fn make(&mut self, window: usize) -> Result<Vec<String>, Failure> {
        let miners = self.peers.iter_mut().skip(self.validators);
        for (miner, peer) in miners.enumerate() {
            peer.tell(&format!("make {}", len_of(window, miner)))?;
        }
        let mut roots = Vec::new();
        for (miner, peer) in self.peers.iter_mut().skip(self.validators).enumerate() {
            let answer = peer.process.answer()?;
            let root = answer.get("root").and_then(Value::as_str);
            let root = root.ok_or_else(|| format!("no root: {answer}"))?;
            let (len, index) = (len_of(window, miner), self.validators + miner);
            roots.push(format!("{root}:{len}:{index}"));
        }
        Ok(roots)
    }

    /// Everybody begins to fetch what it needs: validators all, miners what was accepted.
    fn begin_exchange(&mut self, roots: &[String]) -> Result<(), Failure> {
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let miner = index.checked_sub(self.validators);
            let count = if miner.is_some() { ACCEPTED } else { roots.len() };
            let wanted = roots.iter().take(count).enumerate();
            let wanted = wanted.filter(|(of, _)| Some(*of) != miner).map(|(_, root)| root.as_str());
            let wanted: Vec<&str> = wanted.collect();
            peer.tell(&format!("exchange {}", wanted.join(" ")))?;
        }
        Ok(())
    }

    /// Bytes of content that all of them have sent.
    fn sent(&mut self) -> Result<f64, Failure> {
        self.peers.iter_mut().map(|peer| counter(peer, "sent")).sum()
    }

    /// Bytes of content that all of them fetch in an exchange.
    fn wanted(&self) -> f64 {
        (payloads(self.validators) * PAYLOAD_LEN) as f64
    }

    /// What all of them have had of the processors, in seconds.
    fn cpu_seconds(&self) -> Result<f64, Failure> {
        self.peers.iter().map(|peer| peer.process.cpu_seconds()).sum()
    }

    /// Waits for all: when the last one had all, in seconds.
    fn end_exchange(&mut self) -> Result<f64, Failure> {
        let mut last: f64 = 0.0;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let answer = peer.process.answer()?;
            let number = |key: &str| answer.get(key).and_then(Value::as_f64);
            eprintln!("netlab: peer {index}: {answer}");
            if number("missing") != Some(0.0) {
                return Err(format!("peer {index} has not all: {answer}"));
            }
            last = last.max(number("millis").unwrap_or_default() / 1e3);
        }
        Ok(last)
    }
}

/// Lengths differ, so payloads do.
fn len_of(window: usize, miner: usize) -> usize {
    PAYLOAD_LEN + window * MINERS + miner
}

/// How many payloads miners and so many validators fetch in an exchange.
fn payloads(validators: usize) -> usize {
    MINERS * ACCEPTED - ACCEPTED + validators * MINERS
}

/// The least that an exchange takes, in seconds: by all uplinks together, by a miner's downlink, and by one uplink for
/// one payload.
fn floor(validators: &[f64]) -> f64 {
    let bits = PAYLOAD_LEN as f64 * 8.0 / 1e6;
    let wanted = payloads(validators.len()) as f64 * bits;
    let up = MINERS as f64 * UP + validators.iter().sum::<f64>();
    (wanted / up).max(ACCEPTED as f64 * bits / DOWN).max(bits / UP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_exchange_is_faster_than_the_links() {
        // 556 payloads of 27.2 Mb over 24 times 5.5 and 4 times 50 Mb/s.
        assert!((floor(&[VALIDATOR; VALIDATORS]) - 45.55).abs() < 0.01);
        // As the review's model has it: 98.2 s by 20 are 1,966 s.
        assert!((floor(&[UP; VALIDATORS]) - 98.2).abs() < 0.1);
        // With the mirror's link the miners' downlinks are the slowest: 20 payloads at 25 Mb/s.
        let mut links = vec![VALIDATOR; VALIDATORS];
        links.push(MIRROR);
        assert!((floor(&links) - 21.76).abs() < 0.01);
    }
}
