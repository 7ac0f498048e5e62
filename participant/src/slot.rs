//! Finds the slot of the hot key: a miner's uid or a validator's index.

use std::time::Duration;

use node_client::chain::ChainError;
use protocol::{AccountBytes, Hash, Window};

use crate::{
    error::{miss, Attempt as _, Error, Result},
    handles::{Handles, Role},
};

/// How long the start waits for the hot key to be registered.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause between two looks at the registrations.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// A place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// A miner's uid or a validator's index.
    pub(crate) number: u16,
    /// First window in which its holder takes part.
    pub(crate) registered_window: Window,
    /// Account of the cold key, which has the pay.
    pub(crate) cold: AccountBytes,
}

/// The slot of the hot key at block `at`, or at the head; `None` if it is not registered in this role.
pub(crate) async fn find(
    handles: &Handles,
    role: Role,
    at: Option<Hash>,
) -> Result<Option<Slot>, ChainError> {
    let (run, hot) = (handles.run.id, handles.desk.account());
    Ok(match role {
        Role::Miner => {
            let miners = handles.chain.miners(run, at).await?;
            miners.iter().find(|miner| miner.hot == hot).map(|miner| Slot {
                number: miner.uid,
                registered_window: miner.registered_window,
                cold: miner.cold,
            })
        }
        Role::Validator => {
            let validators = handles.chain.validators(run, at).await?;
            validators.iter().find(|found| found.hot == hot).map(|found| Slot {
                number: found.index,
                registered_window: found.registered_window,
                cold: found.cold,
            })
        }
    })
}

/// The number of the hot key's slot now, to work in `window`.
///
/// # Errors
/// The chain does not answer, or the hot key is not registered in this role, or takes part from a later window on.
pub(crate) async fn own(handles: &Handles, role: Role, window: Window) -> Result<u16> {
    let slot = find(handles, role, None).await?;
    let slot = slot.with_context(|| format!("this {role} is not registered"))?;
    let first = slot.registered_window;
    if window < first {
        miss!("this {role} takes part from window {first} on");
    }
    Ok(slot.number)
}

/// Waits until the hot key is registered in this role.
///
/// # Errors
/// It is not, within two minutes.
pub(crate) async fn wait(handles: &Handles, role: Role) -> Result<()> {
    // Why it has to wait is said by `hindrance`.
    let look = async {
        while find(handles, role, None).await?.is_none() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok::<_, Error>(())
    };
    tokio::time::timeout(REGISTRATION_TIMEOUT, look)
        .await
        .with_context(|| format!("this hot key is not registered as a {role} of the run"))?
}
