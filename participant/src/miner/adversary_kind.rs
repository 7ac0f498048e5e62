//! Names the ways in which a miner can misbehave, to test that the rules do not pay for it.

use std::{str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::conduct::{Conduct, Copier, Garbage, Lazy, Malformed, Replayer, Withholder};

/// How an adversary misbehaves; see [`super::conduct`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum AdversaryKind {
    /// Sends well-formed noise as its update.
    Garbage,
    /// Tries to open another miner's payload as its own.
    Copier,
    /// Sends its first update again and again.
    Lazy,
    /// Sends what another miner sent in the window before.
    Replayer,
    /// Commits to an update of which one chunk does not decode.
    Malformed,
    /// Opens its commitment and shows its update to nobody.
    Withholder,
}

impl AdversaryKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Garbage,
        Self::Copier,
        Self::Lazy,
        Self::Replayer,
        Self::Malformed,
        Self::Withholder,
    ];

    /// What such a miner does.
    pub fn conduct(self) -> Arc<dyn Conduct> {
        match self {
            Self::Garbage => Arc::new(Garbage),
            Self::Copier => Arc::new(Copier),
            Self::Lazy => Arc::new(Lazy),
            Self::Replayer => Arc::new(Replayer),
            Self::Malformed => Arc::new(Malformed),
            Self::Withholder => Arc::new(Withholder),
        }
    }

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Copier => "copier",
            Self::Lazy => "lazy",
            Self::Replayer => "replayer",
            Self::Malformed => "malformed",
            Self::Withholder => "withholder",
        }
    }
}

impl FromStr for AdversaryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            format!("{text:?} is not one of {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}
