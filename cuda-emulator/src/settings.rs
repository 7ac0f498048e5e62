//! How a kernel is run.

use std::ffi::c_int;
use std::fmt;

/// How lanes take turns; blocks come in the same manner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Order {
    /// From the first to the last.
    #[default]
    Forwards,
    /// From the last to the first.
    Backwards,
    /// Another order at each turn, by this seed below 98.
    Random(u32),
    /// One warp, by this seed, runs until it cannot go on; then another.
    Ahead(u32),
}

impl Order {
    /// As the emulator's C interface has it.
    pub(crate) fn number(self) -> c_int {
        let number = match self {
            Self::Forwards => 0,
            Self::Backwards => 1,
            Self::Random(seed) => 2 + seed % 98,
            Self::Ahead(seed) => 100 + seed % 1_000_000,
        };
        c_int::try_from(number).unwrap_or_default()
    }
}

/// When asynchronous copies happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Copies {
    /// As late as the kernel waits for them.
    #[default]
    Late,
    /// As they are started.
    AtOnce,
}

/// How a kernel is run; its result must not depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Settings {
    /// Of lanes and blocks.
    pub order: Order,
    /// Of asynchronous copies.
    pub copies: Copies,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            Order::Forwards => write!(f, "lanes forwards"),
            Order::Backwards => write!(f, "lanes backwards"),
            Order::Random(seed) => write!(f, "lanes in random order {seed}"),
            Order::Ahead(seed) => write!(f, "one warp ahead {seed}"),
        }?;
        match self.copies {
            Copies::Late => write!(f, ", copies late"),
            Copies::AtOnce => write!(f, ", copies at once"),
        }
    }
}
