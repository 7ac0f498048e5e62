//! Admits the calls of a window's work to blocks: free of fees, once, and before everything else.
//!
//! [`CheckWindowWork`] stands in the runtime's transaction extensions in the place of the one that charges fees, and
//! wraps it. Of a call that is no work it only limits the priority; the wrapped extension charges. A call of a window's
//! work ([`work_of`]) by a hot key that takes part with at least [`Config::FreeWorkMin`] at stake is **rehearsed**: it is
//! dispatched, and what it did is undone. If it fails, the transaction is invalid, before the pool and before a block,
//! with the index of the pallet's error as [`InvalidTransaction::Custom`]. If it succeeds, the transaction is free.
//!
//! # Properties
//!
//! - What is free cannot fail: between the rehearsal in a block and the dispatch nothing happens. So no failing call can
//!   be repeated for nothing, and each call succeeds once for a key, window and kind.
//! - A free transaction has a priority above every tip, and a tag of what it does and by which key, so that a pool holds
//!   one of each. It lives until its phase is over.
//! - A hot key needs no money: it is charged nothing, and its account exists as long as it takes part.
//! - The dispatch class of work is [`Operational`](frame_support::dispatch::DispatchClass::Operational), of which the
//!   runtime reserves and limits the weight; the bytes of work in a block are at most [`Config::WorkBytesMax`]. Neither
//!   ordinary transactions nor work can fill what is left to the other.

use core::{fmt, marker::PhantomData};

use alloc::{vec, vec::Vec};
use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::{
    dispatch::{DispatchInfo, GetDispatchInfo, PostDispatchInfo},
    storage::with_transaction,
    traits::{Get, IsSubType, PalletInfoAccess},
    weights::Weight,
};
use frame_system::RawOrigin;
use protocol::{
    window::{Phase, Schedule, ScorePhase},
    BlockNumber, Planck, RunId, Window,
};
use scale_info::{StaticTypeInfo, Type, TypeInfo};
use sp_runtime::{
    traits::{
        AsSystemOriginSigner, DispatchInfoOf, DispatchOriginOf, Dispatchable, Implication,
        PostDispatchInfoOf, TransactionExtension, TransactionExtensionMetadata, ValidateResult,
    },
    transaction_validity::{
        InvalidTransaction, TransactionPriority, TransactionSource, TransactionValidityError,
        ValidTransaction,
    },
    DispatchError, DispatchResult, TransactionOutcome,
};

use crate::{
    Announcements, Call, Config, MinerUids, Miners, Pallet, Runs, ValidatorIndices, Validators,
    WorkBytes,
};

/// The priority of free work; that of everything else is at most [`ORDINARY_PRIORITY_MAX`].
pub const WORK_PRIORITY: TransactionPriority = TransactionPriority::MAX;
/// The highest priority that a tip can buy.
pub const ORDINARY_PRIORITY_MAX: TransactionPriority = TransactionPriority::MAX / 2;
/// Blocks after an announcement in which another one of the same key is not free.
pub const FREE_ANNOUNCEMENT_BLOCKS: BlockNumber = 20;
/// Blocks for which a pool keeps work that has no phase.
const LONGEVITY_BLOCKS: BlockNumber = 64;
/// Separates the tags of work in the pool from those of other extensions.
const TAG: &[u8] = b"gauntlet/work";

/// What a hot key does; one of each is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode)]
pub enum WorkKind {
    /// `commit_update`.
    CommitUpdate,
    /// `reveal_update`.
    RevealUpdate,
    /// `attest`.
    Attest,
    /// `commit_scores`.
    CommitScores,
    /// `reveal_scores`.
    RevealScores,
    /// `answer_data`, also by a key that takes part no more.
    AnswerData,
    /// `commit_verdict`.
    CommitVerdict,
    /// `reveal_verdict`.
    RevealVerdict,
    /// `report_copy` and `report_malformed`, free for who takes part.
    Report,
    /// `announce`, which belongs to no window and is free once in [`FREE_ANNOUNCEMENT_BLOCKS`].
    Announce,
}

impl WorkKind {
    /// Whether somebody is at fault if it is late.
    fn is_due(self) -> bool {
        !matches!(self, WorkKind::Report | WorkKind::Announce)
    }
}

/// A call as work.
#[derive(Clone, PartialEq, Eq, Debug, Encode)]
pub struct Work {
    /// The run.
    pub run: RunId,
    /// The window whose work it is; 0 for what belongs to none.
    pub window: Window,
    /// What is done.
    pub kind: WorkKind,
    /// What the call names beside run and window, in SCALE.
    pub subject: Vec<u8>,
}

/// What a call does for a window; `None` for all calls that are no work.
pub fn work_of<T: Config>(call: &Call<T>) -> Option<Work> {
    let none = Vec::new;
    let (run, window, kind, subject) = match call {
        Call::commit_update { run, window, .. } => (run, *window, WorkKind::CommitUpdate, none()),
        Call::reveal_update { run, window, .. } => (run, *window, WorkKind::RevealUpdate, none()),
        Call::attest { run, window, .. } => (run, *window, WorkKind::Attest, none()),
        Call::commit_scores { run, window, .. } => (run, *window, WorkKind::CommitScores, none()),
        Call::reveal_scores { run, window, .. } => (run, *window, WorkKind::RevealScores, none()),
        Call::answer_data { run, commitment, index, .. } => {
            (run, 0, WorkKind::AnswerData, (commitment, index).encode())
        }
        Call::commit_verdict { run, evaluation, .. } => {
            (run, 0, WorkKind::CommitVerdict, evaluation.encode())
        }
        Call::reveal_verdict { run, evaluation, .. } => {
            (run, 0, WorkKind::RevealVerdict, evaluation.encode())
        }
        Call::report_copy { run, commitments, .. } => {
            (run, 0, WorkKind::Report, commitments.encode())
        }
        Call::report_malformed { run, commitment, .. } => {
            (run, 0, WorkKind::Report, commitment.encode())
        }
        Call::announce { run, .. } => (run, 0, WorkKind::Announce, none()),
        _ => return None,
    };
    Some(Work { run: *run, window, kind, subject })
}

impl<T: Config> Call<T> {
    /// Whether the call is of a window's work, or an answer that is due by a block: signed by a hot key, and moving no money
    /// of its signer's will. A runtime that stops other calls for a while lets these pass, so that nobody's training is
    /// lost and nobody is at fault.
    pub fn is_window_work(&self) -> bool {
        work_of(self).is_some_and(|work| work.kind.is_due())
    }
}

impl Work {
    /// The first block in which a window's work is too late; `None` for everything else.
    fn deadline(&self, schedule: &Schedule) -> Option<BlockNumber> {
        match self.kind {
            WorkKind::CommitUpdate => schedule.phase_end_block(self.window, Phase::Commit),
            WorkKind::RevealUpdate => schedule.phase_end_block(self.window, Phase::Reveal),
            WorkKind::Attest => schedule.phase_end_block(self.window, Phase::Attest),
            WorkKind::CommitScores => {
                schedule.score_phase_end_block(self.window, ScorePhase::Commit)
            }
            WorkKind::RevealScores => {
                schedule.score_phase_end_block(self.window, ScorePhase::Reveal)
            }
            _ => None,
        }
    }
}

impl<T: Config> Pallet<T> {
    /// What a hot key has at stake in a run, in planck; `None` if it does not take part.
    fn key_stake(run: RunId, hot: &T::AccountId) -> Option<Planck> {
        let bond = || Some(Miners::<T>::get(run, MinerUids::<T>::get(run, hot)?)?.bond);
        let stake =
            || Some(Validators::<T>::get(run, ValidatorIndices::<T>::get(run, hot)?)?.stake);
        bond().or_else(stake)
    }

    /// Whether `work` by `hot` is free if it succeeds. What is due is never ordinary for who takes no part: its rehearsal
    /// says why it is refused.
    fn is_free(work: &Work, hot: &T::AccountId) -> bool {
        let stake = Self::key_stake(work.run, hot);
        let is_enough = |stake: Planck| stake >= T::FreeWorkMin::get();
        match work.kind {
            WorkKind::Report => stake.is_some_and(is_enough),
            WorkKind::Announce => {
                let last = Announcements::<T>::get(work.run, hot);
                let due =
                    last.map_or(0, |last| last.block.saturating_add(FREE_ANNOUNCEMENT_BLOCKS));
                Self::now() >= due && stake.is_none_or(is_enough)
            }
            _ => stake.is_none_or(is_enough),
        }
    }

    /// The validity of free work in the next block.
    fn work_validity(work: Work, hot: &T::AccountId) -> ValidTransaction {
        let schedule = Runs::<T>::get(work.run).map(|run| run.schedule);
        let deadline = schedule
            .and_then(|schedule| work.deadline(&schedule))
            .unwrap_or(Self::now().saturating_add(LONGEVITY_BLOCKS));
        ValidTransaction {
            priority: WORK_PRIORITY,
            requires: vec![],
            provides: vec![(TAG, work, hot).encode()],
            longevity: u64::from(deadline.saturating_sub(Self::now()).max(1)),
            propagate: true,
        }
    }

    /// Counts the bytes of free work in this block.
    fn count_work_bytes(len: usize) -> Result<(), TransactionValidityError> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let bytes = WorkBytes::<T>::get().saturating_add(len);
        if bytes > T::WorkBytesMax::get() {
            return Err(InvalidTransaction::ExhaustsResources.into());
        }
        WorkBytes::<T>::put(bytes);
        Ok(())
    }
}

/// Admits a window's work, and leaves every other call to the extension `S` that charges fees.
///
/// It is encoded as `S` and looks like it in the metadata, so that no client has to know of it.
#[derive(Encode, Decode, DecodeWithMemTracking, Clone, Eq, PartialEq)]
pub struct CheckWindowWork<T, S>(pub S, PhantomData<T>);

impl<T, S> CheckWindowWork<T, S> {
    /// Wraps the extension that charges fees.
    pub fn new(paid: S) -> Self {
        Self(paid, PhantomData)
    }
}

impl<T, S: fmt::Debug> fmt::Debug for CheckWindowWork<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckWindowWork").field(&self.0).finish()
    }
}

impl<T, S: StaticTypeInfo> TypeInfo for CheckWindowWork<T, S> {
    type Identity = S;

    fn type_info() -> Type {
        S::type_info()
    }
}

/// What was decided of a transaction: it is free, or the wrapped extension charges for it.
pub enum Admission<F, P> {
    /// Free work.
    Free(F),
    /// Anything else.
    Paid(P),
}

impl<T, S> CheckWindowWork<T, S>
where
    T: Config,
    T::RuntimeCall:
        Dispatchable<Info = DispatchInfo, PostInfo = PostDispatchInfo> + IsSubType<Call<T>>,
{
    /// The validity of a call of a window's work that is free; `None` for every other call.
    ///
    /// # Errors
    /// The work cannot be done in this block, with the pallet's reason.
    fn admit(
        hot: &T::AccountId,
        call: &T::RuntimeCall,
    ) -> Result<Option<ValidTransaction>, TransactionValidityError> {
        let Some(work) = call.is_sub_type().and_then(work_of) else {
            return Ok(None);
        };
        if !Pallet::<T>::is_free(&work, hot) {
            return Ok(None);
        }
        Self::rehearse(hot, call)?;
        Ok(Some(Pallet::<T>::work_validity(work, hot)))
    }

    /// Dispatches the call and undoes what it did.
    fn rehearse(hot: &T::AccountId, call: &T::RuntimeCall) -> Result<(), InvalidTransaction> {
        let result = with_transaction(|| {
            let origin = RawOrigin::Signed(hot.clone()).into();
            let result = call.clone().dispatch(origin);
            TransactionOutcome::Rollback(result.map(|_| ()).map_err(|error| error.error))
        });
        result.map_err(refusal::<T>)
    }
}

/// The pallet's error by its index, which the metadata names; everything else is a call that is not allowed.
fn refusal<T: Config>(error: DispatchError) -> InvalidTransaction {
    match error {
        DispatchError::Module(module)
            if usize::from(module.index) == <Pallet<T> as PalletInfoAccess>::index() =>
        {
            let [index, ..] = module.error;
            InvalidTransaction::Custom(index)
        }
        _ => InvalidTransaction::Call,
    }
}

impl<T, S> TransactionExtension<T::RuntimeCall> for CheckWindowWork<T, S>
where
    T: Config + Send + Sync + Clone + Eq,
    S: TransactionExtension<T::RuntimeCall>,
    T::RuntimeCall:
        Dispatchable<Info = DispatchInfo, PostInfo = PostDispatchInfo> + IsSubType<Call<T>>,
    DispatchOriginOf<T::RuntimeCall>: AsSystemOriginSigner<T::AccountId>,
{
    const IDENTIFIER: &'static str = S::IDENTIFIER;
    type Implicit = S::Implicit;
    type Val = Admission<(), S::Val>;
    /// Of free work the weight that the wrapped extension did not need.
    type Pre = Admission<Weight, S::Pre>;

    fn metadata() -> Vec<TransactionExtensionMetadata> {
        S::metadata()
    }

    fn implicit(&self) -> Result<Self::Implicit, TransactionValidityError> {
        self.0.implicit()
    }

    fn weight(&self, call: &T::RuntimeCall) -> Weight {
        let is_work = call.is_sub_type().and_then(work_of).is_some();
        // The rehearsal costs what the call does.
        let rehearsal = if is_work { call.get_dispatch_info().call_weight } else { Weight::zero() };
        self.0.weight(call).saturating_add(rehearsal)
    }

    fn validate(
        &self,
        origin: DispatchOriginOf<T::RuntimeCall>,
        call: &T::RuntimeCall,
        info: &DispatchInfoOf<T::RuntimeCall>,
        len: usize,
        self_implicit: Self::Implicit,
        inherited_implication: &impl Implication,
        source: TransactionSource,
    ) -> ValidateResult<Self::Val, T::RuntimeCall> {
        let admitted = match origin.as_system_origin_signer() {
            Some(signer) => Self::admit(signer, call)?,
            None => None,
        };
        if let Some(validity) = admitted {
            return Ok((validity, Admission::Free(()), origin));
        }
        let (mut validity, val, origin) = self.0.validate(
            origin,
            call,
            info,
            len,
            self_implicit,
            inherited_implication,
            source,
        )?;
        validity.priority = validity.priority.min(ORDINARY_PRIORITY_MAX);
        Ok((validity, Admission::Paid(val), origin))
    }

    fn prepare(
        self,
        val: Self::Val,
        origin: &DispatchOriginOf<T::RuntimeCall>,
        call: &T::RuntimeCall,
        info: &DispatchInfoOf<T::RuntimeCall>,
        len: usize,
    ) -> Result<Self::Pre, TransactionValidityError> {
        match val {
            Admission::Free(()) => {
                Pallet::<T>::count_work_bytes(len)?;
                Ok(Admission::Free(self.0.weight(call)))
            }
            Admission::Paid(val) => {
                self.0.prepare(val, origin, call, info, len).map(Admission::Paid)
            }
        }
    }

    fn post_dispatch_details(
        pre: Self::Pre,
        info: &DispatchInfoOf<T::RuntimeCall>,
        post_info: &PostDispatchInfoOf<T::RuntimeCall>,
        len: usize,
        result: &DispatchResult,
    ) -> Result<Weight, TransactionValidityError> {
        match pre {
            Admission::Free(unspent) => {
                if result.is_err() {
                    frame_support::defensive!("work that was rehearsed fails");
                }
                Ok(unspent)
            }
            Admission::Paid(pre) => S::post_dispatch_details(pre, info, post_info, len, result),
        }
    }
}
