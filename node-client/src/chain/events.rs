//! Defines the pallet's events as plain records. The order of variants and fields is the pallet's, so that they are read
//! from the chain's bytes as they are; the metadata test of `runtime-tests` fails when the pallet's shape changes.

use codec::{Decode, Encode};
use protocol::{
    emission::Pots,
    entry::Seat,
    fault::{ProvenFault, Verdict},
    fixed::Q32,
    AccountBytes, BlockNumber, Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};

use super::Offender;

/// Why a window is void, in the pallet's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum VoidReason {
    /// A miner or validator was counted twice.
    Duplicate,
    /// The ratings could not be moved.
    Rating,
    /// A number left its range.
    Overflow,
    /// Shares were negative or summed to more than one.
    Shares,
    /// The parts of the emission exceed the whole.
    EmissionParts,
    /// The chain was too busy to settle it in time.
    TooLate,
}

/// Events of this index and above are of a later runtime.
pub(super) const FIRST_UNREAD_EVENT: u8 = 64;

/// An event of the pallet.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[allow(missing_docs, reason = "the fields are those of the pallet's events")]
pub enum GauntletEvent {
    RunCreated {
        run: RunId,
        owner: AccountBytes,
    },
    MinerRegistered {
        run: RunId,
        uid: Uid,
        hot: AccountBytes,
        cold: AccountBytes,
        price: Planck,
    },
    MinerLeft {
        run: RunId,
        uid: Uid,
        registered_window: Window,
        due: Option<Window>,
    },
    ValidatorRegistered {
        run: RunId,
        index: ValidatorIndex,
        hot: AccountBytes,
        cold: AccountBytes,
        stake: Planck,
    },
    StakeAdded {
        run: RunId,
        index: ValidatorIndex,
        stake: Planck,
    },
    ValidatorLeft {
        run: RunId,
        index: ValidatorIndex,
    },
    Announced {
        run: RunId,
        hot: AccountBytes,
    },
    WindowOpened {
        run: RunId,
        window: Window,
        seed: Hash,
    },
    UpdateCommitted {
        run: RunId,
        window: Window,
        uid: Uid,
        hash: Hash,
    },
    UpdateRevealed {
        run: RunId,
        window: Window,
        uid: Uid,
        payload_root: Hash,
        byte_len: u64,
    },
    CopyRefused {
        run: RunId,
        window: Window,
        uid: Uid,
        original: Uid,
    },
    Attested {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        state_root: Hash,
    },
    WindowAccepted {
        run: RunId,
        window: Window,
        state_root: Option<Hash>,
        accepted: Vec<Uid>,
    },
    ScoresCommitted {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        hash: Hash,
    },
    ScoresRevealed {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        count: u32,
    },
    MinerScored {
        run: RunId,
        window: Window,
        uid: Uid,
        own: Option<Q32>,
        random: Option<Q32>,
        standing_value: Q32,
        share: Q32,
        paid: Planck,
    },
    ValidatorPaid {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        agreement: Q32,
        paid: Planck,
    },
    WindowSettled {
        run: RunId,
        window: Window,
        minted: Planck,
        funded: Planck,
        paid: Pots,
        carried: Pots,
    },
    WindowVoid {
        run: RunId,
        window: Window,
        error: VoidReason,
        minted: Planck,
        funded: Planck,
    },
    Claimed {
        run: RunId,
        account: AccountBytes,
        amount: Planck,
    },
    SettingsScheduled {
        run: RunId,
        window: Window,
    },
    SettingsApplied {
        run: RunId,
        window: Window,
    },
    MinerLeaving {
        run: RunId,
        uid: Uid,
        last_window: Window,
    },
    MinerDisplaced {
        run: RunId,
        uid: Uid,
        value: Q32,
    },
    MinerEvicted {
        run: RunId,
        uid: Uid,
    },
    BondReturned {
        run: RunId,
        uid: Uid,
        cold: AccountBytes,
        amount: Planck,
    },
    HotKeyRotating {
        run: RunId,
        seat: Seat,
        hot: AccountBytes,
        window: Window,
    },
    HotKeyRotated {
        run: RunId,
        seat: Seat,
        hot: AccountBytes,
    },
    ColdOffered {
        run: RunId,
        seat: Seat,
        to: AccountBytes,
        window: Window,
    },
    ColdOfferCancelled {
        run: RunId,
        seat: Seat,
    },
    ColdHandedOver {
        run: RunId,
        seat: Seat,
        cold: AccountBytes,
    },
    #[codec(index = 31)]
    SettingsCancelled {
        run: RunId,
    },
    #[codec(index = 32)]
    RunPauseAnnounced {
        run: RunId,
        window: Window,
    },
    #[codec(index = 33)]
    RunPaused {
        run: RunId,
        window: Window,
    },
    #[codec(index = 34)]
    RunResumed {
        run: RunId,
    },
    #[codec(index = 35)]
    RunClosing {
        run: RunId,
        last_window: Window,
    },
    #[codec(index = 36)]
    RunClosed {
        run: RunId,
    },
    #[codec(index = 37)]
    RunReaped {
        run: RunId,
    },
    #[codec(index = 38)]
    RunOffered {
        run: RunId,
        to: AccountBytes,
        window: Window,
    },
    #[codec(index = 39)]
    RunOfferWithdrawn {
        run: RunId,
    },
    #[codec(index = 40)]
    RunHandedOver {
        run: RunId,
        owner: AccountBytes,
    },
    #[codec(index = 41)]
    AttestationCommitted {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        hash: Hash,
    },
    #[codec(index = 45)]
    RunWeightSet {
        run: RunId,
        weight: u16,
    },
    #[codec(index = 46)]
    RunFunded {
        run: RunId,
        sponsor: AccountBytes,
        amount: Planck,
        per_window: Planck,
    },
    #[codec(index = 47)]
    RunSwept {
        run: RunId,
        refunded: Planck,
        given_back: Planck,
    },
    #[codec(index = 50)]
    ValidatorDisplaced {
        run: RunId,
        index: ValidatorIndex,
    },
    #[codec(index = 51)]
    Delegated {
        run: RunId,
        pool: u32,
        who: AccountBytes,
        amount: Planck,
        shares: u128,
    },
    #[codec(index = 52)]
    Unbonding {
        run: RunId,
        pool: u32,
        who: AccountBytes,
        amount: Planck,
        due: Window,
    },
    #[codec(index = 53)]
    Withdrawn {
        run: RunId,
        pool: u32,
        who: AccountBytes,
        amount: Planck,
    },
    #[codec(index = 54)]
    TakeSet {
        run: RunId,
        pool: u32,
        ppm: u32,
        window: Window,
    },
    #[codec(index = 55)]
    Compounded {
        run: RunId,
        pool: u32,
        amount: Planck,
    },
    #[codec(index = 56)]
    SlashDeferred {
        run: RunId,
        slash: u32,
        offender: Offender,
        amount: Planck,
        window: Window,
    },
    #[codec(index = 57)]
    SlashCancelled {
        run: RunId,
        slash: u32,
    },
    #[codec(index = 58)]
    Slashed {
        run: RunId,
        slash: u32,
        offender: Offender,
        amount: Planck,
        reporter: Option<AccountBytes>,
    },
    #[codec(index = 59)]
    FaultProven {
        run: RunId,
        window: Window,
        uid: Uid,
        fault: ProvenFault,
        reporter: AccountBytes,
    },
    #[codec(index = 60)]
    DataChallenged {
        run: RunId,
        window: Window,
        uid: Uid,
        index: u32,
        challenger: AccountBytes,
        deadline: BlockNumber,
    },
    #[codec(index = 61)]
    DataAnswered {
        run: RunId,
        window: Window,
        uid: Uid,
        index: u32,
    },
    #[codec(index = 62)]
    EvaluationDisputed {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        uid: Uid,
        challenger: AccountBytes,
    },
    #[codec(index = 63)]
    DisputeClosed {
        run: RunId,
        window: Window,
        index: ValidatorIndex,
        uid: Uid,
        verdict: Verdict,
    },
}
