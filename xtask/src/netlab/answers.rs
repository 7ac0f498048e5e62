//! What peers of the lab are asked for, and how their answers are read.

use serde_json::Value;

use super::lab::Peer;
use crate::failure::Failure;

/// A payload of 72 B, by 400, on links of 110 and 500 Mb/s, by 20.
pub(super) const PAYLOAD_LEN: usize = 3_400_000;
pub(super) const UP: f64 = 5.5;
pub(super) const DOWN: f64 = 25.0;

/// What is fetched over long or lossy links.
pub(super) const FAR_LEN: usize = 96 << 20;

/// The part of its uplink that a participant's configuration lets it use for content and for what is acknowledged of it:
/// headers take the rest. So who waits waits at the peer, where it is known who comes first, and not in a queue of the
/// line.
const CAP: f64 = 0.94;

/// What a failed fetch counts as, in seconds: as long as a peer tries.
const FAILED_SECONDS: f64 = 120.0;

/// How one fetch ended.
pub(super) struct Fetch {
    pub(super) seconds: f64,
    /// How often it began; callers begin again when nobody delivered.
    pub(super) tries: f64,
    pub(super) faults: f64,
    pub(super) is_done: bool,
}

pub(super) fn fetch(answer: &Value) -> Result<Fetch, Failure> {
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

pub(super) fn mbit_per_second(len: usize, seconds: f64) -> f64 {
    len as f64 * 8.0 / 1e6 / seconds
}

/// The bytes a second that a participant sends at the most on an uplink of so many Mb/s, as its configuration says.
pub(super) fn own_limit(up: f64) -> String {
    (up * CAP * 1e6 / 8.0).round().to_string()
}

pub(super) fn counter(peer: &mut Peer, key: &str) -> Result<f64, Failure> {
    let counters = peer.ask("counters")?;
    counters.get(key).and_then(Value::as_f64).ok_or_else(|| format!("no counters: {counters}"))
}
