//! Defines the command line.

use std::path::PathBuf;

/// A command line as parsed.
#[derive(Debug, clap::Parser)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) subcommand: Option<Subcommand>,

    #[command(flatten)]
    pub(crate) run: sc_cli::RunCmd,

    /// Milliseconds from block to block on a development chain; 0 authors none, so that a kept chain can be read as it
    /// is.
    ///
    /// A block of a development chain is final half that time after it was made. Other chains take the time from their
    /// runtime's slots.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) block_millis: Option<u64>,

    /// Blocks that a development chain's last final block is behind the newest one, as on a chain whose authorities
    /// vote.
    #[arg(long, value_name = "BLOCKS", default_value_t = 0)]
    pub(crate) finality_lag: u32,

    /// Replace the last block of a development chain every so many blocks, as authorities that have not heard of each other's
    /// blocks do; 0 for never. Wants a finality lag, and is for the node that makes the blocks, not with `--follow`.
    #[arg(long, value_name = "BLOCKS", default_value_t = 0)]
    pub(crate) fork_every: u32,

    /// Follow a development chain whose blocks another node makes: make no block, and make final what comes from it, by
    /// the `--block-millis` and `--finality-lag` that it has too. A development chain has no votes that would tell.
    #[arg(long)]
    pub(crate) follow: bool,
}

/// The commands beside running a node.
#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Subcommand {
    /// Make and look at keys.
    #[command(subcommand)]
    Key(sc_cli::KeySubcommand),

    /// Write the chain specification as JSON.
    ExportChainSpec(sc_cli::ExportChainSpecCmd),

    /// Write the specification of a new chain for strangers, from its first authorities, council and balances.
    NewChain(NewChain),

    /// Execute a stored block again and check it.
    CheckBlock(sc_cli::CheckBlockCmd),

    /// Write blocks to a file.
    ExportBlocks(sc_cli::ExportBlocksCmd),

    /// Read blocks from a file.
    ImportBlocks(sc_cli::ImportBlocksCmd),

    /// Remove the chain's database.
    PurgeChain(sc_cli::PurgeChainCmd),

    /// Show what the database holds.
    ChainInfo(sc_cli::ChainInfoCmd),
}

/// The new chain.
#[derive(Debug, clap::Args)]
pub(crate) struct NewChain {
    /// JSON with the genesis; docs/genesis.example.json is one.
    #[arg(long, value_name = "FILE")]
    pub(crate) genesis: PathBuf,

    /// The name that people read.
    #[arg(long, default_value = "Gauntlet")]
    pub(crate) name: String,

    /// The name of the folder in which nodes keep the chain.
    #[arg(long, default_value = "gauntlet")]
    pub(crate) id: String,
}
