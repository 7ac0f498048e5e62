//! A machine that is restored from a backup signs nothing that contradicts what it signed since.

use std::sync::Arc;

use protocol::{window::phase_at, BlockNumber};

use super::{
    faults::{Fault, FaultKind},
    participants::Member,
    story::{moment, schedule, Plan},
    tell,
    world::World,
};

/// The window in whose first blocks a backup is made, and the one in which all is as it was then.
const COPIED: u64 = 2;
const RESTORED: u64 = 4;

/// A miner and a validator.
const WHOM: [usize; 2] = [0, 3];

fn back_up(_: &Arc<World>, members: &[Member], block: BlockNumber) {
    let is_it = phase_at(&schedule(), block)
        .is_some_and(|moment| (moment.window, moment.offset) == (COPIED, 3));
    for who in WHOM.into_iter().filter(|_| is_it) {
        members[who].back_up();
    }
}

#[test]
fn who_is_restored_from_a_backup_contradicts_nothing_that_it_signed_since() {
    // After each thing that one signs in a window: the commitment to the update and to the scores, their reveals, the commitment to
    // the attestation.
    for offset in [7, 16, 20] {
        let fault = |who| Fault {
            kind: FaultKind::Restored,
            whom: vec![who],
            from: moment(RESTORED, offset),
            until: moment(RESTORED, offset + 1),
        };
        let faults = WHOM.map(fault).to_vec();
        let plan = Plan { faults, validators: 4, script: Some(back_up), ..Plan::calm(9, 7) };
        // That two different things are signed for one duty is a panic.
        let summary = tell(plan);
        assert_eq!(summary.finals, 7, "{offset}: {summary:?}");
        let reveals = summary.missed.iter().filter(|line| line.contains("Reveal of window 2"));
        assert_eq!(reveals.count(), 0, "{offset}: {:?}", summary.missed);
    }
}
