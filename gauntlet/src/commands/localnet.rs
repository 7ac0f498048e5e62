//! A whole network on this machine: a chain, miners and validators, each a process of its own.
//!
//! The run folder is what stays:
//!
//! ```text
//! run.json         what this is, for `gauntlet audit`
//! report.json      what it came to
//! data/            the data set
//! chain/           the chain's database, with every state
//! payloads/        every payload that a validator fetched, by window and uid
//! logs/            a log and a process id for each process
//! miner-0/ …       each participant's configuration, journal, checkpoints, diary
//! ```

mod args;
mod board;
mod progress;
pub mod report;
mod settings;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, Context, Result};
use futures::StreamExt;
use node_client::{
    chain::{Call, Chain, SubmitError},
    keys::{self, Keypair},
};
use protocol::{
    settings::Settings,
    window::{phase_at, ScorePhase},
    AccountBytes, RunId,
};
use trainer::{Dataset, Model, SampleSource, Threads};

pub use self::args::{Adversaries, LocalnetArgs};
use self::{
    board::Board,
    progress::Progress,
    report::{EmissionReport, ModelReport, Report},
    settings::{self as plan, Member, MemoryShares},
};
use crate::{
    chain_process::{self as node, Node},
    corpus, exit,
    participant_file::{ChainSection, KeySource, KeysSection, NetworkSection, ParticipantFile},
    run_folder::{RunFile, LOGS_FOLDER, PAYLOADS_FOLDER},
    signals,
    supervise::{self, Process, Program},
    terminal::{self, UNIT},
};
use participant::{diary, memory, place::CACHE_BYTES_MAX};

/// Who owns the run and pays for everything: a development account.
const OWNER_URI: &str = "//Alice";

/// Money of each participant's cold account beside its bond or stake.
const COLD_BALANCE: u128 = 100 * UNIT;

/// Money of each participant's hot account, for fees that are given back.
const HOT_BALANCE: u128 = 100 * UNIT;

/// Each validator's stake.
const STAKE: u128 = 1_000 * UNIT;

/// How long participants, and then the chain, may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long the participants may take for what they have to do after the last settlement.
const LAST_STATE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the chain may make no block: longer than its restart takes on a busy machine.
const STALL_PATIENCE: Duration = Duration::from_secs(120);

/// Windows that the chain may be late by before the command gives up.
const LATE_WINDOWS_MAX: u64 = 2;

/// Runs a localnet to its end; returns the exit code.
///
/// # Errors
/// Something of it cannot be started, or it does not come to its end.
pub async fn run(args: LocalnetArgs) -> Result<u8> {
    let started = Instant::now();
    let members = plan::members(&args);
    // A machine that does not tell its memory is taken at its word.
    let available = memory::available().unwrap_or(u64::MAX >> 2);
    let shares = plan::share_memory(&args, &members, available)?;
    let mut progress = Progress::new(args.windows);
    let folder = plan::make_folder(args.keep.as_deref())?;
    progress.say(format!("run folder: {}", folder.display()));
    let mut processes = Processes::default();
    let result = tokio::select! {
        result = whole_run(&args, &members, shares, &folder, &mut processes, &mut progress, started) => result.map(Some),
        () = signals::end_requested() => Ok(None),
    };
    processes.stop(&progress).await;
    progress.finish();
    match result? {
        Some(report) => {
            finish(&args, &folder, &report)?;
            Ok(if report.ok { exit::SUCCESS } else { exit::FAILURE })
        }
        None => {
            terminal::print(&format!(
                "interrupted; everything was stopped, what there is is in {}",
                folder.display()
            ));
            Ok(exit::INTERRUPTED)
        }
    }
}

/// Everything that was started. What is not stopped when this is dropped is killed.
#[derive(Default)]
struct Processes {
    node: Option<Node>,
    participants: Vec<Process>,
}

impl Processes {
    fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        let node = self.node.as_mut().map(|node| &mut node.process);
        node.into_iter().chain(&mut self.participants)
    }

    /// Ends the participants, then the chain. No effect the second time.
    async fn stop(&mut self, progress: &Progress) {
        if self.node.is_some() {
            progress.doing("stopping");
        }
        supervise::stop(&mut self.participants, END_PATIENCE).await;
        self.participants.clear();
        if let Some(mut node) = self.node.take() {
            supervise::stop(std::slice::from_mut(&mut node.process), END_PATIENCE).await;
        }
    }
}

async fn whole_run(
    args: &LocalnetArgs,
    members: &[Member],
    shares: MemoryShares,
    folder: &Path,
    processes: &mut Processes,
    progress: &mut Progress,
    started: Instant,
) -> Result<Report> {
    let binary = node::find(args.node.as_deref())?;
    progress.doing("starting the chain");
    processes.node = Some(node::start(&binary, folder, args.block_ms)?);

    progress.doing("building the data set");
    let (dataset, model, genesis_state_root) = blocking({
        let (args, folder) = (args.clone(), folder.to_owned());
        move || {
            let (model, root) = plan::initial_model(&args, &Threads::new(1)?)?;
            let (data, lock) = (args.data.as_deref(), args.lock.as_deref());
            let seq_len = model.config().seq_len;
            let dataset = corpus::build(data, lock, seq_len, &folder.join("data"))?;
            Ok((dataset, model, root))
        }
    })
    .await?;
    let manifest = dataset.manifest();
    progress.say(format!(
        "data: {} of text, {} training and {} held-out samples of {} tokens",
        terminal::bytes(manifest.train.token_count + manifest.held_out.token_count),
        manifest.train.sample_count,
        manifest.held_out.sample_count,
        manifest.sample_len,
    ));
    let parameters = model.config().parameter_count();
    let layout = model.layout().clone();
    let roots =
        plan::Roots { data_root: dataset.root(), data: data_size(&dataset), genesis_state_root };
    progress.doing("waiting for the chain");
    let node = processes.node.as_mut().context("no chain")?;
    let (chain, url) = (node.connect().await?, node.url.clone());
    // Now that the chain is up and idle: its start is work.
    let work = measure(args, members, shares, model, dataset, progress).await?;
    let owner = keys::keypair_from_uri(OWNER_URI)?;
    progress.doing("setting up the run");
    fund(chain.as_ref(), &owner, members).await.context("cannot fund the participants")?;
    let head = chain.finalized_head().await?;
    let schedule = plan::plan_schedule(args, work.seconds, head.number)?;
    let settings = plan::plan_settings(args, members, work, schedule, roots)?;
    let run = create_run(chain.as_ref(), &owner, &settings, layout).await?;
    RunFile::new(&chain.genesis_hash().await?, run, &args.model, args.windows).write(folder)?;
    register(chain.as_ref(), run, members).await.context("cannot register the participants")?;
    progress.say(format!(
        "run {run}: {} with {parameters} parameters, {} steps of {} samples a window of {:.0} s",
        args.model,
        settings.training.inner_steps,
        settings.training.batch_size,
        f64::from(settings.schedule.window_blocks) * args.block_ms as f64 / 1e3,
    ));

    let model = ModelReport { name: args.model.clone(), parameters };
    let mut board = board(run, keys::account(&owner), model, folder, members)?;
    for miner in chain.miners(run, None).await? {
        board.registered(&miner.hot, miner.uid);
    }
    for validator in chain.validators(run, None).await? {
        board.registered(&validator.hot, validator.index);
    }
    processes.participants = start_participants(args, folder, &url, run, members, shares)?;
    watch(args, chain.clone(), &settings, processes, &mut board, progress).await?;
    claim_all(chain.as_ref(), run, &owner, members).await;
    let emission = emission(chain.as_ref(), run).await?;
    processes.stop(progress).await;
    board.read_diaries();
    Ok(board.report(args.windows, emission, started.elapsed().as_secs_f64()))
}

/// Runs `work` on a thread that may block.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    tokio::task::spawn_blocking(work).await?
}

/// Measures this machine unless the command line says how much to train and how long a window is.
async fn measure(
    args: &LocalnetArgs,
    members: &[Member],
    shares: MemoryShares,
    model: Model,
    dataset: Dataset,
    progress: &Progress,
) -> Result<plan::Work> {
    progress.doing("measuring this machine");
    let batch_size = args.batch_size;
    let data = data_size(&dataset);
    let measure =
        move || plan::measure_speed(model, dataset.train(), batch_size, shares.micro_batch);
    let speed = blocking(measure).await?;
    progress.say(format!(
        "this machine: {} cores, {:.0} tokens a second on each",
        speed.cores, speed.tokens_per_second
    ));
    plan::plan_work(args, members, speed, data)
}

fn data_size(dataset: &Dataset) -> plan::DataSize {
    plan::DataSize {
        sample_count: dataset.train().sample_count(),
        sample_len: dataset.sample_len() as u32,
    }
}

/// Gives every participant money, all at once.
async fn fund(chain: &dyn Chain, owner: &Keypair, members: &[Member]) -> Result<()> {
    let mut transfers = Vec::new();
    for member in members {
        let cold = keys::account(&keys::keypair_from_uri(&member.cold_uri())?);
        let hot = keys::account(&keys::keypair_from_uri(&member.hot_uri())?);
        let held = if member.is_miner() { Settings::example().incentive.miner_bond } else { STAKE };
        transfers.push(Call::Transfer { to: cold, amount: COLD_BALANCE + held });
        transfers.push(Call::Transfer { to: hot, amount: HOT_BALANCE });
    }
    submit_all(chain, transfers.into_iter().map(|call| (owner.clone(), call))).await
}

async fn create_run(
    chain: &dyn Chain,
    owner: &Keypair,
    settings: &Settings,
    layout: protocol::layout::Layout,
) -> Result<RunId> {
    let call = Call::CreateRun { settings: Box::new(settings.clone()), layout };
    let included = chain.submit(owner, call).await.context("cannot create the run")?;
    included
        .events
        .iter()
        .find_map(|event| match event {
            node_client::chain::GauntletEvent::RunCreated { run, .. } => Some(*run),
            _ => None,
        })
        .context("the chain did not say which run it created")
}

async fn register(chain: &dyn Chain, run: RunId, members: &[Member]) -> Result<()> {
    let mut calls = Vec::new();
    for member in members {
        let cold = keys::keypair_from_uri(&member.cold_uri())?;
        let hot = keys::account(&keys::keypair_from_uri(&member.hot_uri())?);
        let call = if member.is_miner() {
            Call::RegisterMiner { run, hot }
        } else {
            Call::RegisterValidator { run, hot, stake: STAKE }
        };
        calls.push((cold, call));
    }
    submit_all(chain, calls).await
}

/// Submits everything at once and waits for all of it.
async fn submit_all(
    chain: &dyn Chain,
    calls: impl IntoIterator<Item = (Keypair, Call)>,
) -> Result<()> {
    let submissions = calls.into_iter().map(|(signer, call)| async move {
        tokio::time::timeout(Duration::from_secs(60), chain.submit(&signer, call))
            .await
            .context("an extrinsic was not included in time")??;
        anyhow::Ok(())
    });
    futures::future::try_join_all(submissions).await?;
    Ok(())
}

fn board(
    run: RunId,
    owner: AccountBytes,
    model: ModelReport,
    folder: &Path,
    members: &[Member],
) -> Result<Board> {
    let known = members.iter().map(|member| {
        let hot = keys::account(&keys::keypair_from_uri(&member.hot_uri())?);
        let cold = keys::account(&keys::keypair_from_uri(&member.cold_uri())?);
        Ok((member.clone(), hot, cold, diary::Reader::new(&folder.join(&member.name))))
    });
    Ok(Board::new(run, owner, model, known.collect::<Result<Vec<_>>>()?))
}

/// Writes each participant's configuration and starts its process.
fn start_participants(
    args: &LocalnetArgs,
    folder: &Path,
    url: &str,
    run: RunId,
    members: &[Member],
    shares: MemoryShares,
) -> Result<Vec<Process>> {
    let binary = std::env::current_exe()?;
    let mut processes = Vec::with_capacity(members.len());
    let mut first_validator = true;
    for (number, member) in (0u16..).zip(members) {
        let own = folder.join(&member.name);
        std::fs::create_dir(&own)?;
        let is_validator = !member.is_miner();
        let measures_held_out = is_validator && std::mem::take(&mut first_validator);
        let metrics = args.metrics_port.and_then(|port| port.checked_add(number));
        let file = ParticipantFile {
            name: member.name.clone(),
            folder: ".".into(),
            model: args.model.clone(),
            data: "../data".into(),
            data_cache_bytes_max: CACHE_BYTES_MAX,
            // All participants share this machine's cores.
            threads: 1,
            window_end: Some(args.windows),
            metrics: metrics.map(|port| ([127, 0, 0, 1], port).into()),
            adversary: member.adversary(),
            archive: is_validator.then(|| PathBuf::from("..").join(PAYLOADS_FOLDER)),
            held_out_samples: if measures_held_out { plan::HELD_OUT_SAMPLES } else { 0 },
            store_bytes_max: 1 << 30,
            memory_bytes: Some(match is_validator {
                true => shares.validator,
                false => shares.miner,
            }),
            chain: ChainSection { urls: vec![url.to_owned()], run },
            keys: KeysSection { hot: KeySource::Uri(member.hot_uri()), cold: None, stake: None },
            network: NetworkSection {
                listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()],
                ..NetworkSection::default()
            },
        };
        let config = own.join("config.toml");
        std::fs::write(&config, toml::to_string(&file)?)?;
        let program = Program {
            name: member.name.clone(),
            binary: binary.clone(),
            args: vec![member.role.clone(), format!("--config={}", config.display())],
            logs: folder.join(LOGS_FOLDER),
        };
        processes.push(program.start()?);
    }
    Ok(processes)
}

/// Follows the run until its last window is settled, and keeps every process up meanwhile.
async fn watch(
    args: &LocalnetArgs,
    chain: Arc<dyn Chain>,
    settings: &Settings,
    processes: &mut Processes,
    board: &mut Board,
    progress: &mut Progress,
) -> Result<()> {
    let schedule = &settings.schedule;
    let late = args.windows + LATE_WINDOWS_MAX;
    let give_up = schedule
        .score_phase_end_block(late, ScorePhase::Settle)
        .context("so many windows are more than the chain counts")?;
    let mut blocks = chain.subscribe_finalized().await?;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut is_settled = false;
    let mut settled_at = Instant::now();
    let mut block_at = Instant::now();
    loop {
        tokio::select! {
            block = blocks.next() => {
                let block = block.context("the chain's stream of blocks has ended")?;
                block_at = Instant::now();
                for event in events_at(chain.as_ref(), block.hash).await? {
                    let Some(window) = board.event(&event) else { continue };
                    board.read_diaries();
                    progress.settled(window, board);
                    if window + 1 >= args.windows {
                        is_settled = true;
                        settled_at = Instant::now();
                    }
                }
                progress.block(schedule, block.number, phase_at(schedule, block.number), board);
                if block.number > give_up && !is_settled {
                    bail!("the last window is not settled at block {}", block.number);
                }
            }
            _ = tick.tick() => {
                if block_at.elapsed() > STALL_PATIENCE {
                    bail!("the chain has made no block for {} s", STALL_PATIENCE.as_secs());
                }
                board.read_diaries();
                for process in processes.all() {
                    if let Some(status) = process.keep_up()? {
                        let what = format!("{} ended ({status}) and was started again", process.name());
                        progress.say(&what);
                        board.restarted(what);
                    }
                }
                let is_complete = board.hold_state(args.windows) && board.has_held_out(args.windows);
                if is_settled && (is_complete || settled_at.elapsed() > LAST_STATE_PATIENCE) {
                    return Ok(());
                }
            }
        }
    }
}

/// The events of a block; asks again while the chain is away.
async fn events_at(
    chain: &dyn Chain,
    block: protocol::Hash,
) -> Result<Vec<node_client::chain::GauntletEvent>> {
    let started = Instant::now();
    loop {
        match chain.events_at(block).await {
            Ok(events) => return Ok(events),
            Err(error) if started.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "cannot read the events of a block"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Claims for every participant what it may claim by now.
async fn claim_all(chain: &dyn Chain, run: RunId, signer: &Keypair, members: &[Member]) {
    let accounts = members
        .iter()
        .filter_map(|member| keys::keypair_from_uri(&member.cold_uri()).ok())
        .map(|cold| keys::account(&cold))
        .chain([keys::account(signer)]);
    let claims = accounts.map(|account| async move {
        let call = Call::Claim { run, account };
        match tokio::time::timeout(Duration::from_secs(20), chain.submit(signer, call)).await {
            // Nothing to claim is no failure.
            Ok(Ok(_) | Err(SubmitError::Rejected { .. })) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot claim"),
            Err(_) => tracing::warn!("a claim was not included in time"),
        }
    });
    futures::future::join_all(claims).await;
}

async fn emission(chain: &dyn Chain, run: RunId) -> Result<EmissionReport> {
    let ledger = chain.ledger(run, None).await?;
    Ok(EmissionReport {
        minted: ledger.minted,
        paid: ledger.paid,
        claimable: ledger.claimable,
        carried: ledger.carried,
        burned: ledger.burned,
    })
}

/// Writes the report and says what to do next.
fn finish(args: &LocalnetArgs, folder: &Path, report: &Report) -> Result<()> {
    let path = folder.join("report.json");
    report.write(&path)?;
    if let Some(other) = &args.report {
        report.write(other)?;
    }
    terminal::print("");
    for participant in &report.participants {
        let earned = terminal::units(participant.earned);
        let refused = match participant.reveals_refused {
            0 => String::new(),
            count => format!("  {count} reveals refused by the chain"),
        };
        terminal::print(&format!(
            "{:<14} {:<10} {:<8} earned {earned:>10}{refused}",
            participant.name, participant.role, participant.kind
        ));
    }
    let first = report.windows.first().and_then(|window| window.heldout_loss);
    if let (Some(first), Some(last)) = (first, report.last_state.heldout_loss) {
        let change = (last / first - 1.0) * 100.0;
        terminal::print(&format!(
            "\nheld-out loss {first:.3} → {last:.3} ({change:+.1} %) in {:.0} s",
            report.seconds
        ));
    }
    for problem in &report.problems {
        terminal::print(&format!("PROBLEM: {problem}"));
    }
    terminal::print(&format!("report:       {}", path.display()));
    let program = std::env::current_exe()?;
    terminal::print(&format!("recompute it: {} audit {}", program.display(), folder.display()));
    Ok(())
}
