//! Advises what would make a plan fit, or a window spend more of its time training: found by trying, so
//! that every line of advice has been planned and does what it says.

use serde::Serialize;

use super::hardware::{usual_host_memory, GPUS};
use super::quantity::format_bytes;
use super::{
    cpu, gpu, plan, Budget, BudgetError, Devices, PlanRequest, Recompute, Sharding, StateFormat,
};
use crate::model::config::{ModelConfig, PRESETS};

/// The most GPUs that are proposed.
const GPUS_PROPOSED: u64 = 1_024;

/// Utilisation below which a window is said to wait too much.
const UTILISATION: f64 = 0.9;

/// A change and what comes of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Advice {
    /// What to change.
    pub change: String,
    /// Whether it fits then.
    pub fits: bool,
    /// Bytes of the first memory: of the CPU's or of each GPU.
    pub memory: u64,
    /// Tokens a second of a peer over whole windows.
    pub peer_tokens_per_second: f64,
    /// Part of a window in which it trains.
    pub utilisation: f64,
}

/// A change of a request, in words and done.
type Change = (String, PlanRequest);

/// What would fit, the smallest change of each kind; single changes if any of them is enough, else
/// pairs. Empty where the budget fits.
pub fn advice(request: &PlanRequest, budget: &Budget) -> Result<Vec<Advice>, BudgetError> {
    if budget.fits {
        return Ok(Vec::new());
    }
    let singles = kinds(request, budget);
    let found = first_of_each_kind(&singles)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let mut pairs = Vec::new();
    for first in singles.iter().filter_map(|kind| kind.last()) {
        // The second change must see what the first one leaves missing.
        let after = plan(&first.1)?;
        for kind in kinds(&first.1, &after) {
            let both = kind.into_iter();
            let both = both.map(|(text, request)| (format!("{}; {text}", first.0), request));
            pairs.push(both.collect());
        }
    }
    first_of_each_kind(&pairs)
}

/// What would let a peer train in more of a window, if that is little: each change by itself.
pub fn utilisation_advice(
    request: &PlanRequest,
    budget: &Budget,
) -> Result<Vec<Advice>, BudgetError> {
    if budget.utilisation >= UTILISATION {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    let mut change = |text: String, edit: &dyn Fn(&mut PlanRequest)| {
        let mut changed = request.clone();
        edit(&mut changed);
        changes.push((text, changed));
    };
    if request.window.keep > 32 {
        let keep = request.window.keep / 2;
        change(format!("k {keep}"), &|r| r.window.keep = keep);
    }
    let steps = request.window.inner_steps.saturating_mul(2);
    change(format!("{steps} inner steps"), &|r| r.window.inner_steps = steps);
    let (up, down) = (request.machine.up * 4.0, request.machine.down * 4.0);
    let text = format!("links of {:.0} Mbps up and {:.0} Mbps down", up / 1e6, down / 1e6);
    change(text, &|r| (r.machine.up, r.machine.down) = (up, down));
    if request.window.copies > 1 {
        change("a mirror, or peers that pass updates on".to_owned(), &|r| r.window.copies = 1);
    }
    let mut found = Vec::new();
    for change in &changes {
        // A change out of range (inner steps) is none.
        if let Ok(after) = plan(&change.1) {
            if after.utilisation > budget.utilisation {
                found.push(told(&change.0, &after));
            }
        }
    }
    Ok(found)
}

fn told(change: &str, after: &Budget) -> Advice {
    Advice {
        change: change.to_owned(),
        fits: after.fits,
        memory: after.ledgers.first().map_or(0, |ledger| ledger.bytes),
        peer_tokens_per_second: after.peer_tokens_per_second,
        utilisation: after.utilisation,
    }
}

/// Of each kind, the first change after which the plan fits.
fn first_of_each_kind(kinds: &[Vec<Change>]) -> Result<Vec<Advice>, BudgetError> {
    let mut found = Vec::new();
    for kind in kinds {
        for (text, request) in kind {
            match plan(request) {
                Ok(after) if after.fits => {
                    found.push(told(text, &after));
                    break;
                }
                Ok(_) | Err(BudgetError::MicroBatch { .. } | BudgetError::Range { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Changes of each kind, the smallest first.
fn kinds(request: &PlanRequest, budget: &Budget) -> Vec<Vec<Change>> {
    let with = |text: String, edit: &dyn Fn(&mut PlanRequest)| {
        let mut changed = request.clone();
        edit(&mut changed);
        (text, changed)
    };
    let mut kinds = vec![memory(request, budget)];
    if let Some(micro) = request.choice.micro_batch.filter(|micro| *micro > 1) {
        let smaller = super::divisors(micro).into_iter().skip(1);
        let change =
            |micro| with(format!("micro-batch {micro}"), &|r| r.choice.micro_batch = Some(micro));
        kinds.push(smaller.map(change).collect());
    }
    match &request.machine.devices {
        Devices::Cpu(rates) => {
            if rates.threads > 1 {
                kinds.push(vec![with("1 thread".to_owned(), &|r| {
                    if let Devices::Cpu(rates) = &mut r.machine.devices {
                        rates.threads = 1;
                    }
                })]);
            }
            kinds.push(smaller_models(request));
            let h200s = GPUS.first().into_iter();
            let h200s = h200s.flat_map(|gpu| [1, 2, 4, 8].map(|count| (gpu, count)));
            kinds.push(h200s.map(|(gpu, count)| with_gpus(request, gpu, count)).collect());
        }
        Devices::Gpus { kind, count } => {
            kinds.extend(gpu_choices(request));
            let more =
                std::iter::successors(Some(count.next_power_of_two()), |count| Some(count * 2));
            let more = more.take_while(|more| *more <= GPUS_PROPOSED).filter(|more| more > count);
            kinds.push(more.map(|more| with_gpus(request, kind, more)).collect());
            let mut larger: Vec<_> = GPUS.iter().filter(|gpu| gpu.memory > kind.memory).collect();
            larger.sort_by_key(|gpu| gpu.memory);
            let larger = larger.into_iter();
            kinds.push(larger.map(|gpu| with_gpus(request, gpu, *count)).collect());
        }
    }
    kinds
}

/// Other GPUs, whose hosts have at least the memory that is usual for them.
fn with_gpus(request: &PlanRequest, kind: &super::Gpu, count: u64) -> Change {
    let mut changed = request.clone();
    changed.machine.devices = Devices::Gpus { kind: kind.clone(), count };
    let usual = usual_host_memory(&changed.machine.devices);
    changed.machine.host_memory = match request.machine.devices {
        Devices::Cpu(_) => usual,
        Devices::Gpus { .. } => usual.max(request.machine.host_memory),
    };
    let mut text = changed.machine.devices.name();
    if changed.machine.host_memory != request.machine.host_memory {
        let memory = format_bytes(changed.machine.host_memory);
        text += &format!(" with {memory} in each host");
    }
    (text, changed)
}

/// More of the memory or disk that is too small, as much as is missing.
fn memory(request: &PlanRequest, budget: &Budget) -> Vec<Change> {
    let mut changed = request.clone();
    let mut texts = Vec::new();
    for ledger in budget.ledgers.iter().filter(|ledger| !ledger.fits()) {
        match ledger.name {
            cpu::MEMORY | gpu::HOST_MEMORY => changed.machine.host_memory = ledger.bytes,
            super::window::DISK => changed.machine.disk = Some(ledger.bytes),
            _ => continue,
        }
        texts.push(format!("{} of {}", ledger.name, format_bytes(ledger.bytes)));
    }
    match texts.is_empty() {
        true => Vec::new(),
        false => vec![(texts.join(" and "), changed)],
    }
}

/// Other formats, more computed again, more spread, smaller error feedback.
fn gpu_choices(request: &PlanRequest) -> Vec<Vec<Change>> {
    let with = |text: String, edit: &dyn Fn(&mut PlanRequest)| {
        let mut changed = request.clone();
        edit(&mut changed);
        (text, changed)
    };
    let choice = &request.choice;
    let recomputes = Recompute::ALL.into_iter();
    let recomputes = recomputes.filter(|more| choice.recompute.is_some_and(|now| *more > now));
    let shardings = Sharding::ALL.into_iter();
    let shardings = shardings.filter(|more| choice.sharding.is_some_and(|now| *more > now));
    let states = StateFormat::ALL.into_iter();
    let states = states.filter(|state| state.bytes() < choice.state.bytes());
    let mut kinds = vec![
        recomputes
            .map(|more| {
                with(format!("recompute {}", more.name()), &|r| r.choice.recompute = Some(more))
            })
            .collect(),
        shardings
            .map(|more| {
                with(format!("sharding {}", more.name()), &|r| r.choice.sharding = Some(more))
            })
            .collect(),
        states
            .map(|state| {
                with(format!("state of {} bytes a parameter", state.bytes()), &|r| {
                    r.choice.state = state
                })
            })
            .collect(),
    ];
    if !choice.feedback_bf16 {
        kinds.push(vec![with("error feedback in bf16".to_owned(), &|r| {
            r.choice.feedback_bf16 = true
        })]);
    }
    kinds
}

/// The presets, the largest first, with fewer parameters than the model.
fn smaller_models(request: &PlanRequest) -> Vec<Change> {
    let parameters = request.model.parameter_count();
    let mut presets: Vec<(u64, &str, ModelConfig)> = PRESETS
        .iter()
        .filter_map(|name| {
            let preset = ModelConfig::preset(name).ok()?;
            Some((preset.parameter_count(), *name, preset))
        })
        .filter(|(count, _, _)| *count < parameters)
        .collect();
    presets.sort_by_key(|(count, _, _)| std::cmp::Reverse(*count));
    let change = |(_, name, model): (u64, &str, ModelConfig)| {
        let mut changed = request.clone();
        changed.model = model;
        (format!("the model {name}"), changed)
    };
    presets.into_iter().map(change).collect()
}
