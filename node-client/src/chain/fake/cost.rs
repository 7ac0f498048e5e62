//! What a run costs its owner, as the runtime's constants decide it; nobody gets it back, as no run ends here.

use codec::Encode;
use protocol::{layout::Layout, Planck};

use super::super::{RunCost, UNIT};

/// Held for a run, and for each byte of its layout: the runtime's `RunDeposit`.
const RUN_DEPOSIT: Planck = 1_000 * UNIT;
const RUN_DEPOSIT_BYTE: Planck = UNIT / 10;

/// The runtime's existential deposit.
pub(super) const EXISTENTIAL_DEPOSIT: Planck = UNIT / 1_000;

/// What creating a run with this layout costs.
pub(super) fn run_cost(layout: &Layout) -> RunCost {
    let bytes = layout.encoded_size() as Planck;
    RunCost { deposit: RUN_DEPOSIT + RUN_DEPOSIT_BYTE * bytes, foundation: EXISTENTIAL_DEPOSIT }
}
