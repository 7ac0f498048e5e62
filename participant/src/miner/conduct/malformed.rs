//! Commits to an update of which one chunk does not decode.

use async_trait::async_trait;
use protocol::update::Payload;

use super::Conduct;
use crate::{
    error::{Attempt as _, Result},
    handles::Handles,
    miner::workshop::{Made, Prepared, Task, Workshop},
};

/// Trains, and then spoils one chunk, another one in each window: the chain may ask for it, or not.
#[derive(Clone, Copy, Debug)]
pub struct Malformed;

#[async_trait]
impl Conduct for Malformed {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let made = workshop.train(&task).await?;
        let payload = spoil(&workshop.handles, &made.payload, task.state.window)?;
        workshop.finish(&task, Made { payload: payload.into(), ..made }, false).await
    }
}

/// The update with a chunk whose scale is a NaN.
fn spoil(handles: &Handles, bytes: &[u8], window: u64) -> Result<Vec<u8>> {
    let info = &handles.run.info;
    let payload = Payload::parse(bytes, &info.layout, info.settings.training.keep)?;
    // The number is below a u32.
    let index = (window % u64::from(payload.chunk_count())) as u32;
    let after: usize = (index..payload.chunk_count())
        .filter_map(|index| payload.chunk(index))
        .map(<[u8]>::len)
        .sum();
    let at = bytes.len() - after;
    let mut spoiled = bytes.to_vec();
    spoiled.get_mut(at..at + 2).context("a chunk without a scale")?.fill(0xFF);
    Ok(spoiled)
}
