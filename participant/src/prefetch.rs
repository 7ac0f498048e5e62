//! Fetches what will probably be accepted while the validators still attest, so that the outer step finds it here.
//!
//! A payload may be fetched from its reveal on; which ones are accepted is known two phases later. Standings say it before:
//! those that would be accepted if every validator attested everything ([`books::FetchOrder::expected`](protocol::books::FetchOrder)).
//! What is fetched is served at once, so that miners and validators have it from one another. Serving peers give validators their
//! bytes first, by role.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use node_client::chain::RevealInfo;
use protocol::{
    window::{phase_at, Phase},
    AccountBytes, Window,
};

use crate::{
    error::{Attempt as _, Result},
    handles::{Handles, Run},
    ranks::fetch_order,
    replica::{State, States},
};

/// Payloads that are fetched at once, the first ones first.
const AT_ONCE: usize = 8;

/// The part of the time that there is which one payload may take: some that do not come are not to hold up the others.
const TURNS: u32 = 4;

/// Fetches in every window from the current one on, until the process ends.
pub(crate) async fn run(handles: Handles, mut states: States) -> Result<()> {
    let schedule = handles.run.info.settings.schedule.clone();
    let now = handles.heads.now().number;
    let mut window = phase_at(&schedule, now).map_or(0, |moment| moment.window);
    loop {
        let state = states.reach(window).await?;
        window = state.window;
        let block = |phase| schedule.phase_end_block(window, phase).context("the run's end");
        let (begin, end) = (block(Phase::Reveal)?, block(Phase::AttestReveal)?);
        // Nobody reveals any more: the order is the last one.
        handles.heads.clone().reach(begin).await?;
        let mut heads = handles.heads.clone();
        let turn = end.saturating_sub(heads.best()).div_ceil(TURNS).max(1);
        let fetched = tokio::select! {
            fetched = fetch_window(&handles, &state, turn) => fetched,
            // From here on it is known, and the replica's.
            over = heads.reach_best(end) => over.map(|_| ()),
        };
        if let Err(error) = fetched {
            tracing::debug!(window, error = error.line(), "nothing is fetched ahead");
        }
        window = window.saturating_add(1);
    }
}

/// Fetches what would be accepted, in the order of rank. One that does not come is left to the outer step.
async fn fetch_window(handles: &Handles, state: &Arc<State>, turn: u32) -> Result<()> {
    let Handles { chain, heads, desk, run: Run { id: run, info, .. }, .. } = handles;
    let window = state.window;
    let reveals = chain.reveals(*run, window, Some(heads.now().hash)).await?;
    let miners = chain.miners(*run, None).await?;
    let order = fetch_order(window, &reveals, &miners, &state.root, &info.settings.incentive);
    let own = desk.account();
    let mut fetches = Vec::new();
    for uid in &order.expected {
        let miner = miners.iter().find(|miner| miner.uid == *uid && miner.hot != own);
        let reveal = reveals.iter().find(|reveal| reveal.uid == *uid);
        if let (Some(miner), Some(reveal)) = (miner, reveal) {
            fetches.push(fetch(handles.clone(), window, miner.hot, reveal.clone(), turn));
        }
    }
    stream::iter(fetches).buffer_unordered(AT_ONCE).collect::<()>().await;
    Ok(())
}

/// Fetches one payload, for at most `turn` blocks. What has come stays.
async fn fetch(handles: Handles, window: Window, hot: AccountBytes, reveal: RevealInfo, turn: u32) {
    let mut heads = handles.heads.clone();
    let last = heads.best().saturating_add(turn);
    let fetched = tokio::select! {
        fetched = handles.peers.payloads.fetch(window, &hot, &reveal) => fetched.map(drop),
        over = heads.reach_best(last) => over,
    };
    if let Err(error) = fetched {
        let uid = reveal.uid;
        tracing::debug!(window, uid, error = error.line(), "not fetched ahead");
    }
}
