//! Looks whether an account can pay before anything is signed with its key.

use anyhow::{bail, Result};
use node_client::{chain::Chain, keys};
use protocol::{AccountBytes, Planck};

use crate::terminal::units;

/// That `account` has `amount` free; `why` goes on after it (`is held as the bond`).
///
/// # Errors
/// It has not, and the text says how to give it some; or the chain does not answer.
pub(crate) async fn check(
    chain: &dyn Chain,
    account: &AccountBytes,
    amount: Planck,
    why: &str,
) -> Result<()> {
    let has = chain.balance(*account, None).await?;
    if has < amount {
        bail!(
            "the account {0} has {1} UNIT, and {2} UNIT {why}: send it some first (gauntlet wallet send --to {0})",
            keys::address(account),
            units(has),
            units(amount),
        );
    }
    Ok(())
}
