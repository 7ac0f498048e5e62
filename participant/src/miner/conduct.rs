//! Says what a miner does with its part of a window: how it makes its update, and how it opens the commitment to it.
//!
//! [`Honest`] is the rule. The adversaries beside it misbehave in one way each, to test that the rules do not pay for it, and do
//! everything else as [`Honest`] does, so that nothing but their update gives them away.

mod copier;
mod garbage;
mod honest;
mod lazy;
mod malformed;
mod replayer;
mod withholder;

use async_trait::async_trait;

use super::{
    reveal::reveal,
    workshop::{Prepared, Task, Workshop},
};
use crate::{error::Result, handles::Handles};

pub use copier::Copier;
pub use garbage::Garbage;
pub use honest::Honest;
pub use lazy::Lazy;
pub use malformed::Malformed;
pub use replayer::Replayer;
pub use withholder::Withholder;

/// What a miner does in a window.
#[async_trait]
pub trait Conduct: Send + Sync {
    /// Makes the update of a window. On return it survives a crash.
    ///
    /// # Errors
    /// It cannot be made: the window is missed.
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared>;

    /// Opens the commitment to `update`.
    ///
    /// # Errors
    /// It cannot be opened in time, or the chain refuses it.
    async fn open(&self, handles: &Handles, update: &Prepared) -> Result<()> {
        reveal(handles, update).await
    }

    /// Whether it shows the chunks that somebody asks for on chain.
    fn answers(&self) -> bool {
        true
    }
}
