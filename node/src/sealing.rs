//! A development chain's blocks: orders to make them, their time, and when they become final.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{channel::oneshot, stream, Stream, StreamExt};
use runtime::opaque::Block;
use sc_client_api::{
    blockchain::{self, HeaderBackend},
    BlockchainEvents, Finalizer,
};
use sc_consensus_manual_seal::{rpc::CreatedBlock, EngineCommand};
use sc_transaction_pool_api::TransactionPool;

use sp_consensus_aura::{sr25519::AuthoritySignature, Slot, SlotDuration};
use sp_runtime::traits::Block as BlockT;
use tokio::time::{timeout, Interval, MissedTickBehavior};

use crate::client::{Client, Pool};

type Hash = <Block as BlockT>::Hash;

/// How long the transaction pool may take to note a block; far longer than it takes on a busy machine.
const POOL_PATIENCE: Duration = Duration::from_secs(10);

/// Makes the block that is `lag` behind each new best one final, `delay` after the transaction pool has taken note of that.
///
/// Who watches a transaction is told of the block that it is in, and then that the block is final: clients rely on the
/// order. The pool sends the two by different ways through its tasks and forgets the first one where the second overtakes
/// it, which only time between them prevents, as there is on a chain whose authorities vote.
pub(crate) fn finalise_after(
    delay: Duration,
    lag: u32,
    client: Arc<Client>,
    pool: Arc<Pool>,
) -> impl Future<Output = ()> + Send {
    // The stream is opened here and not when the future is first polled, so that it misses no block.
    let imported = client.import_notification_stream();
    async move {
        let mut best = imported.filter(|block| std::future::ready(block.is_new_best));
        while let Some(block) = best.next().await {
            // It never does of a block with which it goes over many others, as one does that was behind.
            if timeout(POOL_PATIENCE, pool.ready_at(block.hash)).await.is_err() {
                tracing::debug!("the transaction pool takes no note of block {}", block.hash);
            }
            tokio::time::sleep(delay).await;
            if let Err(error) = finalise_behind(&client, block.hash, lag) {
                tracing::error!("what is behind block {} cannot be final: {error}", block.hash);
            }
        }
    }
}

/// Makes the block `lag` behind the one of `hash` final, if it is not.
fn finalise_behind(client: &Client, hash: Hash, lag: u32) -> blockchain::Result<()> {
    let mut header = client.expect_header(hash)?;
    // Also where the lag is longer than the chain.
    if header.number.saturating_sub(lag) <= client.info().finalized_number {
        return Ok(());
    }
    for _ in 0..lag {
        header = client.expect_header(header.parent_hash)?;
    }
    client.finalize_block(header.hash(), None, true)
}

/// The time of a block on `parent`: one slot after that and after the best block's, so that what replaces a block is another.
/// The first one's is the wall clock's.
pub(crate) fn time_after(
    client: &Client,
    parent: Hash,
    slot_duration: SlotDuration,
) -> Result<sp_timestamp::InherentDataProvider, String> {
    let slots = [parent, client.info().best_hash].map(|hash| slot_of(client, hash));
    let [parent, best] = slots;
    let Some(last) = parent?.max(best?) else {
        return Ok(sp_timestamp::InherentDataProvider::from_system_time());
    };
    let time = (last + 1).timestamp(slot_duration).ok_or("the chain's time has ended")?;
    Ok(sp_timestamp::InherentDataProvider::new(time))
}

/// The slot of a block; the first block has none.
fn slot_of(client: &Client, hash: Hash) -> Result<Option<Slot>, String> {
    let header = client.expect_header(hash).map_err(|error| error.to_string())?;
    if header.number == 0 {
        return Ok(None);
    }
    let slot = sc_consensus_aura::find_pre_digest::<Block, AuthoritySignature>(&header);
    slot.map(Some).map_err(|error| error.to_string())
}

/// Orders to seal a block, `period` apart; one that comes late postpones the next ones. Every `fork_every`-th replaces the best
/// block by two: one beside it and the next one on that.
pub(crate) fn orders(
    period: Duration,
    fork_every: u32,
    client: Arc<Client>,
) -> impl Stream<Item = EngineCommand<Hash>> + Send {
    let orders = Orders { period, fork_every, client, timer: None, ticks: 0, beside: None };
    stream::unfold(orders, |mut orders| async move {
        let order = orders.next().await;
        Some((order, orders))
    })
}

struct Orders {
    period: Duration,
    fork_every: u32,
    client: Arc<Client>,
    /// It needs the executor that polls it, so it starts with the first poll.
    timer: Option<Interval>,
    ticks: u32,
    /// What becomes of the order of a block beside the best one.
    beside: Option<oneshot::Receiver<Made>>,
}

type Made = Result<CreatedBlock<Hash>, sc_consensus_manual_seal::Error>;

impl Orders {
    async fn next(&mut self) -> EngineCommand<Hash> {
        if let Some(beside) = self.beside.take() {
            match beside.await {
                Ok(Ok(made)) => return seal(Some(made.hash), None),
                Ok(Err(error)) => tracing::error!("no block beside the last one: {error}"),
                Err(_) => tracing::error!("the order of a block beside the last one got lost"),
            }
        }
        let period = self.period;
        let timer = self.timer.get_or_insert_with(|| {
            let mut timer = tokio::time::interval(period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        timer.tick().await;
        self.ticks = self.ticks.wrapping_add(1);
        let forks = self.fork_every > 0 && self.ticks.is_multiple_of(self.fork_every);
        let Some(parent) = self.replaceable().filter(|_| forks) else {
            return seal(None, None);
        };
        let (sender, receiver) = oneshot::channel();
        self.beside = Some(receiver);
        seal(Some(parent), Some(sender))
    }

    /// The parent of the best block, if that can be replaced.
    fn replaceable(&self) -> Option<Hash> {
        let info = self.client.info();
        let header = self.client.header(info.best_hash).ok().flatten()?;
        (header.number > info.finalized_number).then_some(header.parent_hash)
    }
}

fn seal(parent_hash: Option<Hash>, sender: Option<oneshot::Sender<Made>>) -> EngineCommand<Hash> {
    // What is imported as final is never told to be in the best chain; `finalise_after` makes it final.
    EngineCommand::SealNewBlock { create_empty: true, finalize: false, parent_hash, sender }
}
