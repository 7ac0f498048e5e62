//! The options of `gauntlet audit`.

use std::path::PathBuf;

use clap::Args;

use crate::env;

/// Options of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// A folder that `localnet` left. The chain in it is started and read; nothing in it is changed.
    #[arg(value_name = "RUN_FOLDER")]
    pub folder: PathBuf,
    /// Ask this chain instead of starting the one in the folder.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The chain's binary. Default: `gauntlet-node` beside this program.
    #[arg(long, env = env::NODE, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// Windows to audit, counted from 0. Default: all that are settled.
    #[arg(long)]
    pub windows: Option<u64>,
}
