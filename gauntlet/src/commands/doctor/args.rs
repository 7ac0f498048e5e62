//! The options of `gauntlet doctor`.

use std::path::PathBuf;

use clap::Args;
use trainer::cuda::{cubins::Cubins, Chosen};

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

impl DoctorArgs {
    /// Where compiled kernels are kept.
    pub(super) fn cubins(&self) -> Cubins {
        self.cubins.as_deref().map_or_else(Cubins::of_user, Cubins::at)
    }
}
