//! Sends well-formed noise.

use async_trait::async_trait;
use protocol::{layout::Layout, update::Encoder};
use rand::{rngs::StdRng, Rng, SeedableRng};

use super::Conduct;
use crate::{
    error::Result,
    miner::workshop::{Made, Prepared, Task, Workshop},
};

/// Size of the values: about that of an honest update's, so that no norm gives them away.
const NOISE_SIZE: f32 = 0.02;

/// Makes each update of noise.
#[derive(Clone, Copy, Debug)]
pub struct Garbage;

#[async_trait]
impl Conduct for Garbage {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let info = &workshop.handles.run.info;
        let (layout, keep) = (info.layout.clone(), info.settings.training.keep);
        let seed = u64::from(task.uid) << 32 | task.state.window;
        let payload =
            workshop.handles.machine.work.run(move || noise(&layout, keep, seed)).await??;
        workshop.finish(&task, Made { payload: payload.into(), losses: None }, false).await
    }
}

fn noise(layout: &Layout, keep: u16, seed: u64) -> Result<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tensors: Vec<Vec<f32>> = layout
        .0
        .iter()
        .map(|len| (0..*len).map(|_| random.gen_range(-NOISE_SIZE..NOISE_SIZE)).collect())
        .collect();
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Ok(Encoder::new().encode(&mut slices, layout, keep)?)
}

#[cfg(test)]
mod tests {
    use protocol::update::Payload;

    use super::*;

    #[test]
    fn noise_is_well_formed() {
        let layout = Layout(vec![5000, 17]);
        let bytes = noise(&layout, 64, 1).unwrap();
        assert!(Payload::parse(&bytes, &layout, 64).is_ok());
        assert_ne!(bytes, noise(&layout, 64, 2).unwrap());
    }
}
