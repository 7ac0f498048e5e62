//! Watches how long the network takes to answer, and what memory it has.

use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use node_client::network::{Client, Network};
use serde_json::{json, Value};

/// How often both are looked at.
const PERIOD: Duration = Duration::from_millis(10);

/// What has been seen since it was asked for.
#[derive(Default)]
struct Seen {
    /// What questions to the event loop took, in microseconds: no less than its longest turn meanwhile.
    micros: Vec<u64>,
    anonymous_kib: u64,
}

/// What is being watched.
#[derive(Default)]
pub(crate) struct Health(Arc<Mutex<Seen>>);

impl Health {
    /// Watches until the network closes.
    pub(crate) fn watch(&self, client: Client) {
        let own = self.0.clone();
        tokio::spawn(async move {
            loop {
                let begin = Instant::now();
                if client.listen_addresses().await.is_err() {
                    return;
                }
                let micros = begin.elapsed().as_micros() as u64;
                let kib = anonymous_kib().unwrap_or_default();
                note(&own, micros, kib);
                tokio::time::sleep(PERIOD).await;
            }
        });
    }

    /// How long answers took: the middle, the hundredth, and the worst.
    pub(crate) fn turns(&self) -> Value {
        let mut micros = std::mem::take(&mut self.seen().micros);
        micros.sort_unstable();
        let millis = |index: usize| micros.get(index).map_or(0.0, |micros| *micros as f64 / 1e3);
        let count = micros.len();
        json!({
            "count": count,
            "median": millis(count / 2),
            "p99": millis(count * 99 / 100),
            "most": millis(count.saturating_sub(1)),
        })
    }

    pub(crate) fn memory(&self) -> Value {
        let now = anonymous_kib().unwrap_or_default();
        let most = std::mem::replace(&mut self.seen().anonymous_kib, now).max(now);
        json!({ "mib": most as f64 / 1_024.0 })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(seen: &Mutex<Seen>, micros: u64, kib: u64) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.micros.push(micros);
    seen.anonymous_kib = seen.anonymous_kib.max(kib);
}

/// Memory of this process that is not of files, which the kernel takes back when it needs to.
fn anonymous_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}
