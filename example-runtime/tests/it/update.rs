//! What a miner and a validator compute off the chain, small: no model, but updates in the real format.

use pallet_gauntlet::{LayoutVec, RevealedChunk, RevealedChunks};
use protocol::{
    commitment::{challenged_chunks, Opening},
    consensus::Evaluation,
    layout::{Layout, CHUNK_LEN},
    settings::Settings,
    update::{Encoder, Payload},
    Hash, Uid, Window,
};

use crate::chain::RUN;

/// The root of the state from which everybody begins and at which a run without a model stays.
pub(crate) const ROOT: Hash = [3; 32];

/// The example's rules with windows of sixty numbers of the clock, whichever it is.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.schedule.window_blocks = 60;
    settings.schedule.commit_end = 24;
    settings.schedule.reveal_end = 36;
    settings.schedule.attest_commit_end = 44;
    settings.schedule.attest_end = 52;
    settings.schedule.score_commit_end = 20;
    settings.schedule.score_reveal_end = 32;
    settings.training.genesis_state_root = ROOT;
    settings.incentive.claim_delay_windows = 1;
    settings
}

fn layout() -> Layout {
    Layout(vec![u64::from(CHUNK_LEN), 100])
}

/// The layout as `create_run` takes it.
pub(crate) fn layout_vec() -> LayoutVec {
    LayoutVec::truncate_from(layout().0)
}

/// The bytes of a miner's update.
pub(crate) struct Update(Vec<u8>);

impl Update {
    /// An update that differs from those of other miners.
    pub(crate) fn of_miner(number: u8) -> Self {
        let value = |at: u64| ((at * 7_919 + u64::from(number) * 97) % 1_009) as f32 / 1e4;
        let mut tensors: Vec<Vec<f32>> =
            layout().0.iter().map(|len| (0..*len).map(value).collect()).collect();
        let mut tensors: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
        let keep = settings().training.keep;
        Update(Encoder::new().encode(&mut tensors, &layout(), keep).expect("values are finite"))
    }

    fn with_payload<R>(&self, read: impl FnOnce(Payload<'_>) -> R) -> R {
        let payload = Payload::parse(&self.0, &layout(), settings().training.keep);
        read(payload.expect("the encoder wrote these bytes"))
    }

    /// What the miner commits to.
    pub(crate) fn opening(&self) -> Opening {
        self.with_payload(|payload| Opening {
            payload_root: payload.root(),
            chunk_count: payload.chunk_count(),
            byte_len: self.0.len() as u64,
            base_state_root: ROOT,
            salt: [9; 32],
        })
    }

    /// The chunks that the chain asks of `uid`.
    pub(crate) fn shown(&self, seed: &Hash, window: Window, uid: Uid) -> RevealedChunks {
        let count = settings().incentive.challenge_chunks;
        self.with_payload(|payload| {
            let leaves = payload.leaf_hashes();
            let asked = challenged_chunks(seed, RUN, window, uid, leaves.len() as u32, count);
            let shown = asked.into_iter().map(|index| {
                let shown = payload.chunk_proof(&leaves, index).expect("the chunk is there");
                RevealedChunk {
                    index,
                    chunk: shown.chunk.try_into().expect("a chunk fits"),
                    proof: shown.proof.try_into().expect("a proof fits"),
                }
            });
            RevealedChunks::truncate_from(shown.collect())
        })
    }
}

/// What a validator measures of a miner: losses of 4 nats that its update lowers, more on its own samples.
pub(crate) fn evaluation(uid: Uid) -> Evaluation {
    let before: u32 = 4 << 24;
    let after = |parts: u32| before - before / 1_000 * parts;
    Evaluation {
        uid,
        own_before: before,
        own_after: after(20),
        random_before: before,
        random_after: after(10),
    }
}
