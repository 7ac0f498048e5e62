//! Counts what the CPU engine and its users allocate, to the byte, and estimates how long they take.
//!
//! The engine's regions are those of [`Plan`], whatever they are; this file knows only the arrays
//! beside them.

use super::account::{Duration, MemoryAccount, StepEstimate, Way};
use super::error::BudgetError;
use super::hardware::CpuRates;
use super::model::ModelCounts;
use super::quantity::{divisors, in_range, product, sum};
use super::request::PlanRequest;
use crate::compute::matmul::MatrixUnit;
use crate::engine::optimiser::{muon::work_bytes, Symmetric};
use crate::engine::plan::{Plan, Precision};
use crate::model::config::ModelConfig;
use crate::model::flops::{attention_flops_a_token, flops_a_token, product_flops_a_token};

/// The ledger of a CPU's memory.
pub const MEMORY: &str = "memory";

/// Bytes of the packing buffers that gemm keeps for a thread on the portable unit: its second-level cache at most.
const PACKING_PER_THREAD: u64 = 4 << 20;

/// gemm packs a panel of up to 512 values from each column of a product.
const PACKING_PER_COLUMN: u64 = 512 * 4;

/// What a [`crate::Trainer`] holds beside the engine: an array of f32 for each parameter.
const TRAINER: [&str; 6] = [
    "parameters (agreed)",
    "parameters (local)",
    "gradient",
    "first moment",
    SECOND_MOMENT,
    "error feedback",
];

/// What a [`crate::Pretrainer`] holds.
const PRETRAINER: [&str; 4] = ["parameters", "gradient", "first moment", SECOND_MOMENT];

/// The array that Muon's matrices do without.
const SECOND_MOMENT: &str = "second moment";

/// What Muon makes orthonormal, one matrix at a time on each thread or GPU.
pub(super) const MUON_WORKS_ON: &str = "matrices that Muon works on";

/// What an [`crate::Evaluator`] holds: it reads parameters where they lie.
const EVALUATOR: [&str; 0] = [];

/// Bytes of names, shapes and partial sums: several copies of some 300 bytes a tensor, a fixed part,
/// and a part for each 2^12 parameters.
const SHAPE_BYTES: (u64, u64, u64) = (4_096, 64 * 1024, 8);

/// Bytes of a process that computes on a CPU.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuCosts {
    /// The engine's regions, exactly.
    pub engine: u64,
    /// The arrays of parameters, exactly.
    pub arrays: u64,
    /// Names, shapes and (on the portable unit) gemm's packing buffers, at most.
    pub rest_max: u64,
    lines: Vec<(&'static str, u64)>,
}

impl CpuCosts {
    /// What a [`crate::Trainer`] allocates for `samples` samples at once.
    pub fn of_trainer(
        config: &ModelConfig,
        samples: usize,
        threads: usize,
    ) -> Result<Self, BudgetError> {
        let plan = engine_plan(config, samples, threads, true, Precision::F32)?;
        Self::new(config, &plan, threads, &TRAINER)
    }

    /// What a [`crate::Pretrainer`] allocates for `samples` samples at once.
    pub fn of_pretrainer(
        config: &ModelConfig,
        samples: usize,
        precision: Precision,
        threads: usize,
    ) -> Result<Self, BudgetError> {
        let plan = engine_plan(config, samples, threads, true, precision)?;
        Self::new(config, &plan, threads, &PRETRAINER)
    }

    /// What an [`crate::Evaluator`] allocates for `samples` samples at once.
    pub fn of_evaluator(
        config: &ModelConfig,
        samples: usize,
        threads: usize,
    ) -> Result<Self, BudgetError> {
        let plan = engine_plan(config, samples, threads, false, Precision::F32)?;
        Self::new(config, &plan, threads, &EVALUATOR)
    }

    fn new(
        config: &ModelConfig,
        plan: &Plan,
        threads: usize,
        arrays: &[&'static str],
    ) -> Result<Self, BudgetError> {
        let arena = config.arena();
        let (parameters, tensors) = (arena.len as u64, arena.tensors.len() as u64);
        let array = product("parameters", &[parameters, 4])?;
        let (per_tensor, fixed, per_block) = SHAPE_BYTES;
        let shapes = sum(
            "names and shapes",
            [
                product("names", &[per_tensor, tensors])?,
                fixed,
                product("sums", &[per_block, parameters.div_ceil(1 << 12)])?,
            ],
        )?;
        let packing = match MatrixUnit::best() {
            MatrixUnit::Portable => packing_bytes_max(config, plan.tokens as u64, threads as u64)?,
            MatrixUnit::Vector | MatrixUnit::Amx => 0,
        };
        let regions = plan.regions();
        let regions = regions.map(|(region, values)| (region.name(), values as u64 * 4));
        let rest = [("names and shapes, at most", shapes), ("gemm's packing, at most", packing)];
        let rest = rest.into_iter().filter(|(_, bytes)| *bytes > 0);
        let lines = arrays.iter().map(|name| (*name, array));
        Ok(Self {
            engine: plan.bytes(),
            arrays: product("arrays", &[array, arrays.len() as u64])?,
            rest_max: sum("the rest", [shapes, packing])?,
            lines: lines.chain(regions).chain(rest).collect(),
        })
    }

    /// The same where, if `muon`, Muon trains the layers' matrices: they have one moment, and each thread makes one of
    /// them orthonormal.
    pub fn with_muon(
        mut self,
        muon: bool,
        config: &ModelConfig,
        threads: usize,
    ) -> Result<Self, BudgetError> {
        if !muon {
            return Ok(self);
        }
        let arena = config.arena();
        let saved = product("second moment", &[arena.layer_matrix_len() as u64, 4])?;
        let work = work_bytes(&arena, threads, MatrixUnit::best());
        self.arrays = sum("arrays", [self.arrays.saturating_sub(saved), work])?;
        for (name, bytes) in &mut self.lines {
            if *name == SECOND_MOMENT {
                *bytes = bytes.saturating_sub(saved);
            }
        }
        self.lines.push((MUON_WORKS_ON, work));
        Ok(self)
    }

    /// The same and `count` more arrays of parameters, which are counted as exact.
    pub fn and_parameters(
        self,
        name: &'static str,
        config: &ModelConfig,
        count: u64,
    ) -> Result<Self, BudgetError> {
        let bytes = product(name, &[config.parameter_count(), count, 4])?;
        self.and_exactly(name, bytes)
    }

    /// The same and `bytes` more, exactly.
    pub(super) fn and_exactly(self, name: &'static str, bytes: u64) -> Result<Self, BudgetError> {
        self.with_bytes(name, bytes, true)
    }

    /// The same and at most `bytes` more.
    pub(super) fn and_bytes(self, name: &'static str, bytes: u64) -> Result<Self, BudgetError> {
        self.with_bytes(name, bytes, false)
    }

    fn with_bytes(
        mut self,
        name: &'static str,
        bytes: u64,
        is_exact: bool,
    ) -> Result<Self, BudgetError> {
        let part = if is_exact { &mut self.arrays } else { &mut self.rest_max };
        *part = sum(name, [*part, bytes])?;
        self.lines.push((name, bytes));
        Ok(self)
    }

    /// What takes them, by name.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.lines.iter().copied()
    }

    /// This and another, in one process.
    pub fn and(mut self, other: Self) -> Result<Self, BudgetError> {
        self.engine = sum("engines", [self.engine, other.engine])?;
        self.arrays = sum("arrays", [self.arrays, other.arrays])?;
        self.rest_max = sum("the rest", [self.rest_max, other.rest_max])?;
        self.lines.extend(other.lines);
        Ok(self)
    }

    /// Bytes in all, at most.
    pub fn bytes(&self) -> Result<u64, BudgetError> {
        sum("memory", [self.engine, self.arrays, self.rest_max])
    }
}

/// The engine's plan, if it can be counted.
///
/// The dimensions of a valid model are so small that the plan for one sample and one thread can
/// be. No region grows faster than samples and threads do together, so that it tells whether the
/// larger one can.
fn engine_plan(
    config: &ModelConfig,
    samples: usize,
    threads: usize,
    training: bool,
    precision: Precision,
) -> Result<Plan, BudgetError> {
    config.validate()?;
    in_range("samples at once", samples as u64, 1 << 24)?;
    in_range("threads", threads as u64, 4_096)?;
    let plan =
        |samples, threads| Plan::with_precision(config, samples, threads, training, precision);
    let growth = [plan(1, 1).bytes(), samples as u64, threads as u64];
    product("activations", &growth)?;
    Ok(plan(samples, threads))
}

/// What gemm packs matrices into: a panel of the widest product, one of attention's in each thread,
/// and each thread's own.
fn packing_bytes_max(config: &ModelConfig, tokens: u64, threads: u64) -> Result<u64, BudgetError> {
    let widths = [config.vocab, config.qkv_dim(), 2 * config.ffn, config.hidden];
    let widest = widths.into_iter().max().unwrap_or(0) as u64;
    let attention = product("packing", &[threads, config.seq_len as u64])?;
    let columns = sum("packing", [widest.max(tokens), attention])?;
    sum(
        "packing",
        [
            product("packing", &[columns, PACKING_PER_COLUMN])?,
            product("packing", &[threads + 2, PACKING_PER_THREAD])?,
        ],
    )
}

/// The most samples at once, a divisor of `batch`, whose `costs` are at most `memory` bytes.
///
/// # Errors
/// [`BudgetError::Memory`] if not even one sample at once fits: it says how much one needs.
pub fn micro_batch_that_fits(
    batch: usize,
    memory: u64,
    costs: impl Fn(usize) -> Result<CpuCosts, BudgetError>,
) -> Result<usize, BudgetError> {
    in_range("batch", batch as u64, 1 << 24)?;
    let mut needed = 0;
    for samples in divisors(batch as u64) {
        match costs(samples as usize).and_then(|costs| costs.bytes()) {
            Ok(bytes) if bytes <= memory => return Ok(samples as usize),
            Ok(bytes) => needed = bytes,
            // Fewer may be countable.
            Err(BudgetError::TooLarge(_)) if samples > 1 => {}
            Err(error) => return Err(error),
        }
    }
    Err(BudgetError::Memory { needed, available: memory })
}

/// Part of the rate of products that attention reaches: its blocks are small.
const ATTENTION_RATE: f64 = 0.5;

/// Bytes of a parameter that AdamW and the norm of the gradient touch: gradient twice, parameter
/// and moments read and written.
const OPTIMISER_BYTES: f64 = 32.0;

pub(super) fn costs(
    request: &PlanRequest,
    counts: &ModelCounts,
    rates: &CpuRates,
    way: Way,
) -> Result<(Vec<MemoryAccount>, StepEstimate), BudgetError> {
    let (samples, threads) = (way.micro_batch as usize, rates.threads as usize);
    let costs = CpuCosts::of_trainer(&request.model, samples, threads)?
        .with_muon(request.choice.muon, &request.model, threads)?
        .and_replica(&request.model, updates(request, counts)?)?;
    let ledger = MemoryAccount::new(MEMORY, costs.lines(), Some(request.machine.host_memory))?;
    Ok((vec![ledger], step(request, counts, rates, way)?))
}

/// Updates in memory: while the own one is made, and later those of all while they are applied.
pub(super) fn updates(request: &PlanRequest, counts: &ModelCounts) -> Result<u64, BudgetError> {
    let others = product("updates", &[counts.payload_bytes, request.window.peers])?;
    Ok(others.max(counts.payload_bytes_max))
}

fn step(
    request: &PlanRequest,
    counts: &ModelCounts,
    rates: &CpuRates,
    way: Way,
) -> Result<StepEstimate, BudgetError> {
    let config = &request.model;
    let batch = request.window.batch;
    let tokens = product("tokens of a step", &[batch, config.seq_len as u64])?;
    let count = tokens as f64;
    let products = product_flops_a_token(config) * count / rates.products;
    let attention = computed_attention(config) * count / (rates.products * ATTENTION_RATE);
    let elementwise = 4.0 * elementwise_values(config) * count / rates.bandwidth;
    let orthogonal = request.orthogonal_flops(Symmetric::Half) / rates.products;
    let moved = OPTIMISER_BYTES * counts.parameters as f64 / rates.bandwidth;
    let times = vec![
        time("matrix products", products),
        time("attention", attention),
        time("elementwise", elementwise),
        time("optimiser", moved + orthogonal),
    ];
    let seconds = times.iter().map(|time| time.seconds).sum();
    Ok(StepEstimate {
        micro_batch: way.micro_batch,
        accumulations: batch / way.micro_batch,
        recompute: way.recompute,
        sharding: way.sharding,
        seconds,
        tokens,
        tokens_per_second: count / seconds,
        mfu: flops_a_token(config) * count / seconds / rates.products,
        times,
    })
}

/// Operations of attention of one token: the backward pass makes the probabilities again, which is
/// 3.5 times the forward one where [`attention_flops_a_token`] counts 3.
pub(super) fn computed_attention(config: &ModelConfig) -> f64 {
    attention_flops_a_token(config) * 3.5 / 3.0
}

pub(super) fn time(name: &'static str, seconds: f64) -> Duration {
    Duration { name, seconds }
}

/// Values that are read or written by what is not a product, of one token, forward and backward:
/// two norms with their residual adds (8 D and 8 D, 4 D to norm again), RoPE (twice there and
/// back), SwiGLU (3 F, 6 F back), in each layer; three passes over the logits.
pub(super) fn elementwise_values(config: &ModelConfig) -> f64 {
    let (hidden, ffn) = (config.hidden as f64, config.ffn as f64);
    let rotated = (config.heads * config.head_dim() + config.kv_dim()) as f64;
    let layer = 20.0 * hidden + 4.0 * rotated + 9.0 * ffn;
    layer * config.layers as f64 + 3.0 * config.vocab as f64
}

/// The rate of products of a CPU on which loss and gradient of `tokens` tokens took `seconds`: what
/// is left of them after the elementwise work at `bandwidth`, at least a quarter.
pub fn products_rate(config: &ModelConfig, tokens: u64, seconds: f64, bandwidth: f64) -> f64 {
    let count = tokens as f64;
    let elementwise = 4.0 * elementwise_values(config) * count / bandwidth;
    let operations = product_flops_a_token(config) + computed_attention(config) / ATTENTION_RATE;
    operations * count / (seconds - elementwise).max(seconds / 4.0)
}
