//! Computes the run's settings from the localnet's order, the data, and the speed of this machine.

use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use dataset::{Dataset, SampleSource};
use protocol::{
    settings::{Incentive, OuterStep, Settings, Training},
    window::Schedule,
    Hash,
};
use trainer::{Cpu, Model, Threads, Trainer, TrainerSettings};

use super::optimisers::{INNER_RATE_PPB, KEEP, OPTIMISER, OUTER_RATE_PPM};
use super::order::LocalnetOrder;
use participant::miner::{self, adversary_kind::AdversaryKind};

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
pub(super) const HELD_OUT_SAMPLES: usize = 64;

/// Seconds from an extrinsic's submission to its inclusion, with slack: at least two blocks.
const INCLUSION_SECONDS: f64 = 1.5;

/// Seconds that the participants get between their registration and the first window.
const START_SECONDS: f64 = 6.0;

/// The speed at which this machine trains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// Tokens that one thread trains on in a second, while every core is busy.
    pub(super) tokens_per_second: f64,
    pub(super) cores: usize,
}

/// Measures how fast this machine trains `model`. Blocks for a second or so.
pub(super) fn measure_speed(
    model: Model,
    samples: &dyn SampleSource,
    batch_size: u32,
    micro_batch: usize,
) -> Result<Speed> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = TrainerSettings {
        batch_size: batch_size as usize,
        micro_batch,
        muon: miner::muon(OPTIMISER, INNER_RATE_PPB),
        ..TrainerSettings::default()
    };
    let mut trainer = Trainer::new(model, settings, &Cpu::new(Threads::new(1)?))?;
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

/// The size of a data set.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataSize {
    /// Training samples.
    pub(super) sample_count: u64,
    /// Tokens of a sample.
    pub(super) sample_len: u32,
}

impl DataSize {
    /// Reads the size of a data set.
    pub(super) fn of(dataset: &Dataset) -> Self {
        Self {
            sample_count: dataset.train().sample_count(),
            sample_len: dataset.sample_len() as u32,
        }
    }
}

/// The work of a window, and the time it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WindowWork {
    /// Local steps of a window.
    pub(super) inner_steps: u32,
    /// Seconds that all of them, and the evaluations beside them, are expected to take.
    pub(super) seconds: f64,
}

/// Chooses as many local steps as this machine can do in a reasonable window, or as many as are asked for.
pub(super) fn window_work(
    order: &LocalnetOrder,
    speed: Speed,
    data: DataSize,
) -> Result<WindowWork> {
    let sample_count = data.sample_count;
    let miners = order.miner_count() as f64;
    let trainers = order
        .members
        .iter()
        .filter(|member| member.is_miner() && member.adversary().is_none())
        .count();
    // A lazy miner trains once; planned for, so that its first window fits.
    let lazy = order
        .members
        .iter()
        .filter(|member| member.adversary() == Some(AdversaryKind::Lazy))
        .count();
    let trainers = (trainers + lazy).max(1) as f64;
    let tokens_a_step = f64::from(order.args.batch_size) * f64::from(data.sample_len);
    // Of each miner three losses, and one on the random samples before any update.
    let losses = f64::from(order.args.validators) * (3.0 * miners + 1.0);
    let evaluated = losses * f64::from(EVALUATION_SAMPLES) + HELD_OUT_SAMPLES as f64;
    let evaluation_tokens = evaluated * f64::from(data.sample_len) * EVALUATED_TOKEN_COST;
    let rate = speed.tokens_per_second * speed.cores as f64 * TRAIN_EFFICIENCY;
    // Who trains alone uses one core, however many there are.
    let seconds_of = |steps: f64| {
        let together = (steps * tokens_a_step * trainers + evaluation_tokens) / rate;
        let alone = steps * tokens_a_step / (speed.tokens_per_second * TRAIN_EFFICIENCY);
        together.max(alone)
    };
    let slots = order.miner_count();
    let fits_data = sample_count / (slots * u64::from(order.args.batch_size)).max(1);
    let inner_steps = match order.args.inner_steps {
        Some(steps) if u64::from(steps) > fits_data => bail!(
            "{slots} miners with {steps} steps of {} samples need more than the {sample_count} samples of the data",
            order.args.batch_size
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
    Ok(WindowWork { inner_steps, seconds: seconds_of(f64::from(inner_steps)) })
}

/// Chooses phases that are long enough for `train_seconds` of training, in blocks of `block`.
pub(super) fn schedule(order: &LocalnetOrder, train_seconds: f64, head: u32) -> Result<Schedule> {
    let block = Duration::from_millis(order.args.block_ms).as_secs_f64();
    let blocks = |seconds: f64, least: u32| ((seconds / block).ceil() as u32).max(least);
    // What begins a phase is seen when it is final.
    let lag = order.args.finality_lag;
    let phase = order.args.phase_blocks;
    let inclusion = blocks(INCLUSION_SECONDS, 3).max(phase) + lag;
    // A miner stops training some blocks before the end, see `miner::train`.
    let (reveal, attest, apply) = (inclusion + 3, inclusion + 2, blocks(1.0, 3).max(phase) + lag);
    let mut train = blocks(train_seconds, 2);
    if order.args.overlap {
        // From the final challenge on; but the first window has no other time than its commit phase.
        let hidden = (reveal + attest + inclusion + apply).saturating_sub(lag + 2);
        train = train.saturating_sub(hidden).max(train.div_ceil(2));
    }
    let commit = train + inclusion + 6;
    let planned = commit + reveal + attest + inclusion + apply;
    // A window that is asked for to be longer has a longer commit phase; a shorter one, a shorter one.
    let window_blocks = order.args.window_blocks.unwrap_or(planned);
    let rest = reveal + attest + inclusion + apply;
    let Some(commit_end) = window_blocks.checked_sub(rest).filter(|commit| *commit > 8) else {
        bail!("a window of {window_blocks} blocks is too short: {} are needed at least", rest + 9);
    };
    let schedule = Schedule {
        start_block: head + blocks(START_SECONDS, 8) + lag * 2,
        window_blocks,
        commit_end,
        reveal_end: commit_end + reveal,
        attest_commit_end: commit_end + reveal + attest,
        attest_end: commit_end + reveal + attest + inclusion,
        score_commit_end: commit_end,
        score_reveal_end: commit_end + inclusion + 2,
    };
    schedule.validate()?;
    Ok(schedule)
}

/// The part of the settings that follows from model and data.
pub(super) struct Roots {
    /// Root of the data set.
    pub(super) data_root: Hash,
    /// Its size.
    pub(super) data: DataSize,
    /// State root of the initial parameters.
    pub(super) genesis_state_root: Hash,
}

/// Puts the settings of the run together.
pub(super) fn settings(
    order: &LocalnetOrder,
    work: WindowWork,
    schedule: Schedule,
    roots: Roots,
) -> Result<Settings> {
    let slots = order.miner_count();
    let needed_by_one = u64::from(work.inner_steps) * u64::from(order.args.batch_size);
    let uid_max = (roots.data.sample_count / needed_by_one).clamp(slots, 256);
    let settings = Settings {
        schedule,
        training: Training {
            inner_steps: work.inner_steps,
            batch_size: order.args.batch_size,
            sample_len: roots.data.sample_len,
            sample_count: roots.data.sample_count,
            data_root: roots.data_root,
            keep: KEEP,
            outer: OuterStep::constant(OUTER_RATE_PPM),
            // With four accepted updates, about what a place moves in the outer step that one miner alone sends.
            evaluation_rate_ppm: 300_000,
            error_decay_ppm: 950_000,
            optimiser: OPTIMISER,
            inner_rate_ppb: INNER_RATE_PPB,
            evaluation_samples: EVALUATION_SAMPLES,
            model_seed: order.args.seed,
            genesis_state_root: roots.genesis_state_root,
            overlap: order.args.overlap,
        },
        incentive: Incentive {
            uid_max: uid_max as u16,
            accepted_max: 20,
            waiver_windows: 2,
            // At this size the proof of computation is noise for long (in 12 windows of 64 samples honest miners came to
            // 0.0 to 0.3): the prior is believed for as long as 30 windows.
            proof_gate_ppm: 0,
            proof_prior_windows: 30,
            // A localnet shows pay in its few windows.
            trust_windows: 2,
            ..Settings::example().incentive
        },
        ..Settings::example()
    };
    settings.validate().context("the planned settings")?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::args::LocalnetArgs, *};

    fn order(line: &str) -> LocalnetOrder {
        #[derive(Parser)]
        struct Options {
            #[command(flatten)]
            args: LocalnetArgs,
        }
        let words = format!("localnet {line}");
        let args = Options::parse_from(words.split_whitespace()).args;
        LocalnetOrder::in_memory(args, u64::MAX >> 2).unwrap()
    }

    fn samples(sample_count: u64) -> DataSize {
        DataSize { sample_count, sample_len: 128 }
    }

    #[test]
    fn the_default_is_done_in_four_minutes_on_two_cores() {
        let order = order("");
        let speed = Speed { tokens_per_second: 12_000.0, cores: 2 };
        let work = window_work(&order, speed, samples(100_000)).unwrap();
        assert!(work.inner_steps >= 10, "{work:?}");
        let schedule = schedule(&order, work.seconds, 20).unwrap();
        let blocks = schedule.window_blocks * 8 + schedule.score_reveal_end + 5;
        let seconds = f64::from(blocks) * 0.5 + START_SECONDS + 10.0;
        assert!(seconds < 230.0, "{seconds} s, {schedule:?}, {work:?}");
    }

    #[test]
    fn a_window_whose_training_overlaps_is_shorter() {
        let planned = |line: &str| schedule(&order(line), 9.0, 20).unwrap();
        let (plain, overlap) = (planned(""), planned("--overlap"));
        assert!(overlap.window_blocks < plain.window_blocks, "{overlap:?}, {plain:?}");
        // Nine seconds are 18 blocks: half of them are left to the first window.
        assert_eq!(plain.commit_end - overlap.commit_end, 9);
        let exchange = |of: &Schedule| of.window_blocks - of.commit_end;
        assert_eq!(exchange(&plain), exchange(&overlap));
    }

    #[test]
    fn little_data_means_fewer_steps_or_a_clear_error() {
        let order = order("--miners 2 --batch-size 8");
        let speed = Speed { tokens_per_second: 1e6, cores: 8 };
        assert_eq!(window_work(&order, speed, samples(2 * 8 * 5)).unwrap().inner_steps, 5);
        assert!(window_work(&order, speed, samples(7)).is_err());
    }
}
