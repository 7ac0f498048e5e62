//! Names the ways in which a miner can misbehave, to test that the rules do not pay for it.

use std::{str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::conduct::{Conduct, Copier, Garbage, Lazy};

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
}

impl AdversaryKind {
    /// What such a miner does.
    pub fn conduct(self) -> Arc<dyn Conduct> {
        match self {
            Self::Garbage => Arc::new(Garbage),
            Self::Copier => Arc::new(Copier),
            Self::Lazy => Arc::new(Lazy),
        }
    }

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Copier => "copier",
            Self::Lazy => "lazy",
        }
    }
}

impl FromStr for AdversaryKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Garbage, Self::Copier, Self::Lazy]
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("{text:?} is not garbage, copier or lazy"))
    }
}
