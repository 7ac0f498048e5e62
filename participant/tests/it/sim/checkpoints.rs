//! A checkpoint that cannot be written is missed as such, and costs nothing of its window.

use std::sync::Arc;

use protocol::BlockNumber;

use super::{participants::Member, story::Plan, tell, world::World};

fn take_away(_: &Arc<World>, members: &[Member], _: BlockNumber) {
    members[0].take_checkpoints_away();
}

#[test]
fn a_checkpoint_that_fails_is_a_line_of_its_own_and_costs_no_update() {
    // The first miner writes one in every window.
    let summary = tell(Plan { script: Some(take_away), ..Plan::calm(7, 3) });
    assert_eq!(summary.accepted, summary.accepted_max, "{summary:?}");
    let missed: Vec<&str> = summary.missed.iter().map(|line| &line[..]).collect();
    // The run goes on for a moment after its last window.
    assert!(missed.len() >= 3, "{missed:?}");
    for (window, line) in missed.into_iter().enumerate() {
        let expected = format!("miner-0: Checkpoint of window {window}: ");
        assert!(line.starts_with(&expected) && line.contains("checkpoints"), "{line}");
    }
}
