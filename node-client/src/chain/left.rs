//! Ends what waits for a node when another one is asked in its place: one that stands still reports nothing for ever.

use std::future::Future;

use super::SubmitError;

/// Waits for what a node says of an extrinsic, until it is `left`. Whether it took it is not known then, and it is looked
/// for, or handed over again, where the chain is read by now.
///
/// # Errors
/// What the node answers; [`SubmitError::Transport`] when it is left.
pub(super) async fn until_left<T>(
    said: impl Future<Output = Result<T, SubmitError>>,
    left: impl Future<Output = ()>,
) -> Result<T, SubmitError> {
    tokio::select! {
        // What it has said counts.
        biased;
        said = said => said,
        () = left => Err(SubmitError::Transport("another node is asked by now".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::{sleep, Instant};

    use super::*;
    use crate::chain::{
        door::{submit, Account},
        nodes::{FakeNodes, Fault},
    };

    #[tokio::test(start_paused = true)]
    async fn what_a_node_took_that_stands_still_is_included_once_by_the_one_asked_after_it() {
        let (still, patience) = (Duration::from_secs(12), Duration::from_secs(120));
        // It answers or not, and has passed it on or not.
        for fault in [Fault::Swallowed, Fault::Mute, Fault::Hangs, Fault::HangsAfter] {
            let nodes = FakeNodes::of(&[&[fault], &[]], Duration::ZERO);
            let begin = Instant::now();
            let leave = async {
                sleep(still).await;
                nodes.leave();
            };
            let account = Account::default();
            let (outcome, ()) = futures::join!(submit(&nodes, &account, [7; 32], patience), leave);
            outcome.unwrap();
            let took = begin.elapsed();
            assert!(took >= still && took < still + Duration::from_secs(1), "{took:?}");
            // The same bytes, once.
            let state = nodes.state();
            assert_eq!((&state.chain[..], state.signed), (&[Some(1)][..], 1), "{fault:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_has_said_counts_though_it_is_left() {
        let said = until_left(async { Ok(3) }, async {}).await;
        assert_eq!(said.unwrap(), 3);
        let said = until_left(pending::<Result<u8, _>>(), async {}).await;
        assert!(matches!(said, Err(SubmitError::Transport(_))));
    }
}
