//! Fetches, checks, keeps and serves the payloads that miners revealed.
//!
//! A payload that was fetched is served in turn, so that a miner that ends after its reveal costs nobody anything, and
//! is forgotten once the chain has forgotten its window. To serve is a favour: a disk that is full costs the oldest
//! windows, and then the favour, and never what was fetched.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use node_client::{
    chain::RevealInfo,
    network::{FetchRequest, Network, NetworkError},
    store::StoreError,
};
use protocol::{
    layout::Layout,
    update::{payload_bytes_max, Frame},
    AccountBytes, Hash, Uid, Window,
};

use crate::{
    error::{miss, Attempt as _, Result},
    peers::AnnouncedPeers,
    telemetry,
};

/// Windows for which payloads are served: the chain keeps its records as long.
pub const SERVED_WINDOWS: u64 = protocol::limits::HISTORY_WINDOWS;

/// How long one fetch may take in all, over all peers.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The payloads of one run.
pub struct Payloads {
    network: Arc<dyn Network>,
    peers: Arc<AnnouncedPeers>,
    layout: Layout,
    keep: u16,
    archive: Option<PathBuf>,
    // What is served, by window. Never held across an await.
    served: Mutex<BTreeMap<Window, Vec<Hash>>>,
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
        Self { network, peers, layout, keep, archive, served: Mutex::default() }
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
        let (layout, keep) = (self.layout.clone(), self.keep);
        let request = FetchRequest::new(root, byte_len, move |bytes| {
            bytes.len() as u64 == byte_len && has_root(bytes, &layout, keep, &root)
        })
        .exactly()
        .from_peers(self.peers.ordered(Some(miner)));
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.network.fetch(request))
            .await
            .context("nobody delivered it in time")??;
        if let Err(error) = self.keep(window, reveal.uid, root, &fetched.bytes).await {
            metrics::counter!(telemetry::UNKEPT).increment(1);
            let (uid, error) = (reveal.uid, error.line());
            tracing::warn!(window, uid, error, "a payload was fetched and cannot be kept");
        }
        Ok(fetched.bytes)
    }

    /// Serves and archives what was fetched.
    async fn keep(&self, window: Window, uid: Uid, root: Hash, bytes: &Bytes) -> Result<()> {
        if let Some(archive) = &self.archive {
            keep_copy(archive, window, uid, bytes)
                .with_context(|| format!("cannot archive in {}", archive.display()))?;
        }
        self.serve(window, root, bytes.clone()).await
    }

    /// Serves a payload of `window` from now on. If there is no room, windows before that are no longer served.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn serve(&self, window: Window, root: Hash, bytes: Bytes) -> Result<()> {
        while let Err(error) = self.network.publish(root, bytes.clone()).await {
            if !is_full(&error) || !self.forget_oldest(window).await {
                return Err(error.into());
            }
        }
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = served.entry(window).or_default();
        if !roots.contains(&root) {
            roots.push(root);
        }
        Ok(())
    }

    /// Goes on serving those of `ids`, which a process that ran before left, that were `revealed` in a window. The others
    /// are no longer served.
    pub async fn adopt(&self, ids: Vec<Hash>, revealed: &[(Window, Hash)]) {
        let window_of = |id: &Hash| revealed.iter().rev().find(|(_, root)| root == id);
        let (ours, strange): (Vec<Hash>, Vec<Hash>) =
            ids.into_iter().partition(|id| window_of(id).is_some());
        for (window, root) in ours.iter().filter_map(window_of) {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.entry(*window).or_default().push(*root);
        }
        self.unpublish(strange).await;
    }

    /// Serves no longer what is of the oldest window before `window`; returns whether there was one.
    async fn forget_oldest(&self, window: Window) -> bool {
        let oldest = {
            let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.keys().next().copied().filter(|oldest| *oldest < window)
        };
        let Some(oldest) = oldest else { return false };
        tracing::warn!(window = oldest, "no room: the payloads of a window are no longer served");
        self.forget(oldest.saturating_add(1)).await;
        true
    }

    /// Serves no longer what is older than the chain's records in `window`.
    pub async fn forget_before(&self, window: Window) {
        self.forget(window.saturating_sub(SERVED_WINDOWS)).await;
    }

    /// Serves no longer what is of windows before `first`.
    async fn forget(&self, first: Window) {
        let (old, still): (Vec<Hash>, Vec<Hash>) = {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = served.split_off(&first);
            let old = std::mem::replace(&mut *served, kept);
            (old.into_values().flatten().collect(), served.values().flatten().copied().collect())
        };
        // One payload may have been revealed in two windows.
        self.unpublish(old.into_iter().filter(|root| !still.contains(root))).await;
    }

    async fn unpublish(&self, ids: impl IntoIterator<Item = Hash>) {
        for root in ids {
            if let Err(error) = self.network.unpublish(root).await {
                tracing::warn!(%error, "cannot unpublish");
            }
        }
    }
}

/// Whether something else must go before more can be served.
fn is_full(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Store(StoreError::Full { .. }) | NetworkError::TooMany { .. })
}

/// Whether `bytes` are cut as a payload is and have this root.
pub fn has_root(bytes: &[u8], layout: &Layout, keep: u16, root: &Hash) -> bool {
    Frame::cut(bytes, layout, keep).is_ok_and(|frame| frame.root() == *root)
}

/// Where an archive keeps the payload of `uid` in `window`.
pub fn archive_path(archive: &Path, window: Window, uid: Uid) -> PathBuf {
    archive.join(format!("window-{window:06}")).join(format!("uid-{uid:04}.update"))
}

/// Writes one payload to an archive, whole or not at all; several processes may write the same one.
fn keep_copy(archive: &Path, window: Window, uid: Uid, bytes: &[u8]) -> std::io::Result<()> {
    let path = archive_path(archive, window, uid);
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(archive);
    std::fs::create_dir_all(folder)?;
    let part = folder.join(format!(".uid-{uid:04}.{}", std::process::id()));
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, &path)
}
