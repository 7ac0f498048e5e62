//! Fetches, checks, keeps and serves the payloads that miners revealed.
//!
//! A payload arrives in pieces, from several peers at once, each checked against its root as it comes (`protocol::update::PieceForm`), and
//! is mapped from disk: what is fetched at a time takes memory for the pieces on their way.
//!
//! A payload that was fetched is served in turn, so that a miner that ends after its reveal costs nobody anything, and
//! is forgotten once the chain has forgotten its window. To serve others' is a favour: a disk that is full costs the oldest
//! windows, and then the favour, and never what was fetched, nor the own payload of the window.

mod archive;
mod pieces;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use node_client::{
    budget::budget,
    chain::RevealInfo,
    network::{FetchRequest, Network, NetworkError, PiecesRequest},
    store::{Cut, StoreError},
};
use protocol::{
    layout::Layout,
    update::{payload_bytes_max, piece_list_id, PieceForm, PieceList},
    AccountBytes, Hash, Uid, Window,
};

use crate::{
    error::{miss, Attempt as _, Result},
    peers::AnnouncedPeers,
    telemetry,
};

pub use archive::{archive_path, read_archived};
pub use pieces::has_root;

use archive::Archive;
use pieces::PayloadPieces;

/// Windows for which payloads are served: the chain keeps its records as long.
pub const SERVED_WINDOWS: u64 = protocol::limits::HISTORY_WINDOWS;

/// Bytes a second below which a fetch is given up: a fiftieth of the slowest line that takes part.
const RATE_MIN: u64 = 64_000;

/// How long a fetch of `bytes` bytes may take in all, over all peers, when nothing else ends it before.
pub fn fetch_budget(bytes: u64) -> Duration {
    budget(bytes, RATE_MIN)
}

/// The payloads of one run.
pub struct Payloads {
    network: Arc<dyn Network>,
    peers: Arc<AnnouncedPeers>,
    layout: Layout,
    keep: u16,
    /// How its payloads are cut; `None` for settings under which there are none.
    form: Option<PieceForm>,
    archive: Option<Arc<Archive>>,
    // What is served, by window. Never held across an await.
    served: Mutex<BTreeMap<Window, Vec<Hash>>>,
    /// Read while a payload is put where it is served from, written while room is made for one: what might go is in `served` then.
    turn: tokio::sync::RwLock<()>,
}

impl Payloads {
    /// The payloads of a run with this layout and `keep`; a copy of each goes to the folder `archive`, if given.
    pub fn new(
        network: Arc<dyn Network>,
        peers: Arc<AnnouncedPeers>,
        layout: Layout,
        keep: u16,
        archive: Option<PathBuf>,
    ) -> Self {
        let form = PieceForm::new(layout.clone(), keep);
        let archive = archive.map(|folder| Arc::new(Archive::new(folder, None)));
        Self {
            network,
            peers,
            layout,
            keep,
            form,
            archive,
            served: Mutex::default(),
            turn: tokio::sync::RwLock::default(),
        }
    }

    /// The same, whose archive keeps so many bytes of payloads at most; the oldest windows go.
    pub fn with_archive_bytes_max(mut self, bytes_max: Option<u64>) -> Self {
        let bounded = |archive: Arc<Archive>| Archive::new(archive.folder.clone(), bytes_max);
        self.archive = self.archive.map(|archive| Arc::new(bounded(archive)));
        self
    }

    /// The payload that `reveal` opened: its root and length are those on the chain. Whether its chunks are well formed is for
    /// the caller to say; one that is not is evidence. It is served from now on if there is room. Cancel-safe.
    ///
    /// # Errors
    /// Nobody delivered it in time.
    pub async fn fetch(
        &self,
        window: Window,
        miner: &AccountBytes,
        reveal: &RevealInfo,
    ) -> Result<Bytes> {
        let result = self.fetch_within(window, miner, reveal).await;
        let label = if result.is_ok() { "ok" } else { "failed" };
        metrics::counter!(telemetry::FETCHES, "result" => label).increment(1);
        result
    }

    async fn fetch_within(
        &self,
        window: Window,
        miner: &AccountBytes,
        reveal: &RevealInfo,
    ) -> Result<Bytes> {
        let opening = &reveal.opening;
        let (root, byte_len) = (opening.payload_root, opening.byte_len);
        if byte_len > payload_bytes_max(&self.layout, self.keep) {
            miss!("it says that it has {byte_len} bytes, which no payload has");
        }
        let arrive = self.arrive(miner, root, byte_len);
        let arrived = tokio::time::timeout(fetch_budget(byte_len), arrive).await;
        let bytes = arrived.context("nobody delivered it in time")??;
        if let Err(error) = self.keep(window, reveal.uid, root, &bytes).await {
            metrics::counter!(telemetry::UNKEPT).increment(1);
            let (uid, error) = (reveal.uid, error.line());
            tracing::warn!(window, uid, error, "a payload was fetched and cannot be kept");
        }
        Ok(bytes)
    }

    /// The payload with this root and length, from whoever has pieces of it, `miner` before the others. Cancel-safe: what has come stays.
    async fn arrive(&self, miner: &AccountBytes, root: Hash, byte_len: u64) -> Result<Bytes> {
        let form = self.form.clone().context("no payload has this layout")?;
        let providers = || self.peers.ordered(Some(miner));
        let pieces = if form.count() == 1 {
            PayloadPieces::whole(form, self.layout.clone(), self.keep, root, byte_len)
        } else {
            let (len, of) = (u64::from(form.count()) * size_of::<Hash>() as u64, form.clone());
            let is_list = move |bytes: &[u8]| PieceList::parse(bytes, &of, &root).is_some();
            let request = FetchRequest::new(piece_list_id(&root), len, is_list).exactly();
            let fetched = self.network.fetch(request.from_peers(providers())).await?;
            let list = PieceList::parse(&fetched.bytes, &form, &root).context("another list")?;
            PayloadPieces::listed(form, list, byte_len)
        };
        let request = PiecesRequest {
            id: root,
            providers: providers(),
            pieces: Arc::new(pieces),
            whole: true,
        };
        let fetched = self.network.fetch_pieces(request).await?;
        fetched.bytes.context("its pieces are not as long together as the chain says")
    }

    /// Serves and archives what was fetched.
    async fn keep(&self, window: Window, uid: Uid, root: Hash, bytes: &Bytes) -> Result<()> {
        let archived = self.archive(window, uid, bytes).await;
        self.serve(window, root, bytes.clone()).await?;
        archived
    }

    /// Keeps a copy of a payload in the archive, if there is one.
    async fn archive(&self, window: Window, uid: Uid, bytes: &Bytes) -> Result<()> {
        let Some(archive) = self.archive.clone() else { return Ok(()) };
        let (keeper, bytes) = (archive.clone(), bytes.clone());
        let kept = tokio::task::spawn_blocking(move || keeper.keep(window, uid, &bytes)).await?;
        kept.with_context(|| format!("cannot archive in {}", archive.folder.display()))
    }

    /// Serves a payload of `window` from now on. If there is no room, windows before that are no longer served.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn serve(&self, window: Window, root: Hash, bytes: Bytes) -> Result<()> {
        self.publish_with_room(window, root, bytes, false).await
    }

    /// Serves this participant's own payload of `window`: where there is no room, others' of the same window go, too. They are a
    /// favour, and this one is its pay.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn serve_own(&self, window: Window, root: Hash, bytes: Bytes) -> Result<()> {
        self.publish_with_room(window, root, bytes, true).await
    }

    async fn publish_with_room(
        &self,
        window: Window,
        root: Hash,
        bytes: Bytes,
        is_own: bool,
    ) -> Result<()> {
        let listed = self.listed(&bytes).await?;
        {
            let _others = self.turn.read().await;
            if self.publish_served(window, root, &bytes, &listed).await.is_ok() {
                return Ok(());
            }
        }
        let _alone = self.turn.write().await;
        while let Err(error) = self.publish_served(window, root, &bytes, &listed).await {
            // A payload that alone has no room gets none by what others lose.
            let is_own = is_own && !is_larger(&error);
            let has_room = is_full(&error)
                && (self.forget_oldest(window).await || is_own && self.forget_one(window).await);
            if !has_room {
                // Its list may have had room.
                self.unpublish_unserved(vec![root]).await;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Publishes a payload and notes that it is served.
    async fn publish_served(
        &self,
        window: Window,
        root: Hash,
        bytes: &Bytes,
        listed: &Option<(Bytes, Cut)>,
    ) -> Result<(), NetworkError> {
        self.publish(root, bytes, listed).await?;
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = served.entry(window).or_default();
        if !roots.contains(&root) {
            roots.push(root);
        }
        Ok(())
    }

    /// Whether a payload is served as one of any window.
    fn is_served(&self, root: &Hash) -> bool {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.values().flatten().any(|other| other == root)
    }

    /// What a payload of several pieces is served with besides; `None` for one piece.
    async fn listed(&self, bytes: &Bytes) -> Result<Option<(Bytes, Cut)>> {
        let Some(form) = self.form.clone().filter(|form| form.count() > 1) else {
            return Ok(None);
        };
        let (bytes, layout, keep) = (bytes.clone(), self.layout.clone(), self.keep);
        let work = move || pieces::list_and_cut(&bytes, &form, &layout, keep);
        let listed = tokio::task::spawn_blocking(work).await.ok().flatten();
        Ok(Some(listed.context("it is not cut as a payload is")?))
    }

    async fn publish(
        &self,
        root: Hash,
        bytes: &Bytes,
        listed: &Option<(Bytes, Cut)>,
    ) -> Result<(), NetworkError> {
        let Some((list, cut)) = listed else {
            return self.network.publish(root, bytes.clone()).await;
        };
        self.network.publish(piece_list_id(&root), list.clone()).await?;
        self.network.publish_content(root, Arc::new(bytes.clone()), Some(cut.clone())).await
    }

    /// Goes on serving those of `ids`, which a process that ran before left, that were `revealed` in a window. The others
    /// are no longer served.
    pub async fn adopt(&self, ids: Vec<Hash>, revealed: &[(Window, Hash)]) {
        let window_of = |id: &Hash| revealed.iter().rev().find(|(_, root)| root == id);
        // The list of a payload stays with it, and goes where it has not been kept.
        let kept = revealed.iter().filter(|(_, root)| ids.contains(root));
        let lists: Vec<Hash> = kept.map(|(_, root)| piece_list_id(root)).collect();
        let (ours, strange): (Vec<Hash>, Vec<Hash>) =
            ids.into_iter().partition(|id| window_of(id).is_some() || lists.contains(id));
        for (window, root) in ours.iter().filter_map(window_of) {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.entry(*window).or_default().push(*root);
        }
        self.unpublish(strange).await;
    }

    /// Serves no longer what is of the oldest window before `window`; returns whether there was one.
    pub(crate) async fn forget_oldest(&self, window: Window) -> bool {
        let oldest = {
            let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.keys().next().copied().filter(|oldest| *oldest < window)
        };
        let Some(oldest) = oldest else { return false };
        tracing::warn!(window = oldest, "no room: the payloads of a window are no longer served");
        self.forget(oldest.saturating_add(1)).await;
        true
    }

    /// Serves one of the payloads of `window` no longer; returns whether there was one.
    async fn forget_one(&self, window: Window) -> bool {
        let root = {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.get_mut(&window).and_then(Vec::pop)
        };
        let Some(root) = root else { return false };
        tracing::warn!(window, "no room: another miner's payload is no longer served");
        self.unpublish_unserved(vec![root]).await;
        true
    }

    /// Serves no longer what is older than the chain's records in `window`.
    pub async fn forget_before(&self, window: Window) {
        self.forget(window.saturating_sub(SERVED_WINDOWS)).await;
    }

    /// Serves no longer what is of windows before `first`.
    async fn forget(&self, first: Window) {
        let old = {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = served.split_off(&first);
            std::mem::replace(&mut *served, kept)
        };
        self.unpublish_unserved(old.into_values().flatten().collect()).await;
    }

    /// Unpublishes those that are served as of no window any more: one payload may have been revealed in two.
    async fn unpublish_unserved(&self, mut roots: Vec<Hash>) {
        roots.retain(|root| !self.is_served(root));
        self.unpublish(roots).await;
    }

    /// The contents as which a payload is served.
    pub fn contents(&self, root: Hash) -> impl Iterator<Item = Hash> {
        let has_list = self.form.as_ref().is_some_and(|form| form.count() > 1);
        // Who finds the payload finds its list.
        has_list.then(|| piece_list_id(&root)).into_iter().chain([root])
    }

    async fn unpublish(&self, ids: impl IntoIterator<Item = Hash>) {
        for root in ids {
            for id in self.contents(root) {
                if let Err(error) = self.network.unpublish(id).await {
                    tracing::warn!(%error, "cannot unpublish");
                }
            }
        }
    }
}

/// Whether what has no room is larger than all the room that there is.
fn is_larger(error: &NetworkError) -> bool {
    let NetworkError::Store(StoreError::Full { needed, bytes_max, .. }) = error else {
        return false;
    };
    needed > bytes_max
}

/// Whether something else must go before more can be served.
pub(crate) fn is_full(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Store(StoreError::Full { .. }) | NetworkError::TooMany { .. })
}
