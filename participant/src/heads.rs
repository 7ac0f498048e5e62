//! Follows the finalised head: one task follows the chain, every duty waits for the block numbers that it needs.

use std::sync::Arc;

use futures::StreamExt;
use node_client::chain::{BlockRef, Chain};
use protocol::BlockNumber;
use tokio::sync::watch;

use crate::error::{miss, Result};
use crate::telemetry;

/// The last finalised block; clones see the same.
#[derive(Clone, Debug)]
pub struct Heads {
    head: watch::Receiver<BlockRef>,
}

impl Heads {
    /// Reads the head once and returns with it the task's future that follows it; whoever calls runs that.
    ///
    /// # Errors
    /// The chain does not answer.
    pub async fn follow(
        chain: Arc<dyn Chain>,
    ) -> Result<(Self, impl std::future::Future<Output = Result<()>>)> {
        let first = chain.finalized_head().await?;
        let (sender, head) = watch::channel(first);
        let task = async move {
            let mut blocks = chain.subscribe_finalized().await?;
            while let Some(block) = blocks.next().await {
                metrics::gauge!(telemetry::HEAD_BLOCK).set(f64::from(block.number));
                sender.send_replace(block);
            }
            miss!("the chain's stream of blocks has ended")
        };
        Ok((Self { head }, task))
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
