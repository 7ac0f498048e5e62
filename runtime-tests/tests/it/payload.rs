//! Makes miners' payloads in the real format, some of them wrong in one place.

use pallet_gauntlet::Windows;
use protocol::{
    commitment::{challenged_chunks, ChunkProof, Opening},
    fault::copy_places,
    merkle::{leaf_hash, proof, root_of_leaf_hashes},
    update::{Encoder, Payload},
    Hash, RunId, Uid, Window,
};
use runtime::Runtime;
use sp_io::hashing::blake2_256;

use crate::network::{layout, Model, KEEP};

/// What is wrong with a payload or its opening.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// No chunk decodes.
    Malformed,
    /// The first chunk does not decode.
    FirstMalformed,
    /// The opening names one chunk more than the layout has.
    ChunkCount,
    /// The opening names a length of zero.
    ByteLen,
    /// It was made from another state than the run's first.
    OtherBase,
}

/// A payload as a miner has it.
pub(crate) struct MinerPayload {
    chunks: Vec<Vec<u8>>,
    opening: Opening,
}

impl MinerPayload {
    /// A payload of its own for every `flavour`.
    pub(crate) fn new(flavour: u8, flaw: Flaw) -> Self {
        let layout = layout();
        let value = |at: u64| (at * 7_919 + u64::from(flavour) * 97) % 1_009;
        let tensor = |len: &u64| (0..*len).map(|at| value(at) as f32 / 1e4).collect();
        let mut tensors: Vec<Vec<f32>> = layout.0.iter().map(tensor).collect();
        let mut tensors: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
        let bytes = Encoder::new().encode(&mut tensors, &layout, KEEP).expect("finite values");
        let payload = Payload::parse(&bytes, &layout, KEEP).expect("the encoder wrote this");
        let mut chunks: Vec<Vec<u8>> = payload.chunks().map(<[u8]>::to_vec).collect();
        if flaw == Flaw::Malformed {
            // The scale is a NaN.
            chunks.iter_mut().for_each(|chunk| chunk[..2].fill(0xFF));
        }
        if flaw == Flaw::FirstMalformed {
            chunks[0][..2].fill(0xFF);
        }
        let mut opening = Opening {
            payload_root: root_of_leaf_hashes(&leaves(&chunks)).expect("there are chunks"),
            chunk_count: chunks.len() as u32,
            byte_len: bytes.len() as u64,
            base_state_root: Model::genesis().root(),
            salt: blake2_256(&[flavour]),
        };
        match flaw {
            Flaw::ChunkCount => opening.chunk_count += 1,
            Flaw::ByteLen => opening.byte_len = 0,
            Flaw::OtherBase => opening.base_state_root = [3; 32],
            Flaw::None | Flaw::Malformed | Flaw::FirstMalformed => {}
        }
        MinerPayload { chunks, opening }
    }

    /// What the miner opens its commitment with.
    pub(crate) fn opening(&self) -> Opening {
        self.opening.clone()
    }

    /// So many chunks that the chain asks of `uid`, with proofs.
    pub(crate) fn shown(
        &self,
        seed: &Hash,
        (run, window, uid): (RunId, Window, Uid),
        count: u8,
    ) -> Vec<ChunkProof> {
        let asked = challenged_chunks(seed, run, window, uid, self.chunks.len() as u32, count);
        asked.into_iter().map(|index| self.chunk(index)).collect()
    }

    /// A chunk, with its proof.
    pub(crate) fn chunk(&self, index: u32) -> ChunkProof {
        ChunkProof {
            index,
            chunk: self.chunks[index as usize].clone(),
            proof: proof(&leaves(&self.chunks), index).expect("the index is one of the payload's"),
        }
    }
}

/// The chunks that a proof of a copy in `window` shows; none before they are drawn.
pub(crate) fn copied_places(run: RunId, window: Window) -> Vec<u32> {
    let seed = Windows::<Runtime>::get(run, window).and_then(|record| record.challenge_seed);
    let places = seed.map(|seed| copy_places(&seed, &layout(), KEEP));
    places.into_iter().flatten().map(|place| place.index).collect()
}

fn leaves(chunks: &[Vec<u8>]) -> Vec<Hash> {
    (0..).zip(chunks).map(|(index, chunk)| leaf_hash(index, chunk)).collect()
}
