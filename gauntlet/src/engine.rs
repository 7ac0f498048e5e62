//! Names the engines of `--engine` and opens them.

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use trainer::{devices, Device, DeviceKind, Threads};

/// The variables that candle and rayon take their number of threads from.
const THREAD_VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

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
    /// Opens the device, on a host with these threads.
    ///
    /// # Errors
    /// This machine has no such device.
    pub fn open(self, threads: Threads) -> Result<Arc<dyn Device>> {
        let kind = match self {
            Self::Cpu => DeviceKind::Cpu,
            Self::Vector => DeviceKind::Vector,
            Self::Portable => DeviceKind::Portable,
            Self::Candle => DeviceKind::Candle,
        };
        Ok(devices::open(kind, threads)?)
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
