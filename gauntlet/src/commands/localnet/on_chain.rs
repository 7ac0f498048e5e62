//! Sets up the run on its chain for all participants, and claims their pay at the end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use node_client::{
    chain::{Call, Chain, GauntletEvent, SubmitError},
    keys::{self, Keypair},
};
use protocol::{consent::Role, layout::Layout, settings::Settings, AccountBytes, RunId, Window};

use super::{order::Member, report::EmissionReport};
use crate::terminal::UNIT;

/// The development account that owns the run and pays for everything.
const OWNER_URI: &str = "//Alice";

/// Money of each participant's cold account beside its stake, or its bond and the price of joining.
const COLD_BALANCE: u128 = 100 * UNIT;

/// What each validator may have at risk in accusations, and the fees for them.
const BONDS_BALANCE: u128 = 50 * UNIT;

/// The stake of each validator, in planck.
const STAKE: u128 = 1_000 * UNIT;

/// What the owner gives each window as the run's sponsor: a run of one's own has no weight among the chain's.
const PER_WINDOW: u128 = 100 * UNIT;

/// How long a call may take to be in a finalised block, with all attempts: others may use the owner's nonces.
const INCLUSION_TIMEOUT: Duration = Duration::from_secs(60);

/// A localnet's run on its chain.
pub(super) struct Run {
    pub(super) chain: Arc<dyn Chain>,
    pub(super) id: RunId,
    pub(super) settings: Settings,
    owner: Keypair,
}

/// Gives every participant's cold account money, and validators the money for bonds, all at once. Hot keys need none.
///
/// # Errors
/// The chain does not take it in time.
pub(super) async fn fund(chain: &dyn Chain, members: &[Member]) -> Result<()> {
    let owner = keys::keypair_from_uri(OWNER_URI)?;
    let account = |uri: String| keys::keypair_from_uri(&uri).map(|key| keys::account(&key));
    let mut transfers = Vec::new();
    for member in members {
        let example = Settings::example();
        let spent = if member.is_miner() {
            example.incentive.miner_bond + example.entry.price_max
        } else {
            STAKE
        };
        let to = account(member.cold_uri())?;
        transfers.push(Call::Transfer { to, amount: COLD_BALANCE + spent });
        if !member.is_miner() {
            let to = account(member.bonds_uri())?;
            transfers.push(Call::Transfer { to, amount: BONDS_BALANCE });
        }
    }
    submit_all(chain, transfers.into_iter().map(|call| (owner.clone(), call))).await
}

impl Run {
    /// Creates the run.
    ///
    /// # Errors
    /// The chain refuses it.
    pub(super) async fn create(
        chain: Arc<dyn Chain>,
        settings: Settings,
        layout: Layout,
    ) -> Result<Self> {
        let owner = keys::keypair_from_uri(OWNER_URI)?;
        let call = Call::CreateRun { settings: Box::new(settings.clone()), layout };
        let included = chain.submit(&owner, call).await.context("cannot create the run")?;
        let id = included.events.iter().find_map(|event| match event {
            GauntletEvent::RunCreated { run, .. } => Some(*run),
            _ => None,
        });
        let id = id.context("the chain did not say which run it created")?;
        Ok(Self { chain, id, settings, owner })
    }

    /// The account of the owner, who receives the owner's part.
    pub(super) fn owner(&self) -> AccountBytes {
        keys::account(&self.owner)
    }

    /// Registers every participant.
    ///
    /// # Errors
    /// The chain refuses one.
    pub(super) async fn register(&self, members: &[Member]) -> Result<()> {
        let run = self.id;
        let genesis = self.chain.genesis_hash().await?;
        let mut calls = Vec::new();
        for member in members {
            let cold = keys::keypair_from_uri(&member.cold_uri())?;
            let key = keys::keypair_from_uri(&member.hot_uri())?;
            let hot = keys::account(&key);
            let prove =
                |role| keys::prove_hot_key(&key, &genesis, run, role, &keys::account(&cold));
            let call = if member.is_miner() {
                let max_price = self.settings.entry.price_max;
                Call::RegisterMiner { run, hot, proof: prove(Role::Miner), max_price }
            } else {
                Call::RegisterValidator { run, hot, proof: prove(Role::Validator), stake: STAKE }
            };
            calls.push((cold, call));
        }
        submit_all(self.chain.as_ref(), calls).await
    }

    /// Puts in what so many windows pay.
    ///
    /// # Errors
    /// The chain does not take it in time.
    pub(super) async fn sponsor(&self, windows: Window) -> Result<()> {
        let amount = PER_WINDOW * u128::from(windows.max(1));
        let call = Call::FundRun { run: self.id, amount, per_window: PER_WINDOW };
        submit_all(self.chain.as_ref(), [(self.owner.clone(), call)]).await
    }

    /// Claims for every participant what it may claim by now.
    pub(super) async fn claim_all(&self, members: &[Member]) {
        let accounts = members
            .iter()
            .filter_map(|member| keys::keypair_from_uri(&member.cold_uri()).ok())
            .map(|cold| keys::account(&cold))
            .chain([self.owner()]);
        let claims = accounts.map(|account| async move {
            let call = Call::Claim { run: self.id, account };
            let claim = self.chain.submit(&self.owner, call);
            match tokio::time::timeout(INCLUSION_TIMEOUT, claim).await {
                // Nothing to claim is no failure.
                Ok(Ok(_) | Err(SubmitError::Rejected { .. })) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot claim"),
                Err(_) => tracing::warn!("a claim was not included in time"),
            }
        });
        futures::future::join_all(claims).await;
    }

    /// Reads where every unit of the emission is.
    ///
    /// # Errors
    /// The chain does not answer.
    pub(super) async fn emission(&self) -> Result<EmissionReport> {
        Ok(self.chain.ledger(self.id, None).await?.into())
    }
}

/// Submits everything at once and waits for all of it.
async fn submit_all(
    chain: &dyn Chain,
    calls: impl IntoIterator<Item = (Keypair, Call)>,
) -> Result<()> {
    let submissions = calls.into_iter().map(|(signer, call)| async move {
        tokio::time::timeout(INCLUSION_TIMEOUT, chain.submit(&signer, call))
            .await
            .context("an extrinsic was not included in time")??;
        anyhow::Ok(())
    });
    futures::future::try_join_all(submissions).await?;
    Ok(())
}
