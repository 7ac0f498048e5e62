//! What will be accepted is with the miners before it is known.

use std::sync::Arc;

use futures::FutureExt;
use node_client::chain::Chain;
use protocol::{
    window::{phase_at, Phase},
    BlockNumber,
};

use super::{
    participants::Member,
    story::{schedule, Plan},
    tell,
    world::World,
};

/// Notes in the last block of a window's attestations how many miners hold all payloads of the window.
fn count(world: &Arc<World>, members: &[Member], block: BlockNumber) {
    let schedule = schedule();
    let Some(moment) = phase_at(&schedule, block) else { return };
    if moment.phase != Phase::AttestReveal || moment.offset + 1 != schedule.attest_end {
        return;
    }
    let reveals = world.chain.reveals(0, moment.window, None).now_or_never().unwrap().unwrap();
    let miners = members.iter().filter(|member| member.name.starts_with("miner"));
    let holds_all = |member: &&Member| {
        let held = world.hub.published(member.peer());
        reveals.iter().all(|reveal| held.contains(&reveal.opening.payload_root))
    };
    let holders = miners.filter(holds_all).count();
    world.note(format!("{} reveals, {holders} holders", reveals.len()));
}

#[test]
fn miners_have_what_is_accepted_before_it_is_known() {
    let plan = Plan { script: Some(count), ..Plan::calm(4, 3) };
    let summary = tell(plan);
    assert_eq!(summary.notes, ["3 reveals, 3 holders"; 3], "{summary:?}");
}
