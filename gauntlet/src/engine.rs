//! Names the devices of `--device` and the engines of `--engine`, and opens them.
//!
//! `--device` says where a model is computed: on the processor, or on GPUs. `--engine` is for those who measure or check
//! the processor's engines, and goes with no GPU.

use std::{fmt, str::FromStr, sync::Arc};

use anyhow::{bail, Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use trainer::{
    cuda::{Cards, Chosen, Cuda, Gpus},
    devices, Device, DeviceKind, ModelConfig, Threads,
};

/// The variables that candle and rayon take their number of threads from.
const THREAD_VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

/// The values of `--device`.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceArg {
    /// This machine's processor.
    #[default]
    Cpu,
    /// The GPUs, if there are any that compute what they should; else the processor.
    Auto,
    /// GPUs: all, or some by their numbers.
    Cuda(Chosen),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(Chosen::ALL)),
            Some(("cuda", numbers)) => numbers.parse().map(Self::Cuda),
            _ => Err(format!("{text:?} is not auto, cpu, cuda or cuda:NUMBER,…")),
        }
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(Chosen::ALL) => f.write_str("cuda"),
            Self::Cuda(chosen) => write!(f, "cuda:{chosen}"),
        }
    }
}

impl TryFrom<String> for DeviceArg {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceArg> for String {
    fn from(device: DeviceArg) -> Self {
        device.to_string()
    }
}

impl DeviceArg {
    /// The device that is meant, where an engine may be named too. What `auto` finds is said in one line of the log.
    ///
    /// # Errors
    /// An engine of the processor is named with a GPU.
    pub fn kind(self, engine: Option<EngineArg>) -> Result<DeviceKind> {
        match (self, engine) {
            (Self::Cuda(_), Some(engine)) => {
                let engine = engine.to_possible_value();
                let name = engine.as_ref().map_or("", |value| value.get_name());
                bail!("--device {self} and --engine {name} exclude each other")
            }
            (Self::Cuda(chosen), None) => Ok(DeviceKind::Cuda(chosen)),
            (Self::Cpu, engine) => Ok(engine.unwrap_or_default().kind()),
            (Self::Auto, Some(engine)) => Ok(engine.kind()),
            (Self::Auto, None) => Ok(found()),
        }
    }

    /// Opens the device, on a host with these threads.
    ///
    /// # Errors
    /// This machine has no such device; the text says what is missing and what brings it.
    pub fn open(self, engine: Option<EngineArg>, threads: Threads) -> Result<Arc<dyn Device>> {
        Ok(devices::open(self.kind(engine)?, threads)?)
    }
}

/// The samples at once of a training on cards: those that are asked for, or the most that fit.
///
/// # Errors
/// There are no such cards, or not one sample fits them; the text says what would.
pub(crate) fn cards_micro_batch(
    chosen: Chosen,
    config: &ModelConfig,
    batch_size: usize,
    asked: Option<usize>,
    muon: bool,
) -> Result<usize> {
    let cards = Cards::find(chosen)?;
    let world = cards.cards().len();
    let device = Cuda::fitting(Arc::new(cards), Threads::single());
    let fits = |batch| -> Result<usize> {
        Ok(device.training_fit(config, batch, muon)?.map_or(batch, |own| own.samples))
    };
    let samples = fits(batch_size)?;
    match asked {
        // So many on each card.
        Some(asked) if fits(asked.saturating_mul(world)).is_ok_and(|fit| fit >= asked) => Ok(asked),
        Some(asked) => bail!(
            "{asked} samples at once do not fit the cards; {samples} do (--micro-batch {samples})"
        ),
        None => Ok(samples),
    }
}

/// The GPUs, if all of them compute what they should; else the processor.
fn found() -> DeviceKind {
    let cards = Cards::find(Chosen::ALL).and_then(|cards| {
        cards.check()?;
        Ok(cards)
    });
    match cards {
        Ok(cards) => {
            tracing::info!("device: cuda, {}", cards.name());
            DeviceKind::Cuda(Chosen::ALL)
        }
        Err(error) => {
            tracing::info!("device: cpu, as no GPU is of use: {error}");
            DeviceKind::Cpu
        }
    }
}

/// The values of `--engine`.
#[derive(ValueEnum, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum EngineArg {
    /// Gauntlet's engine on this machine's best matrix unit.
    #[default]
    Cpu,
    /// Gauntlet's engine on the vector unit, as on a processor without AMX.
    Vector,
    /// Gauntlet's engine with the products of the gemm crate, as on a processor that is not x86-64.
    Portable,
    /// The same model with candle's autograd: slow, to check the others.
    Candle,
}

/// The values of `--optimiser`.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum OptimiserArg {
    /// AdamW on every tensor.
    #[default]
    #[value(name = "adamw")]
    AdamW,
    /// Muon on the layers' matrices, AdamW on embedding, output matrix and norms.
    Muon,
}

impl EngineArg {
    /// The device that it is.
    fn kind(self) -> DeviceKind {
        match self {
            Self::Cpu => DeviceKind::Cpu,
            Self::Vector => DeviceKind::Vector,
            Self::Portable => DeviceKind::Portable,
            Self::Candle => DeviceKind::Candle,
        }
    }

    /// Sees to it that candle has so many threads. candle takes its number from the environment, once: where that
    /// says something else, this process becomes another one with the right environment.
    ///
    /// # Errors
    /// This program cannot be started again.
    pub fn start_again_with_threads(self, threads: usize) -> Result<()> {
        use std::os::unix::process::CommandExt;
        let wanted = threads.to_string();
        let is_set = |name: &&str| std::env::var(name).is_ok_and(|value| value == wanted);
        if self != Self::Candle || THREAD_VARIABLES.iter().all(is_set) {
            return Ok(());
        }
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = std::process::Command::new(program);
        command.args(std::env::args_os().skip(1));
        for name in THREAD_VARIABLES {
            command.env(name, &wanted);
        }
        Err(command.exec()).context("cannot start again with another number of threads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_shown() {
        for text in ["auto", "cpu", "cuda", "cuda:0", "cuda:1,3"] {
            assert_eq!(text.parse::<DeviceArg>().unwrap().to_string(), text);
        }
        for wrong in ["", "gpu", "cuda:", "cuda:0,0", "cpu:0", "cuda:x"] {
            assert!(wrong.parse::<DeviceArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_engine_of_the_processor_goes_with_no_gpu() {
        let cuda: DeviceArg = "cuda:2".parse().unwrap();
        let error = cuda.kind(Some(EngineArg::Vector)).unwrap_err().to_string();
        assert_eq!(error, "--device cuda:2 and --engine vector exclude each other");
        assert_eq!(DeviceArg::Auto.kind(Some(EngineArg::Portable)).unwrap(), DeviceKind::Portable);
        assert_eq!(DeviceArg::Cpu.kind(None).unwrap(), DeviceKind::Cpu);
    }
}
