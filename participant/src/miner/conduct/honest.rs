//! Trains on what was assigned and shows what was committed to.

use async_trait::async_trait;

use super::Conduct;
use crate::{
    error::Result,
    miner::workshop::{Prepared, Task, Workshop},
};

/// Does what the rules ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest;

#[async_trait]
impl Conduct for Honest {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let made = workshop.train(&task).await?;
        workshop.finish(&task, made, true).await
    }
}
