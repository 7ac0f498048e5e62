//! Plans what training a model costs on a machine, before anything is allocated: bytes of every
//! region, seconds of a step and of a window, whether it fits and, if not, what would.
//!
//! [`plan`] is a pure function of a [`PlanRequest`]. For a CPU the bytes are those of the engine that
//! there is ([`crate::engine::plan::Plan`]) and of the trainer's arrays, held to what is really allocated
//! by a test. For GPUs they are the regions that the CUDA engine is to have, and the seconds are a
//! roofline: what a good engine comes close to, not what one has been seen to do. docs/PLANNING.md
//! has the formulas, their sources and how they were checked.
//!
//! Sizes are checked: an absurd request is an error, never a wrapped number. A GB is 10^9 bytes.

use serde::Serialize;

pub mod error;
pub mod quantity;

pub mod hardware;
pub mod model;
pub mod request;

pub mod account;

pub mod cpu;
pub mod gpu;
pub mod host;
pub mod window;

pub mod advice;

pub use account::{Duration, MemoryAccount, MemoryItem, StepEstimate};
pub use advice::Advice;
pub use cpu::{micro_batch_that_fits, CpuCosts};
pub use error::BudgetError;
pub use hardware::{CpuRates, Devices, Gpu, Machine};
pub use model::ModelCounts;
pub use quantity::divisors;
pub use request::{Choice, PlanRequest, Recompute, Sharding, StateFormat, WindowShape};
pub use window::WindowPart;

use account::Way;

/// What training costs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Budget {
    /// The model's numbers.
    pub model: ModelCounts,
    /// Bytes a parameter of parameters, gradient and optimiser.
    pub state_bytes: u64,
    /// Memory (CPU), or the memory of each GPU and of each host; then the disk.
    pub ledgers: Vec<MemoryAccount>,
    /// What processes hold on their host that do not train: a replica alone, and a validator beside its engine.
    pub others: Vec<MemoryAccount>,
    /// One inner step.
    pub step: StepEstimate,
    /// The phases of a window.
    pub phases: Vec<WindowPart>,
    /// Seconds of a window: of the phases that a miner goes through one after the other.
    pub window_seconds: f64,
    /// The part of a window in which it trains.
    pub utilisation: f64,
    /// Tokens a second over whole windows, of one peer.
    pub peer_tokens_per_second: f64,
    /// Days in which all peers together train on 10^12 tokens.
    pub days_per_trillion_tokens: f64,
    /// Whether all memories are large enough.
    pub fits: bool,
}

impl Budget {
    /// The ledger of this name.
    pub fn ledger(&self, name: &str) -> Option<&MemoryAccount> {
        self.ledgers.iter().find(|ledger| ledger.name == name)
    }

    /// Bytes that are missing, over all ledgers.
    pub fn missing_bytes(&self) -> u64 {
        let missing = |ledger: &MemoryAccount| {
            let capacity = ledger.capacity.unwrap_or(u64::MAX);
            ledger.bytes.saturating_sub(capacity)
        };
        // A sum of at most three ledgers of less than 2^63 bytes: saturation is only for show.
        let missing = self.ledgers.iter().map(missing);
        missing.fold(0u64, u64::saturating_add)
    }
}

/// The budget of the fastest way to do what is asked that fits; of the one that needs the least
/// memory where none does ([`Budget::fits`] tells, [`advice::advice`] says what would).
pub fn plan(request: &PlanRequest) -> Result<Budget, BudgetError> {
    request.check()?;
    let counts = ModelCounts::new(&request.model, request.window.keep)?;
    let devices = request.machine.devices.count();
    let samples = request.window.batch.div_ceil(devices);
    let micro_batches = match request.choice.micro_batch {
        None => divisors(samples),
        Some(micro) if micro > 0 && samples.is_multiple_of(micro) => vec![micro],
        Some(micro) => return Err(BudgetError::MicroBatch { micro, samples }),
    };
    let mut best: Option<Budget> = None;
    let mut too_large = BudgetError::TooLarge("every micro-batch");
    for micro_batch in micro_batches {
        for way in ways(request, micro_batch) {
            match budget(request, &counts, way, None) {
                Ok(budget) => {
                    if best.as_ref().is_none_or(|best| is_better(&budget, best)) {
                        best = Some(budget);
                    }
                }
                // Fewer samples at once may be countable.
                Err(error @ BudgetError::TooLarge(_)) => too_large = error,
                Err(error) => return Err(error),
            }
        }
    }
    let best = best.ok_or(too_large)?;
    let Some(mfu) = request.choice.mfu else {
        return Ok(best);
    };
    let step = best.step;
    let way =
        Way { micro_batch: step.micro_batch, recompute: step.recompute, sharding: step.sharding };
    budget(request, &counts, way, Some(mfu))
}

/// All ways that the choice leaves open.
fn ways(request: &PlanRequest, micro_batch: u64) -> Vec<Way> {
    let cpu = matches!(request.machine.devices, Devices::Cpu(_));
    let one = request.machine.devices.count() == 1;
    let choice = &request.choice;
    let recomputes: Vec<Recompute> = match choice.recompute {
        // What the CPU engine does, always.
        _ if cpu => vec![Recompute::NormSwiglu],
        Some(recompute) => vec![recompute],
        None => Recompute::ALL.to_vec(),
    };
    let shardings: Vec<Sharding> = match choice.sharding {
        _ if one => vec![Sharding::None],
        Some(sharding) => vec![sharding],
        None => Sharding::ALL.to_vec(),
    };
    let with =
        |recompute| shardings.iter().map(move |&sharding| Way { micro_batch, recompute, sharding });
    recomputes.into_iter().flat_map(with).collect()
}

/// What fits before what does not; of what does not, the one that misses least. Then on GPUs the
/// faster (by more than a thousandth), the one that spreads less, and the smaller. On a CPU, which is as fast with few samples
/// at once as with many, the most of them that leave half of the memory, and if none does that,
/// the most.
fn is_better(new: &Budget, old: &Budget) -> bool {
    let (Some(memory), Some(old_memory)) = (new.ledgers.first(), old.ledgers.first()) else {
        return false;
    };
    if new.fits != old.fits {
        return new.fits;
    }
    if !new.fits {
        return (new.missing_bytes(), memory.bytes) < (old.missing_bytes(), old_memory.bytes);
    }
    if memory.name == cpu::MEMORY {
        let rank = |ledger: &MemoryAccount, step: &StepEstimate| {
            let half = ledger.capacity.map(|capacity| capacity / 2);
            (half.is_none_or(|half| ledger.bytes <= half), step.micro_batch)
        };
        return rank(memory, &new.step) > rank(old_memory, &old.step);
    }
    let ratio = new.step.seconds / old.step.seconds;
    let size = |ledger: &MemoryAccount, step: &StepEstimate| (step.sharding, ledger.bytes);
    ratio < 0.999 || (ratio < 1.001 && size(memory, &new.step) < size(old_memory, &old.step))
}

/// The step at an MFU that is known, all its parts as much longer.
fn at_mfu(mut step: StepEstimate, mfu: f64) -> StepEstimate {
    let longer = step.mfu / mfu;
    for time in &mut step.times {
        time.seconds *= longer;
    }
    step.seconds *= longer;
    step.tokens_per_second /= longer;
    step.mfu = mfu;
    step
}

/// The budget of one way, at an MFU if that is known.
fn budget(
    request: &PlanRequest,
    counts: &ModelCounts,
    way: Way,
    mfu: Option<f64>,
) -> Result<Budget, BudgetError> {
    let (mut ledgers, step) = match &request.machine.devices {
        Devices::Cpu(rates) => cpu::costs(request, counts, rates, way)?,
        Devices::Gpus { kind, count } => gpu::costs(request, counts, kind, *count, way)?,
    };
    let step = match mfu {
        Some(mfu) => at_mfu(step, mfu),
        None => step,
    };
    ledgers.push(window::disk(request, counts)?);
    let phases = window::phases(request, counts, &step);
    let in_turn = phases.iter().filter(|phase| phase.in_turn);
    let window_seconds: f64 = in_turn.map(|phase| phase.seconds).sum();
    let training = step.seconds * request.window.inner_steps as f64;
    let utilisation = training / window_seconds;
    let peer_tokens_per_second = step.tokens_per_second * utilisation;
    let all = peer_tokens_per_second * request.window.peers as f64;
    Ok(Budget {
        model: counts.clone(),
        state_bytes: match request.machine.devices {
            Devices::Cpu(_) => 16,
            Devices::Gpus { .. } => request.choice.state.bytes(),
        },
        others: host::accounts(
            &request.model,
            request.window.keep,
            cpu::updates(request, counts)?,
        )?,
        fits: ledgers.iter().all(MemoryAccount::fits),
        ledgers,
        step,
        phases,
        window_seconds,
        utilisation,
        peer_tokens_per_second,
        days_per_trillion_tokens: 1e12 / all / 86_400.0,
    })
}
