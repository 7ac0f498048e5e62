//! Refuses a call as the pallet does, by the pallet's own name for the error.

/// A pallet's refusal, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) pallet: &'static str,
    pub(super) error: &'static str,
}

impl Refusal {
    /// One of the pallet's errors.
    pub(super) fn gauntlet(error: &'static str) -> Self {
        let pallet = "Gauntlet";
        Self { pallet, error }
    }
}

/// `Err` with the pallet's `error` unless `holds`.
pub(super) fn ensure(holds: bool, error: &'static str) -> Result<(), Refusal> {
    if holds {
        Ok(())
    } else {
        Err(Refusal::gauntlet(error))
    }
}
