//! A window from its start to its outer step: training, the update, the exchange, the evaluation;
//! and what lies on disk.

use serde::Serialize;

use super::account::{MemoryAccount, StepEstimate};
use super::error::BudgetError;
use super::gpu::forward_seconds;
use super::hardware::{Devices, GPUS_PER_HOST};
use super::model::ModelCounts;
use super::quantity::{product, sum};
use super::request::PlanRequest;

/// Names the account of the disk.
pub const DISK: &str = "disk";

/// Checkpoints on disk: two that are kept and one that is being written.
const CHECKPOINTS: u64 = 3;

/// Agreed states on disk: three that are served and one that is being written.
const STATES: u64 = 4;

/// Bytes a second of a host's memory that streaming over links reaches: two sockets of DDR5.
const HOST_BANDWIDTH: f64 = 300e9;

/// Part of a host link's rate that streams reach.
const HOST_LINK_PART: f64 = 0.9;

/// Bytes a second of BLAKE3 on one core of a GPU's host.
const HASH_RATE: f64 = 2e9;

/// A phase of a window.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WindowPart {
    /// What is done.
    pub name: &'static str,
    /// How long it takes.
    pub seconds: f64,
    /// Whether a miner does it, one after the other; validators evaluate beside that.
    pub in_turn: bool,
}

/// Seconds of the work between training and the next window's training.
struct Exchange {
    encode: f64,
    apply: f64,
    hash: f64,
}

pub(super) fn phases(
    request: &PlanRequest,
    counts: &ModelCounts,
    step: &StepEstimate,
) -> Vec<WindowPart> {
    let window = &request.window;
    let bits = counts.payload_bytes as f64 * 8.0;
    let others = (window.peers - 1) as f64;
    let exchange = exchange(request, counts);
    let phase = |name, seconds| WindowPart { name, seconds, in_turn: true };
    vec![
        phase("train", step.seconds * window.inner_steps as f64),
        phase("encode the update", exchange.encode),
        phase("send the own update", bits * window.copies as f64 / request.machine.up),
        phase("fetch the others' updates", bits * others / request.machine.down),
        phase("decode, add and step", exchange.apply),
        phase("state root", exchange.hash),
        WindowPart {
            name: "evaluate (a validator, beside)",
            seconds: evaluation(request, step),
            in_turn: false,
        },
    ]
}

fn exchange(request: &PlanRequest, counts: &ModelCounts) -> Exchange {
    let parameters = counts.parameters as f64;
    let values = counts.kept as f64 * request.window.peers as f64;
    match &request.machine.devices {
        Devices::Cpu(rates) => Exchange {
            encode: parameters / rates.encode,
            // θ is read and written beside the updates' values.
            apply: values / rates.decode + 8.0 * parameters / rates.bandwidth,
            hash: 4.0 * parameters / rates.hash,
        },
        Devices::Gpus { kind, count } => {
            let hosts = request.machine.devices.hosts() as f64;
            let links = kind.host_link * HOST_LINK_PART * *count as f64;
            let memory = HOST_BANDWIDTH * hosts;
            let feedback = if request.choice.feedback_bf16 { 2.0 } else { 4.0 };
            let updates = counts.payload_bytes as f64 * request.window.peers as f64;
            // Links carry both ways at once; the host's memory does not.
            let in_and_out = |to_gpu: f64, to_host: f64| {
                (to_gpu.max(to_host) / links).max((to_gpu + to_host) / memory)
            };
            let threads = request.machine.host_threads as f64 * hosts;
            Exchange {
                // The anchor and the error feedback in, the error feedback out.
                encode: in_and_out((4.0 + feedback) * parameters, feedback * parameters),
                // The anchor and the updates in, the new anchor out.
                apply: in_and_out(4.0 * parameters + updates, 4.0 * parameters),
                hash: 4.0 * parameters / (HASH_RATE * threads).min(memory),
            }
        }
    }
}

/// Losses before and after each update on its miner's own samples, after it on random ones, and
/// once before any.
fn evaluation(request: &PlanRequest, step: &StepEstimate) -> f64 {
    let window = &request.window;
    let passes = 3 * window.evaluations + 1;
    let samples = passes.saturating_mul(window.evaluation_samples);
    let tokens = samples as f64 * request.model.seq_len as f64;
    forward_seconds(step, tokens)
}

pub(super) fn disk(
    request: &PlanRequest,
    counts: &ModelCounts,
) -> Result<MemoryAccount, BudgetError> {
    let window = &request.window;
    // Agreed parameters and error feedback, and the moments as they are.
    let (feedback, moment) = match &request.machine.devices {
        Devices::Cpu(_) => (4, 4),
        Devices::Gpus { .. } => {
            let feedback = if request.choice.feedback_bf16 { 2 } else { 4 };
            (feedback, request.choice.state.moment_bytes())
        }
    };
    let hosts = request.machine.devices.count().div_ceil(GPUS_PER_HOST);
    let checkpoint = sum(
        "a checkpoint",
        [
            product("a checkpoint", &[counts.parameters, 4 + feedback + moment])?,
            product("a checkpoint", &[request.squares(counts.parameters), moment])?,
        ],
    )?;
    let per_host = checkpoint.div_ceil(hosts);
    let updates = product("updates", &[counts.payload_bytes, window.peers, window.windows_kept])?;
    let token_bytes = match request.model.vocab {
        0..=256 => 1,
        257..=65_536 => 2,
        _ => 4,
    };
    // Without the data set: the samples of this window and the next.
    let streamed =
        product("samples", &[2, window.inner_steps, window.batch, request.model.seq_len as u64])?;
    let tokens = match window.data_tokens {
        0 => streamed,
        tokens => tokens,
    };
    let data = product("data", &[tokens, token_bytes])?;
    let lines = [
        ("checkpoints (2 and 1 being written)", product("checkpoints", &[per_host, CHECKPOINTS])?),
        (
            "agreed states (3 and 1 being written)",
            product("states", &[counts.parameters, 4, STATES])?.div_ceil(hosts),
        ),
        ("updates of the windows kept", updates),
        ("data", sum("data", [data])?),
    ];
    MemoryAccount::new(DISK, lines, request.machine.disk)
}
