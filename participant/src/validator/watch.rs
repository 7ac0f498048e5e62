//! Notices copies among the payloads that a validator fetches, in one window and over those that the chain keeps, and chunks that do not
//! decode; reports them with the proof.
//!
//! There is no equivocation to notice: a miner's commitment on chain binds one payload, and participants sign nothing else (decision 0018).
//!
//! A sample of [`WATCHED_CHUNKS`] places is watched, drawn by a salt that no miner knows: of two payloads that keep the same
//! positions in one of their chunks one may be a copy, whatever the values, and a copier would have to change nearly every chunk
//! not to be seen. Whether it is one is told by the chunks that the chain draws for the proof.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::zip,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use node_client::chain::{RevealInfo, SHOWN_BYTES_MAX};
use protocol::{
    assignment::random_samples,
    commitment::ChunkProof,
    fault::{copy_places, is_telling, judge_copy, Committed, Place, Shown},
    layout::Layout,
    merkle::leaf_hash,
    update::{decode_chunk, Frame, Payload},
    Hash, Uid, Window,
};

use crate::{
    desk::{Errand, Submitted},
    error::{Attempt as _, Error, Result},
    handles::{Handles, Run},
    holders,
    payloads::SERVED_WINDOWS,
};

/// Places whose chunks are compared.
const WATCHED_CHUNKS: usize = 64;

/// Blocks in which a report is to be included; if it is not, the next payload that shows the fault brings it up again.
const REPORT_BLOCKS: u32 = 20;

/// Who committed to a payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Seen {
    window: Window,
    order: u32,
    uid: Uid,
}

impl Seen {
    /// A place in the order of commitments.
    fn time(&self) -> (Window, u32) {
        (self.window, self.order)
    }
}

/// Two commitments with chunks in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    earlier: Seen,
    later: Seen,
}

/// Remembers which positions payloads keep.
pub(super) struct Watch {
    places: Vec<Place>,
    // The earliest commitment to each chunk's positions, by their hash. Never held across an await.
    seen: Mutex<BTreeMap<Hash, Seen>>,
    reported: Mutex<BTreeSet<(Window, Uid)>>,
}

impl Watch {
    /// Watches payloads of a layout under `keep` at places drawn by `salt`, of those whose chunks are long enough to prove anything.
    pub(super) fn new(layout: &Layout, keep: u16, salt: &Hash) -> Self {
        let chunk_count = layout.chunk_count().unwrap_or(0);
        let drawn = random_samples(salt, b"watch", chunk_count.into());
        let places = (0..chunk_count).filter_map(|position| {
            let index = u32::try_from(drawn.as_ref()?.apply(position.into())?).ok()?;
            Some(Place { index, chunk_count, len: layout.chunk_len(index)?, keep })
        });
        let places =
            places.filter(|place| is_telling(place.len, keep)).take(WATCHED_CHUNKS).collect();
        Self { places, seen: Mutex::default(), reported: Mutex::default() }
    }

    /// Remembers a payload, and says with which commitment it has most chunks in common. Costs a hash a watched place.
    fn observe(&self, payload: &Payload<'_>, seen: Seen) -> Option<Match> {
        let mut kept = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, first| first.window + SERVED_WINDOWS >= seen.window);
        let mut common: BTreeMap<Seen, u32> = BTreeMap::new();
        for place in &self.places {
            let chunk = payload.chunk(place.index);
            let Some(hash) = chunk.and_then(|chunk| positions_hash(chunk, place)) else {
                continue;
            };
            let first = kept.entry(hash).or_insert(seen);
            if *first == seen {
                continue;
            }
            *common.entry(*first).or_default() += 1;
            if seen.time() < first.time() {
                *first = seen;
            }
        }
        let (other, _) = common.into_iter().max_by_key(|(_, count)| *count)?;
        let is_later = other.time() <= seen.time();
        let (earlier, later) = if is_later { (other, seen) } else { (seen, other) };
        Some(Match { earlier, later })
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

/// The hash of a chunk's number and of the positions that it keeps. `None` of a chunk of zeros, which is everybody's.
fn positions_hash(chunk: &[u8], place: &Place) -> Option<Hash> {
    let chunk =
        decode_chunk(chunk, place.len, place.keep).ok().filter(|chunk| chunk.scale_bf16 != 0)?;
    let positions: Vec<u8> = chunk.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
    Some(leaf_hash(place.index, &positions))
}

/// What a look at a payload shows.
enum Look {
    /// With which other it has chunks in common, if with any.
    Whole(Option<Match>),
    /// A chunk that does not decode.
    Malformed(ChunkProof),
}

/// Looks at a payload that was fetched, and reports the fault that it brings to light. Nothing depends on the outcome.
pub(super) async fn look(
    watch: &Arc<Watch>,
    handles: &Handles,
    window: Window,
    reveal: &RevealInfo,
    bytes: &Bytes,
) {
    let this = Seen { window, order: reveal.order, uid: reveal.uid };
    let (watching, info, looked_at) = (watch.clone(), handles.run.info.clone(), bytes.clone());
    let work = move || {
        let (layout, keep) = (&info.layout, info.settings.training.keep);
        match Payload::parse(&looked_at, layout, keep) {
            Ok(payload) => Ok(Look::Whole(watching.observe(&payload, this))),
            Err(error) => {
                malformed(&looked_at, layout, keep).map(Look::Malformed).ok_or(Error::from(error))
            }
        }
    };
    let reported = match handles.machine.work.run_short(work).await.and_then(|looked| looked) {
        Ok(Look::Whole(None)) => Ok(()),
        Ok(Look::Whole(Some(found))) => report(watch, handles, (this, reveal), bytes, found).await,
        Ok(Look::Malformed(chunk)) => {
            report_malformed(watch, handles, window, reveal.uid, chunk).await
        }
        Err(error) => Err(error),
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

/// Reports a copy that a payload, `this`, brings to light, of its window or of one before.
async fn report(
    watch: &Watch,
    handles: &Handles,
    (this, reveal): (Seen, &RevealInfo),
    bytes: &Bytes,
    found: Match,
) -> Result<()> {
    let later = found.later;
    if !watch.is_news(later) {
        return Ok(());
    }
    let reported = report_copy(handles, (reveal, bytes), this, found).await;
    if !matches!(reported, Ok(true)) {
        watch.retry((later.window, later.uid));
    }
    reported.map(|_| ())
}

/// Reports that `found.later` is a copy of `found.earlier`, if the chunks that the chain draws show it; whether they do. One of the
/// two is `this`, whose payload is given.
async fn report_copy(
    handles: &Handles,
    (reveal, bytes): (&RevealInfo, &Bytes),
    this: Seen,
    Match { earlier, later }: Match,
) -> Result<bool> {
    let Handles { chain, peers, run: Run { id: run, info, .. }, .. } = handles;
    let (layout, keep) = (&info.layout, info.settings.training.keep);
    let other = if earlier == this { later } else { earlier };
    let reveals = chain.reveals(*run, other.window, None).await?;
    let of_other = reveals.into_iter().find(|reveal| reveal.uid == other.uid);
    let of_other = of_other.context("the other reveal is gone")?;
    let holder = holders::of(handles, this.window, this.uid).await?;
    let other_holder = holders::of(handles, other.window, other.uid).await?;
    let other_bytes = peers.payloads.fetch(other.window, &other_holder.hot, &of_other).await?;
    let record = chain.window(*run, later.window, None).await?;
    let seed = record.and_then(|record| record.challenge_seed).context("the draw is gone")?;
    let places = copy_places(&seed, layout, keep);
    let firsts = proofs_of(handles, bytes, &places).await?;
    let seconds = proofs_of(handles, &other_bytes, &places).await?;
    let chunks: Vec<[ChunkProof; 2]> = zip(firsts, seconds).map(<[_; 2]>::from).collect();
    let shown: Vec<_> = chunks.iter().map(|pair| pair.each_ref().map(shown)).collect();
    let committed = |seen: Seen, payload_root| Committed {
        window: seen.window,
        order: seen.order,
        uid: seen.uid,
        payload_root,
    };
    let of_this = committed(this, reveal.opening.payload_root);
    let of_other = committed(other, of_other.opening.payload_root);
    // What the chain would not find is not reported.
    let overlap_ppm = info.settings.disputes.copy_overlap_ppm;
    if let Err(reason) = judge_copy((&of_this, &of_other), &shown, &places, overlap_ppm) {
        tracing::debug!(window = this.window, uid = later.uid, %reason, "common chunks are no copy");
        return Ok(false);
    }
    let commitments = [holder.commitment(this.window), other_holder.commitment(other.window)];
    let report = Errand::ReportCopy { commitments, chunks };
    prove(handles, (later.window, later.uid), report).await?;
    Ok(true)
}

/// The chunks of a payload at these places, with their proofs.
async fn proofs_of(handles: &Handles, bytes: &Bytes, places: &[Place]) -> Result<Vec<ChunkProof>> {
    let (info, bytes, places) = (handles.run.info.clone(), bytes.clone(), places.to_vec());
    let work = move || {
        let payload = Payload::parse(&bytes, &info.layout, info.settings.training.keep)?;
        let leaves = payload.leaf_hashes();
        let proof = |place: &Place| payload.chunk_proof(&leaves, place.index);
        places.iter().map(|place| proof(place).context("a chunk that is not there")).collect()
    };
    handles.machine.work.run_short(work).await?
}

fn shown(chunk: &ChunkProof) -> Shown<'_> {
    Shown { bytes: &chunk.chunk, proof: &chunk.proof }
}

#[cfg(test)]
mod tests {
    use protocol::{
        layout::kept,
        update::{encode_chunk, Chunk},
    };

    use super::*;

    const KEEP: u16 = 64;

    fn layout() -> Layout {
        Layout(vec![3 * 4096])
    }

    /// A payload of three chunks whose positions begin where `firsts` says.
    fn payload(firsts: [u16; 3]) -> Vec<u8> {
        payload_of(firsts, 1)
    }

    fn payload_of(firsts: [u16; 3], code: u8) -> Vec<u8> {
        let chunks = firsts.map(|first| {
            let count = kept(4096, KEEP);
            let indices = (0..count).map(|at| first + at).collect();
            let chunk =
                Chunk { scale_bf16: 0x3c00, indices, codes: vec![code; usize::from(count)] };
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
        assert_eq!((found.earlier.uid, found.later.uid), (3, 1));
        let found = observe(&watch, [7, 1, 1], seen(11, 0, 2)).unwrap();
        assert_eq!((found.earlier, found.later), (seen(4, 6, 2), seen(11, 0, 2)));
        // What the chain has forgotten cannot be proven.
        assert_eq!(observe(&watch, [5, 8, 5], seen(13, 0, 4)), None);
    }

    /// To stumble over one common chunk hid the copy of the others.
    #[test]
    fn who_has_most_in_common_is_found_whatever_the_values() {
        let watch = Watch::new(&layout(), KEEP, &[7; 32]);
        assert_eq!(observe(&watch, [1, 2, 3], seen(4, 0, 1)), None);
        assert_eq!(observe(&watch, [4, 5, 6], seen(4, 1, 2)), None);
        let near = payload_of([1, 5, 6], 2);
        let near = Payload::parse(&near, &layout(), KEEP).unwrap();
        let found = watch.observe(&near, seen(4, 2, 3)).unwrap();
        assert_eq!((found.earlier.uid, found.later.uid), (2, 3));
    }

    /// A chunk of a norm's 16 values keeps one, as everybody's may: to stumble over it first hid the copy of the whole.
    #[test]
    fn chunks_that_prove_nothing_are_not_watched() {
        let layout = Layout(vec![16, 16, 4096, 16, 1024, 1023]);
        for salt in 0..20 {
            let watch = Watch::new(&layout, KEEP, &[salt; 32]);
            let mut places: Vec<u32> = watch.places.iter().map(|place| place.index).collect();
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
        let place = Place { index: 0, chunk_count: 1, len: 4096, keep: KEEP };
        let chunk = |scale_bf16| {
            let indices = (0..KEEP).collect();
            let chunk = Chunk { scale_bf16, indices, codes: vec![0; usize::from(KEEP)] };
            positions_hash(&encode_chunk(&chunk, 4096, KEEP).unwrap(), &place)
        };
        assert!(chunk(0x3c00).is_some() && chunk(0).is_none());
    }
}
