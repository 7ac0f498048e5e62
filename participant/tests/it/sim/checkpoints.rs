//! A checkpoint that cannot be written, or not fast, is missed as such at the most, and costs nothing of its window.

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

fn slow_down(world: &Arc<World>, members: &[Member], _: BlockNumber) {
    for validator in members.iter().filter(|member| member.name.starts_with("validator")) {
        world.set_link(validator.number, |link| link.slow_disk = true);
    }
}

#[test]
fn a_slow_disk_holds_up_no_duty_of_a_validator() {
    // The first validator writes a checkpoint in every window.
    let summary = tell(Plan { script: Some(slow_down), ..Plan::calm(7, 4) });
    assert_eq!(summary.accepted, summary.accepted_max, "{summary:?}");
    assert_eq!(summary.missed, [""; 0]);
}
