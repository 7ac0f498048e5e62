//! Says in one line why a participant cannot work now, as far as the chain knows it.

use std::{fmt, time::Duration};

use node_client::{
    chain::{Chain, ChainError, RunInfo},
    keys,
};
use protocol::{
    fault::ProvenFault,
    window::{phase_at, Schedule},
    AccountBytes, BlockNumber, RunId, Window,
};

use crate::{
    error::Result,
    handles::{Handles, Role},
};

/// Windows back in which a proven fault is looked for.
const FAULT_WINDOWS: Window = 8;

/// How often the reason is looked for.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// How often in a row a miner is seen to be gone before its process ends: another node may be some blocks behind.
const GONE_LOOKS: u32 = 5;

/// How long the best block may stay the same before it is said.
const STILL_MAX: Duration = Duration::from_secs(60);

/// Why a participant cannot work now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hindrance {
    /// There is no such run.
    NoRun(RunId),
    /// The run's first window is to come.
    NotBegun {
        /// The first window's first block.
        start: BlockNumber,
        /// Blocks until then.
        left: BlockNumber,
    },
    /// The hot key has no slot in this role, and had none that the chain remembers.
    NotRegistered {
        /// Account of the hot key.
        hot: AccountBytes,
        /// The role.
        role: Role,
        /// The run.
        run: RunId,
    },
    /// It is registered, and takes part later.
    TooNew {
        /// First window in which it takes part.
        first: Window,
        /// That window's first block.
        start: BlockNumber,
    },
    /// It is to leave after this window.
    Leaving {
        /// Its last window.
        last: Window,
        /// The fault that was proven of it, with its window.
        fault: Option<(Window, ProvenFault)>,
    },
    /// It has left, or was removed.
    Gone {
        /// Its last window.
        last: Window,
        /// Window in which its bond is free.
        due: Window,
        /// The fault that was proven of it, with its window.
        fault: Option<(Window, ProvenFault)>,
    },
    /// The run is paused.
    Paused,
    /// The chain's best block is the same as long ago.
    StandsStill {
        /// The block.
        at: BlockNumber,
        /// Seconds since it came.
        seconds: u64,
    },
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |fault: &Option<(Window, ProvenFault)>| match fault {
            Some((window, fault)) => format!(" (a fault of window {window} is proven: {fault:?})"),
            None => String::new(),
        };
        match self {
            Self::NoRun(run) => write!(f, "there is no run {run} on this chain"),
            Self::NotBegun { start, left } => {
                write!(f, "the run begins at block {start}, in {left} blocks")
            }
            Self::NotRegistered { hot, role, run } => write!(
                f,
                "the hot key {} is not registered as a {role} of run {run}: name the cold key in [keys], or register it from there",
                keys::address(hot)
            ),
            Self::TooNew { first, start } => {
                write!(f, "it takes part from window {first} on, which begins at block {start}")
            }
            Self::Leaving { last, fault } => {
                write!(f, "it leaves the run after window {last}{}", why(fault))
            }
            Self::Gone { last, due, fault } => write!(
                f,
                "it left the run after window {last}{}; its bond is free in window {due}",
                why(fault)
            ),
            Self::Paused => f.write_str("the run is paused"),
            Self::StandsStill { at, seconds } => write!(
                f,
                "the chain, or the node that is asked, stands at block {at} for {seconds} s"
            ),
        }
    }
}

/// Why the hot key `hot` cannot work now in a run, by the latest finalised block; `None` if nothing on chain is in its way.
///
/// # Errors
/// The chain does not answer.
pub async fn find(
    chain: &dyn Chain,
    run: RunId,
    hot: &AccountBytes,
    role: Role,
) -> Result<Option<Hindrance>, ChainError> {
    let head = chain.finalized_head().await?;
    let Some(info) = chain.run(run, Some(head.hash)).await? else {
        return Ok(Some(Hindrance::NoRun(run)));
    };
    let schedule = &info.settings.schedule;
    let window = phase_at(schedule, head.number).map(|moment| moment.window);
    let of_slot = match role {
        Role::Miner => of_miner(chain, run, hot, window, schedule).await?,
        Role::Validator => of_validator(chain, run, hot, window, schedule).await?,
    };
    // Who has no slot may get one before the run begins.
    if matches!(of_slot, Some(Hindrance::NotRegistered { .. } | Hindrance::Gone { .. })) {
        return Ok(of_slot);
    }
    if window.is_none() {
        let start = schedule.start_block;
        let left = start.saturating_sub(head.number);
        return Ok(Some(Hindrance::NotBegun { start, left }));
    }
    if chain.is_paused(run, Some(head.hash)).await? {
        return Ok(Some(Hindrance::Paused));
    }
    Ok(of_slot)
}

async fn of_miner(
    chain: &dyn Chain,
    run: RunId,
    hot: &AccountBytes,
    window: Option<Window>,
    schedule: &Schedule,
) -> Result<Option<Hindrance>, ChainError> {
    let miners = chain.miners(run, None).await?;
    let Some(miner) = miners.into_iter().find(|miner| miner.hot == *hot) else {
        let gone = chain.departures(run, None).await?;
        let gone = gone.into_iter().filter(|gone| gone.hot == *hot).max_by_key(|gone| gone.last);
        let Some(gone) = gone else {
            return Ok(Some(Hindrance::NotRegistered { hot: *hot, role: Role::Miner, run }));
        };
        let fault = fault(chain, run, gone.uid, gone.last).await?;
        return Ok(Some(Hindrance::Gone { last: gone.last, due: gone.due, fault }));
    };
    if let Some(last) = miner.last_window {
        let fault = fault(chain, run, miner.uid, last).await?;
        return Ok(Some(Hindrance::Leaving { last, fault }));
    }
    Ok(too_new(miner.registered_window, window, schedule))
}

async fn of_validator(
    chain: &dyn Chain,
    run: RunId,
    hot: &AccountBytes,
    window: Option<Window>,
    schedule: &Schedule,
) -> Result<Option<Hindrance>, ChainError> {
    let validators = chain.validators(run, None).await?;
    let found = validators.iter().find(|validator| validator.hot == *hot);
    Ok(match found {
        None => Some(Hindrance::NotRegistered { hot: *hot, role: Role::Validator, run }),
        Some(found) => too_new(found.registered_window, window, schedule),
    })
}

fn too_new(first: Window, now: Option<Window>, schedule: &Schedule) -> Option<Hindrance> {
    let start = schedule.window_start(first).unwrap_or(BlockNumber::MAX);
    now.is_some_and(|now| now < first).then_some(Hindrance::TooNew { first, start })
}

/// The last fault of a miner that was proven in the windows up to `last`.
async fn fault(
    chain: &dyn Chain,
    run: RunId,
    uid: u16,
    last: Window,
) -> Result<Option<(Window, ProvenFault)>, ChainError> {
    for window in (last.saturating_sub(FAULT_WINDOWS)..=last).rev() {
        let proven = chain.proven_faults(run, window, None).await?;
        if let Some(found) = proven.into_iter().find(|found| found.uid == uid) {
            return Ok(Some((window, found.fault)));
        }
    }
    Ok(None)
}

/// Says each new reason once, and when there is none any more. Ends, for a miner that asked to leave, when nothing is left to be done: it has left
/// and its bond is free.
pub(crate) async fn follow(handles: Handles, role: Role) -> Result<()> {
    let (chain, run, hot) = (&handles.chain, handles.run.id, handles.desk.account());
    let mut told: Option<Hindrance> = None;
    let mut is_working = false;
    let mut moved = (handles.heads.best(), tokio::time::Instant::now());
    let (mut had_slot, mut gone_looks) = (false, 0);
    // The best block at which the chain was asked.
    let mut asked_at = None;
    loop {
        let best = handles.heads.best();
        if best != moved.0 {
            moved = (best, tokio::time::Instant::now());
        }
        let found = match moved.1.elapsed() {
            still if still > STILL_MAX => {
                Ok(Some(Hindrance::StandsStill { at: best, seconds: still.as_secs() }))
            }
            // What is on chain changes with a block.
            _ if asked_at == Some(best) => Ok(told.clone()),
            _ => find(chain.as_ref(), run, &hot, role).await.inspect(|_| asked_at = Some(best)),
        };
        // A chain that does not answer is said by who asks it for more.
        if let Ok(found) = found {
            let is_gone =
                role == Role::Miner && had_slot && is_done(&handles.run.info, best, found.as_ref());
            gone_looks = if is_gone { gone_looks + 1 } else { 0 };
            if gone_looks >= GONE_LOOKS {
                tracing::info!("it has left the run, and nothing is at stake any more: ends");
                return Ok(());
            }
            had_slot |= !matches!(
                found,
                Some(
                    Hindrance::NoRun(_)
                        | Hindrance::NotRegistered { .. }
                        | Hindrance::StandsStill { .. }
                )
            );
            match &found {
                Some(reason) if !is_same(told.as_ref(), reason) => {
                    tracing::warn!("cannot work: {reason}");
                }
                None if !is_working => tracing::info!("takes part in run {run} as a {role}"),
                _ => {}
            }
            is_working = found.is_none();
            told = found;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Whether a miner that had a slot owes nothing any more, so that its process may end: its bond is back, or free.
fn is_done(info: &RunInfo, best: BlockNumber, found: Option<&Hindrance>) -> bool {
    let now = phase_at(&info.settings.schedule, best).map(|moment| moment.window);
    match found {
        Some(Hindrance::Gone { due, .. }) => now.is_some_and(|now| now >= *due),
        Some(Hindrance::NotRegistered { .. }) => true,
        _ => false,
    }
}

/// Whether it is the same reason, but for what is counted in it.
fn is_same(told: Option<&Hindrance>, found: &Hindrance) -> bool {
    told.is_some_and(|told| match (told, found) {
        (Hindrance::NotBegun { start, .. }, Hindrance::NotBegun { start: now, .. }) => start == now,
        (Hindrance::StandsStill { at, .. }, Hindrance::StandsStill { at: now, .. }) => at == now,
        (told, found) => told == found,
    })
}
