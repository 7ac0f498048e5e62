//! Measures this machine's memory: how much is left, how many samples at once a process may take, and the refusal of a
//! model that does not fit, before anything of it is allocated.
//!
//! The bytes are [`trainer::budget`]'s; here is what the processes of this crate hold of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use trainer::{
    budget::{
        micro_batch_that_fits,
        quantity::{format_bytes, product},
        BudgetError, CpuCosts,
    },
    Device, ModelConfig, PRESETS,
};

use crate::error::{Error, Result};
use protocol::settings::InnerOptimiser;

/// What a process costs that computes so many samples of a model at once.
type Costs<'a> = &'a dyn Fn(&ModelConfig, usize) -> Result<CpuCosts, BudgetError>;

/// Samples that a validator evaluates at once: bounds its memory.
pub(crate) const SCORED_AT_ONCE: usize = 8;

/// Bytes that can be allocated now: what Linux says, or what the control group leaves if that is less; none where neither
/// can be read.
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = groups_leave(&group, Path::new("/sys/fs/cgroup"));
    let available = meminfo_available(&text)?;
    Some(left.map_or(available, |left| left.min(available)))
}

fn meminfo_available(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the control groups of this process leave, the least of them; none without a limit. Files that can be dropped
/// from memory are not counted as used.
fn groups_leave(groups: &str, root: &Path) -> Option<u64> {
    let number = |folder: &Path, name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let droppable = |folder: &Path| {
        let text = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("inactive_file "));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0u64)
    };
    let left = |folder: &Path| {
        let (max, used) = match number(folder, "memory.max") {
            Some(max) => (max, number(folder, "memory.current")?),
            // Version 1.
            None => {
                (number(folder, "memory.limit_in_bytes")?, number(folder, "memory.usage_in_bytes")?)
            }
        };
        Some(max.saturating_sub(used.saturating_sub(droppable(folder))))
    };
    // `0::/a/b` of version 2, `9:memory:/a/b` of version 1.
    let own = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some((root.to_owned(), path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((root.join("memory"), path))
            }
            _ => None,
        }
    });
    let folders: Vec<PathBuf> = own
        .flat_map(|(root, path)| {
            let above = root.join(path);
            let folders = above.ancestors().filter(|folder| folder.starts_with(&root));
            folders.map(Path::to_owned).collect::<Vec<_>>()
        })
        .collect();
    folders.iter().filter_map(|folder| left(folder)).min()
}

/// What the process of a miner holds that trains with `optimiser`: its replica and its trainer share the agreed state.
pub fn miner(
    config: &ModelConfig,
    optimiser: InnerOptimiser,
    samples: usize,
    threads: usize,
) -> Result<CpuCosts, BudgetError> {
    let muon = optimiser != InnerOptimiser::AdamW;
    CpuCosts::of_trainer(config, samples, threads)?
        .with_muon(muon, config, threads)?
        .and_replica(config, 0)
}

/// How many samples of a `batch` a miner computes at once on `device`: as many as fit the device's own memory, if it has
/// some, and else as [`micro_batch`] says.
///
/// # Errors
/// Not even one sample fits the device, or what is left to the host does not fit it.
pub fn miner_samples(
    device: &dyn Device,
    config: &ModelConfig,
    optimiser: InnerOptimiser,
    batch: usize,
    memory: Option<u64>,
) -> Result<usize> {
    let muon = optimiser != InnerOptimiser::AdamW;
    if let Some(own) = device.training_fit(config, batch, muon)? {
        check("the host of a miner", config, memory, |model| {
            CpuCosts::of_trainer_beside_cards(model, own.pinned)?.and_replica(model, 0)?.bytes()
        })?;
        return Ok(own.samples);
    }
    let threads = device.threads().count();
    let costs = |model: &ModelConfig, samples| miner(model, optimiser, samples, threads);
    micro_batch("a miner", config, batch, memory, &costs)
}

/// Refuses a validator that measures updates of k = `keep` on `device` if it does not fit.
///
/// # Errors
/// It does not fit the device's own memory or the host's.
pub fn check_validator(
    device: &dyn Device,
    config: &ModelConfig,
    keep: u16,
    memory: Option<u64>,
) -> Result<()> {
    match device.prediction_fit(config, SCORED_AT_ONCE, true)? {
        Some(_) => check("the host of a validator", config, memory, |model| {
            CpuCosts::of_validator_beside_cards(model, keep)?.bytes()
        }),
        None => check("a validator", config, memory, |model| {
            validator(model, keep, device.threads().count())?.bytes()
        }),
    }
}

/// What a validator's process holds that measures updates of k = `keep`: the agreed state, the one that it measures, and one
/// evaluator.
pub fn validator(config: &ModelConfig, keep: u16, threads: usize) -> Result<CpuCosts, BudgetError> {
    CpuCosts::of_validator(config, SCORED_AT_ONCE, threads, keep, 0)
}

/// Copies of a model's parameters.
pub fn copies(config: &ModelConfig, count: u64) -> Result<u64, BudgetError> {
    product("parameters", &[config.parameter_count(), 4, count])
}

/// How many samples of a `batch` a process computes at once: the most with which `costs` stay within `memory`, or, where
/// nobody said how much that is, within half of what is available, or else within all of it.
///
/// # Errors
/// Not even one sample fits; it says what is needed, what there is, and which preset would do.
pub fn micro_batch(
    role: &str,
    config: &ModelConfig,
    batch: usize,
    memory: Option<u64>,
    costs: Costs<'_>,
) -> Result<usize> {
    let (memory, available) = match (memory, available()) {
        (Some(memory), _) => (memory, memory),
        (None, Some(available)) => (available / 2, available),
        // A machine that does not tell is taken at its word.
        (None, None) => return Ok(batch),
    };
    let of_model = |samples| costs(config, samples);
    let within = |memory| micro_batch_that_fits(batch, memory, of_model);
    match within(memory).or_else(|_| within(available)) {
        Ok(samples) => Ok(samples),
        Err(BudgetError::Memory { needed, .. }) => {
            let role = format!("{role} of {}, one sample at a time,", name(config));
            let costs = |config: &ModelConfig| costs(config, 1)?.bytes();
            Err(Error::Unfit(refusal(&role, needed, available, costs)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses `role` if its `costs`, which do not depend on a batch, are more than `memory` or, where that is not said, than
/// what is available.
///
/// # Errors
/// They are; as [`micro_batch`].
pub fn check(
    role: &str,
    config: &ModelConfig,
    memory: Option<u64>,
    costs: impl Fn(&ModelConfig) -> Result<u64, BudgetError>,
) -> Result<()> {
    let Some(available) = memory.or_else(available) else {
        return Ok(());
    };
    let needed = costs(config)?;
    if needed <= available {
        return Ok(());
    }
    let role = format!("{role} of {}", name(config));
    Err(Error::Unfit(refusal(&role, needed, available, costs)))
}

/// A preset's name, or the number of parameters.
pub fn name(config: &ModelConfig) -> String {
    let preset = PRESETS.into_iter().find(|preset| {
        ModelConfig::preset(preset).is_ok_and(|preset| {
            let seq_len = config.seq_len;
            *config == ModelConfig { seq_len, ..preset }
        })
    });
    match preset {
        Some(name) => format!("the model {name}"),
        None => format!("a model of {} parameters", config.parameter_count()),
    }
}

fn refusal(
    role: &str,
    needed: u64,
    available: u64,
    costs: impl Fn(&ModelConfig) -> Result<u64, BudgetError>,
) -> String {
    let fits = |name: &&str| {
        let config = ModelConfig::preset(name).ok()?;
        let bytes = costs(&config).ok().filter(|bytes| *bytes <= available)?;
        Some((config.parameter_count(), bytes, (*name).to_owned()))
    };
    let largest = PRESETS.iter().filter_map(fits).max();
    let what = match largest {
        Some((_, bytes, name)) => {
            format!("the largest preset that fits is {name} ({})", format_bytes(bytes))
        }
        None => "no preset fits".to_owned(),
    };
    format!(
        "{role} needs {} of memory, and {} may be used; {what}; `gauntlet plan` shows what takes it",
        format_bytes(needed),
        format_bytes(available)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_the_least_of_machine_and_groups() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        let text = "MemTotal:  9 kB\nMemAvailable:     1024 kB\n";
        assert_eq!(meminfo_available(text), Some(1 << 20));
        assert_eq!(meminfo_available("MemAvailable: much"), None);

        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, name: &str, text: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), text).unwrap();
        };
        assert_eq!(groups_leave("0::/a/b\n", root.path()), None);
        write("a", "memory.max", "1000\n");
        write("a", "memory.current", "700\n");
        write("a", "memory.stat", "anon 5\ninactive_file 100\n");
        write("a/b", "memory.max", "max\n");
        write("a/b", "memory.current", "600\n");
        assert_eq!(groups_leave("0::/a/b\n", root.path()), Some(400));
        write("memory/c", "memory.limit_in_bytes", "500");
        write("memory/c", "memory.usage_in_bytes", "450");
        let both = "4:cpu,memory:/c\n0::/a/b\n";
        assert_eq!(groups_leave(both, root.path()), Some(50));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let costs =
            |config: &ModelConfig, samples| miner(config, InnerOptimiser::AdamW, samples, 2);
        let config = ModelConfig::preset("7M").unwrap();
        let of = |memory| micro_batch("a miner", &config, 8, Some(memory), &costs);
        assert_eq!(of(10_000_000_000).unwrap(), 8);
        let least = costs(&config, 1).unwrap().bytes().unwrap();
        assert!((1..8).contains(&of(least + least / 8).unwrap()), "{least}");
        let error = of(200_000_000).unwrap_err().to_string();
        for part in [
            "a miner of the model 7M, one sample at a time, needs",
            "200 MB may be used",
            "the largest preset that fits is 1M",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let error = of(1_000_000).unwrap_err().to_string();
        assert!(error.contains("no preset fits"), "{error}");
    }

    /// A device with memory of its own in which everything fits.
    struct Cards(trainer::Threads);

    impl Device for Cards {
        fn name(&self) -> &'static str {
            "cards"
        }

        fn threads(&self) -> &trainer::Threads {
            &self.0
        }

        fn training_fit(
            &self,
            _: &ModelConfig,
            batch: usize,
            _: bool,
        ) -> std::result::Result<Option<trainer::OwnMemory>, trainer::DeviceError> {
            Ok(Some(trainer::OwnMemory { samples: batch, card: 0, pinned: 0 }))
        }

        fn learner(
            &self,
            _: &ModelConfig,
            _: &trainer::learner::LearnerSettings,
        ) -> std::result::Result<Box<dyn trainer::learner::Learner>, trainer::DeviceError> {
            unreachable!("only memory is asked for")
        }

        fn predictor(
            &self,
            _: &ModelConfig,
            _: usize,
            _: bool,
        ) -> std::result::Result<Box<dyn trainer::Predictor>, trainer::DeviceError> {
            unreachable!("only memory is asked for")
        }
    }

    #[test]
    fn beside_cards_a_host_needs_room_for_two_copies_and_no_engine() {
        let cards = Cards(trainer::Threads::single());
        let config = ModelConfig::preset("7M").unwrap();
        let of = |memory| miner_samples(&cards, &config, InnerOptimiser::AdamW, 8, Some(memory));
        let two_copies = copies(&config, 2).unwrap();
        // Pieces of states and a tensor on its way come to it.
        assert_eq!(of(two_copies + (64 << 20)).unwrap(), 8);
        let error = of(two_copies).unwrap_err().to_string();
        assert!(error.contains("the host of a miner of the model 7M needs"), "{error}");
    }
}
