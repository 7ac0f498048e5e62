//! `gauntlet doctor`: says what this machine has for training on GPUs, and what is missing.
//!
//! `--cuda` looks for driver, cards and libraries and, where there is a GPU, runs every kernel against what the emulator
//! computed. `--kernels` compiles all kernels for every architecture, which needs NVRTC alone and is a part of
//! `cargo xtask test`.

mod args;

mod cuda;

use std::num::NonZero;

use anyhow::{bail, ensure, Result};
use trainer::cuda::{check, compiler, compiler::Architecture, gate};

pub use self::args::DoctorArgs;
pub(crate) use self::cuda::known_card;
use crate::{exit, terminal};

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

/// Compiles all kernels and prints a table; any fault is an error.
fn kernels(args: &DoctorArgs) -> Result<()> {
    let (major, minor) = compiler::version()?;
    let cubins = args.cubins();
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
