//! Mirrors the pallet's records as they are stored: fields in the pallet's order. The tests below hold them against the golden
//! encodings of what the pallet stores.

use codec::{Decode, Encode};
use protocol::{
    commitment::Opening,
    consensus::{Evaluation, Standing},
    fixed::Q32,
    layout::Layout,
    pool::{Pool, Take},
    settings::Settings,
    window::Schedule,
    AccountBytes, BlockNumber, Hash, Planck, Uid, ValidatorIndex, Window,
};

use crate::chain::{
    AnnouncementInfo, DataChallengeInfo, DepartureInfo, EvaluationDisputeInfo, EvaluationName,
    JurorInfo, MinerInfo, Offender, RunInfo, SlashInfo, StakePoolInfo, ValidatorInfo, WindowInfo,
    WindowStatus,
};

#[derive(Decode, Encode)]
pub(super) struct Run {
    owner: AccountBytes,
    pub(super) settings_version: u32,
    _schedule: Schedule,
    _created_at: BlockNumber,
    status: RunStatus,
    _chunk_count: u32,
    _payload_bytes_max: u64,
    _salt_mix: Hash,
    _deposit: Planck,
    _foundation: Planck,
    _window: Option<Window>,
    _last_window: Option<Window>,
    _pause_from: Option<Window>,
    _active_window: Window,
    _next_settlement: Window,
    _next_pruning: Window,
}

#[derive(Decode, Encode)]
enum RunStatus {
    Waiting,
    Open,
    Paused { _by_admin: bool },
    Closed,
}

impl Run {
    pub(super) fn is_paused(&self) -> bool {
        matches!(self.status, RunStatus::Paused { .. })
    }

    pub(super) fn into_info(self, settings: Settings, layout: Vec<u64>) -> RunInfo {
        RunInfo { owner: self.owner, settings, layout: Layout(layout) }
    }
}

#[derive(Decode, Encode)]
pub(super) struct Miner {
    hot: AccountBytes,
    cold: AccountBytes,
    bond: Planck,
    registered_window: Window,
    committed_window: Option<Window>,
    last_window: Option<Window>,
    standing: Standing,
    value: Q32,
    share: Q32,
}

impl Miner {
    pub(super) fn into_info(self, uid: Uid) -> MinerInfo {
        let Self {
            hot,
            cold,
            bond,
            registered_window,
            committed_window,
            last_window,
            standing,
            value,
            share,
        } = self;
        MinerInfo {
            uid,
            hot,
            cold,
            bond,
            registered_window,
            committed_window,
            last_window,
            standing,
            value,
            share,
        }
    }
}

#[derive(Decode, Encode)]
pub(super) struct Validator {
    hot: AccountBytes,
    cold: AccountBytes,
    stake: Planck,
    _pool: u32,
    registered_window: Window,
    attested_window: Option<Window>,
    _agreement: Q32,
    _share: Q32,
}

impl Validator {
    pub(super) fn into_info(self, index: ValidatorIndex) -> ValidatorInfo {
        let Self { hot, cold, stake, registered_window, attested_window, .. } = self;
        ValidatorInfo { index, hot, cold, stake, registered_window, attested_window }
    }
}

#[derive(Decode, Encode)]
pub(super) struct Announcement {
    peer_id: Vec<u8>,
    addresses: Vec<Vec<u8>>,
    _block: BlockNumber,
}

impl Announcement {
    pub(super) fn into_info(self, hot: AccountBytes) -> AnnouncementInfo {
        AnnouncementInfo { hot, peer_id: self.peer_id, addresses: self.addresses }
    }
}

#[derive(Decode, Encode)]
pub(super) struct WindowRecord {
    seed: Hash,
    scoring_seed: Hash,
    challenge_seed: Option<Hash>,
    next_seed: Option<Hash>,
    state_root: Option<Hash>,
    accepted: Vec<Uid>,
    unavailable: Vec<u8>,
    status: WindowStatus,
    budget: Planck,
    minted: Planck,
    funded: Planck,
    pub(super) settings_version: u32,
    excused: bool,
}

impl WindowRecord {
    pub(super) fn into_info(self, settings: Settings) -> WindowInfo {
        let Self { seed, scoring_seed, challenge_seed, next_seed, .. } = self;
        let Self { state_root, accepted, unavailable, .. } = self;
        let Self { status, budget, minted, funded, excused, .. } = self;
        WindowInfo {
            seed,
            scoring_seed,
            challenge_seed,
            next_seed,
            state_root,
            accepted,
            unavailable,
            status,
            budget,
            minted,
            funded,
            settings,
            excused,
        }
    }
}

#[derive(Decode, Encode)]
pub(super) struct Commitment {
    pub(super) hash: Hash,
    pub(super) block: BlockNumber,
    pub(super) order: u32,
}

#[derive(Decode, Encode)]
pub(super) struct Reveal {
    pub(super) opening: Opening,
    pub(super) committed_block: BlockNumber,
    pub(super) order: u32,
}

#[derive(Decode, Encode)]
pub(super) struct Attestation {
    pub(super) bitmap: Vec<u8>,
    pub(super) state_root: Hash,
}

#[derive(Decode, Encode)]
pub(super) struct ScoreReveal {
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) salt: Hash,
}

#[derive(Decode, Encode)]
pub(super) struct Departure {
    hot: AccountBytes,
    cold: AccountBytes,
    bond: Planck,
    last: Window,
    due: Window,
}

impl Departure {
    pub(super) fn into_info(self, (uid, registered_window): (Uid, Window)) -> DepartureInfo {
        let Self { hot, cold, bond, last, due } = self;
        DepartureInfo { uid, registered_window, hot, cold, bond, last, due }
    }
}

#[derive(Decode, Encode)]
pub(super) struct DataChallenge {
    index: u32,
    challenger: AccountBytes,
    bond: Planck,
    deadline: BlockNumber,
}

impl DataChallenge {
    pub(super) fn into_info(self, (window, uid): (Window, Uid)) -> DataChallengeInfo {
        let Self { index, challenger, bond, deadline } = self;
        DataChallengeInfo { window, uid, index, challenger, bond, deadline }
    }
}

#[derive(Decode, Encode)]
pub(super) struct EvaluationDispute {
    evaluation: Evaluation,
    pool: u32,
    challenger: AccountBytes,
    bond: Planck,
    opened: Window,
    jury: Vec<JurorInfo>,
}

impl EvaluationDispute {
    pub(super) fn into_info(self, name: EvaluationName) -> EvaluationDisputeInfo {
        let Self { evaluation, pool, challenger, bond, opened, jury } = self;
        EvaluationDisputeInfo { name, evaluation, pool, challenger, bond, opened, jury }
    }
}

#[derive(Decode, Encode)]
pub(super) struct StakePool {
    cold: AccountBytes,
    index: Option<ValidatorIndex>,
    own: Planck,
    delegated: Pool,
    _take: Take,
    _unbonding: Vec<Window>,
}

impl StakePool {
    pub(super) fn into_info(self) -> StakePoolInfo {
        let Self { cold, index, own, delegated, .. } = self;
        StakePoolInfo { cold, index, own, delegated: delegated.amount }
    }
}

#[derive(Decode, Encode)]
pub(super) struct UnappliedSlash {
    offender: Offender,
    window: Window,
    amount: Planck,
    reporter: Option<AccountBytes>,
    due: Window,
}

impl UnappliedSlash {
    pub(super) fn into_info(self, number: u32) -> SlashInfo {
        let Self { offender, window, amount, reporter, due } = self;
        SlashInfo { number, offender, window, amount, reporter, due }
    }
}

#[cfg(test)]
mod tests {
    use codec::DecodeAll;
    use protocol::{emission::Claim, entry::EntryPrice, fault::ProvenFault};

    use super::*;
    use crate::chain::Ledger;

    /// A value of every stored type, as the runtime encodes it: item, key and value.
    const GOLDEN: &str = include_str!("../../../../runtime-tests/tests/it/encodings.txt");

    /// What is encoded again of a value's bytes, read as `T`.
    fn again<T: Decode + Encode>(bytes: &[u8]) -> Result<Vec<u8>, codec::Error> {
        T::decode_all(&mut &*bytes).map(|value| value.encode())
    }

    /// Reads a value of an item as [`super::super::SubxtChain`] does.
    type Read = fn(&[u8]) -> Result<Vec<u8>, codec::Error>;

    /// The items that are read.
    const READ: [(&str, Read); 23] = [
        ("Announcements", again::<Announcement>),
        ("AttestationCommitments", again::<Hash>),
        ("Attestations", again::<Attestation>),
        ("Claims", again::<Vec<Claim>>),
        ("Commitments", again::<Commitment>),
        ("Departures", again::<Departure>),
        ("EntryPrices", again::<EntryPrice>),
        ("EvaluationDisputes", again::<EvaluationDispute>),
        ("Layouts", again::<Vec<u64>>),
        ("Ledgers", again::<Ledger>),
        ("Miners", again::<Miner>),
        ("OpenChallenges", again::<Vec<DataChallenge>>),
        ("Permits", again::<Vec<(ValidatorIndex, u64)>>),
        ("Pools", again::<StakePool>),
        ("ProvenFaults", again::<ProvenFault>),
        ("Reveals", again::<Reveal>),
        ("RunSettings", again::<Settings>),
        ("Runs", again::<Run>),
        ("ScoreCommitments", again::<Hash>),
        ("ScoreReveals", again::<ScoreReveal>),
        ("UnappliedSlashes", again::<UnappliedSlash>),
        ("Validators", again::<Validator>),
        ("Windows", again::<WindowRecord>),
    ];

    /// The golden values: item and bytes.
    fn golden() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        GOLDEN.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [item, _, value] = words[..] else { panic!("no item, key and value: {line}") };
            (item, hex::decode(value).unwrap())
        })
    }

    /// A run's record that had grown was not readable, and a real chain paid nobody.
    #[test]
    fn what_the_runtime_stores_is_what_is_read() {
        for (item, read) in READ {
            let values: Vec<_> = golden().filter(|(of, _)| *of == item).collect();
            assert!(!values.is_empty(), "the runtime stores no {item}");
            for (_, bytes) in values {
                assert_eq!(read(&bytes).as_ref(), Ok(&bytes), "{item}: {}", hex::encode(&bytes));
            }
        }
    }

    /// Every item that the client asks for is among those that are held against the golden values.
    #[test]
    fn every_item_that_is_asked_for_is_tested() {
        let source = include_str!("../subxt.rs");
        // The arguments of `value!` and `rows!`: the item comes after what it is called in an error.
        let calls = source.split("value!(self,").skip(1).chain(source.split("rows!(").skip(1));
        let mut asked = 0;
        for call in calls.filter(|call| call.contains("at,") && !call.starts_with("$")) {
            let name = call.split('"').nth(2).and_then(|rest| rest.split(',').nth(1));
            let name = name.unwrap_or_default().trim().replace('_', "");
            let is_tested = READ.iter().any(|(item, _)| item.to_lowercase() == name);
            assert!(is_tested, "{name} is asked for and not tested");
            asked += 1;
        }
        assert!(asked >= 20, "{asked}");
    }
}
