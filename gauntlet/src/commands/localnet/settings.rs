//! Everything that is decided before the first process starts: folder, participants, training, schedule, settings.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{bail, Context, Result};
use protocol::{
    settings::{Emission, Incentive, Settings, Training},
    window::Schedule,
    Hash,
};
use serde::{Deserialize, Serialize};
use trainer::{
    budget::quantity::{product, sum},
    Model, ModelConfig, SampleSource, Threads, Trainer, TrainerSettings,
};

use super::args::LocalnetArgs;
use participant::{memory, miner::adversary_kind::AdversaryKind};

use crate::env;

/// Steps of the speed measurement, of which the fastest counts; one before them allocates.
const MEASURED_STEPS: usize = 5;

/// Local steps of a window when the machine is fast enough. More would train more, but an update that is spread over
/// many samples proves less on each: with 168 samples a window (21 steps of 8) the average proof of computation of an
/// honest miner was 0.02 after 12 windows, and the gate of 0.1 took its pay.
const INNER_STEPS_MAX: u32 = 16;

/// Fewest local steps that are planned without being asked for.
const INNER_STEPS_MIN: u32 = 4;

/// Seconds that a window gives to training, at most.
const TRAIN_SECONDS_MAX: f64 = 9.0;

/// Share of the cores' time that reaches training: the chain, the peers and unevenness take the rest.
const TRAIN_EFFICIENCY: f64 = 0.65;

/// An evaluated token costs this part of a trained one: a forward pass of three.
const EVALUATED_TOKEN_COST: f64 = 0.35;

/// Samples on which a loss is measured in an evaluation.
const EVALUATION_SAMPLES: u16 = 32;

/// Samples of the held-out loss.
pub(crate) const HELD_OUT_SAMPLES: usize = 64;

/// Seconds from an extrinsic's submission to its inclusion, with slack: at least two blocks.
const INCLUSION_SECONDS: f64 = 1.5;

/// Seconds that the participants get between their registration and the first window.
const START_SECONDS: f64 = 6.0;

/// What one participant is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// Its name, its folder's and its log's.
    pub(crate) name: String,
    /// `miner` or `validator`.
    pub(crate) role: String,
    /// `honest`, `garbage`, `copier` or `lazy`.
    pub(crate) kind: String,
}

impl Member {
    fn new(role: &str, number: u16, adversary: Option<AdversaryKind>) -> Self {
        let kind = adversary.map_or("honest", AdversaryKind::name);
        let name = match adversary {
            None => format!("{role}-{number}"),
            Some(kind) => format!("{}-{number}", kind.name()),
        };
        Self { name, role: role.to_owned(), kind: kind.to_owned() }
    }

    /// Its adversary kind, if it is one.
    pub(crate) fn adversary(&self) -> Option<AdversaryKind> {
        self.kind.parse().ok()
    }

    /// Whether it is a miner.
    pub(crate) fn is_miner(&self) -> bool {
        self.role == "miner"
    }

    /// Secret URI of the account that owns its money. Anybody can derive it: a localnet's money is worth nothing.
    pub(crate) fn cold_uri(&self) -> String {
        format!("//localnet//{}", self.name)
    }

    /// Secret URI of the account that signs its work.
    pub(crate) fn hot_uri(&self) -> String {
        format!("//localnet//{}//hot", self.name)
    }
}

/// The participants that the command line asks for: honest miners, adversaries, validators.
pub(crate) fn members(args: &LocalnetArgs) -> Vec<Member> {
    let honest = (0..args.miners).map(|number| Member::new("miner", number, None));
    let adversaries = args.adversaries.iter().flat_map(|adversaries| {
        (0..adversaries.count).map(|number| Member::new("miner", number, Some(adversaries.kind)))
    });
    let validators = (0..args.validators).map(|number| Member::new("validator", number, None));
    let mut members: Vec<Member> = honest.chain(adversaries).chain(validators).collect();
    // `--adversary lazy:1 --adversary lazy:1` means two.
    for index in 0..members.len() {
        let name = members[index].name.clone();
        let before = members[..index].iter().filter(|member| member.name == name).count();
        if before > 0 {
            members[index].name = format!("{name}-{before}");
        }
    }
    members
}

/// Makes the run's folder: `keep`, which must not exist or be empty, or a new one in the user's cache folder.
pub(crate) fn make_folder(keep: Option<&Path>) -> Result<PathBuf> {
    let folder = match keep {
        Some(folder) => folder.to_owned(),
        None => {
            let seconds =
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            runs_folder()?.join(format!("localnet-{seconds}-{}", std::process::id()))
        }
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let mut entries = std::fs::read_dir(&folder)?;
    if entries.next().is_some() {
        bail!("{} is not empty; give another folder, or remove it", folder.display());
    }
    for name in ["logs", "payloads", "chain"] {
        std::fs::create_dir(folder.join(name))?;
    }
    Ok(folder.canonicalize()?)
}

fn runs_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(env::RUNS) {
        return Ok(folder.into());
    }
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(cache).join("gauntlet").join("runs"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set; say --keep FOLDER")?;
    Ok(PathBuf::from(home).join(".cache").join("gauntlet").join("runs"))
}

/// Bytes that the chain and this command take beside the participants.
const CHAIN_BYTES: u64 = 500_000_000;

/// What each participant may use of the machine's memory, and how many samples a miner then computes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryShares {
    /// Of a miner.
    pub(crate) miner: u64,
    /// Of a validator.
    pub(crate) validator: u64,
    /// A divisor of the batch.
    pub(crate) micro_batch: usize,
}

/// Divides `available` bytes between the participants: each gets what it needs at least, the miners half of the rest.
///
/// # Errors
/// There is no such model, or the memory does not hold one of it for each participant.
pub(crate) fn share_memory(
    args: &LocalnetArgs,
    members: &[Member],
    available: u64,
) -> Result<MemoryShares> {
    let config =
        ModelConfig::preset(&args.model).with_context(|| format!("--model {}", args.model))?;
    let miners = members.iter().filter(|member| member.is_miner()).count() as u64;
    let validators = members.len() as u64 - miners;
    let miner = |model: &ModelConfig| memory::miner(model, 1, 1)?.bytes();
    let validator = |model: &ModelConfig| memory::validator(model, 1)?.bytes();
    let all = |model: &ModelConfig| {
        let miners = product("miners", &[miners, miner(model)?])?;
        let validators = product("validators", &[validators, validator(model)?])?;
        sum("participants", [CHAIN_BYTES, miners, validators])
    };
    let who = format!("a localnet of {miners} miners and {validators} validators");
    memory::check(&who, &config, Some(available), all)?;
    let rest = available - all(&config)?;
    let share = miner(&config)? + rest / 2 / miners.max(1);
    let batch = args.batch_size as usize;
    let costs = |model: &ModelConfig, samples| memory::miner(model, samples, 1);
    Ok(MemoryShares {
        miner: share,
        validator: validator(&config)?,
        micro_batch: memory::micro_batch("a miner", &config, batch, Some(share), &costs)?,
    })
}

/// What training costs on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    /// Tokens that one thread trains on in a second, while every core is busy.
    pub(crate) tokens_per_second: f64,
    /// Cores.
    pub(crate) cores: usize,
}

/// Measures how fast this machine trains `model`. Blocks for a second or so.
pub(crate) fn measure_speed(
    model: Model,
    samples: &dyn SampleSource,
    batch_size: u32,
    micro_batch: usize,
) -> Result<Speed> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = TrainerSettings {
        batch_size: batch_size as usize,
        micro_batch,
        ..TrainerSettings::default()
    };
    let mut trainer = Trainer::new(model, settings, Threads::new(1)?)?;
    let count = samples.sample_count().max(1);
    let steps: Vec<Vec<u64>> = (0..=MEASURED_STEPS as u64)
        .map(|step| {
            (0..u64::from(batch_size)).map(|n| (step * u64::from(batch_size) + n) % count).collect()
        })
        .collect();
    let mut ends = Vec::with_capacity(steps.len());
    let mut on_step = |_: &trainer::StepReport| {
        ends.push(Instant::now());
        std::ops::ControlFlow::Continue(())
    };
    trainer.train_window(samples, &steps, &|_| 1e-4, &mut on_step)?;
    // The fastest: what else runs at the start (the chain compiles its Wasm) will not run later.
    let pairs = ends.iter().zip(ends.iter().skip(1));
    let fastest = pairs.map(|(begin, end)| end.duration_since(*begin)).min();
    let seconds = fastest.context("no step was measured")?.as_secs_f64().max(1e-6);
    let tokens = batch_size as usize * samples.sample_len();
    Ok(Speed { tokens_per_second: tokens as f64 / seconds, cores })
}

/// How large the data set is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataSize {
    /// Training samples.
    pub(crate) sample_count: u64,
    /// Tokens of a sample.
    pub(crate) sample_len: u32,
}

/// How much is trained in a window, and how long that takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    /// Local steps of a window.
    pub(crate) inner_steps: u32,
    /// Seconds that all of them, and the evaluations beside them, are expected to take.
    pub(crate) seconds: f64,
}

/// As many local steps as this machine can do in a reasonable window, or as many as are asked for.
pub(crate) fn plan_work(
    args: &LocalnetArgs,
    members: &[Member],
    speed: Speed,
    data: DataSize,
) -> Result<Work> {
    let sample_count = data.sample_count;
    let miners = members.iter().filter(|member| member.is_miner()).count() as f64;
    let trainers =
        members.iter().filter(|member| member.is_miner() && member.adversary().is_none()).count();
    // A lazy miner trains once; planned for, so that its first window fits.
    let lazy =
        members.iter().filter(|member| member.adversary() == Some(AdversaryKind::Lazy)).count();
    let trainers = (trainers + lazy).max(1) as f64;
    let tokens_a_step = f64::from(args.batch_size) * f64::from(data.sample_len);
    // Of each miner three losses, and one on the random samples before any update.
    let losses = f64::from(args.validators) * (3.0 * miners + 1.0);
    let evaluated = losses * f64::from(EVALUATION_SAMPLES) + HELD_OUT_SAMPLES as f64;
    let evaluation_tokens = evaluated * f64::from(data.sample_len) * EVALUATED_TOKEN_COST;
    let rate = speed.tokens_per_second * speed.cores as f64 * TRAIN_EFFICIENCY;
    // Who trains alone uses one core, however many there are.
    let seconds_of = |steps: f64| {
        let together = (steps * tokens_a_step * trainers + evaluation_tokens) / rate;
        let alone = steps * tokens_a_step / (speed.tokens_per_second * TRAIN_EFFICIENCY);
        together.max(alone)
    };
    let slots = members.iter().filter(|member| member.is_miner()).count() as u64;
    let fits_data = sample_count / (slots * u64::from(args.batch_size)).max(1);
    let inner_steps = match args.inner_steps {
        Some(steps) if u64::from(steps) > fits_data => bail!(
            "{slots} miners with {steps} steps of {} samples need more than the {sample_count} samples of the data",
            args.batch_size
        ),
        Some(steps) => steps,
        None => {
            let fits_time = (INNER_STEPS_MIN..=INNER_STEPS_MAX)
                .rev()
                .find(|steps| seconds_of(f64::from(*steps)) <= TRAIN_SECONDS_MAX)
                .unwrap_or(INNER_STEPS_MIN);
            u32::try_from(fits_data).unwrap_or(u32::MAX).min(fits_time)
        }
    };
    if inner_steps == 0 {
        bail!(
            "{sample_count} samples of {} tokens are too few for {slots} miners",
            data.sample_len
        );
    }
    Ok(Work { inner_steps, seconds: seconds_of(f64::from(inner_steps)) })
}

/// Phases that are long enough for `train_seconds` of training, in blocks of `block`.
pub(crate) fn plan_schedule(
    args: &LocalnetArgs,
    train_seconds: f64,
    head: u32,
) -> Result<Schedule> {
    let block = Duration::from_millis(args.block_ms).as_secs_f64();
    let blocks = |seconds: f64, least: u32| ((seconds / block).ceil() as u32).max(least);
    let inclusion = blocks(INCLUSION_SECONDS, 3);
    // A miner stops training some blocks before the end, see `miner::train`.
    let commit = blocks(train_seconds, 2) + inclusion + 6;
    let (reveal, attest, apply) = (inclusion + 3, inclusion + 2, blocks(1.0, 3));
    let planned = commit + reveal + attest + apply;
    // A window that is asked for to be longer has a longer commit phase; a shorter one, a shorter one.
    let window_blocks = args.window_blocks.unwrap_or(planned);
    let rest = reveal + attest + apply;
    let Some(commit_end) = window_blocks.checked_sub(rest).filter(|commit| *commit > 8) else {
        bail!("a window of {window_blocks} blocks is too short: {} are needed at least", rest + 9);
    };
    let schedule = Schedule {
        start_block: head + blocks(START_SECONDS, 8),
        window_blocks,
        commit_end,
        reveal_end: commit_end + reveal,
        attest_end: commit_end + reveal + attest,
        score_commit_end: commit_end,
        score_reveal_end: commit_end + inclusion + 2,
    };
    schedule.validate()?;
    Ok(schedule)
}

/// What of the settings comes from model and data.
pub(crate) struct Roots {
    /// Root of the data set.
    pub(crate) data_root: Hash,
    /// Its size.
    pub(crate) data: DataSize,
    /// State root of the initial parameters.
    pub(crate) genesis_state_root: Hash,
}

/// The settings of the run.
pub(crate) fn plan_settings(
    args: &LocalnetArgs,
    members: &[Member],
    work: Work,
    schedule: Schedule,
    roots: Roots,
) -> Result<Settings> {
    let slots = members.iter().filter(|member| member.is_miner()).count() as u64;
    let needed_by_one = u64::from(work.inner_steps) * u64::from(args.batch_size);
    let uid_max = (roots.data.sample_count / needed_by_one).clamp(slots, 256);
    let settings = Settings {
        schedule,
        training: Training {
            inner_steps: work.inner_steps,
            batch_size: args.batch_size,
            sample_len: roots.data.sample_len,
            sample_count: roots.data.sample_count,
            data_root: roots.data_root,
            keep: 64,
            outer_rate_ppm: 1_000_000,
            evaluation_rate_ppm: 300_000,
            error_decay_ppm: 950_000,
            inner_rate_ppb: 2_000_000,
            evaluation_samples: EVALUATION_SAMPLES,
            model_seed: args.seed,
            genesis_state_root: roots.genesis_state_root,
        },
        incentive: Incentive {
            uid_max: uid_max as u16,
            accepted_max: 20,
            waiver_windows: 2,
            // At this size the proof of computation is noise for long: in 12 windows of 64 samples honest miners came
            // to 0.0 to 0.3, and the protocol's own gate (0.1 after 10 windows) took the pay of one of four.
            proof_gate_ppm: 0,
            proof_gate_windows: 30,
            // Two of three validators are enough.
            finality_ppm: 666_666,
            ..Settings::example().incentive
        },
        emission: Emission { ..Settings::example().emission },
    };
    settings.validate().context("the planned settings")?;
    Ok(settings)
}

/// The model that the command line names, and its initial parameters' root.
pub(crate) fn initial_model(args: &LocalnetArgs, threads: &Threads) -> Result<(Model, Hash)> {
    let config =
        ModelConfig::preset(&args.model).with_context(|| format!("--model {}", args.model))?;
    let model = Model::init(&config, args.seed)?;
    let root = model.state_root(threads);
    Ok((model, root))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn args(line: &str) -> LocalnetArgs {
        #[derive(Parser)]
        struct Options {
            #[command(flatten)]
            args: LocalnetArgs,
        }
        let words = format!("localnet {line}");
        Options::parse_from(words.split_whitespace()).args
    }

    fn samples(sample_count: u64) -> DataSize {
        DataSize { sample_count, sample_len: 128 }
    }

    #[test]
    fn the_default_is_done_in_four_minutes_on_two_cores() {
        let args = args("");
        let members = members(&args);
        let speed = Speed { tokens_per_second: 12_000.0, cores: 2 };
        let work = plan_work(&args, &members, speed, samples(100_000)).unwrap();
        assert!(work.inner_steps >= 10, "{work:?}");
        let schedule = plan_schedule(&args, work.seconds, 20).unwrap();
        let blocks = schedule.window_blocks * 8 + schedule.score_reveal_end + 5;
        let seconds = f64::from(blocks) * 0.5 + START_SECONDS + 10.0;
        assert!(seconds < 230.0, "{seconds} s, {schedule:?}, {work:?}");
    }

    #[test]
    fn every_member_has_a_name_of_its_own() {
        let members =
            members(&args("--miners 3 --adversary lazy:2 --adversary lazy:1 --adversary copier"));
        let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names.len(), 3 + 2 + 1 + 1 + 2);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 9);
    }

    #[test]
    fn the_memory_is_divided_or_the_model_refused() {
        let args = args("--miners 2 --validators 2 --model 25M --batch-size 8");
        let members = members(&args);
        let shares = share_memory(&args, &members, 20_000_000_000).unwrap();
        assert_eq!(shares.micro_batch, 8);
        let taken = 2 * (shares.miner + shares.validator);
        assert!(taken < 20_000_000_000, "{shares:?}");
        let shares = share_memory(&args, &members, 5_500_000_000).unwrap();
        assert!(shares.micro_batch < 8, "{shares:?}");
        let error = share_memory(&args, &members, 2_500_000_000).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("2 miners and 2 validators of the model 25M needs")
                && error.contains("the largest preset that fits is 7M"),
            "{error}"
        );
    }

    #[test]
    fn little_data_means_fewer_steps_or_a_clear_error() {
        let args = args("--miners 2 --batch-size 8");
        let members = members(&args);
        let speed = Speed { tokens_per_second: 1e6, cores: 8 };
        assert_eq!(plan_work(&args, &members, speed, samples(2 * 8 * 5)).unwrap().inner_steps, 5);
        assert!(plan_work(&args, &members, speed, samples(7)).is_err());
    }
}
