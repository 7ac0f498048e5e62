//! Cuts processes off: what goes to their sockets or comes from them is dropped for a while.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::localnet::{nft, process_id};
use crate::{command::output, failure::Failure};

/// Which of a process's sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sockets {
    All,
    /// The one at which a node is asked; its peers go on to reach it.
    Rpc,
}

/// Drops all that goes to the sockets of a process or comes from them, those too that it opens meanwhile. The `number`
/// is another one for each cut.
///
/// # Errors
/// The process has no such sockets, or nft refuses.
pub(super) fn cut(
    folder: &Path,
    of: &str,
    sockets: Sockets,
    time: Duration,
    number: usize,
) -> Result<(), Failure> {
    let table = format!("cut{number}");
    let mut rules = format!(
        "add table inet {table}; add set inet {table} ports {{ type inet_service; }}; \
         add chain inet {table} in {{ type filter hook input priority 0; }}"
    );
    for ports in ["tcp sport", "tcp dport", "udp sport", "udp dport"] {
        rules.push_str(&format!("; add rule inet {table} in {ports} @ports drop"));
    }
    nft(&rules)?;
    let kept = keep(folder, of, sockets, time, &table);
    // Whatever went wrong meanwhile, nothing stays cut off.
    nft(&format!("delete table inet {table}"))?;
    kept
}

/// Keeps the ports of the process in the table's set for so long.
fn keep(
    folder: &Path,
    of: &str,
    sockets: Sockets,
    time: Duration,
    table: &str,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut known = BTreeSet::new();
    while begin.elapsed() < time {
        // It may end meanwhile, and be started again.
        for port in process_id(folder, of).map_or_else(|_| Vec::new(), |id| sockets.ports(id)) {
            if known.insert(port) {
                nft(&format!("add element inet {table} ports {{ {port} }}"))?;
            }
        }
        thread::sleep(Duration::from_millis(500));
    }
    match known.is_empty() {
        true => Err(format!("{of} had no port that could be cut off")),
        false => Ok(()),
    }
}

impl Sockets {
    /// The local ports of these sockets of a process.
    fn ports(self, process: u32) -> Vec<u16> {
        match self {
            Self::All => ports(process),
            Self::Rpc => rpc_port(process).into_iter().collect(),
        }
    }
}

/// The local ports of a process's sockets.
fn ports(process: u32) -> Vec<u16> {
    let list = output(Command::new("ss").args(["-Hantup"])).unwrap_or_default();
    let own = format!("pid={process},");
    let of_line = |line: &str| -> Option<u16> {
        let local = line.split_whitespace().nth(4)?;
        local.rsplit(':').next()?.parse().ok()
    };
    list.lines().filter(|line| line.contains(&own)).filter_map(of_line).collect()
}

/// The port at which a node is asked.
fn rpc_port(process: u32) -> Option<u16> {
    port_among(&fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?)
}

/// The RPC port that a command line's words name, each of which ends with a NUL.
fn port_among(words: &str) -> Option<u16> {
    words.split('\0').find_map(|word| word.strip_prefix("--rpc-port=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_rpc_port_is_in_its_command_line() {
        assert_eq!(port_among("gauntlet-node\0--dev\0--rpc-port=4711\0"), Some(4711));
        assert_eq!(port_among("gauntlet\0miner\0"), None);
    }
}
