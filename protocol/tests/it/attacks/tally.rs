//! Counts how attacks went, for the tests of several crates.

use std::fmt::{Display, Formatter, Result};

/// So many of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rate {
    pub(crate) found: u64,
    pub(crate) of: u64,
}

impl Rate {
    pub(crate) fn note(&mut self, found: bool) {
        self.found += u64::from(found);
        self.of += 1;
    }

    pub(crate) fn all(self) -> bool {
        self.of > 0 && self.found == self.of
    }

    pub(crate) fn none(self) -> bool {
        self.of > 0 && self.found == 0
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} of {}", self.found, self.of)
    }
}

/// The line of one attack, for the table.
pub(crate) fn tell(attack: &str, noticed: Rate, blamed: Rate) {
    println!("{attack}: noticed {noticed}, honest ones blamed {blamed}");
}
