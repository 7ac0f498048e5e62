//! Measures the held-out loss of each window's parameters, for people.

use dataset::Split;
use trainer::{evaluate::held_out_ids, Evaluator, ModelConfig, TrainError};

use crate::{
    diary::DiaryRecord, error::Result, handles::Handles, memory::SCORED_AT_ONCE, replica::States,
    telemetry,
};

/// Measures every new state on `samples` held-out samples, the same ones each time, until the process ends.
pub(super) async fn run(
    handles: Handles,
    mut states: States,
    model: ModelConfig,
    samples: usize,
) -> Result<()> {
    let mut evaluator = Evaluator::new(&model, &*handles.machine.device, SCORED_AT_ONCE)?;
    let mut next = 0;
    loop {
        let state = states.reach(next).await?;
        let window = state.window;
        next = window + 1;
        let dataset = handles.run.dataset.clone();
        let (back, loss) = handles
            .machine
            .work
            .run(move || {
                let ids = held_out_ids(dataset.sample_count(Split::HeldOut), samples);
                let found = dataset.samples(Split::HeldOut, &ids).map_err(TrainError::from);
                let loss = found.and_then(|found| evaluator.loss(&state.model, &found, &ids));
                (evaluator, loss)
            })
            .await?;
        evaluator = back;
        match loss {
            Ok(loss) => {
                tracing::info!(window, loss, "held-out loss");
                metrics::gauge!(telemetry::HELD_OUT_LOSS).set(loss);
                handles.machine.diary.write(&DiaryRecord::HeldOut { window, loss });
            }
            Err(error) => tracing::warn!(window, %error, "cannot measure the held-out loss"),
        }
    }
}
