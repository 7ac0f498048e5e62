//! Settles a localnet before its first process starts: model, participants, their memory, the run's folder.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use trainer::{
    budget::quantity::{product, sum},
    ModelConfig,
};

use super::args::LocalnetArgs;
use super::optimisers::{KEEP, OPTIMISER};
use participant::{memory, miner::adversary_kind::AdversaryKind};

use crate::env;

/// The options of a localnet, and everything that follows from them alone.
#[derive(Clone, Debug)]
pub(super) struct LocalnetOrder {
    pub(super) args: LocalnetArgs,
    pub(super) model: ModelConfig,
    pub(super) members: Vec<Member>,
    pub(super) shares: MemoryShares,
    /// The run's folder; empty until it is made.
    pub(super) folder: PathBuf,
}

impl LocalnetOrder {
    /// Checks that this machine's memory holds the localnet, and makes the run's folder.
    ///
    /// # Errors
    /// There is no such model, the memory does not hold one of it for each participant, or the folder cannot be made.
    pub(super) fn new(args: LocalnetArgs) -> Result<Self> {
        // A machine that does not tell its memory is taken at its word.
        let available = memory::available().unwrap_or(u64::MAX >> 2);
        let mut order = Self::in_memory(args, available)?;
        order.folder = make_folder(order.args.keep.as_deref())?;
        Ok(order)
    }

    /// Settles everything but the folder for `available` bytes of memory.
    pub(super) fn in_memory(args: LocalnetArgs, available: u64) -> Result<Self> {
        let model =
            ModelConfig::preset(&args.model).with_context(|| format!("--model {}", args.model))?;
        if args.fork_every > 0 && args.finality_lag == 0 {
            bail!("--fork-every replaces blocks that are not final, of which there are none; add --finality-lag 2");
        }
        let members = members(&args);
        if let Some(first) = args.metrics_port {
            let last = usize::from(first) + members.len() - 1;
            if last > usize::from(u16::MAX) {
                bail!(
                    "--metrics-port {first}: {} participants need ports to {last}",
                    members.len()
                );
            }
        }
        let shares = share_memory(&args, &model, &members, available)?;
        Ok(Self { args, model, members, shares, folder: PathBuf::new() })
    }

    /// How many miners there are, adversaries among them.
    pub(super) fn miner_count(&self) -> u64 {
        self.members.iter().filter(|member| member.is_miner()).count() as u64
    }
}

/// One participant of a localnet.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// Its name, its folder's and its log's.
    pub(super) name: String,
    /// `miner` or `validator`.
    pub(super) role: String,
    /// `honest`, or the adversary's name.
    pub(super) kind: String,
}

impl Member {
    fn new(role: &str, number: u16, adversary: Option<AdversaryKind>) -> Self {
        let kind = adversary.map_or("honest", AdversaryKind::name);
        let name = match adversary {
            None => format!("{role}-{number}"),
            Some(kind) => format!("{}-{number}", kind.name()),
        };
        Self { name, role: role.to_owned(), kind: kind.to_owned() }
    }

    /// Its adversary kind, if it is one.
    pub(super) fn adversary(&self) -> Option<AdversaryKind> {
        self.kind.parse().ok()
    }

    /// Whether it is a miner.
    pub(super) fn is_miner(&self) -> bool {
        self.role == "miner"
    }

    /// Secret URI of the account that owns its money. Anybody can derive it: a localnet's money is worth nothing.
    pub(super) fn cold_uri(&self) -> String {
        format!("//localnet//{}", self.name)
    }

    /// Secret URI of the account that signs its work.
    pub(super) fn hot_uri(&self) -> String {
        format!("//localnet//{}//hot", self.name)
    }

    /// Secret URI of the account that holds the bonds of a validator's accusations.
    pub(super) fn bonds_uri(&self) -> String {
        format!("//localnet//{}//bonds", self.name)
    }
}

/// Lists the participants that the command line asks for: honest miners, adversaries, validators.
fn members(args: &LocalnetArgs) -> Vec<Member> {
    let honest = (0..args.miners).map(|number| Member::new("miner", number, None));
    let adversaries = args.adversaries.iter().flat_map(|adversaries| {
        (0..adversaries.count).map(|number| Member::new("miner", number, Some(adversaries.kind)))
    });
    let validators = (0..args.validators).map(|number| Member::new("validator", number, None));
    let mut members: Vec<Member> = honest.chain(adversaries).chain(validators).collect();
    // `--adversary lazy:1 --adversary lazy:1` means two.
    for index in 0..members.len() {
        let name = members[index].name.clone();
        let before = members[..index].iter().filter(|member| member.name == name).count();
        if before > 0 {
            members[index].name = format!("{name}-{before}");
        }
    }
    members
}

/// Makes the run's folder: `keep`, which must not exist or be empty, or a new one in the user's cache folder.
fn make_folder(keep: Option<&Path>) -> Result<PathBuf> {
    let folder = match keep {
        Some(folder) => folder.to_owned(),
        None => {
            let seconds =
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            runs_folder()?.join(format!("localnet-{seconds}-{}", std::process::id()))
        }
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let mut entries = std::fs::read_dir(&folder)?;
    if entries.next().is_some() {
        bail!("{} is not empty; give another folder, or remove it", folder.display());
    }
    for name in ["logs", "payloads", "chain"] {
        std::fs::create_dir(folder.join(name))?;
    }
    Ok(folder.canonicalize()?)
}

fn runs_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(env::RUNS) {
        return Ok(folder.into());
    }
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("gauntlet").join("runs"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set; say --keep FOLDER")?;
    Ok(PathBuf::from(home).join(".cache").join("gauntlet").join("runs"))
}

/// Bytes that the chain and this command take beside the participants.
const CHAIN_BYTES: u64 = 500_000_000;

/// What each participant may use of the machine's memory, and how many samples a miner then computes at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryShares {
    /// Bytes of a miner.
    pub(super) miner: u64,
    /// Bytes of a validator.
    pub(super) validator: u64,
    /// A divisor of the batch.
    pub(super) micro_batch: usize,
}

/// Divides `available` bytes between the participants: each gets what it needs at least, the miners half of the rest.
///
/// # Errors
/// The memory does not hold one of it for each participant.
fn share_memory(
    args: &LocalnetArgs,
    config: &ModelConfig,
    members: &[Member],
    available: u64,
) -> Result<MemoryShares> {
    let miners = members.iter().filter(|member| member.is_miner()).count() as u64;
    let validators = members.len() as u64 - miners;
    let miner = |model: &ModelConfig| memory::miner(model, OPTIMISER, 1, 1)?.bytes();
    let validator = |model: &ModelConfig| memory::validator(model, KEEP, 1)?.bytes();
    let all = |model: &ModelConfig| {
        let miners = product("miners", &[miners, miner(model)?])?;
        let validators = product("validators", &[validators, validator(model)?])?;
        sum("participants", [CHAIN_BYTES, miners, validators])
    };
    let who = format!("a localnet of {miners} miners and {validators} validators");
    memory::check(&who, config, Some(available), all)?;
    let rest = available - all(config)?;
    let share = miner(config)? + rest / 2 / miners.max(1);
    let batch = args.batch_size as usize;
    let costs = |model: &ModelConfig, samples| memory::miner(model, OPTIMISER, samples, 1);
    Ok(MemoryShares {
        miner: share,
        validator: validator(config)?,
        micro_batch: memory::micro_batch("a miner", config, batch, Some(share), &costs)?,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn args(line: &str) -> LocalnetArgs {
        #[derive(Parser)]
        struct Options {
            #[command(flatten)]
            args: LocalnetArgs,
        }
        let words = format!("localnet {line}");
        Options::parse_from(words.split_whitespace()).args
    }

    #[test]
    fn every_member_has_a_name_of_its_own() {
        let members =
            members(&args("--miners 3 --adversary lazy:2 --adversary lazy:1 --adversary copier"));
        let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names.len(), 3 + 2 + 1 + 1 + 2);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 9);
    }

    #[test]
    fn forks_want_blocks_that_are_not_final() {
        let order = |line| LocalnetOrder::in_memory(args(line), 20_000_000_000);
        let error = order("--fork-every 5").unwrap_err().to_string();
        assert!(error.contains("add --finality-lag"), "{error}");
        order("--fork-every 5 --finality-lag 1").unwrap();
    }

    #[test]
    fn the_memory_is_divided_or_the_model_refused() {
        let args = args("--miners 2 --validators 2 --model 25M --batch-size 8");
        let members = members(&args);
        let model = ModelConfig::preset("25M").unwrap();
        let share = |available| share_memory(&args, &model, &members, available);
        let shares = share(20_000_000_000).unwrap();
        assert_eq!(shares.micro_batch, 8);
        let taken = 2 * (shares.miner + shares.validator);
        assert!(taken < 20_000_000_000, "{shares:?}");
        let step = 100_000_000;
        let least = (1..).map(|steps| steps * step).find(|most| share(*most).is_ok()).unwrap();
        let shares = share(least).unwrap();
        assert!(shares.micro_batch < 8, "{least} {shares:?}");
        let error = share(least - step).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("2 miners and 2 validators of the model 25M needs")
                && error.contains("the largest preset that fits is 7M"),
            "{error}"
        );
    }
}
