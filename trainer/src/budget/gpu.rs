//! Estimates training on GPUs: the bytes that the CUDA engine allocates, and a roofline.
//!
//! In the engine's own formats, on one GPU or with everything spread, the regions come from the engine's plan
//! ([`cuda::plan`](crate::cuda::plan)), which is what it allocates. For formats and ways that it does not have
//! they are estimated: per GPU and with bf16 activations. Values of a layer that are kept for a token, with D
//! hidden, Q the width of q|k|v, A that of attention's output and F that of SwiGLU:
//!
//! ```text
//! none         x, normed, q|k|v, attended, x', normed', gate|up, SwiGLU's output: 4 D + Q + A + 3 F
//! norm-swiglu  x, q|k|v, attended, x', gate|up:                                   2 D + Q + A + 2 F
//! full         x:                                                                 D
//! ```
//!
//! and, unless recomputed in full, 4 bytes a head (attention's logarithms) and 8 (norms' inverses).

use super::account::{MemoryAccount, StepEstimate, Way};
use super::cpu::{computed_attention, elementwise_values, time, MUON_WORKS_ON};
use super::error::BudgetError;
use super::hardware::{Gpu, GPUS_PER_HOST, NETWORK};
use super::host::BesideCards;
use super::model::ModelCounts;
use super::quantity::{product, sum};
use super::request::{PlanRequest, Recompute, Sharding, StateFormat};
use crate::cuda::fit;
use crate::cuda::layout::Layout;
use crate::cuda::plan::{Plan, Work};
use crate::engine::optimiser::Symmetric;
use crate::model::flops::{attention_flops_a_token, flops_a_token};

/// Names the account of each GPU's memory.
pub const GPU_MEMORY: &str = "memory of each GPU";

/// Names the account of each host's memory.
pub const HOST_MEMORY: &str = "memory of each host";

/// Bytes of an activation (bf16).
const ACTIVATION: u64 = 2;

/// Tokens whose logits are there at once.
const LOGITS_TOKENS: u64 = 4_096;

/// The processes of a host: code, page tables, the node, caches of libp2p.
const HOST_BASE: u64 = 4_000_000_000;

/// Part of the memory's bandwidth that elementwise kernels reach.
const BANDWIDTH_PART: f64 = 0.73;

/// Part of the peak that attention reaches (a FlashAttention-2 class kernel with `mma.sync`).
const ATTENTION_PART: f64 = 0.30;

/// Bytes a second between a GPU and its host's pinned memory, each way (PCIe 5.0 with 16 lanes has 63).
const HOST_LINK: f64 = 50e9;

/// Part of a link's rate that collective operations reach.
const LINK_PART: f64 = 0.80;

/// Seconds that a collective operation takes however little it moves.
const COLLECTIVE: f64 = 20e-6;

/// Seconds from kernel to kernel inside a CUDA graph.
const LAUNCH: f64 = 2e-6;

/// Kernels of a layer, forward and backward.
const KERNELS: f64 = 30.0;

pub(super) fn costs(
    request: &PlanRequest,
    counts: &ModelCounts,
    kind: &Gpu,
    count: u64,
    way: Way,
) -> Result<(Vec<MemoryAccount>, StepEstimate), BudgetError> {
    let shape = Shape::new(request, count, way)?;
    let gpu = gpu_memory(request, counts, kind, &shape)?;
    let host = host_memory(request, counts, &shape)?;
    Ok((vec![gpu, host], step(request, counts, kind, &shape)))
}

/// The sizes that everything depends on.
struct Shape {
    way: Way,
    gpus: u64,
    /// Samples of a step on one GPU.
    samples: u64,
    /// Tokens at once on one GPU.
    tokens: u64,
    hidden: u64,
    qkv: u64,
    attended: u64,
    ffn: u64,
    vocab: u64,
    heads: u64,
    layers: u64,
}

impl Shape {
    fn new(request: &PlanRequest, gpus: u64, way: Way) -> Result<Self, BudgetError> {
        let config = &request.model;
        let tokens = product("tokens", &[way.micro_batch, config.seq_len as u64])?;
        Ok(Self {
            way,
            gpus,
            samples: request.window.batch.div_ceil(gpus),
            tokens,
            hidden: config.hidden as u64,
            qkv: config.qkv_dim() as u64,
            attended: (config.heads * config.head_dim()) as u64,
            ffn: config.ffn as u64,
            vocab: config.vocab as u64,
            heads: config.heads as u64,
            layers: config.layers as u64,
        })
    }

    /// Bytes of one layer's activations for one token.
    fn activations(&self, recompute: Recompute) -> Result<u64, BudgetError> {
        let (d, q, a, f) = (self.hidden, self.qkv, self.attended, self.ffn);
        let (values, floats) = match recompute {
            Recompute::None => (4 * d + q + a + 3 * f, self.heads + 2),
            Recompute::NormSwiglu => (2 * d + q + a + 2 * f, self.heads + 2),
            Recompute::Full => (d, 0),
        };
        let values = product("activations", &[values, ACTIVATION])?;
        sum("activations", [values, 4 * floats])
    }

    /// Bytes that a backward pass works in, for one token: gradients of the residual stream, a
    /// norm's output, q|k|v, gate|up and SwiGLU's output; norm and SwiGLU again where they were not
    /// kept; a whole layer where it was not.
    fn backward(&self) -> Result<u64, BudgetError> {
        let (d, q, f) = (self.hidden, self.qkv, self.ffn);
        let gradients = product("activations", &[2 * d + q + 3 * f, ACTIVATION])?;
        let again = match self.way.recompute {
            Recompute::None => 0,
            Recompute::NormSwiglu => product("activations", &[d + f, ACTIVATION])?,
            Recompute::Full => self.activations(Recompute::None)?,
        };
        sum("activations", [gradients, again])
    }
}

/// Bytes of a region that is, or is not, spread over the GPUs.
fn share(
    name: &'static str,
    parameters: u64,
    bytes: u64,
    gpus: u64,
    spread: bool,
) -> Result<u64, BudgetError> {
    let parameters = if spread { parameters.div_ceil(gpus) } else { parameters };
    product(name, &[parameters, bytes])
}

fn gpu_memory(
    request: &PlanRequest,
    counts: &ModelCounts,
    kind: &Gpu,
    shape: &Shape,
) -> Result<MemoryAccount, BudgetError> {
    let regions = match engine_plan(request, shape)? {
        Some(plan) => plan.regions().map(|(region, bytes)| (region.name(), bytes)).collect(),
        None => estimated_regions(request, counts, shape)?,
    };
    // The engine's own margin: what starts is what is planned.
    let beside = fit::parts_beside(shape.gpus as usize);
    MemoryAccount::new(GPU_MEMORY, regions.into_iter().chain(beside), Some(kind.memory))
}

/// What the engine would allocate on each GPU; `None` for what it does not do.
fn engine_plan(request: &PlanRequest, shape: &Shape) -> Result<Option<Plan>, BudgetError> {
    let Way { micro_batch, recompute, sharding } = shape.way;
    let state = request.choice.state;
    let spread = shape.gpus == 1 || sharding == Sharding::Full;
    if !state.is_the_engines() || !spread {
        return Ok(None);
    }
    // More than all that a token takes: then nothing in the plan overflows.
    let widths = [shape.hidden, shape.qkv, shape.ffn, shape.heads];
    let width = product("activations", &[sum("activations", widths)?, 64])?;
    let layers = sum("activations", [shape.layers, 4])?;
    product("activations", &[width, layers, shape.tokens])?;
    let samples = usize::try_from(micro_batch).map_err(|_| BudgetError::TooLarge("samples"))?;
    let world = usize::try_from(shape.gpus).map_err(|_| BudgetError::TooLarge("GPUs"))?;
    let work = Work {
        samples,
        training: true,
        recompute,
        muon: request.choice.muon,
        offload: state.is_offloaded(),
        changes: false,
    };
    Ok(Some(Plan::new(&request.model, &Layout::new(&request.model, world), work)))
}

/// The regions of formats and ways that the engine does not have.
fn estimated_regions(
    request: &PlanRequest,
    counts: &ModelCounts,
    shape: &Shape,
) -> Result<Vec<(&'static str, u64)>, BudgetError> {
    let state = request.choice.state;
    let sharding = shape.way.sharding;
    let own_part = sharding != Sharding::None;
    let all_spread = sharding == Sharding::Full;
    let region = |name, bytes, spread| share(name, counts.parameters, bytes, shape.gpus, spread);

    let (rest, gradient) = match state {
        StateFormat::Bytes18 => (4, 4),
        StateFormat::Bytes16 | StateFormat::Bytes12 => (2, 4),
        StateFormat::Bytes10 | StateFormat::Bytes8 => (2, 2),
        StateFormat::Bytes6 => (0, 4),
    };
    let moment = if state.is_offloaded() { 0 } else { state.moment_bytes() };
    let squares = request.squares(counts.parameters);
    let second = share("second moment", squares, moment, shape.gpus, own_part)?;
    // f32 scales of blocks of 256 moments.
    let scales = match state {
        StateFormat::Bytes8 => {
            let both = sum("moments", [counts.parameters, squares])?;
            share("scales of the moments", both, 4, shape.gpus, own_part)? / 256
        }
        _ => 0,
    };
    let tokens = shape.tokens;
    let kept =
        product("activations", &[shape.activations(shape.way.recompute)?, shape.layers, tokens])?;
    let backward = product("activations", &[shape.backward()?, tokens])?;
    let ends = product("activations", &[2 * shape.hidden, ACTIVATION, tokens])?;
    let logits = product("logits", &[tokens.min(LOGITS_TOKENS), shape.vocab, ACTIVATION])?;
    let several = shape.gpus > 1;
    let layer = product("a layer", &[counts.layer_parameters, 2])?;
    let embedding = product("the embedding", &[counts.embedding_parameters, 2])?;
    Ok(vec![
        ("parameters (bf16)", region("parameters", 2, all_spread)?),
        ("rest of the f32 master", region("master", rest, own_part)?),
        ("first moment", region("first moment", moment, own_part)?),
        ("second moment", second),
        ("scales of the moments", scales),
        ("gradient", region("gradient", gradient, all_spread)?),
        ("activations of the layers", kept),
        ("first and last of the residual stream", ends),
        ("working space of the backward pass", backward),
        ("logits, up to 4096 tokens", logits),
        (MUON_WORKS_ON, muon_works_on(request)?),
        ("inputs, targets, losses", product("tokens", &[12, tokens])?),
        ("gathered layers (2)", if all_spread { 2 * layer } else { 0 }),
        ("gathered embedding or output matrix", if all_spread { embedding } else { 0 }),
        ("gradients on their way (2 layers)", if several { 2 * layer } else { 0 }),
    ])
}

/// Bytes of the master's rest and the moments in the host's memory, for each GPU.
fn offloaded(
    request: &PlanRequest,
    counts: &ModelCounts,
    shape: &Shape,
) -> Result<u64, BudgetError> {
    if !request.choice.state.is_offloaded() {
        return Ok(0);
    }
    if let Some(plan) = engine_plan(request, shape)? {
        return Ok(plan.pinned);
    }
    let own_part = shape.way.sharding != Sharding::None;
    let both = share("states", counts.parameters, 4, shape.gpus, own_part)?;
    let squares = request.squares(counts.parameters);
    sum("states", [both, share("states", squares, 2, shape.gpus, own_part)?])
}

/// Bytes of the largest matrix that Muon makes orthonormal, twice, and of the two products of its shorter side.
fn muon_works_on(request: &PlanRequest) -> Result<u64, BudgetError> {
    if !request.choice.muon {
        return Ok(0);
    }
    let arena = request.model.arena();
    let shapes = arena.layer_matrices().map(|(_, placed)| placed.info.shape.clone());
    let values = shapes.map(|shape| {
        let short = shape.iter().copied().min().unwrap_or(0);
        2 * (shape.iter().product::<usize>() + short * short) as u64
    });
    product("Muon", &[values.max().unwrap_or(0), ACTIVATION])
}

/// What each host holds, as a process of a miner beside cards refuses by, and what other processes take.
fn host_memory(
    request: &PlanRequest,
    counts: &ModelCounts,
    shape: &Shape,
) -> Result<MemoryAccount, BudgetError> {
    let gpus = shape.gpus;
    let states = offloaded(request, counts, shape)?;
    let hosts = gpus.div_ceil(GPUS_PER_HOST);
    let feedback = if request.choice.feedback_bf16 { 2 } else { 4 };
    let pinned = product("states", &[gpus.min(GPUS_PER_HOST), states])?;
    let updates = product("updates", &[counts.payload_bytes, request.window.peers])?;
    let costs = BesideCards { hosts, feedback, pinned }
        .costs(&request.model)?
        .and_replica(&request.model, updates.div_ceil(hosts))?
        .and_bytes("processes", HOST_BASE)?;
    MemoryAccount::new(HOST_MEMORY, costs.lines(), Some(request.machine.host_memory))
}

/// Seconds of y = x · Wᵀ with x (rows, inner) and W (columns, inner): the better of several tiles,
/// counting half-empty tiles and the last, half-empty wave; never faster than memory.
fn product_seconds(kind: &Gpu, rows: f64, columns: f64, inner: f64) -> f64 {
    /// Rows, columns and what of the sustained rate a tile of this size reaches.
    const TILES: [(f64, f64, f64); 3] =
        [(128.0, 256.0, 1.0), (128.0, 128.0, 0.9), (64.0, 64.0, 0.6)];
    let rate = kind.peak * kind.sustained;
    let processors = kind.multiprocessors as f64;
    let with_tile = |(tile_rows, tile_columns, part): (f64, f64, f64)| {
        let tiles = (rows / tile_rows).ceil() * (columns / tile_columns).ceil();
        let waves = (tiles / processors).ceil();
        let done = waves * processors * tile_rows * tile_columns;
        2.0 * done * inner / (rate * part)
    };
    let computing = TILES.map(with_tile).into_iter().fold(f64::INFINITY, f64::min);
    let bytes = 2.0 * (rows * inner + columns * inner + rows * columns);
    computing.max(bytes / (kind.bandwidth * BANDWIDTH_PART))
}

/// Seconds of a layer's products: forward, and backward (for the inputs and for the weights).
fn layer_products(kind: &Gpu, shape: &Shape) -> (f64, f64) {
    let rows = shape.tokens as f64;
    let [d, q, a, f] = [shape.hidden, shape.qkv, shape.attended, shape.ffn].map(|v| v as f64);
    // (outputs, inputs) of q|k|v, o, gate|up, down
    let matrices = [(q, d), (d, a), (2.0 * f, d), (d, f)];
    let mut forward = 0.0;
    let mut backward = 0.0;
    for (outputs, inputs) in matrices {
        forward += product_seconds(kind, rows, outputs, inputs);
        backward += product_seconds(kind, rows, inputs, outputs);
        backward += product_seconds(kind, outputs, inputs, rows);
    }
    (forward, backward)
}

/// Bytes a second of collectives between the GPUs.
fn link_rate(kind: &Gpu, gpus: u64) -> f64 {
    let link = if gpus > GPUS_PER_HOST { NETWORK.min(kind.link) } else { kind.link };
    link * LINK_PART
}

fn step(request: &PlanRequest, counts: &ModelCounts, kind: &Gpu, shape: &Shape) -> StepEstimate {
    let config = &request.model;
    let accumulations = shape.samples / shape.way.micro_batch;
    let (rounds, layers) = (accumulations as f64, shape.layers as f64);
    let tokens = shape.tokens as f64;
    let bandwidth = kind.bandwidth * BANDWIDTH_PART;

    let (forward, backward) = layer_products(kind, shape);
    let attention_rate = kind.peak * ATTENTION_PART;
    let attention = computed_attention(config) * tokens / attention_rate;
    let again = match shape.way.recompute {
        Recompute::Full => {
            forward * layers + attention_flops_a_token(config) / 3.0 * tokens / attention_rate
        }
        Recompute::None | Recompute::NormSwiglu => 0.0,
    };
    let head = head_seconds(kind, shape);
    let elementwise = 2.0 * elementwise_values(config) * tokens / bandwidth;
    let products = (forward + backward) * layers + head;
    let round = [
        ("matrix products", products),
        ("attention", attention),
        ("computed again", again),
        ("elementwise", elementwise),
        ("launches", LAUNCH * KERNELS * layers),
    ];
    let computing: f64 = round.iter().map(|(_, seconds)| seconds).sum();
    let links = links_not_hidden(request, counts, kind, shape, computing, rounds);
    let optimiser = optimiser_seconds(request, counts, kind, shape);

    let mut times: Vec<_> =
        round.into_iter().map(|(name, seconds)| time(name, seconds * rounds)).collect();
    times.push(time("links that computing does not hide", links));
    times.push(time("optimiser", optimiser));
    let seconds: f64 = times.iter().map(|time| time.seconds).sum();
    let all_tokens = request.window.batch.saturating_mul(config.seq_len as u64);
    let useful = flops_a_token(config) * all_tokens as f64;
    StepEstimate {
        micro_batch: shape.way.micro_batch,
        accumulations,
        recompute: shape.way.recompute,
        sharding: shape.way.sharding,
        times,
        seconds,
        tokens: all_tokens,
        tokens_per_second: all_tokens as f64 / seconds,
        mfu: useful / seconds / (kind.peak * shape.gpus as f64),
    }
}

/// The output matrix of all tokens of a micro-batch, chunk by chunk, forward and backward.
fn head_seconds(kind: &Gpu, shape: &Shape) -> f64 {
    let chunk = shape.tokens.min(LOGITS_TOKENS) as f64;
    let chunks = shape.tokens as f64 / chunk;
    let (vocab, hidden) = (shape.vocab as f64, shape.hidden as f64);
    let products = product_seconds(kind, chunk, vocab, hidden)
        + product_seconds(kind, chunk, hidden, vocab)
        + product_seconds(kind, vocab, hidden, chunk);
    chunks * products
}

/// Seconds of a step's traffic between GPUs beyond what computing hides, and the latency of each
/// operation, of which there is one for each layer and the embedding.
///
/// ZeRO-3 gathers every layer twice and reduces its gradient in every micro-batch (a layer that is
/// computed again is gathered for its backward pass anyway). The others reduce the gradient behind
/// the last backward pass, and ZeRO-1 then gathers the parameters.
fn links_not_hidden(
    request: &PlanRequest,
    counts: &ModelCounts,
    kind: &Gpu,
    shape: &Shape,
    computing: f64,
    rounds: f64,
) -> f64 {
    if shape.gpus == 1 {
        return 0.0;
    }
    let others = (shape.gpus - 1) as f64 / shape.gpus as f64;
    let latency = COLLECTIVE * (shape.layers + 1) as f64;
    let pass = counts.parameters as f64 * 2.0 * others / link_rate(kind, shape.gpus);
    let gradient = match request.choice.state {
        StateFormat::Bytes10 | StateFormat::Bytes8 => pass,
        _ => 2.0 * pass,
    };
    // Two thirds of a micro-batch are its backward pass.
    let behind = |seconds: f64| (seconds - computing * 2.0 / 3.0).max(0.0);
    match shape.way.sharding {
        Sharding::Full => rounds * ((3.0 * pass - computing).max(0.0) + 3.0 * latency),
        Sharding::Optimiser => behind(gradient) + pass + 2.0 * latency,
        // To one and back to all.
        Sharding::None => behind(2.0 * gradient) + latency,
    }
}

/// The optimiser reads and writes everything once, and the gradient's norm reads the gradient; Muon multiplies beside, each
/// GPU its part of the layers' matrices.
fn optimiser_seconds(
    request: &PlanRequest,
    counts: &ModelCounts,
    kind: &Gpu,
    shape: &Shape,
) -> f64 {
    let parts = match shape.way.sharding {
        Sharding::None => 1,
        Sharding::Optimiser | Sharding::Full => shape.gpus,
    };
    let state = request.choice.state;
    let bytes = 2.0 * state.bytes().max(if state.is_offloaded() { 12 } else { 0 }) as f64 + 4.0;
    // The rest of the master and the moments from the host and back.
    let links =
        if state.is_offloaded() { 12.0 * counts.parameters as f64 / HOST_LINK } else { 0.0 };
    let orthogonal = request.orthogonal_flops(Symmetric::Whole) / (kind.peak * kind.sustained);
    let moved = counts.parameters as f64 * bytes / (kind.bandwidth * BANDWIDTH_PART);
    (moved.max(links) + orthogonal) / parts as f64
}

/// Seconds of a forward pass over `tokens` tokens on all GPUs, as an evaluation does it: a third
/// of what a step takes for them without the optimiser.
pub(super) fn forward_seconds(step: &StepEstimate, tokens: f64) -> f64 {
    let computing: f64 = step
        .times
        .iter()
        .filter(|time| !matches!(time.name, "optimiser" | "computed again"))
        .map(|time| time.seconds)
        .sum();
    computing / 3.0 * tokens / step.tokens as f64
}
