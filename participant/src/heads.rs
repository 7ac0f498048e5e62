//! Follows the chain's two heads: one task follows the chain, every duty waits for the block numbers that it needs.
//!
//! What is read is read from the finalised chain. What is late is decided by the best block, because by that the chain
//! decides it: with GRANDPA the finalised head is two blocks behind it at the least, and any number if finality stalls.

use std::sync::Arc;

use futures::StreamExt;
use node_client::chain::{BlockRef, Chain};
use protocol::BlockNumber;
use tokio::sync::watch;

use crate::error::{miss, Attempt as _, Result};
use crate::telemetry;

/// The last finalised block and the best one; clones see the same.
#[derive(Clone, Debug)]
pub struct Heads {
    head: watch::Receiver<BlockRef>,
    best: watch::Receiver<BlockNumber>,
}

impl Heads {
    /// Reads the heads once and returns with them the task's future that follows them; whoever calls runs that.
    ///
    /// # Errors
    /// The chain does not answer.
    pub async fn follow(
        chain: Arc<dyn Chain>,
    ) -> Result<(Self, impl std::future::Future<Output = Result<()>>)> {
        let first = chain.finalized_head().await?;
        let (sender, head) = watch::channel(first);
        let (best_sender, best) = watch::channel(chain.best_number().await?);
        let task = async move {
            let mut blocks = chain.subscribe_finalized().await?;
            let mut numbers = chain.subscribe_best().await?;
            loop {
                tokio::select! {
                    biased;
                    block = blocks.next() => {
                        let block = block.context("the chain's stream of blocks has ended")?;
                        metrics::gauge!(telemetry::HEAD_BLOCK).set(f64::from(block.number));
                        sender.send_replace(block);
                    }
                    number = numbers.next() => {
                        let number = number.context("the chain's stream of heads has ended")?;
                        metrics::gauge!(telemetry::BEST_BLOCK).set(f64::from(number));
                        best_sender.send_replace(number);
                    }
                }
            }
        };
        Ok((Self { head, best }, task))
    }

    /// Number of the best block, by which the chain decides what is late.
    pub fn best(&self) -> BlockNumber {
        (*self.best.borrow()).max(self.now().number)
    }

    /// Waits until the best chain has block `number`, which may go again. Cancel-safe.
    ///
    /// # Errors
    /// As [`Heads::reach`].
    pub async fn reach_best(&mut self, number: BlockNumber) -> Result<()> {
        let Self { head, best } = self;
        let reached = tokio::select! {
            biased;
            reached = best.wait_for(|best| *best >= number) => reached.is_ok(),
            reached = head.wait_for(|head| head.number >= number) => reached.is_ok(),
        };
        match reached {
            true => Ok(()),
            false => miss!("the chain is no longer followed"),
        }
    }

    /// The last finalised block.
    pub fn now(&self) -> BlockRef {
        *self.head.borrow()
    }

    /// Waits until block `number` is final and returns the head, which may be past it. Cancel-safe.
    ///
    /// # Errors
    /// Nobody follows the chain any more: the process is ending.
    pub async fn reach(&mut self, number: BlockNumber) -> Result<BlockRef> {
        match self.head.wait_for(|head| head.number >= number).await {
            Ok(head) => Ok(*head),
            Err(_) => miss!("the chain is no longer followed"),
        }
    }

    /// Waits for a head past the one that `now` gives. Cancel-safe.
    ///
    /// # Errors
    /// As [`Heads::reach`].
    pub async fn next(&mut self) -> Result<BlockRef> {
        let next = self.now().number.saturating_add(1);
        self.reach(next).await
    }
}
