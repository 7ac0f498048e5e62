//! Follows what the chain pays this participant.

use futures::StreamExt;
use node_client::chain::{ChainError, GauntletEvent};
use protocol::Hash;

use crate::{
    error::{miss, Result},
    events::Event,
    handles::{Handles, Role},
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
            let (window, slot, paid) = match (role, event) {
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
            if paid > 0 && own_slot(&handles, role, block.hash).await? == Some(slot) {
                handles.machine.diary.tell(Event::Paid { window, amount: paid });
            }
        }
    }
    miss!("the chain's stream of blocks has ended")
}

/// The slot of the hot key at block `at`, if it has one.
async fn own_slot(handles: &Handles, role: Role, at: Hash) -> Result<Option<u16>, ChainError> {
    let (run, hot) = (handles.run.id, handles.desk.account());
    Ok(match role {
        Role::Miner => {
            let miners = handles.chain.miners(run, Some(at)).await?;
            miners.iter().find(|miner| miner.hot == hot).map(|miner| miner.uid)
        }
        Role::Validator => {
            let validators = handles.chain.validators(run, Some(at)).await?;
            validators.iter().find(|found| found.hot == hot).map(|found| found.index)
        }
    })
}
