//! The payloads that a validator fetches and checks now, a task each.

use std::{collections::BTreeMap, future::Future};

use protocol::{BlockNumber, Uid};
use tokio::task::{AbortHandle, Id, JoinSet};

use crate::error::Error;

/// What came of one.
pub(super) enum Checked {
    /// Fetched, and a valid update.
    Valid,
    /// Fetched, and none.
    Invalid(Error),
    /// Nobody delivered it.
    Missing,
}

/// Running checks; dropped, they end.
#[derive(Default)]
pub(super) struct Checks {
    tasks: JoinSet<Checked>,
    /// The task of each, and the best block when it began.
    running: BTreeMap<Uid, (AbortHandle, BlockNumber)>,
}

impl Checks {
    /// Starts the check of `uid`'s payload, the best block being `now`.
    pub(super) fn start(
        &mut self,
        uid: Uid,
        now: BlockNumber,
        check: impl Future<Output = Checked> + Send + 'static,
    ) {
        self.running.insert(uid, (self.tasks.spawn(check), now));
    }

    /// Ends those that have taken turns of `blocks` blocks, one and more, and that `holds_up` others then; returns them with the
    /// number of their turns. What of them has come stays.
    pub(super) fn late(
        &mut self,
        now: BlockNumber,
        blocks: u32,
        holds_up: impl Fn(Uid, u32) -> bool,
    ) -> Vec<(Uid, u32)> {
        let turns = |began: &BlockNumber| now.saturating_sub(*began) / blocks.max(1);
        let late: Vec<(Uid, u32)> = self
            .running
            .iter()
            .filter(|(_, (task, _))| !task.is_finished())
            .map(|(uid, (_, began))| (*uid, turns(began)))
            .filter(|(uid, turns)| *turns > 0 && holds_up(*uid, *turns))
            .collect();
        for (uid, _) in &late {
            if let Some((task, _)) = self.running.remove(uid) {
                task.abort();
            }
        }
        late
    }

    /// Waits for the next one that ends; `None` while there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(Uid, Checked)> {
        loop {
            let (id, checked) = match self.tasks.join_next_with_id().await? {
                Ok((id, checked)) => (id, checked),
                Err(error) if error.is_panic() => {
                    let reason = Error::Missed("the check panicked".to_owned());
                    (error.id(), Checked::Invalid(reason))
                }
                Err(error) => (error.id(), Checked::Missing),
            };
            if let Some(uid) = self.uid_of(id) {
                self.running.remove(&uid);
                return Some((uid, checked));
            }
        }
    }

    fn uid_of(&self, id: Id) -> Option<Uid> {
        let mut running = self.running.iter();
        running.find(|(_, (task, _))| task.id() == id).map(|(uid, _)| *uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_holds_up_others_is_ended_when_its_turn_is_over_and_only_then() {
        let mut checks = Checks::default();
        for uid in [1, 2, 3] {
            checks.start(uid, 10, std::future::pending());
        }
        checks.start(4, 10, async { Checked::Valid });
        assert!(matches!(checks.next().await, Some((4, Checked::Valid))));
        assert!(checks.late(12, 3, |_, _| true).is_empty());
        assert_eq!(checks.late(16, 3, |uid, turns| turns == 2 && uid != 2), [(1, 2), (3, 2)]);
        // One of them again, at once: what its ended task says is not what is heard.
        checks.start(1, 13, async { Checked::Valid });
        assert!(matches!(checks.next().await, Some((1, Checked::Valid))));
        assert!(checks.running.contains_key(&2) && checks.running.len() == 1);
    }

    #[tokio::test]
    async fn one_that_panics_is_not_tried_again() {
        let mut checks = Checks::default();
        checks.start(7, 0, async { panic!("of the test") });
        assert!(matches!(checks.next().await, Some((7, Checked::Invalid(_)))));
        assert!(checks.next().await.is_none());
    }
}
