//! Explains why a participant could not do something, and says what its caller does next.

use std::{fmt::Display, io};

use dataset::place::PlaceError;
use dataset::DataError;
use node_client::{
    chain::{ChainError, SubmitError},
    journal::JournalError,
    keys::KeyError,
    network::{FetchError, NetworkError, StartError},
    store::StoreError,
};
use protocol::{
    consensus::ConsensusError, samples::SamplesError, update::UpdateError, validity::ValidityError,
    BlockNumber,
};
use trainer::{
    budget::BudgetError, device::DeviceError, CheckpointError, ConfigError, ModelError,
    ThreadsError, TrainError,
};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How the text of an [`Error::Refused`] begins.
pub const REFUSED: &str = "refused by the chain";

/// Why a participant could not do something. [`Error::next`] says what follows from it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was attempted, and why it failed.
    #[error("{attempt}")]
    While {
        /// What was attempted, without a full stop.
        attempt: String,
        /// The error that ended the attempt.
        source: Box<Error>,
    },
    /// A duty cannot be done in its window; the text says why.
    #[error("{0}")]
    Missed(String),
    /// Model, data, key or configuration are not those that the run needs; the text says which.
    #[error("{0}")]
    Unfit(String),
    /// Somebody did not answer in time.
    #[error(transparent)]
    TimedOut(#[from] tokio::time::error::Elapsed),
    /// The chain refuses an extrinsic: trying again would change nothing.
    #[error("{REFUSED}: {0}")]
    Refused(SubmitError),
    /// An extrinsic was not included in time.
    #[error("not included by block {last}: {error}")]
    TooLate {
        /// The last block that would have done.
        last: BlockNumber,
        /// What happened at the last attempt.
        error: String,
    },
    /// The chain cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// One attempt to submit failed.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The network does not work.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The network could not be started.
    #[error(transparent)]
    NetworkStart(#[from] StartError),
    /// Contents could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store on disk failed, or is full.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal failed, or refuses.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A key cannot be opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A payload is not well formed.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// A payload is well formed and yet no valid update.
    #[error(transparent)]
    Invalid(#[from] ValidityError),
    /// The run's settings do not fit its data set.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// A settlement cannot be recomputed.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// Bytes that were kept cannot be read back.
    #[error(transparent)]
    Codec(#[from] codec::Error),
    /// Text that was kept cannot be read back.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A data set cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There is no data set where one was expected.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Parameters are not a model's.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model's shape is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A local step or an evaluation failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What a model takes cannot be counted.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The device is not there, or has no room.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Threads cannot be started.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// Blocking work or a service panicked.
    #[error(transparent)]
    Panicked(#[from] tokio::task::JoinError),
}

/// What a program does about an [`Error`] that ended `open` or `run`. What fails in one window ends neither: it is an
/// event ([`crate::Event::Missed`]), and the next window is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Opens and runs it again: chain, peers, disk or a service may do better.
    Retry,
    /// Stops: a person has to change something.
    Stop,
}

impl Error {
    /// What a program does that embeds a participant.
    pub fn next(&self) -> Next {
        match self {
            Self::While { source, .. } => source.next(),
            Self::Missed(_)
            | Self::TimedOut(_)
            | Self::TooLate { .. }
            | Self::Chain(_)
            | Self::Submit(SubmitError::Transport(_) | SubmitError::Dropped(_))
            | Self::Network(_)
            | Self::Fetch(_)
            | Self::Store(_)
            | Self::Disk(_)
            | Self::Panicked(_) => Next::Retry,
            _ => Next::Stop,
        }
    }

    /// Whether the same attempt may succeed a little later: the chain, a peer, the disk did not answer.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::While { source, .. } => source.is_passing(),
            Self::TimedOut(_)
            | Self::Chain(_)
            | Self::Network(_)
            | Self::Fetch(_)
            | Self::Store(_)
            | Self::Disk(_) => true,
            _ => false,
        }
    }

    /// The error as one line: what was attempted, and every cause. A cause that the text before already ends with is not
    /// said twice.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.ends_with(&text) {
                line = format!("{line}: {text}");
            }
            cause = error.source();
        }
        line
    }
}

/// Adds what was attempted to an error, or makes one of a value that is missing.
pub(crate) trait Attempt<T> {
    /// With a text that is there already.
    fn context(self, attempt: impl Display) -> Result<T>;

    /// With a text that is made when it is needed.
    fn with_context<D: Display>(self, attempt: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Attempt<T> for std::result::Result<T, E> {
    fn context(self, attempt: impl Display) -> Result<T> {
        self.with_context(|| attempt)
    }

    fn with_context<D: Display>(self, attempt: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::While {
            attempt: attempt().to_string(),
            source: Box::new(error.into()),
        })
    }
}

impl<T> Attempt<T> for Option<T> {
    fn context(self, attempt: impl Display) -> Result<T> {
        self.with_context(|| attempt)
    }

    fn with_context<D: Display>(self, attempt: impl FnOnce() -> D) -> Result<T> {
        self.ok_or_else(|| Error::Missed(attempt().to_string()))
    }
}

/// Returns [`Error::Missed`] with a formatted text.
macro_rules! miss {
    ($($text:tt)*) => {
        return Err($crate::error::Error::Missed(format!($($text)*)))
    };
}

/// Returns [`Error::Unfit`] with a formatted text.
macro_rules! unfit {
    ($($text:tt)*) => {
        return Err($crate::error::Error::Unfit(format!($($text)*)))
    };
}

pub(crate) use {miss, unfit};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_each_cause_once_and_next_is_the_causes() {
        let full = || Err::<(), _>(io::Error::other("full"));
        let error = full().context("cannot write a.txt").context("window 3").unwrap_err();
        assert_eq!(error.line(), "window 3: cannot write a.txt: full");
        assert_eq!(error.next(), Next::Retry);
        let unfit = Err::<(), _>(Error::Unfit("another model".into())).context("the start");
        assert_eq!(unfit.unwrap_err().next(), Next::Stop);
        assert!(full().context("cannot write a.txt").unwrap_err().is_passing());
        assert!(!Error::Missed("our state is not the final one".into()).is_passing());
        // The stream of blocks has ended, a service panicked, the chain refuses a registration.
        assert_eq!(Error::Missed("the stream has ended".into()).next(), Next::Retry);
        let [pallet, error, docs] = ["Gauntlet", "RunFull", ""].map(str::to_owned);
        let refused = SubmitError::Rejected { pallet, error, docs };
        assert_eq!(Error::from(refused).next(), Next::Stop);
    }
}
