//! Signs and submits extrinsics: nonces are safe when one key submits several at once, and the result has a name.
//!
//! The next nonce of a signer is kept under its own lock, held only while an extrinsic is signed and handed to the
//! node, so that extrinsics enter the pool in order and wait for their blocks side by side. After any failure the
//! nonce is forgotten and read from the chain again.

use std::{sync::Arc, time::Duration};

use subxt::{
    config::DefaultExtrinsicParamsBuilder, error::DispatchError, transactions::TransactionStatus,
    PolkadotConfig,
};
use tokio::sync::Mutex;

use super::{
    subxt::{call_bytes, gauntlet_event, reason, SubxtChain},
    BlockRef, Call, Included, Keypair, SubmitError,
};
use crate::keys;

/// Blocks for which an extrinsic is valid.
const MORTALITY_BLOCKS: u64 = 64;
/// How long an extrinsic may take to be in a finalised block.
const FINALITY_TIMEOUT: Duration = Duration::from_secs(120);

fn broken(error: impl std::error::Error + 'static) -> SubmitError {
    SubmitError::Transport(reason(&error))
}

impl SubxtChain {
    /// See [`crate::chain::Chain::submit`].
    pub(super) async fn submit_call(
        &self,
        signer: &Keypair,
        call: Call,
    ) -> Result<Included, SubmitError> {
        let account = keys::account(signer);
        let slot: Arc<Mutex<Option<u64>>> =
            self.shared.nonces.lock().await.entry(account).or_default().clone();
        let connection = self.connection().await;
        let mut next = slot.lock().await;
        let handed = self.hand_over(&connection, signer, &call, &mut next).await;
        if let Err(error) = &handed {
            *next = None;
            if matches!(error, SubmitError::Transport(_)) {
                // The next attempt finds a connection.
                if let Err(error) = self.reconnect(&connection).await {
                    tracing::debug!(%error, "the chain does not answer");
                }
            }
        }
        drop(next);
        let progress = handed?;
        let outcome = tokio::time::timeout(FINALITY_TIMEOUT, watch(progress)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(SubmitError::Transport(format!(
                "not final within {} s",
                FINALITY_TIMEOUT.as_secs()
            )))
        });
        if matches!(outcome, Err(SubmitError::Transport(_) | SubmitError::Dropped(_))) {
            *slot.lock().await = None;
        }
        outcome
    }

    async fn hand_over(
        &self,
        connection: &super::subxt::Connection,
        signer: &Keypair,
        call: &Call,
        next: &mut Option<u64>,
    ) -> Result<Progress, SubmitError> {
        let at = connection.client.at_current_block().await.map_err(broken)?;
        let mut transactions = at.transactions();
        let account = subxt::utils::AccountId32(keys::account(signer));
        let nonce = match *next {
            Some(nonce) => nonce,
            // The pool's view, so that extrinsics that wait there are counted.
            None => connection.next_nonce(&account).await.map_err(SubmitError::Transport)?,
        };
        let bytes = call_bytes(&at, call).map_err(|docs| SubmitError::Rejected {
            pallet: "Client".to_owned(),
            error: "CallUnknown".to_owned(),
            docs,
        })?;
        let payload =
            transactions.from_call_data_bytes(&bytes).map_err(|error| SubmitError::Rejected {
                pallet: "Client".to_owned(),
                error: "CallMismatch".to_owned(),
                docs: reason(&error),
            })?;
        let params = DefaultExtrinsicParamsBuilder::<PolkadotConfig>::new()
            .nonce(nonce)
            .mortal(MORTALITY_BLOCKS)
            .build();
        let signed = transactions.create_signed(&payload, signer, params).await.map_err(broken)?;
        let progress = signed.submit_and_watch().await.map_err(|error| refused(&error))?;
        *next = nonce.checked_add(1);
        Ok(progress)
    }
}

type Progress = subxt::transactions::TransactionProgress<
    PolkadotConfig,
    subxt::client::OnlineClientAtBlockImpl<PolkadotConfig>,
>;

/// A node that does not take an extrinsic: for its nonce or a full pool, which pass, or for good.
fn refused(error: &(dyn std::error::Error + 'static)) -> SubmitError {
    let text = reason(error);
    let lower = text.to_lowercase();
    if lower.contains("inability to pay")
        || lower.contains("bad proof")
        || lower.contains("exhausts")
    {
        return SubmitError::Rejected {
            pallet: "Transaction".to_owned(),
            error: "Invalid".to_owned(),
            docs: text,
        };
    }
    let passes = [
        "outdated",
        "future",
        "priority",
        "already imported",
        "banned",
        "limit",
        "stale",
        "1010",
        "1014",
    ];
    if passes.iter().any(|word| lower.contains(word)) {
        SubmitError::Dropped(text)
    } else {
        SubmitError::Transport(text)
    }
}

async fn watch(mut progress: Progress) -> Result<Included, SubmitError> {
    while let Some(status) = progress.next().await {
        match status.map_err(broken)? {
            TransactionStatus::InFinalizedBlock(included) => {
                let events = included.fetch_events().await.map_err(broken)?;
                let at = included.at().await.map_err(broken)?;
                let mut ours = Vec::new();
                for event in events.iter() {
                    let event = event.map_err(broken)?;
                    if event.pallet_name() == "System" && event.event_name() == "ExtrinsicFailed" {
                        return Err(dispatch_error(event.field_bytes(), at.metadata()));
                    }
                    let decoded = gauntlet_event(
                        event.pallet_name(),
                        event.event_index(),
                        event.field_bytes(),
                    );
                    if let Some(event) =
                        decoded.map_err(|error| SubmitError::Transport(error.to_string()))?
                    {
                        ours.push(event);
                    }
                }
                let number = u32::try_from(at.block_number()).unwrap_or(u32::MAX);
                let block = BlockRef { number, hash: included.block_hash().0 };
                return Ok(Included { block, events: ours });
            }
            TransactionStatus::Error { message }
            | TransactionStatus::Invalid { message }
            | TransactionStatus::Dropped { message } => return Err(SubmitError::Dropped(message)),
            _ => {}
        }
    }
    Err(SubmitError::Transport("the node stopped reporting".to_owned()))
}

/// The pallet's error by name, with what its documentation says.
fn dispatch_error(bytes: &[u8], metadata: subxt::ArcMetadata) -> SubmitError {
    let rejected = |pallet: &str, error: String, docs: String| SubmitError::Rejected {
        pallet: pallet.to_owned(),
        error,
        docs,
    };
    match DispatchError::decode_from(bytes, metadata) {
        Ok(DispatchError::Module(module)) => match module.details() {
            Ok(details) => rejected(
                details.pallet.name(),
                details.variant.name.clone(),
                details.variant.docs.join(" ").trim().to_owned(),
            ),
            Err(error) => rejected("Unknown", format!("{:?}", module), error.to_string()),
        },
        Ok(other) => rejected("Runtime", format!("{other:?}"), String::new()),
        Err(error) => rejected("Unknown", "Undecodable".to_owned(), error.to_string()),
    }
}
