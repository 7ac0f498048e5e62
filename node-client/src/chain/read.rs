//! Reads from whichever node answers: one that breaks or says nothing is replaced, until the read's time is over.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use super::ChainError;

/// How long a read may take, with its attempts.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one of them may take: a light client without peers does not say that it does not answer.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a block may be unknown, and how often it is asked for: a node that is asked instead of another one may be
/// behind it, and not know yet what the other one said is the newest.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(15);
const BEHIND_PAUSE: Duration = Duration::from_secs(1);

/// The nodes of a chain, of which one is asked. All methods are cancel-safe.
#[async_trait]
pub(super) trait Nodes: Sync {
    /// A connection to one of them.
    type Connection: Send + Sync;

    /// The connection in use.
    async fn connection(&self) -> Arc<Self::Connection>;
    /// Waits until another connection than `used` is in use.
    async fn moved(&self, used: &Self::Connection);
    /// After a pause, has another connection opened in place of one that broke, unless there is one.
    /// It goes on though it is not waited for: the next read finds what it opened.
    async fn replace(&self, broken: &Arc<Self::Connection>);
}

/// Makes attempts until one succeeds, for [`READ_TIMEOUT`] at most: also while it waits for a connection, it ends then.
///
/// # Errors
/// What an attempt finds that another one would find again; [`ChainError::UnknownBlock`] once one node has not
/// known the block for 15 s; [`ChainError::Transport`] with the last attempt's reason when the time is over.
pub(super) async fn read<N: Nodes, R, F>(
    nodes: &N,
    attempt: impl Fn(Arc<N::Connection>) -> F,
) -> Result<R, ChainError>
where
    F: Future<Output = Result<R, ChainError>>,
{
    let mut last = None;
    let attempts = async {
        let mut unknown_since = None;
        loop {
            let connection = nodes.connection().await;
            let attempted = tokio::select! {
                done = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt(connection.clone())) => {
                    done.unwrap_or_else(|_| Err(ChainError::Transport("no answer".to_owned())))
                }
                () = nodes.moved(&connection) => {
                    Err(ChainError::Transport("another node is asked".to_owned()))
                }
            };
            match attempted {
                Err(ChainError::Transport(error)) => {
                    tracing::debug!(error, "reading the chain again");
                    last = Some(error);
                    unknown_since = None;
                    nodes.replace(&connection).await;
                }
                Err(ChainError::UnknownBlock(block)) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= BEHIND_TIMEOUT {
                        break Err(ChainError::UnknownBlock(block));
                    }
                    tracing::debug!(block, "the node does not know it yet");
                    tokio::select! {
                        () = tokio::time::sleep(BEHIND_PAUSE) => {}
                        // The next one has as long.
                        () = nodes.moved(&connection) => unknown_since = None,
                    }
                }
                other => break other,
            }
        }
    };
    let read = tokio::time::timeout(READ_TIMEOUT, attempts).await;
    read.unwrap_or_else(|_| {
        Err(ChainError::Transport(last.unwrap_or_else(|| "no connection".to_owned())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::nodes::{FakeNodes, Fault};

    const OPENING: Duration = Duration::from_secs(10);

    /// Reads a chain of `nodes` that has three blocks: what comes of it, and after how long.
    async fn height(nodes: &FakeNodes) -> (Result<usize, ChainError>, Duration) {
        nodes.state().chain = vec![None; 3];
        let begin = Instant::now();
        let height = read(nodes, |node| nodes.height(*node)).await;
        (height, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_whose_time_is_over_says_so_and_opens_no_other_connection_first() {
        // The last attempt is cut short, or the connection that is being opened then, or the only one there is.
        for opening in [Duration::ZERO, OPENING, 10 * READ_TIMEOUT] {
            let nodes = FakeNodes::of(&[&[Fault::Hangs; 9], &[Fault::Hangs; 9]], opening);
            let (height, took) = height(&nodes).await;
            assert!(matches!(height, Err(ChainError::Transport(_))), "{height:?}");
            assert_eq!(took, READ_TIMEOUT, "{opening:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_breaks_or_says_nothing_is_left_for_one_that_answers() {
        let nodes = FakeNodes::of(&[&[Fault::BrokenBefore], &[]], OPENING);
        let (found, took) = height(&nodes).await;
        assert_eq!((found.unwrap(), took), (3, OPENING));
        let nodes = FakeNodes::of(&[&[Fault::Hangs], &[]], OPENING);
        let (found, took) = height(&nodes).await;
        assert_eq!((found.unwrap(), took), (3, ATTEMPT_TIMEOUT + OPENING));
        // Somebody else has left it meanwhile.
        let nodes = FakeNodes::of(&[&[Fault::Hangs], &[]], OPENING);
        let leave = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            nodes.leave();
        };
        let ((found, took), ()) = futures::join!(height(&nodes), leave);
        assert_eq!((found.unwrap(), took), (3, Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_behind_is_asked_again_until_it_knows_the_block_or_another_one_does() {
        let nodes = FakeNodes::of(&[&[Fault::Refused; 3]], OPENING);
        let (found, took) = height(&nodes).await;
        assert_eq!((found.unwrap(), took), (3, 3 * BEHIND_PAUSE));
        let nodes = FakeNodes::of(&[&[Fault::Refused; 99], &[]], OPENING);
        let leave = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            nodes.leave();
        };
        let ((found, took), ()) = futures::join!(height(&nodes), leave);
        assert_eq!((found.unwrap(), took), (3, Duration::from_millis(2_500)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_that_no_node_knows_is_unknown() {
        let nodes = FakeNodes::of(&[&[Fault::Refused; 99]], OPENING);
        let (height, took) = height(&nodes).await;
        assert!(matches!(height, Err(ChainError::UnknownBlock(_))), "{height:?}");
        assert_eq!(took, BEHIND_TIMEOUT);
    }
}
