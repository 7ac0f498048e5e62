//! `gauntlet doctor`: says what this machine has for training on GPUs, and what is missing.
//!
//! `--cuda` looks for driver, cards and libraries and, where there is a GPU, runs every kernel against what the emulator
//! computed. `--kernels` compiles all kernels for every architecture, which needs NVRTC alone and is a part of
//! `cargo xtask test`.

mod cuda;

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{bail, ensure, Result};
use clap::Args;
use trainer::cuda::{check, compiler, compiler::Architecture, cubins::Cubins, gate, Chosen};

use crate::{exit, terminal};

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Look for driver, cards and libraries, run every kernel against what it should give, time the cards, and say which
    /// presets fit.
    #[arg(long)]
    pub cuda: bool,
    /// Compile all kernels for every architecture that is supported, and print what each takes.
    #[arg(long)]
    pub kernels: bool,
    /// Time nothing.
    #[arg(long, requires = "cuda")]
    pub quick: bool,
    /// Which cards: their numbers. Default: all.
    #[arg(long, requires = "cuda", value_name = "NUMBER,…")]
    pub cards: Option<Chosen>,
    /// Keep what is compiled in this folder. Default: gauntlet/cubins in the user's cache folder.
    #[arg(long, value_name = "FOLDER")]
    pub cubins: Option<PathBuf>,
}

/// Looks at this machine.
///
/// # Errors
/// Something is missing or does not work; the text says what brings it.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    ensure!(args.cuda || args.kernels, "say what to look at: --cuda, --kernels or both");
    if args.kernels {
        kernels(args)?;
    }
    if args.cuda {
        cuda::look(args)?;
    }
    Ok(exit::SUCCESS)
}

pub(crate) use cuda::known_card;

fn cubins(args: &DoctorArgs) -> Cubins {
    args.cubins.as_deref().map_or_else(Cubins::of_user, Cubins::at)
}

/// Compiles all kernels and prints a table; any fault is an error.
fn kernels(args: &DoctorArgs) -> Result<()> {
    let (major, minor) = compiler::version()?;
    let cubins = cubins(args);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let architectures = Architecture::CHECKED;
    let gated = gate::gate(&cubins, &architectures, threads);
    let text = |text: &str| text.to_owned();
    let head = ["kernel", "threads", "blocks", "for", "registers", "shared", "spills", "stack"];
    let mut rows = vec![head.map(text).to_vec()];
    for row in &gated {
        let kernel = row.kernel;
        let mut cells = vec![
            check::full_name(kernel),
            kernel.threads.to_string(),
            kernel.blocks.to_string(),
            row.architecture.to_string(),
        ];
        cells.extend(match &row.outcome {
            Ok(resources) => [
                resources.registers,
                resources.shared + kernel.shared_max,
                resources.spill_stores + resources.spill_loads,
                resources.stack,
            ]
            .map(|count| count.to_string()),
            Err(_) => ["-", "-", "-", "-"].map(text),
        });
        rows.push(cells);
    }
    terminal::print(&terminal::aligned(&rows));
    let faults: Vec<String> = gated
        .iter()
        .flat_map(|row| {
            row.faults
                .iter()
                .map(|fault| format!("{} for {}: {fault}", row.kernel.name, row.architecture))
        })
        .collect();
    if !faults.is_empty() {
        bail!("{} faults\n  {}", faults.len(), faults.join("\n  "));
    }
    terminal::print(&format!(
        "{} kernels for {} architectures by NVRTC {major}.{minor}: nothing is spilled, no stack, and each fits",
        gated.len() / architectures.len(),
        architectures.len(),
    ));
    Ok(())
}
