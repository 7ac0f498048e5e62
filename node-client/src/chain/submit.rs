//! Signs and submits extrinsics to a node, through the [`door`]; the result has a name.

use std::{
    future::Future,
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering},
        Arc, Mutex, PoisonError,
    },
    time::Duration,
};

use async_trait::async_trait;
use protocol::merkle::blake2_256;
use subxt::{
    client::OnlineClientAtBlockImpl,
    config::DefaultExtrinsicParamsBuilder,
    error::{BackendError, DispatchError, ExtrinsicError, RpcError},
    extrinsics::ExtrinsicEvents,
    transactions::{TransactionProgress, TransactionStatus},
    utils::{AccountId32, H256},
    PolkadotConfig,
};

use super::{
    door::{self, Pool, Trace},
    left::until_left,
    signed::{Extrinsic, Signed},
    subxt::{call_bytes, gauntlet_event, reason, AtBlock, Connection, SubxtChain},
    BlockRef, Call, Chain, Included, Keypair, SubmitError,
};
use crate::keys;

/// Blocks for which an extrinsic is valid.
const MORTALITY_BLOCKS: u64 = 64;
/// How long a call may take to be in a finalised block, with all attempts.
const FINALITY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a node may take to answer before other nodes are given the extrinsic, too.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

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

/// Blocks behind the finalised head that are looked through for an extrinsic, at most.
const TRACED_BLOCKS: u64 = 200;

/// Codes of a node's refusals, all of JSON-RPC's `author` methods: the transaction is invalid; it is not known whether it is, it
/// is banned for a while, it is in the pool already, another has its nonce, it depends on itself, the pool is full.
const INVALID: i32 = 1010;
const PASSING: std::ops::RangeInclusive<i32> = 1011..=1016;

/// How the datum of an invalid transaction begins that the chain's own rules refuse; the index of the pallet's error follows.
const REFUSED_WORK: &str = "Custom error: ";
/// The data of invalid transactions that are so for good, as `InvalidTransaction` of `sp-runtime` says them.
const FOR_GOOD: [&str; 2] = [
    "Inability to pay some fees (e.g. account balance too low)",
    "Transaction would exhaust the block limits",
];

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
        let remembered = self.shared.accounts.lock().await.entry(account).or_default().clone();
        let hash = blake2_256(&[format!("{call:?}").as_bytes()]);
        let (account, used) = (AccountId32(account), Mutex::default());
        let patience = AtomicU32::new(EARLY_REFUSALS_MAX);
        let node = NodePool { chain: self, signer, account, call, used, patience };
        door::submit(&node, &remembered, hash, FINALITY_TIMEOUT).await
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

type Progress = TransactionProgress<PolkadotConfig, OnlineClientAtBlockImpl<PolkadotConfig>>;

impl NodePool<'_> {
    async fn connection(&self) -> Arc<Connection> {
        let connection = self.chain.connection().await;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        connection
    }

    /// Waits for what the node says that was asked last, until another one is asked.
    async fn said<T>(
        &self,
        said: impl Future<Output = Result<T, SubmitError>>,
    ) -> Result<T, SubmitError> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match used {
            Some(connection) => until_left(said, self.chain.moved(&connection)).await,
            None => said.await,
        }
    }

    /// Whether the node may refuse the call once more; it has then.
    fn has_patience(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.patience.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// The same bytes for the connection in use, if they were signed over another one.
    async fn over_new_connection(&self, signed: &Signed) -> Result<Option<Extrinsic>, SubmitError> {
        let connection = self.connection().await;
        if connection.generation == signed.generation {
            return Ok(None);
        }
        let at = connection.at(None).await;
        let at = at.map_err(|error| SubmitError::Transport(error.to_string()))?;
        Ok(Some(at.transactions().from_bytes(signed.extrinsic.encoded().to_vec())))
    }

    /// The chain at a block.
    async fn at(&self, block: BlockRef) -> Result<AtBlock, SubmitError> {
        self.connection().await.at(Some(block.hash)).await.map_err(broken)
    }

    /// The final blocks from number `first` to `last`, of which `head` is the newest.
    async fn blocks(
        &self,
        first: u64,
        last: u64,
        head: BlockRef,
    ) -> Result<Vec<BlockRef>, SubmitError> {
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (first, last) = (number(first), number(last));
        if first > last {
            return Ok(Vec::new());
        }
        let last = if last == head.number {
            head
        } else {
            let hash = self.chain.block_hash(last).await.map_err(broken)?;
            let hash = hash.ok_or_else(|| SubmitError::Transport(format!("no block {last}")))?;
            BlockRef { number: last, hash }
        };
        self.chain.back_to(first, last).await.map_err(broken)
    }
}

#[async_trait]
impl Pool for NodePool<'_> {
    type Signed = Signed;
    type Progress = Progress;

    async fn next_nonce(&self) -> Result<u64, SubmitError> {
        let connection = self.connection().await;
        let nonce =
            async { connection.next_nonce(&self.account).await.map_err(SubmitError::Transport) };
        self.said(nonce).await
    }

    /// A light client counts what is in blocks alone.
    fn counts_waiting(&self) -> bool {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.as_ref().is_none_or(|connection| !connection.is_light)
    }

    async fn sign(&self, nonce: u64) -> Result<Signed, SubmitError> {
        let connection = self.connection().await;
        // Not of the finalised head, which may stand still for longer than an extrinsic lives.
        let at = connection.near_best().await?;
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
        let (generation, is_out) = (connection.generation, AtomicBool::new(false));
        Ok(Signed { extrinsic, generation, is_out, nonce, birth, seen: birth, metadata })
    }

    async fn hand_over(&self, signed: &Signed) -> Result<Progress, SubmitError> {
        let again = self.over_new_connection(signed).await?;
        let extrinsic = again.as_ref().unwrap_or(&signed.extrinsic);
        let mut handing = std::pin::pin!(extrinsic.submit_and_watch());
        let quick = tokio::time::timeout(ANSWER_PATIENCE, &mut handing).await.ok();
        // What the node refuses is nothing for the others; what it takes or does not answer to is not to be lost with
        // it.
        if !quick.as_ref().is_some_and(is_refused) {
            signed.is_out.store(true, Ordering::Relaxed);
            self.chain.spread(signed.extrinsic.encoded()).await;
        }
        let handed = match quick {
            Some(handed) => handed,
            None => self.said(async { Ok(handing.await) }).await?,
        };
        handed.map_err(|error| match refused(&Refusal::of(&error), &signed.metadata) {
            refused @ SubmitError::Rejected { .. } if is_early(&refused) && self.has_patience() => {
                SubmitError::Dropped(refused.to_string())
            }
            refused => refused,
        })
    }

    fn is_out(&self, signed: &Signed) -> bool {
        signed.is_out.load(Ordering::Relaxed)
    }

    async fn watch(&self, progress: Progress) -> Result<Included, SubmitError> {
        self.said(watch(progress)).await
    }

    async fn trace(&self, signed: &mut Signed) -> Result<Trace, SubmitError> {
        let newest = self.chain.finalized_head().await.map_err(broken)?;
        let head = u64::from(newest.number);
        // Later than this no block can have it.
        let end = head.min(signed.birth + MORTALITY_BLOCKS);
        // States that old no node need have, nor a light client find the blocks.
        if signed.seen < end && head.saturating_sub(signed.seen) > TRACED_BLOCKS {
            return Ok(Trace::Gone);
        }
        for block in self.blocks(signed.seen + 1, end, newest).await? {
            let at = self.at(block).await?;
            if let Some(outcome) = find(&at, signed.extrinsic.hash()).await? {
                return Ok(Trace::Found(outcome));
            }
            signed.seen += 1;
        }
        if head >= signed.birth + MORTALITY_BLOCKS {
            return Ok(Trace::Gone);
        }
        let used = self.at(newest).await?.transactions().account_nonce(&self.account).await;
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

/// Whether a node answered that it does not take an extrinsic.
fn is_refused<T>(handed: &Result<T, ExtrinsicError>) -> bool {
    handed.as_ref().is_err_and(|error| Refusal::of(error).code.is_some())
}

/// What a node answers that does not take an extrinsic, or why it does not answer.
struct Refusal {
    /// Its code; `None` where no node answered.
    code: Option<i32>,
    /// What the node says beside the code.
    datum: String,
    /// All of it, for people.
    text: String,
}

impl Refusal {
    fn of(error: &ExtrinsicError) -> Self {
        let text = reason(error);
        let user = match error {
            ExtrinsicError::ErrorSubmittingTransaction(BackendError::Rpc(
                RpcError::ClientError(subxt_rpcs::Error::User(user)),
            )) => user,
            _ => return Self { code: None, datum: String::new(), text },
        };
        let datum = user.data.as_ref().map_or("", |data| data.get());
        // A text in JSON; anything else is no word of a transaction pool.
        let datum: String = serde_json::from_str(datum).unwrap_or_default();
        let text = format!("{text}: {datum}");
        Self { code: Some(user.code), datum, text }
    }
}

/// The pallet's error for which a node refuses a window's work, if that is the reason: the chain gives its index.
fn refused_work(datum: &str, metadata: &subxt::Metadata) -> Option<SubmitError> {
    let index = datum.strip_prefix(REFUSED_WORK)?.parse().ok()?;
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
fn refused(refusal: &Refusal, metadata: &subxt::Metadata) -> SubmitError {
    let Refusal { code, datum, text } = refusal;
    match code {
        Some(INVALID) => {
            if let Some(refused) = refused_work(datum, metadata) {
                return refused;
            }
            if FOR_GOOD.contains(&datum.as_str()) {
                return SubmitError::Rejected {
                    pallet: "Transaction".to_owned(),
                    error: "Invalid".to_owned(),
                    docs: datum.clone(),
                };
            }
            // Its nonce, or the block that it begins with is of a branch that went: signed anew it may be taken.
            SubmitError::Dropped(text.clone())
        }
        Some(code) if PASSING.contains(code) => SubmitError::Dropped(text.clone()),
        _ => SubmitError::Transport(text.clone()),
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
        let said = format!("Custom error: {index}");
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
        for other in ["Transaction is outdated", "Custom error: ", "Custom error: 255"] {
            assert!(refused_work(other, &metadata).is_none(), "{other}");
        }
    }

    #[test]
    fn a_refusal_is_known_by_its_code_whatever_its_words() {
        let bytes = include_bytes!("../../artifacts/metadata.scale");
        let metadata = subxt::Metadata::decode_from(&bytes[..]).unwrap();
        let refusal = |code, datum: &str| {
            // Words of other refusals in it.
            let text = "1010 future exhausts priority".to_owned();
            refused(&Refusal { code, datum: datum.to_owned(), text }, &metadata)
        };
        let dropped = [
            refusal(Some(1010), "Transaction is outdated"),
            refusal(Some(1010), "Transaction has a bad signature"),
            refusal(Some(1013), ""),
            refusal(Some(1014), "(0, 1)"),
        ];
        assert!(dropped.iter().all(|error| matches!(error, SubmitError::Dropped(_))));
        for datum in FOR_GOOD {
            let refused = refusal(Some(1010), datum);
            assert!(matches!(refused, SubmitError::Rejected { .. }), "{refused}");
        }
        for code in [None, Some(-32000), Some(429)] {
            assert!(matches!(refusal(code, ""), SubmitError::Transport(_)), "{code:?}");
        }
    }
}
