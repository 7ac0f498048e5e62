//! Measures updates: the losses of a window's parameters before and after one update, on the miner's own samples and on random ones.
//!
//! Scores and jurors measure by the same code, one after the other: each holds a θ of its own meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dataset::Split;
use protocol::{books, consensus::Evaluation, samples, Hash, Uid, Window};
use trainer::{EvaluationRates, Evaluator, Model, TrainError, UpdateToEvaluate};

use crate::{
    error::{Attempt as _, Result},
    handles::{Handles, Run},
    replica::{self, States},
};

/// One update to measure.
struct Item {
    uid: Uid,
    payload: Bytes,
    own_ids: Vec<u64>,
}

/// Measures with one evaluator.
pub(super) struct Measurer {
    handles: Handles,
    states: States,
    /// Locked for one update at a time.
    evaluator: Arc<Mutex<Evaluator>>,
    /// Held by whoever has a θ.
    turn: tokio::sync::Mutex<()>,
}

impl Measurer {
    pub(super) fn new(handles: Handles, states: States, evaluator: Arc<Mutex<Evaluator>>) -> Self {
        Self { handles, states, evaluator, turn: tokio::sync::Mutex::default() }
    }

    /// The seed under which a window was trained, and the one under which it is measured.
    pub(super) async fn seeds(&self, window: Window) -> Result<(Hash, Hash)> {
        let Handles { chain, run: Run { id: run, .. }, .. } = &self.handles;
        let record = chain.window(*run, window, None).await?;
        let record = record.context("the chain does not know the window")?;
        let next = chain.window(*run, window + 1, None).await?.map(|next| next.scoring_seed);
        let scored = books::scoring_seed(next, record.challenge_seed);
        Ok((record.seed, scored.context("nothing says whom to measure")?))
    }

    /// Measures the updates that `uids` revealed in `window`, as many as there is time for until block `last`. Of one that cannot be
    /// had or measured nothing is said.
    pub(super) async fn measure(
        &self,
        window: Window,
        uids: &[Uid],
        last: u32,
    ) -> Result<Vec<Evaluation>> {
        let Handles { chain, run: Run { id: run, info, .. }, .. } = &self.handles;
        let settings = &info.settings;
        let (trained, scored) = self.seeds(window).await?;
        let reveals = chain.reveals(*run, window, None).await?;
        let miners = chain.miners(*run, None).await?;
        let mut items = Vec::new();
        for uid in uids {
            let Some(reveal) = reveals.iter().find(|reveal| reveal.uid == *uid) else {
                continue;
            };
            let miner = miners.iter().find(|miner| miner.uid == *uid);
            let hot = miner.map(|miner| miner.hot).unwrap_or_default();
            // It was fetched to be attested; what could not be had then is left out now.
            let mut heads = self.handles.heads.clone();
            let fetched = tokio::select! {
                biased;
                fetched = self.handles.peers.payloads.fetch(window, &hot, reveal) => fetched,
                _ = heads.reach_best(last) => break,
            };
            match fetched {
                Ok(payload) => {
                    let own_ids = samples::own_evaluation(&trained, &scored, *uid, settings)?;
                    items.push(Item { uid: *uid, payload, own_ids });
                }
                Err(error) => {
                    tracing::warn!(window, uid, error = error.line(), "not measured")
                }
            }
        }
        let random_ids = samples::random_evaluation(&scored, settings)?;
        let _turn = self.turn.lock().await;
        let model = self.model(window).await?;
        self.evaluate(model, items, random_ids, last).await
    }

    /// θ of the window that is measured, for this service alone, which applies each update where θ lies: from the own store, or
    /// from peers if this process was away.
    async fn model(&self, window: Window) -> Result<Model> {
        let root = match self.states.at(window) {
            Some(state) => state.root,
            None => {
                let record = self.handles.chain.window(self.handles.run.id, window, None).await?;
                record
                    .and_then(|record| record.state_root)
                    .context("the window has no final state to measure on")?
            }
        };
        replica::fetch_state(&self.handles, &self.handles.run.model, root).await
    }

    async fn evaluate(
        &self,
        mut model: Model,
        items: Vec<Item>,
        random_ids: Vec<u64>,
        last: u32,
    ) -> Result<Vec<Evaluation>> {
        let training = &self.handles.run.info.settings.training;
        let rates = EvaluationRates {
            keep: training.keep,
            outer_rate_ppm: training.outer.rate_ppm,
            evaluation_rate_ppm: training.evaluation_rate_ppm,
        };
        let (evaluator, dataset) = (self.evaluator.clone(), self.handles.run.dataset.clone());
        let (heads, shutdown) = (self.handles.heads.clone(), self.handles.machine.shutdown.clone());
        self.handles
            .machine
            .work
            .run(move || {
                let mut evaluations = Vec::with_capacity(items.len());
                for item in &items {
                    if heads.best() >= last || shutdown.is_cancelled() {
                        tracing::warn!(
                            measured = evaluations.len(),
                            of = items.len(),
                            "no time for the rest"
                        );
                        break;
                    }
                    let update = UpdateToEvaluate {
                        uid: item.uid,
                        payload: &item.payload,
                        own_ids: &item.own_ids,
                    };
                    let ids = [item.own_ids.as_slice(), &random_ids].concat();
                    let samples = dataset.samples(Split::Train, &ids).map_err(TrainError::from);
                    let measured = samples.and_then(|samples| {
                        let mut evaluator =
                            evaluator.lock().unwrap_or_else(PoisonError::into_inner);
                        evaluator.evaluate_update_in_place(
                            &mut model,
                            update,
                            &random_ids,
                            &samples,
                            rates,
                        )
                    });
                    match measured {
                        Ok(evaluation) => evaluations.push(evaluation),
                        // One update that cannot be measured is no reason to leave out the others.
                        Err(error) => tracing::warn!(uid = item.uid, %error, "cannot be measured"),
                    }
                }
                Ok(evaluations)
            })
            .await?
    }
}
