//! Follows what the chain pays this participant.

use futures::StreamExt;
use node_client::chain::{BlockRef, GauntletEvent};
use protocol::{books::takes_part, Planck, Window};

use crate::{
    error::Result,
    events::Event,
    handles::{Handles, Role},
    slot,
};

/// Tells the readers of events of every credit. What cannot be read is logged: no participant ends for it.
pub(crate) async fn follow(handles: Handles, role: Role) -> Result<()> {
    match handles.chain.subscribe_finalized().await {
        Ok(mut blocks) => {
            while let Some(block) = blocks.next().await {
                if let Err(error) = tell(&handles, role, block).await {
                    let (number, error) = (block.number, error.line());
                    tracing::warn!(block = number, error, "cannot read what was paid");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot follow what is paid"),
    }
    // The service that follows the head ends when the chain is gone, and with it the participant.
    std::future::pending().await
}

/// Tells what `block` credited to the hot key's slot.
async fn tell(handles: &Handles, role: Role, block: BlockRef) -> Result<()> {
    let events = handles.chain.events_at(block.hash).await?;
    let paid: Vec<_> = events.iter().filter_map(|event| credit(handles, role, event)).collect();
    if paid.is_empty() {
        return Ok(());
    }
    let Some(own) = slot::find(handles, role, Some(block.hash)).await? else {
        return Ok(());
    };
    // What is paid for an earlier window is the pay of the slot's earlier holder.
    let is_own = |slot, window| slot == own.number && takes_part(own.registered_window, window);
    for (_, window, amount) in paid.into_iter().filter(|(slot, window, _)| is_own(*slot, *window)) {
        handles.machine.diary.tell(Event::Paid { window, amount });
    }
    Ok(())
}

/// The slot, window and amount of a credit in this role; `None` if the event is none.
fn credit(handles: &Handles, role: Role, event: &GauntletEvent) -> Option<(u16, Window, Planck)> {
    let (of, slot, window, paid) = match (role, event) {
        (Role::Miner, GauntletEvent::MinerScored { run, window, uid, paid, .. }) => {
            (run, uid, window, paid)
        }
        (Role::Validator, GauntletEvent::ValidatorPaid { run, window, index, paid, .. }) => {
            (run, index, window, paid)
        }
        _ => return None,
    };
    (*of == handles.run.id && *paid > 0).then_some((*slot, *window, *paid))
}
