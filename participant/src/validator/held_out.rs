//! Measures the held-out loss of each window's parameters, for people.

use std::sync::{Arc, Mutex, PoisonError};

use dataset::Split;
use trainer::{evaluate::held_out_ids, Evaluator, Model, TrainError};

use crate::{
    diary::DiaryRecord, error::Result, handles::Handles, memory::SCORED_AT_ONCE, replica::States,
    telemetry,
};

/// Measures every new state on `samples` held-out samples, the same ones each time, until the process ends. Between two times as
/// many samples as it computes at once, it lets others have the evaluator.
pub(super) async fn run(
    handles: Handles,
    mut states: States,
    evaluator: Arc<Mutex<Evaluator>>,
    samples: usize,
) -> Result<()> {
    let mut next = 0;
    loop {
        let state = states.reach(next).await?;
        let window = state.window;
        next = window + 1;
        // Its outer step began before we came to it.
        let Ok(model) = state.model() else { continue };
        drop(state);
        match loss(&handles, &evaluator, model, samples).await {
            Ok(loss) => {
                tracing::info!(window, loss, "held-out loss");
                metrics::gauge!(telemetry::HELD_OUT_LOSS).set(loss);
                handles.machine.diary.write(&DiaryRecord::HeldOut { window, loss });
            }
            Err(error) => {
                tracing::warn!(window, error = error.line(), "cannot measure the held-out loss");
            }
        }
    }
}

/// The mean loss over the held-out samples.
async fn loss(
    handles: &Handles,
    evaluator: &Arc<Mutex<Evaluator>>,
    model: Arc<Model>,
    samples: usize,
) -> Result<f64> {
    let dataset = &handles.run.dataset;
    let ids = held_out_ids(dataset.sample_count(Split::HeldOut), samples);
    let mut sum = 0.0;
    for ids in ids.chunks(SCORED_AT_ONCE) {
        let count = ids.len() as f64;
        let (dataset, evaluator, model) = (dataset.clone(), evaluator.clone(), model.clone());
        let ids = ids.to_vec();
        let measured = handles.machine.work.run(move || {
            let found = dataset.samples(Split::HeldOut, &ids).map_err(TrainError::from)?;
            let mut evaluator = evaluator.lock().unwrap_or_else(PoisonError::into_inner);
            evaluator.loss(&*model, &found, &ids)
        });
        sum += measured.await?? * count;
    }
    if ids.is_empty() {
        return Err(TrainError::NoSamples.into());
    }
    Ok(sum / ids.len() as f64)
}
