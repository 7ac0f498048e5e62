//! Miners that do not work, to test that the rules do not pay them.
//!
//! Each does everything else as an honest miner does, so that nothing but its update gives it away.

use anyhow::{bail, Context, Result};
use node_client::chain::Call;
use protocol::{
    commitment::{challenged_chunks, Opening},
    layout::Layout,
    update::{Encoder, Payload},
    window::Phase,
    Hash, Window,
};
use rand::{rngs::StdRng, Rng, RngCore, SeedableRng};

use crate::{
    miner::{challenge_seed, Prepared},
    participant::Handles,
};

/// Where the lazy adversary keeps the one update that it trained for: a window that no run reaches.
pub const LAZY_SLOT: Window = Window::MAX;

/// Size of the garbage adversary's values: about that of an honest update's, so that no norm gives it away.
const NOISE_SIZE: f32 = 0.02;

/// **Garbage**: a well-formed update of noise.
///
/// # Errors
/// The layout is not valid.
pub fn noise(layout: &Layout, keep: u16, seed: u64) -> Result<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tensors: Vec<Vec<f32>> = layout
        .0
        .iter()
        .map(|len| (0..*len).map(|_| random.gen_range(-NOISE_SIZE..NOISE_SIZE)).collect())
        .collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Ok(Encoder::new().encode(&mut slices, layout, keep)?)
}

/// **Copier**: what it commits to before it has seen anything: a guess.
pub fn guess(layout: &Layout, base_state_root: Hash, salt: Hash) -> Opening {
    let mut random = StdRng::from_seed(salt);
    let mut payload_root: Hash = [0; 32];
    random.fill_bytes(&mut payload_root);
    let chunk_count = layout.chunk_count().unwrap_or(0);
    Opening { payload_root, chunk_count, byte_len: 0, base_state_root, salt }
}

/// **Copier**: fetches the first payload that another miner reveals, and tries to open it as its own.
///
/// # Errors
/// The chain refused it, or there was nothing to copy.
pub async fn open_anothers(handles: &Handles, update: &Prepared) -> Result<()> {
    let Handles { chain, run, info, heads, .. } = handles;
    let (schedule, window) = (&info.settings.schedule, update.window);
    let seed = challenge_seed(handles, window).await?;
    let end = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
    let mut heads = heads.clone();
    let (bytes, reveal) = loop {
        let reveals = chain.reveals(*run, window, None).await?;
        if let Some(reveal) = reveals.into_iter().find(|reveal| reveal.uid != update.uid) {
            let miners = chain.miners(*run, None).await?;
            let miner = miners.iter().find(|miner| miner.uid == reveal.uid);
            let hot = miner.map(|miner| miner.hot).unwrap_or_default();
            break (handles.payloads.fetch(window, &hot, &reveal).await?, reveal);
        }
        if heads.next().await?.number + 1 >= end {
            bail!("nobody revealed anything to copy");
        }
    };
    let payload = Payload::parse(&bytes, &info.layout, info.settings.training.keep)?;
    let count = info.settings.incentive.challenge_chunks;
    let indices = challenged_chunks(&seed, *run, window, update.uid, payload.chunk_count(), count);
    let leaf_hashes = payload.leaf_hashes();
    let chunks =
        indices.iter().filter_map(|index| payload.chunk_proof(&leaf_hashes, *index)).collect();
    let opening = Opening { salt: update.opening.salt, ..reveal.opening };
    let call = Call::RevealUpdate { run: *run, window, opening, chunks };
    handles.submitter.by(call, end - 1).await?;
    tracing::info!(window, "the copy was not refused");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_well_formed() {
        let layout = Layout(vec![5000, 17]);
        let bytes = noise(&layout, 64, 1).unwrap();
        assert!(Payload::parse(&bytes, &layout, 64).is_ok());
        assert_ne!(bytes, noise(&layout, 64, 2).unwrap());
    }
}
