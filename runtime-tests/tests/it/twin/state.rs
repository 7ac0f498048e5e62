//! Holds what both chains must agree on after a block, and names where they do not.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
};

use node_client::chain::{
    AnnouncementInfo, AttestationCommitmentInfo, AttestationInfo, Claim, CommitmentInfo,
    DataChallengeInfo, DepartureInfo, EvaluationDisputeInfo, GauntletEvent, Ledger, MinerInfo,
    PermitInfo, ProvenFaultInfo, RevealInfo, RunInfo, ScoreCommitmentInfo, ScoreRevealInfo,
    SlashInfo, StakePoolInfo, ValidatorInfo, WindowInfo,
};
use protocol::{AccountBytes, BlockNumber, Planck, RunId, Window};

/// Validators' pools that are compared, of each run.
pub(super) const POOLS: u32 = 64;

/// Everything that a client can read of a window; lists are by slot.
#[derive(Debug, PartialEq)]
pub(super) struct WindowState {
    pub(super) info: Option<WindowInfo>,
    pub(super) commitments: Vec<CommitmentInfo>,
    pub(super) reveals: Vec<RevealInfo>,
    pub(super) permits: Vec<PermitInfo>,
    pub(super) attestation_commitments: Vec<AttestationCommitmentInfo>,
    pub(super) attestations: Vec<AttestationInfo>,
    pub(super) score_commitments: Vec<ScoreCommitmentInfo>,
    pub(super) score_reveals: Vec<ScoreRevealInfo>,
    pub(super) proven_faults: Vec<ProvenFaultInfo>,
}

/// Everything that a client can read of a run; lists are by slot, announcements by hot key.
#[derive(Debug)]
pub(super) struct RunState {
    pub(super) info: Option<RunInfo>,
    pub(super) miners: Vec<MinerInfo>,
    pub(super) validators: Vec<ValidatorInfo>,
    pub(super) announcements: Vec<AnnouncementInfo>,
    pub(super) departures: Vec<DepartureInfo>,
    pub(super) data_challenges: Vec<DataChallengeInfo>,
    pub(super) evaluation_disputes: Vec<EvaluationDisputeInfo>,
    pub(super) stake_pools: Vec<Option<StakePoolInfo>>,
    pub(super) slashes: Vec<SlashInfo>,
    pub(super) ledger: Ledger,
    pub(super) windows: BTreeMap<Window, WindowState>,
    pub(super) claims: BTreeMap<AccountBytes, Vec<Claim>>,
}

/// A chain after a block.
#[derive(Debug)]
pub(super) struct ChainState {
    /// The pallet's events of the block in their order, apart for each run: the pallet visits the
    /// runs in the order of their storage keys, which no rule fixes.
    pub(super) events: BTreeMap<RunId, Vec<GauntletEvent>>,
    pub(super) runs: BTreeMap<RunId, RunState>,
    /// Free balances.
    pub(super) balances: BTreeMap<AccountBytes, Planck>,
}

/// One place in which the chains differ.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// The block after which, or the one in which, they differ.
    pub(super) block: BlockNumber,
    /// What differs, as `run 0 window 3: reveals`.
    pub(super) what: String,
    /// What the runtime has.
    pub(super) real: String,
    /// What the fake has.
    pub(super) fake: String,
}

impl Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, what, real, fake } = self;
        write!(f, "block {block}: {what}\n  runtime: {real}\n  fake:    {fake}")
    }
}

/// The differences of a block, as they are found.
pub(super) struct Differences {
    block: BlockNumber,
    found: Vec<Difference>,
}

impl Differences {
    /// None yet, in a block.
    pub(super) fn of_block(block: BlockNumber) -> Self {
        Differences { block, found: Vec::new() }
    }

    /// All that were found.
    pub(super) fn into_found(self) -> Vec<Difference> {
        self.found
    }

    /// Notes a difference if the two values are not equal.
    pub(super) fn compare<T: PartialEq + Debug>(&mut self, what: &str, real: &T, fake: &T) {
        if real != fake {
            self.found.push(Difference {
                block: self.block,
                what: what.to_owned(),
                real: format!("{real:?}"),
                fake: format!("{fake:?}"),
            });
        }
    }

    /// Compares everything after a block.
    pub(super) fn compare_chains(&mut self, real: &ChainState, fake: &ChainState) {
        self.compare("events", &real.events, &fake.events);
        self.compare("balances", &real.balances, &fake.balances);
        let ids = |state: &ChainState| state.runs.keys().copied().collect::<Vec<_>>();
        self.compare("runs", &ids(real), &ids(fake));
        for ((id, real), fake) in real.runs.iter().zip(fake.runs.values()) {
            self.compare_runs(*id, real, fake);
        }
    }

    fn compare_runs(&mut self, id: RunId, real: &RunState, fake: &RunState) {
        let run = |part: &str| format!("run {id}: {part}");
        self.compare(&run("settings"), &real.info, &fake.info);
        self.compare(&run("miners"), &real.miners, &fake.miners);
        self.compare(&run("validators"), &real.validators, &fake.validators);
        self.compare(&run("announcements"), &real.announcements, &fake.announcements);
        self.compare(&run("departures"), &real.departures, &fake.departures);
        self.compare(&run("data challenges"), &real.data_challenges, &fake.data_challenges);
        let (real_disputes, fake_disputes) = (&real.evaluation_disputes, &fake.evaluation_disputes);
        self.compare(&run("disputes"), real_disputes, fake_disputes);
        self.compare(&run("pools"), &real.stake_pools, &fake.stake_pools);
        self.compare(&run("slashes"), &real.slashes, &fake.slashes);
        self.compare(&run("ledger"), &real.ledger, &fake.ledger);
        self.compare(&run("claims"), &real.claims, &fake.claims);
        let windows = |state: &RunState| state.windows.keys().copied().collect::<Vec<_>>();
        self.compare(&run("windows"), &windows(real), &windows(fake));
        for ((window, real), fake) in real.windows.iter().zip(fake.windows.values()) {
            self.compare_windows(&format!("run {id} window {window}"), real, fake);
        }
    }

    fn compare_windows(&mut self, of: &str, real: &WindowState, fake: &WindowState) {
        let part = |part: &str| format!("{of}: {part}");
        self.compare(&part("record"), &real.info, &fake.info);
        self.compare(&part("commitments"), &real.commitments, &fake.commitments);
        self.compare(&part("reveals"), &real.reveals, &fake.reveals);
        self.compare(&part("permits"), &real.permits, &fake.permits);
        let (real_hashes, fake_hashes) =
            (&real.attestation_commitments, &fake.attestation_commitments);
        self.compare(&part("commitments to attestations"), real_hashes, fake_hashes);
        self.compare(&part("attestations"), &real.attestations, &fake.attestations);
        let (real_scores, fake_scores) = (&real.score_commitments, &fake.score_commitments);
        self.compare(&part("score commitments"), real_scores, fake_scores);
        self.compare(&part("score reveals"), &real.score_reveals, &fake.score_reveals);
        self.compare(&part("proven faults"), &real.proven_faults, &fake.proven_faults);
    }
}

/// The events of each run, in their order.
pub(super) fn by_run(events: Vec<GauntletEvent>) -> BTreeMap<RunId, Vec<GauntletEvent>> {
    let mut of_runs: BTreeMap<RunId, Vec<GauntletEvent>> = BTreeMap::new();
    for event in events {
        of_runs.entry(run_of(&event)).or_default().push(event);
    }
    of_runs
}

/// The run that an event is about.
fn run_of(event: &GauntletEvent) -> RunId {
    use GauntletEvent::*;
    match event {
        RunCreated { run, .. }
        | MinerRegistered { run, .. }
        | MinerLeft { run, .. }
        | ValidatorRegistered { run, .. }
        | StakeAdded { run, .. }
        | ValidatorLeft { run, .. }
        | Announced { run, .. }
        | WindowOpened { run, .. }
        | UpdateCommitted { run, .. }
        | UpdateRevealed { run, .. }
        | CopyRefused { run, .. }
        | Attested { run, .. }
        | WindowAccepted { run, .. }
        | ScoresCommitted { run, .. }
        | ScoresRevealed { run, .. }
        | MinerScored { run, .. }
        | ValidatorPaid { run, .. }
        | WindowSettled { run, .. }
        | WindowVoid { run, .. }
        | Claimed { run, .. }
        | SettingsScheduled { run, .. }
        | SettingsApplied { run, .. }
        | RunWeightSet { run, .. }
        | RunFunded { run, .. }
        | RunSwept { run, .. }
        | MinerLeaving { run, .. }
        | MinerDisplaced { run, .. }
        | MinerEvicted { run, .. }
        | BondReturned { run, .. }
        | HotKeyRotating { run, .. }
        | HotKeyRotated { run, .. }
        | ColdOffered { run, .. }
        | ColdOfferCancelled { run, .. }
        | ColdHandedOver { run, .. }
        | SettingsCancelled { run }
        | RunPauseAnnounced { run, .. }
        | RunPaused { run, .. }
        | RunResumed { run }
        | RunClosing { run, .. }
        | RunClosed { run }
        | RunReaped { run }
        | RunOffered { run, .. }
        | RunOfferWithdrawn { run }
        | RunHandedOver { run, .. }
        | AttestationCommitted { run, .. }
        | ValidatorDisplaced { run, .. }
        | Delegated { run, .. }
        | Unbonding { run, .. }
        | Withdrawn { run, .. }
        | TakeSet { run, .. }
        | Compounded { run, .. }
        | SlashDeferred { run, .. }
        | SlashCancelled { run, .. }
        | Slashed { run, .. }
        | FaultProven { run, .. }
        | DataChallenged { run, .. }
        | DataAnswered { run, .. }
        | EvaluationDisputed { run, .. }
        | DisputeClosed { run, .. } => *run,
    }
}
