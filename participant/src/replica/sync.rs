//! Fetches a whole state from peers: which one, and piece by piece, over as many windows and processes as it takes.
//!
//! It is a snapshot ([`crate::snapshots`]) where peers have one: that is served as long as the chain knows the
//! windows since, which are replayed from there on. Which one is written down before its first piece is asked for,
//! and its pieces lie in the store from when they are checked. So a process that starts again goes on where the last
//! one was, and nobody begins anew because a newer state is there: only once the chain has forgotten the window of
//! the one that arrives, or nobody delivers it. What nobody delivered is tried after all others, as where the mirror has
//! the list of a state's pieces and nobody has those.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use codec::{Decode, DecodeAll as _, Encode};
use futures::future::{select, Either};
use node_client::network::{
    FaultKind, FetchError, FetchRequest, Pieces, PiecesFetched, PiecesRequest,
};
use protocol::{
    state_root::{manifest_bytes_max, manifest_id, StateManifest},
    Hash, Window,
};
use trainer::{ArrivingModel, Model, ModelConfig};

use crate::{
    error::{miss, Attempt as _, Error, Result},
    handles::{Handles, Peers},
    payloads::{fetch_budget, SERVED_WINDOWS},
    snapshots::{is_snapshot, SNAPSHOT_EVERY},
};

/// How long a state may take to arrive without a new piece of it arriving.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause before peers are asked again for the pieces that are missing.
const PIECES_PAUSE: Duration = Duration::from_secs(4);

/// How often they are asked in a row without a new piece, where that is not the caller's to decide.
const VAIN_TRIES: u32 = 30;

/// How often the manifest of a state that has begun to arrive is asked for while somebody may have it.
const MANIFEST_TRIES: u32 = 8;

/// A state that is to be fetched.
#[derive(Encode, Decode, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) window: Window,
    pub(super) root: Hash,
}

/// States that nobody delivered, which are remembered: more than are final at a time.
const VAIN_MAX: usize = 2 * SERVED_WINDOWS as usize;

/// Remembers in a file which state is arriving, and which ones nobody delivered to this process.
pub(super) struct Memo {
    path: PathBuf,
    /// The last one last, each once; at most [`VAIN_MAX`]. Held for a look or a change.
    vain: Mutex<Vec<Target>>,
}

impl Memo {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, vain: Mutex::default() }
    }

    /// What was written last. A file that is damaged is none: then the choice is made again.
    fn read(&self) -> Option<Target> {
        let bytes = std::fs::read(&self.path).ok()?;
        Target::decode_all(&mut &bytes[..]).ok()
    }

    fn write(&self, target: &Target) -> Result<()> {
        let write = std::fs::write(&self.path, target.encode());
        write.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Notes that nobody delivered a state: it is chosen again after the others. What has come of it stays.
    fn note_vain(&self, target: Target) {
        let mut vain = self.vain();
        vain.retain(|other| *other != target);
        if vain.len() == VAIN_MAX {
            vain.remove(0);
        }
        vain.push(target);
        if self.read() == Some(target) {
            // Where it stays it is chosen again by the next process, and given up again.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn vain(&self) -> MutexGuard<'_, Vec<Target>> {
        self.vain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which states to try to fetch in window `now`, the best first: the one that has begun to arrive; snapshots, the
/// newest first, that leave as much time to fetch them as the chain remembers windows; the others, the newest first. Of
/// all these the `vain` come last, which nobody delivered, the last of them at the end. `finals` are the roots that the
/// chain knows, in order.
fn candidates(
    finals: &[(Window, Hash)],
    now: Window,
    begun: Option<Target>,
    vain: &[Target],
) -> Vec<Target> {
    let newest_first =
        || finals.iter().rev().map(|(window, root)| Target { window: *window, root: *root });
    let is_good = |target: &Target| {
        let age = now.saturating_sub(target.window);
        is_snapshot(target.window, SNAPSHOT_EVERY) && age <= SERVED_WINDOWS / 2
    };
    let mut found: Vec<Target> = newest_first().filter(|target| Some(*target) == begun).collect();
    found.extend(newest_first().filter(is_good));
    found.extend(newest_first());
    let mut unique = Vec::new();
    for target in found {
        if !unique.contains(&target) {
            unique.push(target);
        }
    }
    unique.sort_by_key(|target| vain.iter().position(|other| other == target));
    unique
}

/// Chooses one of the states `finals` that peers serve, and writes down which; with its manifest.
///
/// # Errors
/// Nobody serves any of them now.
pub(super) async fn choose(
    handles: &Handles,
    memo: &Memo,
    finals: &[(Window, Hash)],
    now: Window,
) -> Result<(Target, StateManifest)> {
    let begun = memo.read();
    let vain = memo.vain().clone();
    let mut failed = Error::Missed("no state is final".into());
    for target in candidates(finals, now, begun, &vain) {
        let tries = if begun == Some(target) { MANIFEST_TRIES } else { 1 };
        match manifest(handles, target.root, tries).await {
            Ok(manifest) => {
                if begun != Some(target) {
                    if let Err(error) = memo.write(&target) {
                        tracing::warn!(error = error.line(), "a restart would begin anew");
                    }
                }
                return Ok((target, manifest));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The state with this root, from the own store or whichever peers have it, each piece checked as it comes. Holds the
/// model that it makes and some pieces. Cancel-safe.
///
/// # Errors
/// Nobody delivers it: for two minutes no further piece has come.
pub async fn fetch_state(handles: &Handles, config: &ModelConfig, root: Hash) -> Result<Model> {
    let manifest = manifest(handles, root, 1).await?;
    arrive(handles, config, root, manifest, 1).await
}

/// The state that was chosen, whoever is away meanwhile. Cancel-safe: the pieces that came stay.
///
/// # Errors
/// Nobody delivers it: for two minutes no further piece has come. Then another one is chosen next.
pub(super) async fn fetch_chosen(
    handles: &Handles,
    memo: &Memo,
    target: Target,
    manifest: StateManifest,
) -> Result<Model> {
    let model = &handles.run.model;
    let arrived = arrive(handles, model, target.root, manifest, VAIN_TRIES).await;
    if arrived.as_ref().is_err_and(is_vain) {
        memo.note_vain(target);
    }
    arrived
}

/// Whether it is that nobody delivered, rather than our own disk or chain, or that nobody at all was reached.
fn is_vain(error: &Error) -> bool {
    match error {
        Error::Fetch(FetchError::Unavailable { faults, .. }) => {
            faults.is_empty() || faults.iter().any(|fault| !is_silent(&fault.kind))
        }
        Error::Missed(_) => true,
        _ => false,
    }
}

/// Whether who did so may have what it was asked for.
fn is_silent(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Unreachable | FaultKind::TimedOut | FaultKind::Busy)
}

/// The manifest of a state, which is asked for up to `tries` times as long as somebody may have it.
async fn manifest(handles: &Handles, root: Hash, tries: u32) -> Result<StateManifest> {
    let Peers { network, announced, .. } = &handles.peers;
    let layout = &handles.run.info.layout;
    let len_max = manifest_bytes_max(layout.0.len() as u64, handles.run.model.parameter_count());
    let mut left = tries;
    loop {
        let is_manifest = move |bytes: &[u8]| StateManifest::parse(bytes, &root).is_some();
        let request = FetchRequest::new(manifest_id(&root), len_max, is_manifest)
            .from_peers(announced.ordered(None));
        let fetched = tokio::time::timeout(fetch_budget(len_max), network.fetch(request)).await;
        left = left.saturating_sub(1);
        match fetched {
            Ok(Ok(fetched)) => {
                return StateManifest::parse(&fetched.bytes, &root).context("another manifest");
            }
            Ok(Err(error)) if left == 0 || !may_be_had(&error) => {
                return Err(error).context("the state's manifest");
            }
            Err(late) if left == 0 => {
                return Err(late).context("the state's manifest did not arrive in time");
            }
            _ => tokio::time::sleep(PIECES_PAUSE).await,
        }
    }
}

/// Whether somebody who did not answer may have what nobody delivered.
fn may_be_had(error: &FetchError) -> bool {
    let FetchError::Unavailable { faults, .. } = error else { return false };
    faults.is_empty() || faults.iter().any(|fault| is_silent(&fault.kind))
}

/// A model that arrives in the pieces of its manifest.
struct Arriving(ArrivingModel);

impl Pieces for Arriving {
    fn byte_len(&self) -> u64 {
        self.0.byte_len()
    }

    fn count(&self) -> usize {
        self.0.piece_count()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        self.0.piece(index)
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        self.0.accept(index, bytes)
    }
}

/// The parameters of a manifest; peers are asked again until `tries` times in a row no new piece has come.
async fn arrive(
    handles: &Handles,
    config: &ModelConfig,
    root: Hash,
    manifest: StateManifest,
    tries: u32,
) -> Result<Model> {
    let Peers { network, announced, .. } = &handles.peers;
    let arriving = Arc::new(Arriving(ArrivingModel::new(config, manifest)?));
    let mut left = tries;
    loop {
        let missing = arriving.0.missing();
        let providers = announced.ordered(None);
        let request = PiecesRequest { id: root, providers, pieces: arriving.clone(), whole: false };
        let Err(error) = while_it_goes_on(&arriving.0, network.fetch_pieces(request)).await? else {
            break;
        };
        // Whoever failed in the middle may be back.
        if arriving.0.missing() < missing {
            left = tries;
            continue;
        }
        left = left.saturating_sub(1);
        if left == 0 {
            return Err(error.into());
        }
        tokio::time::sleep(PIECES_PAUSE).await;
    }
    let arriving = Arc::into_inner(arriving).context("somebody still takes pieces")?;
    arriving.0.finish().context("a piece is missing")
}

/// Waits for `fetch` as long as pieces arrive.
async fn while_it_goes_on(
    arriving: &ArrivingModel,
    mut fetch: impl std::future::Future<Output = Result<PiecesFetched, FetchError>> + Unpin,
) -> Result<Result<PiecesFetched, FetchError>> {
    loop {
        let missing = arriving.missing();
        let pause = std::pin::pin!(tokio::time::sleep(PROGRESS_TIMEOUT));
        match select(fetch, pause).await {
            Either::Left((fetched, _)) => return Ok(fetched),
            Either::Right(_) if arriving.missing() == missing => {
                miss!("the state does not arrive: {missing} pieces are missing")
            }
            Either::Right(((), going_on)) => fetch = going_on,
        }
    }
}

#[cfg(test)]
mod tests {
    use node_client::network::{Fault, PeerId};

    use super::*;

    fn finals(windows: std::ops::RangeInclusive<Window>) -> Vec<(Window, Hash)> {
        windows.map(|window| (window, [window as u8; 32])).collect()
    }

    fn windows(finals: &[(Window, Hash)], now: Window, begun: Option<Window>) -> Vec<Window> {
        let begun = begun.map(|window| Target { window, root: [window as u8; 32] });
        candidates(finals, now, begun, &[]).iter().map(|target| target.window).collect()
    }

    #[test]
    fn what_has_begun_goes_before_snapshots_and_those_before_what_is_gone_soon() {
        assert_eq!(windows(&finals(9..=14), 14, None), [12, 14, 13, 11, 10, 9]);
        assert_eq!(windows(&finals(9..=14), 14, Some(10)), [10, 12, 14, 13, 11, 9]);
        // One of which the chain knows nothing any more.
        assert_eq!(windows(&finals(9..=14), 14, Some(8)), [12, 14, 13, 11, 10, 9]);
        // A snapshot that leaves too little time: no window since had a final root.
        assert_eq!(windows(&[(8, [8; 32]), (11, [11; 32])], 14, None), [11, 8]);
        let other = Target { window: 10, root: [7; 32] };
        assert_eq!(candidates(&finals(9..=10), 14, Some(other), &[])[0].window, 10);
        assert_ne!(candidates(&finals(9..=10), 14, Some(other), &[])[0].root, [7; 32]);
    }

    #[test]
    fn a_memo_is_read_back_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::new(folder.path().join("arriving"));
        assert_eq!(memo.read(), None);
        let target = Target { window: 9, root: [3; 32] };
        memo.write(&target).unwrap();
        assert_eq!(memo.read(), Some(target));
        std::fs::write(&memo.path, [1; 39]).unwrap();
        assert_eq!(memo.read(), None);
    }

    #[test]
    fn what_nobody_delivered_is_chosen_after_all_others() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::new(folder.path().join("arriving"));
        let chosen = |memo: &Memo| -> Vec<Window> {
            let vain = memo.vain().clone();
            let found = candidates(&finals(10..=14), 14, memo.read(), &vain);
            found.iter().map(|target| target.window).collect()
        };
        let target = |window: Window| Target { window, root: [window as u8; 32] };
        memo.write(&target(12)).unwrap();
        assert_eq!(chosen(&memo), [12, 14, 13, 11, 10]);
        // The mirror has its manifest, and nobody its pieces.
        memo.note_vain(target(12));
        assert_eq!((memo.read(), chosen(&memo)), (None, vec![14, 13, 11, 10, 12]));
        // Another one is on its way, and given up, too; what is not on its way changes no memo.
        memo.write(&target(14)).unwrap();
        memo.note_vain(target(12));
        assert_eq!(memo.read(), Some(target(14)));
        memo.note_vain(target(14));
        assert_eq!(chosen(&memo), [13, 11, 10, 12, 14]);
        for window in 0..2 * VAIN_MAX as Window {
            memo.note_vain(target(window));
        }
        assert_eq!(memo.vain().len(), VAIN_MAX);
    }

    #[test]
    fn only_what_nobody_delivered_is_in_vain() {
        let unkept = FetchError::Unkept(std::io::ErrorKind::StorageFull.into());
        let unavailable = FetchError::Unavailable { id: [1; 32], faults: Vec::new() };
        assert!(is_vain(&unavailable.into()) && is_vain(&Error::Missed("no piece".into())));
        assert!(!is_vain(&unkept.into()));
        let of = |kind| Fault { peer: PeerId::random(), kind };
        let faults = vec![of(FaultKind::Unreachable), of(FaultKind::TimedOut)];
        assert!(!is_vain(&FetchError::Unavailable { id: [1; 32], faults }.into()));
        let faults = vec![of(FaultKind::Unreachable), of(FaultKind::Missing)];
        assert!(is_vain(&FetchError::Unavailable { id: [1; 32], faults }.into()));
    }
}
