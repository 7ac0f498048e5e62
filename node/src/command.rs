//! Runs the command that the command line names, or the node.

use runtime::opaque::Block;
use sc_chain_spec::NoExtension;
use sc_cli::SubstrateCli;
use sc_network::config::NetworkBackendType;
use sc_service::{ChainSpec, Configuration, GenericChainSpec, TaskManager};
use sp_runtime::traits::Block as BlockT;

use crate::{
    chain_spec,
    cli::{Cli, Subcommand},
    service::{self, Pace, Parts},
    webrtc,
};

/// Milliseconds between the blocks of a development chain unless the command line says otherwise.
const BLOCK_MILLIS: u64 = 1_000;

impl SubstrateCli for Cli {
    fn impl_name() -> String {
        "Gauntlet Node".into()
    }

    fn impl_version() -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn executable_name() -> String {
        env!("CARGO_BIN_NAME").into()
    }

    fn description() -> String {
        env!("CARGO_PKG_DESCRIPTION").into()
    }

    fn author() -> String {
        env!("CARGO_PKG_AUTHORS").into()
    }

    fn support_url() -> String {
        env!("CARGO_PKG_REPOSITORY").into()
    }

    fn copyright_start_year() -> i32 {
        2026
    }

    fn load_spec(&self, id: &str) -> Result<Box<dyn ChainSpec>, String> {
        Ok(match id {
            "dev" => Box::new(chain_spec::development()?),
            "" | "local" => Box::new(chain_spec::local()?),
            path => Box::new(GenericChainSpec::<NoExtension>::from_json_file(path.into())?),
        })
    }
}

/// Parses the command line and runs it to its end.
pub(crate) fn run() -> sc_cli::Result<()> {
    let cli = Cli::from_args();
    match &cli.subcommand {
        None => {
            webrtc::refuse(&cli.run.network_params)?;
            let runner = cli.create_runner(&cli.run)?;
            runner.run_node_until_exit(|config| async move { start(config, &cli) })
        }
        Some(Subcommand::Key(cmd)) => cmd.run(&cli),
        Some(Subcommand::ExportChainSpec(cmd)) => {
            // The command names its own chain; it needs no node to run in.
            cmd.run(cli.load_spec(&cmd.chain)?)
        }
        Some(Subcommand::NewChain(chain)) => {
            let spec = chain_spec::live(&chain.name, &chain.id, &chain.genesis)
                .and_then(|spec| spec.as_json(true))
                .map_err(sc_cli::Error::Input)?;
            println!("{spec}");
            Ok(())
        }
        Some(Subcommand::CheckBlock(cmd)) => cli.create_runner(cmd)?.async_run(|config| {
            let Parts { client, task_manager, import_queue, .. } = service::parts(&config)?;
            Ok((cmd.run(client, import_queue), task_manager))
        }),
        Some(Subcommand::ExportBlocks(cmd)) => cli.create_runner(cmd)?.async_run(|config| {
            let Parts { client, task_manager, .. } = service::parts(&config)?;
            Ok((cmd.run(client, config.database), task_manager))
        }),
        Some(Subcommand::ImportBlocks(cmd)) => cli.create_runner(cmd)?.async_run(|config| {
            let Parts { client, task_manager, import_queue, .. } = service::parts(&config)?;
            Ok((cmd.run(client, import_queue), task_manager))
        }),
        Some(Subcommand::PurgeChain(cmd)) => {
            cli.create_runner(cmd)?.sync_run(|config| cmd.run(config.database))
        }
        Some(Subcommand::ChainInfo(cmd)) => {
            cli.create_runner(cmd)?.sync_run(|config| cmd.run::<Block>(&config))
        }
    }
}

/// Starts the node; it runs until the returned tasks end.
fn start(mut config: Configuration, cli: &Cli) -> sc_cli::Result<TaskManager> {
    type Libp2p = sc_network::NetworkWorker<Block, <Block as BlockT>::Hash>;
    type Litep2p = sc_network::Litep2pNetworkBackend;

    let &Cli { block_millis, finality_lag, fork_every, follow: follows, .. } = cli;
    let is_paced = block_millis.is_some() || finality_lag > 0 || fork_every > 0 || follows;
    if is_paced && !service::is_development(&config) {
        return Err(sc_cli::Error::Input(
            "--block-millis, --finality-lag, --fork-every and --follow are for development chains; add --dev"
                .into(),
        ));
    }
    if fork_every > 0 && finality_lag == 0 {
        return Err(sc_cli::Error::Input(
            "--fork-every replaces blocks that are not final, of which there are none; add --finality-lag 2".into(),
        ));
    }
    if fork_every > 0 && (follows || block_millis == Some(0)) {
        return Err(sc_cli::Error::Input(
            "--fork-every is for the node that makes the blocks, not with --follow or --block-millis 0"
                .into(),
        ));
    }
    webrtc::leave_out(&mut config.network);
    let pace = Pace {
        block_millis: block_millis.unwrap_or(BLOCK_MILLIS),
        finality_lag,
        fork_every,
        follows,
    };
    let tasks = match config.network.network_backend {
        NetworkBackendType::Libp2p => service::start::<Libp2p>(config, pace),
        NetworkBackendType::Litep2p => service::start::<Litep2p>(config, pace),
    };
    Ok(tasks?)
}
