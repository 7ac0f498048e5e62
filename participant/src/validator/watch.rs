//! Notices copies among the payloads that a validator fetches, in one window and over those that the chain keeps, and chunks that do not
//! decode; reports them with the proof.
//!
//! There is no equivocation to notice: a miner's commitment on chain binds one payload, and participants sign nothing else (decision 0018).
//!
//! A leaf's hash holds its number and its bytes: two payloads with one leaf in common have a chunk in common at one place. A
//! sample of [`WATCHED_CHUNKS`] places is watched, drawn by a salt that no miner knows, so that a copier would have to change
//! nearly every chunk not to be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use node_client::chain::{RevealInfo, SHOWN_BYTES_MAX};
use protocol::{
    assignment::random_samples,
    commitment::ChunkProof,
    fault::{judge_copy, Committed, Place, Shown, TELLING_KEPT_MIN},
    layout::{kept, Layout},
    merkle::leaf_hash,
    update::{Frame, Payload},
    Hash, Uid, Window,
};

use crate::{
    desk::{Errand, Submitted},
    error::{Attempt as _, Result},
    handles::{Handles, Run},
    holders,
    payloads::SERVED_WINDOWS,
};

/// Places whose chunks are compared.
const WATCHED_CHUNKS: usize = 64;

/// Blocks in which a report is to be included; if it is not, the next payload that shows the fault brings it up again.
const REPORT_BLOCKS: u32 = 20;

/// Who committed to a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    window: Window,
    order: u32,
    uid: Uid,
}

/// Two commitments with a chunk in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    earlier: Seen,
    later: Seen,
    index: u32,
}

/// Remembers the leaves of payloads.
pub(super) struct Watch {
    places: Vec<u32>,
    // The earliest commitment to each leaf. Never held across an await.
    seen: Mutex<BTreeMap<Hash, Seen>>,
    reported: Mutex<BTreeSet<(Window, Uid)>>,
}

impl Watch {
    /// Watches payloads of a layout under `keep` at places drawn by `salt`, of those whose chunks are long enough to prove anything.
    pub(super) fn new(layout: &Layout, keep: u16, salt: &Hash) -> Self {
        let chunk_count = u64::from(layout.chunk_count().unwrap_or(0));
        let drawn = random_samples(salt, b"watch", chunk_count);
        let places = (0..chunk_count).filter_map(|position| drawn.as_ref()?.apply(position));
        let places = places.filter_map(|place| u32::try_from(place).ok());
        let is_telling = |place: &u32| {
            let len = layout.chunk_len(*place).unwrap_or(0);
            usize::from(kept(len, keep)) >= TELLING_KEPT_MIN
        };
        let places = places.filter(is_telling).take(WATCHED_CHUNKS).collect();
        Self { places, seen: Mutex::default(), reported: Mutex::default() }
    }

    /// Remembers a payload, and says with which commitment it has a chunk in common. Costs a hash a watched place.
    fn observe(&self, payload: &Payload<'_>, seen: Seen) -> Option<Match> {
        let mut leaves = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.retain(|_, kept| kept.window + SERVED_WINDOWS >= seen.window);
        let by_time = |seen: &Seen| (seen.window, seen.order);
        let mut found = None;
        for &index in &self.places {
            let Some(chunk) = payload.chunk(index).filter(|chunk| is_trained(chunk)) else {
                continue;
            };
            let first = leaves.entry(leaf_hash(index, chunk)).or_insert(seen);
            if *first == seen {
                continue;
            }
            let (earlier, later) =
                if by_time(first) <= by_time(&seen) { (*first, seen) } else { (seen, *first) };
            *first = earlier;
            found = found.or(Some(Match { earlier, later, index }));
        }
        found
    }

    /// Whether a copy is to be reported: once.
    fn is_news(&self, copy: Seen) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.retain(|(window, _)| window + SERVED_WINDOWS >= copy.window);
        reported.insert((copy.window, copy.uid))
    }

    /// Has a fault that could not be reported be news again.
    fn retry(&self, (window, uid): (Window, Uid)) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.remove(&(window, uid));
    }
}

/// Whether a chunk's scale is not zero: chunks of zeros are everybody's.
fn is_trained(chunk: &[u8]) -> bool {
    !matches!(chunk, [0, 0, ..])
}

/// Looks at a payload that was fetched, and reports the fault that it brings to light. Nothing depends on the outcome.
pub(super) async fn look(
    watch: &Watch,
    handles: &Handles,
    window: Window,
    reveal: &RevealInfo,
    bytes: &Bytes,
) {
    let Run { info, .. } = &handles.run;
    let (layout, keep) = (&info.layout, info.settings.training.keep);
    let reported = match Payload::parse(bytes, layout, keep) {
        Ok(payload) => report(watch, handles, (window, reveal), &payload).await,
        Err(error) => match malformed(bytes, layout, keep) {
            Some(chunk) => report_malformed(watch, handles, window, reveal.uid, chunk).await,
            None => Err(error.into()),
        },
    };
    if let Err(error) = reported {
        tracing::warn!(window, uid = reveal.uid, error = error.line(), "a fault is not reported");
    }
}

/// The first chunk that does not decode and can be shown, with its proof.
fn malformed(bytes: &[u8], layout: &Layout, keep: u16) -> Option<ChunkProof> {
    let frame = Frame::cut(bytes, layout, keep).ok()?;
    let index = frame.malformed(layout, SHOWN_BYTES_MAX)?;
    frame.chunk_proof(&frame.leaf_hashes(), index)
}

/// Reports a chunk that does not decode, unless somebody has.
async fn report_malformed(
    watch: &Watch,
    handles: &Handles,
    window: Window,
    uid: Uid,
    chunk: ChunkProof,
) -> Result<()> {
    if !watch.is_news(Seen { window, order: 0, uid }) {
        return Ok(());
    }
    let reported = async {
        let commitment = holders::of(handles, window, uid).await?.commitment(window);
        prove(handles, (window, uid), Errand::ReportMalformed { commitment, chunk }).await
    };
    let reported = reported.await;
    if reported.is_err() {
        watch.retry((window, uid));
    }
    reported
}

/// Sends a report, unless the fault is known already.
async fn prove(handles: &Handles, (window, uid): (Window, Uid), report: Errand) -> Result<()> {
    let Handles { chain, desk, heads, run: Run { id: run, .. }, .. } = handles;
    let is_there = || async {
        let known = chain.proven_faults(*run, window, None).await?;
        Ok(known.iter().any(|fault| fault.uid == uid))
    };
    let last = heads.best().saturating_add(REPORT_BLOCKS);
    if desk.errand(report, is_there, last).await? == Submitted::Now {
        tracing::info!(window, uid, "a fault is proven");
    }
    Ok(())
}

/// Reports a copy that a payload brings to light, of `window` or of one before.
async fn report(
    watch: &Watch,
    handles: &Handles,
    (window, reveal): (Window, &RevealInfo),
    payload: &Payload<'_>,
) -> Result<()> {
    let this = Seen { window, order: reveal.order, uid: reveal.uid };
    let found = watch.observe(payload, this);
    let Some(Match { earlier, later, index }) = found.filter(|found| watch.is_news(found.later))
    else {
        return Ok(());
    };
    let reported = report_copy(handles, (reveal, payload), this, (earlier, later, index));
    let reported = reported.await;
    if reported.is_err() {
        watch.retry((later.window, later.uid));
    }
    reported
}

/// Reports that `later` has a chunk of `earlier`; one of the two is `this`, whose payload is given.
async fn report_copy(
    handles: &Handles,
    (reveal, payload): (&RevealInfo, &Payload<'_>),
    this: Seen,
    (earlier, later, index): (Seen, Seen, u32),
) -> Result<()> {
    let Handles { chain, peers, run: Run { id: run, info, .. }, .. } = handles;
    let (layout, keep) = (&info.layout, info.settings.training.keep);
    let other = if earlier == this { later } else { earlier };
    let reveals = chain.reveals(*run, other.window, None).await?;
    let of_other = reveals.into_iter().find(|reveal| reveal.uid == other.uid);
    let of_other = of_other.context("the other reveal is gone")?;
    let holder = holders::of(handles, this.window, this.uid).await?;
    let other_holder = holders::of(handles, other.window, other.uid).await?;
    let other_bytes = peers.payloads.fetch(other.window, &other_holder.hot, &of_other).await?;
    let first = proof_of(payload, index)?;
    let second = proof_of(&Payload::parse(&other_bytes, layout, keep)?, index)?;
    let place = Place {
        index,
        chunk_count: layout.chunk_count().unwrap_or(0),
        len: layout.chunk_len(index).unwrap_or(0),
        keep,
    };
    let committed = |seen: Seen, payload_root| Committed {
        window: seen.window,
        order: seen.order,
        uid: seen.uid,
        payload_root,
    };
    // What the chain would not find is not reported.
    let verdict = judge_copy(
        (&committed(this, reveal.opening.payload_root), shown(&first)),
        (&committed(other, of_other.opening.payload_root), shown(&second)),
        &place,
        info.settings.disputes.copy_overlap_ppm,
    );
    if let Err(reason) = verdict {
        tracing::debug!(window = this.window, uid = later.uid, %reason, "a common chunk is no copy");
        return Ok(());
    }
    let commitments = [holder.commitment(this.window), other_holder.commitment(other.window)];
    let report = Errand::ReportCopy { commitments, index, chunks: Box::new([first, second]) };
    prove(handles, (later.window, later.uid), report).await
}

fn proof_of(payload: &Payload<'_>, index: u32) -> Result<ChunkProof> {
    payload.chunk_proof(&payload.leaf_hashes(), index).context("a chunk that is not there")
}

fn shown(chunk: &ChunkProof) -> Shown<'_> {
    Shown { bytes: &chunk.chunk, proof: &chunk.proof }
}

#[cfg(test)]
mod tests {
    use protocol::update::{encode_chunk, Chunk};

    use super::*;

    const KEEP: u16 = 64;

    fn layout() -> Layout {
        Layout(vec![3 * 4096])
    }

    /// A payload of three chunks whose positions begin where `firsts` says.
    fn payload(firsts: [u16; 3]) -> Vec<u8> {
        let chunks = firsts.map(|first| {
            let count = kept(4096, KEEP);
            let indices = (0..count).map(|at| first + at).collect();
            let chunk = Chunk { scale_bf16: 0x3c00, indices, codes: vec![1; usize::from(count)] };
            encode_chunk(&chunk, 4096, KEEP).unwrap()
        });
        whole(&chunks)
    }

    fn whole(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![protocol::update::VERSION];
        bytes.extend(KEEP.to_le_bytes());
        bytes.extend((chunks.len() as u32).to_le_bytes());
        let least = protocol::update::chunk_bytes_min(4096, KEEP);
        bytes.extend(chunks.iter().map(|chunk| (chunk.len() as u32 - least) as u8));
        bytes.extend(chunks.iter().flatten());
        bytes
    }

    fn seen(window: Window, order: u32, uid: Uid) -> Seen {
        Seen { window, order, uid }
    }

    fn observe(watch: &Watch, firsts: [u16; 3], seen: Seen) -> Option<Match> {
        watch.observe(&Payload::parse(&payload(firsts), &layout(), KEEP).unwrap(), seen)
    }

    #[test]
    fn a_common_chunk_is_found_whoever_is_fetched_first_and_in_later_windows() {
        let watch = Watch::new(&layout(), KEEP, &[7; 32]);
        assert_eq!(observe(&watch, [1, 2, 3], seen(4, 5, 1)), None);
        assert_eq!(observe(&watch, [1, 2, 3], seen(4, 5, 1)), None, "fetched again");
        assert_eq!(observe(&watch, [7, 8, 9], seen(4, 6, 2)), None);
        // The copier was fetched first: the earlier commitment is still the original.
        let found = observe(&watch, [9, 2, 6], seen(4, 1, 3)).unwrap();
        assert_eq!((found.earlier.uid, found.later.uid, found.index), (3, 1, 1));
        let found = observe(&watch, [7, 1, 1], seen(11, 0, 2)).unwrap();
        assert_eq!((found.earlier, found.later, found.index), (seen(4, 6, 2), seen(11, 0, 2), 0));
        // What the chain has forgotten cannot be proven.
        assert_eq!(observe(&watch, [5, 8, 5], seen(13, 0, 4)), None);
    }

    /// A chunk of a norm's 16 values keeps one, as everybody's may: to stumble over it first hid the copy of the whole.
    #[test]
    fn chunks_that_prove_nothing_are_not_watched() {
        let layout = Layout(vec![16, 16, 4096, 16, 1024, 1023]);
        for salt in 0..20 {
            let mut places = Watch::new(&layout, KEEP, &[salt; 32]).places;
            places.sort_unstable();
            assert_eq!(places, [2, 4, 5]);
        }
    }

    #[test]
    fn a_copy_is_reported_once_and_zeros_are_nobodys() {
        let watch = Watch::new(&layout(), KEEP, &[7; 32]);
        assert!(watch.is_news(seen(4, 5, 1)));
        assert!(!watch.is_news(seen(4, 5, 1)));
        assert!(watch.is_news(seen(5, 5, 1)));
        assert!(is_trained(&[0, 0x3c]) && !is_trained(&[0, 0, 1]));
    }
}
