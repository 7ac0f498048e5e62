//! Trains in a window while the updates of the one before travel, in a run with [`Training::overlap`].
//!
//! The chain fixes the next window's seed behind the commit phase. From then on the trainer goes on from the
//! parameters that the miner's own update alone would make of θ; when the replica has the new θ, it is corrected
//! between two steps by what all accepted updates did ([`trainer::ahead`]), and the update is made against that θ.
//! Nothing of this is kept on disk: after a kill, or where anything is other than was assumed, the window is trained
//! from its θ as ever.
//!
//! It holds no θ while the replica takes the outer step, and afterwards for a moment the accepted payloads, as the
//! replica did.
//!
//! [`Training::overlap`]: protocol::settings::Training::overlap

use std::{
    mem,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::try_join_all;
use node_client::{
    budget::budget,
    chain::{WindowInfo, WindowStatus},
};
use protocol::{aggregate::OuterRule, samples, Hash, Uid, Window};
use trainer::{rate_from_ppb, warm_up, Model, OwnPart, StepReport, Trainer};

use super::workshop::{Ahead, Workshop, WARM_UP_STEPS};
use crate::{
    error::{miss, Attempt as _, Error, Result},
    handles::{Handles, Peers, Role, Run},
    replica::States,
    slot, telemetry,
};

/// Bytes a second at which the updates that made θ come from the store at the least, as from a slow disk.
const DISK_RATE_MIN: u64 = 50_000_000;

/// What is trained, and from what.
#[derive(Clone)]
struct Plan {
    /// The window that is trained.
    window: Window,
    /// The root of the θ before, less the own part of whose outer step it begins.
    base_root: Hash,
    /// The own update of the window before.
    own: Bytes,
    /// What its values are multiplied with.
    own_rate: f32,
    /// Values kept of its full chunks.
    keep: u16,
    steps: Vec<Vec<u64>>,
    /// The best block from which on no step is begun.
    last: u32,
}

/// What corrects the trainer.
struct Arrival {
    /// θ of the window.
    model: Arc<Model>,
    /// Its root.
    root: Hash,
    accepted: Vec<(Uid, Bytes)>,
    rule: OuterRule,
}

/// Where the training looks between two steps.
#[derive(Clone, Default)]
struct Letterbox(Arc<Mutex<Letter>>);

#[derive(Default)]
enum Letter {
    #[default]
    Awaited,
    Here(Arrival),
    Read,
    /// There will be none.
    Lost,
}

impl Letterbox {
    fn put(&self, letter: Letter) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = letter;
    }

    fn is_awaited(&self) -> bool {
        let letter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*letter, Letter::Awaited | Letter::Read)
    }

    fn is_lost(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), Letter::Lost)
    }

    /// What is here, once.
    fn take(&self) -> Option<Arrival> {
        let mut letter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::replace(&mut *letter, Letter::Read) {
            Letter::Here(arrival) => Some(arrival),
            other => {
                *letter = other;
                None
            }
        }
    }
}

/// What the training says of itself.
#[derive(Default)]
struct Report {
    /// The root of the θ that arrived, and the steps before it.
    arrived: Option<(Hash, usize)>,
    spent: Duration,
}

/// Trains the window after `window` from the own update of it, `own`, until all its steps are taken and it is
/// corrected.
///
/// # Errors
/// It cannot, or not in time: θ was not the chain's, a later state has come, or the chain has fixed no seed. Then the
/// window is to be trained from its θ, if it is not over.
pub(super) async fn train(
    workshop: &Workshop,
    states: &States,
    window: Window,
    own: Bytes,
) -> Result<Ahead> {
    let plan = begin(workshop, states, window, own).await?;
    tracing::info!(window = plan.window, "trains while the updates before travel");
    let letterbox = Letterbox::default();
    let (report, delivered) = tokio::join!(
        go_on(workshop, &plan, &letterbox),
        deliver(workshop, states, &plan, &letterbox)
    );
    let mut report = report?;
    delivered?;
    if report.arrived.is_none() {
        let rest = go_on(workshop, &plan, &letterbox).await?;
        report = Report { spent: report.spent + rest.spent, ..rest };
    }
    let (root, steps_ahead) = report.arrived.context("θ has come too late")?;
    let Plan { window, steps, .. } = plan;
    Ok(Ahead { window, root, steps, steps_ahead, spent: report.spent })
}

/// Waits for the seed and loads what the training begins with.
async fn begin(workshop: &Workshop, states: &States, before: Window, own: Bytes) -> Result<Plan> {
    let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = &workshop.handles;
    let schedule = &info.settings.schedule;
    let drawn = schedule.challenge_block(before).context("the run's last window")?;
    let window = before.saturating_add(1);
    let start = schedule.window_start(window).context("the run's last window")?;
    let head = heads.clone().reach(drawn).await?;
    let record = chain.window(*run, before, Some(head.hash)).await?;
    let record = record.context("the chain has forgotten the window")?;
    let Some(seed) = record.next_seed.filter(|_| !record.excused) else {
        miss!("the chain has not fixed the seed of the next window");
    };
    let uid = slot::own(&workshop.handles, Role::Miner, window).await?;
    let steps = samples::training_steps(&seed, uid, &info.settings)?;
    let expected = chain.commitments(*run, before, Some(head.hash)).await?.len();
    let state = states.at(before).context("θ is another by now")?;
    let plan = Plan {
        window,
        base_root: state.root,
        own_rate: own_rate(&record, before, expected),
        own,
        keep: record.settings.training.keep,
        steps,
        last: start.saturating_add(schedule.commit_end).saturating_sub(workshop.reserve()),
    };
    let (model, begun) = (state.model()?, plan.clone());
    drop(state);
    workshop.on_trainer(move |trainer| Ok(trainer.begin_ahead(&model, begun.own_part())?)).await?;
    Ok(plan)
}

/// What the own update is multiplied with, if `expected` miners have committed to one.
fn own_rate(record: &WindowInfo, window: Window, expected: usize) -> f32 {
    let settings = &record.settings;
    let accepted = expected.clamp(1, usize::from(settings.incentive.accepted_max).max(1));
    OuterRule::of_window(&settings.training.outer, window).rate / accepted as f32
}

impl Plan {
    fn own_part(&self) -> OwnPart<'_> {
        OwnPart { payload: &self.own, keep: self.keep, rate: self.own_rate }
    }

    /// Corrects the trainer.
    fn arrive(&self, trainer: &mut Trainer, arrival: Arrival) -> Result<(Hash, usize)> {
        let steps = trainer.ahead().map_or(0, |(steps, _)| steps);
        let Arrival { model, root, accepted, rule } = arrival;
        let accepted: Vec<(Uid, &[u8])> =
            accepted.iter().map(|(uid, bytes)| (*uid, &bytes[..])).collect();
        trainer.arrive(model, &accepted, rule, self.own_part())?;
        Ok((root, steps))
    }
}

/// Takes the steps that are left until there is no time for another, and corrects the trainer as soon as it can.
async fn go_on(workshop: &Workshop, plan: &Plan, letterbox: &Letterbox) -> Result<Report> {
    let Handles { heads, run, machine, .. } = &workshop.handles;
    let (heads, dataset, shutdown) = (heads.clone(), run.dataset.clone(), machine.shutdown.clone());
    let leave = machine.leave.clone();
    let rate = rate_from_ppb(run.info.settings.training.inner_rate_ppb);
    let (plan, letterbox) = (plan.clone(), letterbox.clone());
    let work = move |trainer: &mut Trainer| {
        let started = Instant::now();
        let is_over = || {
            heads.best() >= plan.last
                || shutdown.is_cancelled()
                || leave.is_asked()
                || letterbox.is_lost()
        };
        let mut on_step = |report: &StepReport| {
            metrics::gauge!(telemetry::TRAIN_LOSS).set(f64::from(report.loss));
            match is_over() || !letterbox.is_awaited() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let mut arrived = None;
        let mut batches = dataset.batches()?;
        loop {
            if let Some(arrival) = letterbox.take() {
                arrived = Some(plan.arrive(trainer, arrival)?);
            }
            let is_done = trainer.ahead().is_none_or(|(steps, _)| steps >= plan.steps.len());
            if is_done || is_over() {
                break;
            }
            let rate = |step| warm_up(step, WARM_UP_STEPS, rate);
            trainer.train_ahead(&mut *batches, &plan.steps, &rate, &mut on_step)?;
        }
        Ok(Report { arrived, spent: started.elapsed() })
    };
    workshop.on_trainer(work).await
}

/// Puts what corrects the trainer into the letterbox, or that it does not come.
async fn deliver(
    workshop: &Workshop,
    states: &States,
    plan: &Plan,
    letterbox: &Letterbox,
) -> Result<()> {
    let mut heads = workshop.handles.heads.clone();
    let arrival = tokio::select! {
        biased;
        arrival = arrival(workshop, states.clone(), plan) => arrival,
        ended = heads.reach_best(plan.last) => match ended {
            Ok(()) => late(plan.window),
            Err(error) => Err(error),
        },
    };
    match arrival {
        Ok(arrival) => {
            letterbox.put(Letter::Here(arrival));
            Ok(())
        }
        Err(error) => {
            letterbox.put(Letter::Lost);
            Err(error)
        }
    }
}

fn late(window: Window) -> Result<Arrival> {
    miss!("θ of window {window} has not come in time")
}

/// Waits for θ of the planned window, and gets what made it of the θ before.
async fn arrival(workshop: &Workshop, mut states: States, plan: &Plan) -> Result<Arrival> {
    let Handles { chain, run: Run { id: run, .. }, peers: Peers { payloads, .. }, .. } =
        &workshop.handles;
    let state = states.reach(plan.window).await?;
    if state.window != plan.window {
        miss!("the state of window {} has come instead", state.window);
    }
    let before = plan.window.saturating_sub(1);
    let record = chain.window(*run, before, None).await?;
    let record = record.context("the chain has forgotten the window before")?;
    if record.status == WindowStatus::Open || record.state_root.is_some_and(|r| r != plan.base_root)
    {
        miss!("what was trained from is not the chain's state");
    }
    let reveals = chain.reveals(*run, before, None).await?;
    let miners = chain.miners(*run, None).await?;
    let fetch = async |uid: Uid| {
        let reveal = reveals.iter().find(|reveal| reveal.uid == uid);
        let reveal = reveal.with_context(|| format!("uid {uid} has revealed nothing"))?;
        let hot = miners.iter().find(|miner| miner.uid == uid).map(|miner| miner.hot);
        let bytes = payloads.fetch(before, &hot.unwrap_or_default(), reveal).await?;
        Ok::<_, Error>((uid, bytes))
    };
    let fetches = record.accepted.iter().map(|uid| fetch(*uid));
    let accepted = reveals.iter().filter(|reveal| record.accepted.contains(&reveal.uid));
    let bytes = accepted.map(|reveal| reveal.opening.byte_len).fold(0, u64::saturating_add);
    // The replica has them in the store. Where it could not keep them the window is trained from θ rather than late.
    let patience = budget(bytes, DISK_RATE_MIN);
    let fetched = tokio::time::timeout(patience, try_join_all(fetches)).await;
    let accepted =
        fetched.map_err(|_| Error::Missed("the updates before are not kept".into()))??;
    let rule = OuterRule::of_window(&record.settings.training.outer, before);
    Ok(Arrival { model: state.model()?, root: state.root, accepted, rule })
}
