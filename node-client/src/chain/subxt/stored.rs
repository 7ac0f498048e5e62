//! Mirrors the pallet's records as they are stored: fields in the pallet's order.

use codec::Decode;
use protocol::{
    commitment::Opening,
    consensus::{Evaluation, Standing},
    fixed::Q32,
    layout::Layout,
    settings::Settings,
    window::Schedule,
    AccountBytes, BlockNumber, Hash, Planck, Uid, ValidatorIndex, Window,
};

use crate::chain::{AnnouncementInfo, MinerInfo, RunInfo, ValidatorInfo, WindowInfo, WindowStatus};

#[derive(Decode)]
pub(super) struct Run {
    owner: AccountBytes,
    pub(super) settings_version: u32,
    _schedule: Schedule,
    _created_at: BlockNumber,
    _status: RunStatus,
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

#[derive(Decode)]
enum RunStatus {
    Waiting,
    Open,
    Paused { _by_admin: bool },
    Closed,
}

impl Run {
    pub(super) fn into_info(self, settings: Settings, layout: Vec<u64>) -> RunInfo {
        RunInfo { owner: self.owner, settings, layout: Layout(layout) }
    }
}

#[derive(Decode)]
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

#[derive(Decode)]
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

#[derive(Decode)]
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

#[derive(Decode)]
pub(super) struct WindowRecord {
    seed: Hash,
    challenge_seed: Option<Hash>,
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
        let Self { seed, challenge_seed, state_root, accepted, unavailable, .. } = self;
        let Self { status, budget, minted, funded, excused, .. } = self;
        WindowInfo {
            seed,
            challenge_seed,
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

#[derive(Decode)]
pub(super) struct Commitment {
    pub(super) hash: Hash,
    pub(super) block: BlockNumber,
    pub(super) order: u32,
}

#[derive(Decode)]
pub(super) struct Reveal {
    pub(super) opening: Opening,
    pub(super) committed_block: BlockNumber,
    pub(super) order: u32,
}

#[derive(Decode)]
pub(super) struct Attestation {
    pub(super) bitmap: Vec<u8>,
    pub(super) state_root: Hash,
}

#[derive(Decode)]
pub(super) struct ScoreReveal {
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) salt: Hash,
}
