//! `gauntlet localnet`: runs a whole network on this machine: a chain, miners and validators, each a process of its own.
//!
//! The run folder stays:
//!
//! ```text
//! run.json         what this is, for `gauntlet audit`
//! report.json      the results
//! data/            the data set
//! chain/           the chain's database, with every state; chain-1/ … those of the nodes that follow
//! payloads/        every payload that a validator fetched, by window and uid
//! logs/            a log and a process id for each process
//! miner-0/ …       each participant's configuration, journal, checkpoints, diary
//! ```

mod args;
mod board;
mod nodes;
mod on_chain;
pub(crate) mod optimisers;
mod order;
mod processes;
mod progress;
pub mod report;
mod settings;
mod summary;
mod watch;

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use dataset::Dataset;
use node_client::chain::Chain;
use protocol::Hash;
use trainer::{Model, Threads};

pub use self::args::{Adversaries, LocalnetArgs};
use self::{
    board::Board,
    on_chain::Run,
    order::LocalnetOrder,
    processes::Processes,
    progress::LocalnetProgress,
    report::{LocalnetReport, ModelReport, REPORT_FILE},
    settings::{DataSize, Roots, WindowWork},
    watch::Watch,
};
use crate::{
    chain_process, corpus, exit,
    run_folder::RunFile,
    signals,
    terminal::{self, bytes},
};

/// Runs a localnet to its end; returns the exit code.
///
/// # Errors
/// A process cannot be started, or the run does not come to its end.
pub async fn run(args: LocalnetArgs) -> Result<u8> {
    let mut localnet = Localnet::new(args)?;
    let result = tokio::select! {
        result = localnet.run() => result.map(Some),
        () = signals::end_requested() => Ok(None),
    };
    localnet.processes.stop(&localnet.progress).await;
    localnet.progress.finish();
    let LocalnetOrder { args, folder, .. } = &localnet.order;
    let Some(report) = result? else {
        terminal::print(&format!(
            "interrupted; everything was stopped, and the results so far are in {}",
            folder.display()
        ));
        return Ok(exit::INTERRUPTED);
    };
    report.write(&folder.join(REPORT_FILE))?;
    if let Some(other) = &args.report {
        report.write(other)?;
    }
    summary::print(&report, folder)?;
    Ok(if report.ok { exit::SUCCESS } else { exit::FAILURE })
}

/// A localnet from its order to its report.
struct Localnet {
    order: LocalnetOrder,
    started: Instant,
    processes: Processes,
    progress: LocalnetProgress,
}

/// The data set and the initial model of a localnet.
struct Foundation {
    dataset: Dataset,
    model: Model,
    genesis_state_root: Hash,
}

impl Localnet {
    fn new(args: LocalnetArgs) -> Result<Self> {
        let started = Instant::now();
        let order = LocalnetOrder::new(args)?;
        let progress = LocalnetProgress::new(order.args.windows);
        progress.say(format!("run folder: {}", order.folder.display()));
        Ok(Self { order, started, processes: Processes::default(), progress })
    }

    /// Starts everything, follows the run to its last window, and reports on it.
    async fn run(&mut self) -> Result<LocalnetReport> {
        let args = &self.order.args;
        let binary = chain_process::find(args.node.as_deref())?;
        self.progress.doing("starting the chain");
        let folder = &self.order.folder;
        nodes::start(&mut self.processes.nodes, &binary, folder, args)?;
        self.progress.doing("building the data set");
        let foundation = Foundation::build(&self.order).await?;
        self.progress.say(foundation.describe());
        self.progress.doing("waiting for the chain");
        let (chain, urls) = nodes::connect(&mut self.processes.nodes).await?;
        let run = self.set_up(chain, foundation).await?;
        let mut board = self.board(&run).await?;
        self.processes.participants = processes::start_participants(&self.order, &urls, run.id)?;

        let windows = self.order.args.windows;
        let schedule = &run.settings.schedule;
        let watch = Watch::new(schedule, windows, &mut board, &mut self.progress)?;
        watch.follow(Arc::clone(&run.chain), &mut self.processes).await?;
        let close = async {
            run.claim_all(&self.order.members).await;
            run.emission().await
        };
        let close = watch::beside(&mut self.processes, &mut board, &self.progress, close);
        let emission = close.await?;
        self.processes.stop(&self.progress).await;
        board.read_diaries();
        let report = board.report(windows, emission, self.started.elapsed().as_secs_f64());
        let blocks = f64::from(run.settings.schedule.window_blocks);
        Ok(report.with_training_share(blocks * args.block_ms as f64 / 1e3))
    }

    /// Creates the run and registers its participants. To be called when the chain is up and idle: its start is work, and
    /// this machine's speed is measured here.
    async fn set_up(&self, chain: Arc<dyn Chain>, foundation: Foundation) -> Result<Run> {
        let Self { order, progress, .. } = self;
        let (layout, roots) = (foundation.model.layout().clone(), foundation.roots());
        let work = self.measure(foundation).await?;
        progress.doing("setting up the run");
        let members = &order.members;
        on_chain::fund(chain.as_ref(), members).await.context("cannot fund the participants")?;
        let head = chain.finalized_head().await?;
        let schedule = settings::schedule(order, work.seconds, head.number)?;
        let settings = settings::settings(order, work, schedule, roots)?;
        let run = Run::create(chain, settings, layout).await?;
        let genesis = run.chain.genesis_hash().await?;
        RunFile::new(&genesis, run.id, &order.args.model, order.args.windows)
            .write(&order.folder)?;
        let register =
            async { run.register(members).await.context("cannot register the participants") };
        let sponsor = async {
            run.sponsor(order.args.windows).await.context("cannot put in the windows' pay")
        };
        futures::try_join!(register, sponsor)?;
        progress.say(format!(
            "run {}: {} with {} parameters, {} steps of {} samples a window of {:.0} s",
            run.id,
            order.args.model,
            order.model.parameter_count(),
            run.settings.training.inner_steps,
            run.settings.training.batch_size,
            f64::from(run.settings.schedule.window_blocks) * order.args.block_ms as f64 / 1e3,
        ));
        Ok(run)
    }

    /// Measures this machine, and settles how much is trained in a window.
    async fn measure(&self, foundation: Foundation) -> Result<WindowWork> {
        let Self { order, progress, .. } = self;
        progress.doing("measuring this machine");
        let (batch_size, micro_batch) = (order.args.batch_size, order.shares.micro_batch);
        let Foundation { dataset, model, .. } = foundation;
        let data = DataSize::of(&dataset);
        let speed = signals::blocking(move || {
            settings::measure_speed(model, dataset.train(), batch_size, micro_batch)
        });
        let speed = speed.await?;
        progress.say(format!(
            "this machine: {} cores, {:.0} tokens a second on each",
            speed.cores, speed.tokens_per_second
        ));
        settings::window_work(order, speed, data)
    }

    /// Makes the board on which everything that happens is noted.
    async fn board(&self, run: &Run) -> Result<Board> {
        let Self { order, .. } = self;
        let parameters = order.model.parameter_count();
        let model = ModelReport { name: order.args.model.clone(), parameters };
        let mut board = Board::new(run.id, run.owner(), model, &order.members, &order.folder)?;
        for miner in run.chain.miners(run.id, None).await? {
            board.registered(&miner.hot, miner.uid);
        }
        for validator in run.chain.validators(run.id, None).await? {
            board.registered(&validator.hot, validator.index);
        }
        Ok(board)
    }
}

impl Foundation {
    /// Builds the data set in the run's folder and makes the initial parameters.
    async fn build(order: &LocalnetOrder) -> Result<Self> {
        let order = order.clone();
        signals::blocking(move || {
            let model = Model::init(&order.model, order.args.seed)?;
            let genesis_state_root = model.state_root(&Threads::new(1)?);
            let (data, lock) = (order.args.data.as_deref(), order.args.lock.as_deref());
            let to = order.folder.join("data");
            let dataset = corpus::build(data, lock, order.model.seq_len, &to)?;
            Ok(Self { dataset, model, genesis_state_root })
        })
        .await
    }

    fn describe(&self) -> String {
        let manifest = self.dataset.manifest();
        format!(
            "data: {} of text, {} training and {} held-out samples of {} tokens",
            bytes(manifest.train.token_count + manifest.held_out.token_count),
            manifest.train.sample_count,
            manifest.held_out.sample_count,
            manifest.sample_len,
        )
    }

    fn roots(&self) -> Roots {
        Roots {
            data_root: self.dataset.root(),
            data: DataSize::of(&self.dataset),
            genesis_state_root: self.genesis_state_root,
        }
    }
}
