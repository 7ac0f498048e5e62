//! Shows chunks that somebody asks this miner for on chain.
//!
//! Who does not answer by the deadline loses a part of its bond, so that nothing here waits for anything else: every block is looked at, the
//! first one when the process starts; each request is answered by a task of its own, which goes on until the chunk is in a block or the deadline
//! has passed. A miner that is gone answers, too, as long as its bond waits. What counts is the best block: the time for an answer goes on while
//! nothing becomes final.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use node_client::chain::DataChallengeInfo;
use protocol::{commitment::ChunkProof, update::Frame, BlockNumber, Uid, Window};
use tokio::task::JoinSet;

use super::updates::Updates;
use crate::{
    desk::Errand,
    diary::Duty,
    error::{Attempt as _, Result},
    handles::Handles,
    holders::{self, Holder},
    payloads,
};

/// Names a request for a chunk.
type Name = (Window, Uid, u32);

/// The service that answers.
#[derive(Clone)]
pub(super) struct Answer {
    handles: Handles,
    updates: Updates,
    /// The requests that a task works on. Never held across an await.
    begun: Arc<Mutex<BTreeSet<Name>>>,
}

impl Answer {
    /// Answers with what is kept in `updates`.
    pub(super) fn new(handles: Handles, updates: Updates) -> Self {
        Self { handles, updates, begun: Arc::default() }
    }

    /// Answers until the process ends.
    pub(super) async fn run(self) -> Result<()> {
        let mut tasks = JoinSet::new();
        loop {
            let best = self.handles.heads.best();
            if let Err(error) = self.look(best, &mut tasks).await {
                tracing::warn!(error = error.line(), "cannot read which chunks are asked for");
            }
            self.handles.heads.clone().reach_best(best.saturating_add(1)).await?;
            while tasks.try_join_next().is_some() {}
        }
    }

    /// Begins to answer what nobody answers yet, by the block `best`. A request that is not final may go again; the chain refuses the
    /// answer to it then, which costs nothing.
    async fn look(&self, best: BlockNumber, tasks: &mut JoinSet<()>) -> Result<()> {
        let (chain, run) = (&self.handles.chain, self.handles.run.id);
        // A light client knows of no other blocks than final ones.
        let hash = chain.block_hash(best).await?.unwrap_or(self.handles.heads.now().hash);
        let asked = chain.data_challenges(run, Some(hash)).await?;
        // Nobody has to be looked for as long as nobody is asked.
        if asked.is_empty() {
            return Ok(());
        }
        let hot = self.handles.desk.account();
        let own: Vec<Holder> =
            holders::all(&self.handles).await?.into_iter().filter(|seat| seat.hot == hot).collect();
        for challenge in asked.into_iter().filter(|asked| best < asked.deadline) {
            let DataChallengeInfo { window, uid, index, .. } = challenge;
            let Some(seat) = own.iter().find(|seat| seat.uid == uid && seat.had(window)).copied()
            else {
                continue;
            };
            if self.begun().insert((window, uid, index)) {
                let answer = self.clone();
                tasks.spawn(async move { answer.show(seat, challenge, best).await });
            }
        }
        Ok(())
    }

    /// Answers a request that was seen in block `seen`.
    async fn show(&self, seat: Holder, challenge: DataChallengeInfo, seen: BlockNumber) {
        let DataChallengeInfo { window, uid, index, .. } = challenge;
        let started = Instant::now();
        let diary = &self.handles.machine.diary;
        match self.answer(seat, &challenge, seen).await {
            Ok(()) => diary.done(window, Duty::Answer, started.elapsed().as_secs_f64()),
            Err(error) => diary.missed(window, Duty::Answer, error.line()),
        }
        // It is begun anew at the next block, should it still be asked for.
        self.begun().remove(&(window, uid, index));
    }

    async fn answer(
        &self,
        seat: Holder,
        challenge: &DataChallengeInfo,
        seen: BlockNumber,
    ) -> Result<()> {
        let DataChallengeInfo { window, uid, index, deadline, .. } = *challenge;
        let bytes = self.payload(seat, window).await?;
        let chunk = self.chunk(bytes, index).await?;
        let (chain, run) = (&self.handles.chain, self.handles.run.id);
        let heads = &self.handles.heads;
        let is_there = || async {
            // A final state from before the request says nothing of it.
            if heads.now().number < seen {
                return Ok(false);
            }
            let open = chain.data_challenges(run, None).await?;
            Ok(!open.iter().any(|open| (open.window, open.uid, open.index) == (window, uid, index)))
        };
        let errand = Errand::AnswerData { commitment: seat.commitment(window), chunk };
        self.handles.desk.errand(errand, is_there, deadline).await?;
        tracing::info!(window, index, "showed a chunk that was asked for");
        Ok(())
    }

    /// The payload of a window: from the own disk, or from whoever has it if it is not there.
    async fn payload(&self, seat: Holder, window: Window) -> Result<Bytes> {
        let reveals = self.handles.chain.reveals(self.handles.run.id, window, None).await?;
        let reveal = reveals.into_iter().find(|reveal| reveal.uid == seat.uid);
        let reveal = reveal.context("the chain has no reveal of ours")?;
        let (updates, info) = (self.updates.clone(), self.handles.run.info.clone());
        let root = reveal.opening.payload_root;
        let load = move || -> Result<Result<Bytes, &'static str>> {
            let Some(bytes) = updates.load(window)? else { return Ok(Err("is not there")) };
            let keep = info.settings.training.keep;
            let is_it = payloads::has_root(&bytes, &info.layout, keep, &root);
            Ok(is_it.then_some(bytes).ok_or("is another one"))
        };
        match self.handles.machine.work.run(load).await.and_then(|kept| kept) {
            Ok(Ok(bytes)) => Ok(bytes),
            kept => {
                let problem = match kept {
                    Ok(found) => found.err().unwrap_or_default().to_owned(),
                    Err(error) => error.line(),
                };
                tracing::warn!(window, problem, "the own update cannot be used: asking peers");
                self.handles.peers.payloads.fetch(window, &seat.hot, &reveal).await
            }
        }
    }

    async fn chunk(&self, bytes: Bytes, index: u32) -> Result<ChunkProof> {
        let info = self.handles.run.info.clone();
        let work = move || {
            let frame = Frame::cut(&bytes, &info.layout, info.settings.training.keep)?;
            let chunk = frame.chunk_proof(&frame.leaf_hashes(), index);
            chunk.context("a chunk is asked for that is not there")
        };
        self.handles.machine.work.run_short(work).await?
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, BTreeSet<Name>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
