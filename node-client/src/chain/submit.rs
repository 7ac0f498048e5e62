//! Signs and submits extrinsics to a node, through the [`door`]; the result has a name.

use std::{
    sync::{
        atomic::{AtomicU32, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::Duration,
};

use async_trait::async_trait;
use subxt::{
    client::OnlineClientAtBlockImpl,
    config::DefaultExtrinsicParamsBuilder,
    error::DispatchError,
    extrinsics::ExtrinsicEvents,
    transactions::{SubmittableTransaction, TransactionProgress, TransactionStatus},
    utils::{AccountId32, H256},
    PolkadotConfig,
};

use super::{
    door::{self, Pool, Trace},
    subxt::{call_bytes, gauntlet_event, reason, AtBlock, Connection, SubxtChain},
    BlockRef, Call, Chain, Included, Keypair, SubmitError,
};
use crate::keys;

/// Blocks for which an extrinsic is valid.
const MORTALITY_BLOCKS: u64 = 64;
/// How long a call may take to be in a finalised block, with all attempts.
const FINALITY_TIMEOUT: Duration = Duration::from_secs(120);

/// The errors for which a node refuses work that it sees too early: its pool looks at a block behind the head that this
/// client saw, the more so the more transactions the pool is given.
const EARLY: [&str; 10] = [
    "ChallengeNotDrawn",
    "MinerUnknown",
    "NotCommitted",
    "NotYetActive",
    "RunNotStarted",
    "RunUnknown",
    "ValidatorUnknown",
    "WindowNotOpen",
    "WrongPhase",
    "WrongWindow",
];
/// How often a node may refuse a call as too early before it is believed; with the pause between, some seconds.
const EARLY_REFUSALS_MAX: u32 = 20;

/// What a node says before the index of the pallet's error when it refuses a window's work.
const REFUSED_WORK: &str = "Custom error: ";

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
        let slot = self.shared.nonces.lock().await.entry(account).or_default().clone();
        let (account, used) = (AccountId32(account), Mutex::default());
        let patience = AtomicU32::new(EARLY_REFUSALS_MAX);
        let node = NodePool { chain: self, signer, account, call, used, patience };
        door::submit(&node, &slot, FINALITY_TIMEOUT).await
    }
}

/// The chain's node, for one call of one signer.
struct NodePool<'a> {
    chain: &'a SubxtChain,
    signer: &'a Keypair,
    account: AccountId32,
    call: Call,
    /// The connection that was used last: if it broke, it and no later one is to be replaced.
    used: Mutex<Option<Arc<Connection>>>,
    /// How often the node may still refuse the call for what a later block heals.
    patience: AtomicU32,
}

/// An extrinsic, and how far the finalised chain has been looked through for it.
struct Signed {
    extrinsic: SubmittableTransaction<PolkadotConfig, OnlineClientAtBlockImpl<PolkadotConfig>>,
    nonce: u64,
    /// The block from which on it is valid.
    birth: u64,
    /// The last block that has been looked at.
    seen: u64,
    /// What names the chain's errors.
    metadata: subxt::ArcMetadata,
}

type Progress = TransactionProgress<PolkadotConfig, OnlineClientAtBlockImpl<PolkadotConfig>>;

impl NodePool<'_> {
    async fn connection(&self) -> Arc<Connection> {
        let connection = self.chain.connection().await;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        connection
    }

    /// Whether the node may refuse the call once more; it has then.
    fn has_patience(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.patience.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// The chain at a block of the best chain.
    async fn at(&self, number: u64) -> Result<AtBlock, SubmitError> {
        let failed = |error| SubmitError::Transport(format!("{error}"));
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let hash = self.chain.block_hash(number).await.map_err(failed)?;
        let hash = hash.ok_or_else(|| SubmitError::Transport(format!("no block {number}")))?;
        self.connection().await.at(Some(hash)).await.map_err(failed)
    }
}

#[async_trait]
impl Pool for NodePool<'_> {
    type Signed = Signed;
    type Progress = Progress;

    async fn next_nonce(&self) -> Result<u64, SubmitError> {
        let connection = self.connection().await;
        connection.next_nonce(&self.account).await.map_err(SubmitError::Transport)
    }

    async fn sign(&self, nonce: u64) -> Result<Signed, SubmitError> {
        let connection = self.connection().await;
        let at = connection.client.at_current_block().await.map_err(broken)?;
        let birth = at.block_number();
        let unknown = |error: &str, docs| SubmitError::Rejected {
            pallet: "Client".to_owned(),
            error: error.to_owned(),
            docs,
        };
        let bytes = call_bytes(&at, &self.call).map_err(|docs| unknown("CallUnknown", docs))?;
        let mut transactions = at.transactions();
        let payload = transactions
            .from_call_data_bytes(&bytes)
            .map_err(|error| unknown("CallMismatch", reason(&error)))?;
        let params = DefaultExtrinsicParamsBuilder::<PolkadotConfig>::new()
            .nonce(nonce)
            .mortal(MORTALITY_BLOCKS)
            .build();
        let signed = transactions.create_signed(&payload, self.signer, params).await;
        let (extrinsic, metadata) = (signed.map_err(broken)?, at.metadata());
        Ok(Signed { extrinsic, nonce, birth, seen: birth, metadata })
    }

    async fn hand_over(&self, signed: &Signed) -> Result<Progress, SubmitError> {
        let handed = signed.extrinsic.submit_and_watch().await;
        handed.map_err(|error| match refused(&error, &signed.metadata) {
            refused @ SubmitError::Rejected { .. } if is_early(&refused) && self.has_patience() => {
                SubmitError::Dropped(refused.to_string())
            }
            refused => refused,
        })
    }

    async fn watch(&self, progress: Progress) -> Result<Included, SubmitError> {
        watch(progress).await
    }

    async fn trace(&self, signed: &mut Signed) -> Result<Trace, SubmitError> {
        let head = self.chain.finalized_head().await;
        let head = head.map_err(|error| SubmitError::Transport(error.to_string()))?;
        let head = u64::from(head.number);
        // Later than this no block can have it.
        let end = head.min(signed.birth + MORTALITY_BLOCKS);
        while signed.seen < end {
            let at = self.at(signed.seen + 1).await?;
            if let Some(outcome) = find(&at, signed.extrinsic.hash()).await? {
                return Ok(Trace::Found(outcome));
            }
            signed.seen += 1;
        }
        if head >= signed.birth + MORTALITY_BLOCKS {
            return Ok(Trace::Gone);
        }
        let used = self.at(head).await?.transactions().account_nonce(&self.account).await;
        Ok(match used.map_err(broken)? > signed.nonce {
            true => Trace::Gone,
            false => Trace::Open,
        })
    }

    async fn reconnect(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(connection) = used else {
            return;
        };
        if let Err(error) = self.chain.reconnect(&connection).await {
            tracing::debug!(%error, "the chain does not answer");
        }
    }
}

/// What came of an extrinsic in a block, if it is there.
async fn find(
    at: &AtBlock,
    hash: H256,
) -> Result<Option<Result<Included, SubmitError>>, SubmitError> {
    let extrinsics = at.extrinsics().fetch().await.map_err(broken)?;
    for extrinsic in extrinsics.iter() {
        let extrinsic = extrinsic.map_err(broken)?;
        if extrinsic.hash() == hash {
            let events = extrinsic.events().await.map_err(broken)?;
            return Ok(Some(outcome(&events, at)));
        }
    }
    Ok(None)
}

/// The pallet's error for which a node refuses a window's work, if that is the reason: the chain gives its index.
fn refused_work(reason: &str, metadata: &subxt::Metadata) -> Option<SubmitError> {
    let (_, code) = reason.split_once(REFUSED_WORK)?;
    let digits = code.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(code.len());
    let index = code.get(..digits)?.parse().ok()?;
    let error = metadata.pallet_by_name("Gauntlet")?.error_variant_by_index(index)?;
    Some(SubmitError::Rejected {
        pallet: "Gauntlet".to_owned(),
        error: error.name.clone(),
        docs: error.docs.join(" ").trim().to_owned(),
    })
}

/// Whether a refusal may only mean that the node's pool is behind.
fn is_early(refused: &SubmitError) -> bool {
    matches!(refused, SubmitError::Rejected { pallet, error, .. }
        if pallet == "Gauntlet" && EARLY.contains(&error.as_str()))
}

/// A node that does not take an extrinsic: for its nonce or a full pool, which pass, or for good.
fn refused(error: &(dyn std::error::Error + 'static), metadata: &subxt::Metadata) -> SubmitError {
    let text = reason(error);
    if let Some(refused) = refused_work(&text, metadata) {
        return refused;
    }
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
        "1012",
        "1013",
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
                return outcome(&events, &included.at().await.map_err(broken)?);
            }
            TransactionStatus::Error { message }
            | TransactionStatus::Invalid { message }
            | TransactionStatus::Dropped { message } => return Err(SubmitError::Dropped(message)),
            _ => {}
        }
    }
    Err(SubmitError::Transport("the node stopped reporting".to_owned()))
}

/// Whether an extrinsic of a block succeeded, by its events.
fn outcome(
    events: &ExtrinsicEvents<PolkadotConfig>,
    at: &AtBlock,
) -> Result<Included, SubmitError> {
    let mut ours = Vec::new();
    for event in events.iter() {
        let event = event.map_err(broken)?;
        if event.pallet_name() == "System" && event.event_name() == "ExtrinsicFailed" {
            return Err(dispatch_error(event.field_bytes(), at.metadata()));
        }
        let decoded = gauntlet_event(event.pallet_name(), event.event_index(), event.field_bytes());
        ours.extend(decoded.map_err(|error| SubmitError::Transport(error.to_string()))?);
    }
    let number = u32::try_from(at.block_number()).unwrap_or(u32::MAX);
    let block = BlockRef { number, hash: at.block_hash().0 };
    Ok(Included { block, events: ours })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_work_has_the_pallets_name_and_advice() {
        let bytes = include_bytes!("../../artifacts/metadata.scale");
        let metadata = subxt::Metadata::decode_from(&bytes[..]).unwrap();
        let errors = metadata.pallet_by_name("Gauntlet").unwrap();
        let index = (0..=u8::MAX)
            .find(|index| {
                errors
                    .error_variant_by_index(*index)
                    .is_some_and(|error| error.name == "WrongPhase")
            })
            .unwrap();
        let said = format!("Invalid Transaction (1010), \"Custom error: {index}\"");
        let Some(SubmitError::Rejected { pallet, error, docs }) = refused_work(&said, &metadata)
        else {
            panic!("the node's words are not understood");
        };
        assert_eq!((pallet.as_str(), error.as_str()), ("Gauntlet", "WrongPhase"));
        assert!(docs.contains("phase"), "{docs}");
        for name in EARLY {
            let is_known = (0..=u8::MAX)
                .filter_map(|index| errors.error_variant_by_index(index))
                .any(|error| error.name == name);
            assert!(is_known, "{name}");
        }
        for other in ["Invalid Transaction (1010)", "Custom error: ", "Custom error: 255"] {
            assert!(refused_work(other, &metadata).is_none(), "{other}");
        }
    }
}
