//! `gauntlet doctor`: says what this machine has for training on GPUs, and what is missing.
//!
//! `--cuda` looks for driver, cards and libraries and, where there is a GPU, runs every kernel against what the emulator
//! computed. `--kernels` compiles all kernels for every architecture, which needs NVRTC alone and is a part of
//! `cargo xtask test`.

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{bail, Result};
use clap::Args;
use trainer::cuda::{compiler, compiler::Architecture, cubins::Cubins, gate};

use crate::{exit, terminal};

/// Options of `doctor`.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct DoctorArgs {
    /// Compile all kernels for every architecture that is supported, and print what each takes.
    #[arg(long)]
    pub kernels: bool,
    /// Keep what is compiled in this folder (default: gauntlet/cubins in the user's cache folder).
    #[arg(long, value_name = "FOLDER", requires = "kernels")]
    pub cubins: Option<PathBuf>,
}

/// Looks at this machine.
///
/// # Errors
/// Something is missing or does not work; the text says what brings it.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    if args.kernels {
        kernels(args)?;
    }
    Ok(exit::SUCCESS)
}

/// Compiles all kernels and prints a table; any fault is an error.
fn kernels(args: &DoctorArgs) -> Result<()> {
    let (major, minor) = compiler::version()?;
    let cubins = args.cubins.as_deref().map_or_else(Cubins::of_user, Cubins::at);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let architectures = Architecture::CHECKED;
    let gated = gate::gate(&cubins, &architectures, threads);
    let text = |text: &str| text.to_owned();
    let head = ["kernel", "threads", "blocks", "for", "registers", "shared", "spills", "stack"];
    let mut rows = vec![head.map(text).to_vec()];
    for row in &gated {
        let kernel = row.kernel;
        let mut name = kernel.name.to_owned();
        kernel.defines.iter().for_each(|(define, value)| name += &format!(" {define}={value}"));
        let mut cells = vec![
            name,
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
