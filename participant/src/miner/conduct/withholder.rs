//! Opens its commitment and shows its update to nobody.

use async_trait::async_trait;

use super::Conduct;
use crate::{
    error::Result,
    handles::Handles,
    miner::{
        reveal::open,
        workshop::{Prepared, Task, Workshop},
    },
};

/// Trains, serves nothing, and answers nobody.
#[derive(Clone, Copy, Debug)]
pub struct Withholder;

#[async_trait]
impl Conduct for Withholder {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let made = workshop.train(&task).await?;
        workshop.finish(&task, made, true).await
    }

    async fn open(&self, handles: &Handles, update: &Prepared) -> Result<()> {
        open(handles, update, false).await
    }

    fn answers(&self) -> bool {
        false
    }
}
