//! Follows what the chain pays this participant.

use futures::StreamExt;
use node_client::chain::GauntletEvent;

use crate::{
    error::{miss, Result},
    events::Event,
    handles::{Handles, Role},
    slot,
};

/// Tells the readers of events of every credit, until the chain's stream of blocks ends.
pub(crate) async fn follow(handles: Handles, role: Role) -> Result<()> {
    let mut blocks = handles.chain.subscribe_finalized().await?;
    while let Some(block) = blocks.next().await {
        let events = match handles.chain.events_at(block.hash).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, block = block.number, "cannot read what was paid");
                continue;
            }
        };
        for event in events {
            let (window, paid_slot, paid) = match (role, event) {
                (Role::Miner, GauntletEvent::MinerScored { run, window, uid, paid, .. })
                    if run == handles.run.id =>
                {
                    (window, uid, paid)
                }
                (
                    Role::Validator,
                    GauntletEvent::ValidatorPaid { run, window, index, paid, .. },
                ) if run == handles.run.id => (window, index, paid),
                _ => continue,
            };
            if paid > 0 && slot::find(&handles, role, Some(block.hash)).await? == Some(paid_slot) {
                handles.machine.diary.tell(Event::Paid { window, amount: paid });
            }
        }
    }
    miss!("the chain's stream of blocks has ended")
}
