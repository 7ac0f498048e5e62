//! Says what a run costs its owner, and looks whether the owner has it, before anything is signed.

use anyhow::{Context, Result};
use node_client::chain::{Chain, RunCost};
use protocol::{layout::Layout, AccountBytes};

use crate::{commands::money, terminal::units};

/// Asks the chain what a run with this layout costs, and says so.
///
/// # Errors
/// The chain does not answer, or is of another version.
pub(super) async fn tell(chain: &dyn Chain, layout: &Layout) -> Result<RunCost> {
    let cost = chain.run_cost(layout, None).await.context("cannot learn what a run costs")?;
    eprintln!(
        "the chain holds {} UNIT of the owner until the run is removed, and {} UNIT keep the run's account",
        units(cost.deposit),
        units(cost.foundation)
    );
    Ok(cost)
}

/// That `owner` has it free.
///
/// # Errors
/// It has not, and the text says how much it needs, what for, and how to give it some; or the chain does not answer.
pub(super) async fn check(chain: &dyn Chain, owner: &AccountBytes, cost: RunCost) -> Result<()> {
    let why = format!(
        "is what a run needs: {} UNIT is held for the run, until it is removed; the rest keeps its account and yours. \
         The call's fee comes on top",
        units(cost.deposit)
    );
    money::check(chain, owner, cost.needed(), &why).await
}

#[cfg(test)]
mod tests {
    use node_client::chain::fake::FakeChain;

    use super::*;

    fn layout() -> Layout {
        Layout(vec![1; 99])
    }

    #[tokio::test]
    async fn the_owner_of_a_run_has_what_the_chain_asks_or_is_told_what_and_how() {
        let (rich, poor) = ([1; 32], [2; 32]);
        let chain = FakeChain::new(1, []);
        let cost = chain.run_cost(&layout(), None).await.unwrap();
        let accounts = [(rich, cost.needed()), (poor, cost.needed() - 1)];
        let chain = FakeChain::new(1, accounts);
        assert_eq!(tell(&chain, &layout()).await.unwrap(), cost);
        check(&chain, &rich, cost).await.unwrap();

        let refused = check(&chain, &poor, cost).await.unwrap_err().to_string();
        for part in ["has ", "is held for the run", "gauntlet wallet send"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}
