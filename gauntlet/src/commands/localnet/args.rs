//! The options of `gauntlet localnet`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

use participant::miner::adversary_kind::AdversaryKind;

use crate::{engine::DeviceArg, env, limits};

/// Options of `localnet`.
#[derive(Args, Debug, Clone)]
pub struct LocalnetArgs {
    /// Number of honest miners.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub miners: u16,
    /// Number of validators.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub validators: u16,
    /// Number of nodes of the chain: one makes its blocks, the others follow it. Each participant knows all of them and
    /// begins with another one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Windows to train; the command ends when the last one is settled.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub windows: u64,
    /// Milliseconds from block to block.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub block_ms: u64,
    /// Blocks that the last final block is behind the newest, as on a chain whose authorities vote; each phase of a
    /// window is longer by as much.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    pub finality_lag: u32,
    /// Replace the last block every so many blocks, as authorities that have not heard of each other's blocks do; wants a
    /// finality lag. 0 for never.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub fork_every: u32,
    /// Blocks of a window. Default: enough for the training on this machine.
    #[arg(long, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub window_blocks: Option<u32>,
    /// Blocks of each phase of an exchange (reveals, attestations, applying) at least, as where they are minutes long:
    /// what goes wrong for some seconds is then a small part of one.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub phase_blocks: u32,
    /// Seed of the initial parameters.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A text file, or a folder of them. Default: sources and Markdown of the dependencies that Cargo.lock pins.
    #[arg(long, value_name = "FILE|DIR")]
    pub data: Option<PathBuf>,
    /// Cargo.lock whose dependencies are the default corpus. Default: the one in the current folder or above.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Adversaries beside the honest miners: garbage, copier, lazy, replayer, malformed or withholder; may be repeated.
    #[arg(long = "adversary", value_name = "KIND:COUNT")]
    pub adversaries: Vec<Adversaries>,
    /// The model: nano, 1M, 7M, 25M, 135M, 360M, 1B, 8B, 70B or covenant-72b.
    #[arg(long, default_value = "nano", value_name = "PRESET", value_parser = limits::text)]
    pub model: String,
    /// Where the participants compute, each by itself: auto, cpu, cuda or cuda:NUMBER,….
    #[arg(long, default_value_t, value_name = "DEVICE")]
    pub device: DeviceArg,
    /// Local steps of a window (H). Default: as many as this machine can do in a window.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub inner_steps: Option<u32>,
    /// Whether miners train in the next window while their updates travel.
    #[arg(long)]
    pub overlap: bool,
    /// Samples of a step.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub batch_size: u32,
    /// Folder for the run, which must not exist or be empty. Default: a new one in the user's cache folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// File to write the report to (JSON), beside the one in the run folder.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The chain's binary. Default: `gauntlet-node` beside this program.
    #[arg(long, env = env::NODE, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Start metrics of the participants at this port (one port each).
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub metrics_port: Option<u16>,
}

/// Adversaries of one kind and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adversaries {
    /// Their way of misbehaving.
    pub kind: AdversaryKind,
    /// Their number, at most 64.
    pub count: u16,
}

/// The most adversaries of one kind.
const ADVERSARIES_MAX: u16 = 64;

impl FromStr for Adversaries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, count) = text.split_once(':').unwrap_or((text, "1"));
        let count: u16 =
            count.parse().map_err(|_| format!("{count:?} is not a number of adversaries"))?;
        if count == 0 || count > ADVERSARIES_MAX {
            return Err(format!("{count} is not from 1 to {ADVERSARIES_MAX}"));
        }
        Ok(Self { kind: kind.parse()?, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adversaries_are_a_kind_and_a_count() {
        let lazy = Adversaries { kind: AdversaryKind::Lazy, count: 2 };
        assert_eq!("lazy:2".parse(), Ok(lazy));
        assert_eq!("lazy".parse::<Adversaries>().map(|a| a.count), Ok(1));
        assert!("lazy:0".parse::<Adversaries>().is_err());
        assert!("kind:1".parse::<Adversaries>().is_err());
    }
}
