//! What a run keeps of accusations and of the money that answers for them.

use std::collections::BTreeMap;

use protocol::{fault::Judge, AccountBytes, Planck, Uid, ValidatorIndex, Window};

use super::super::{DataChallengeInfo, EvaluationDisputeInfo, EvaluationName, SlashInfo};

/// What a run keeps of accusations and of what follows from them.
#[derive(Clone, Default)]
pub(super) struct Proofs {
    /// The requests for chunks that are open, by window and uid, in their order.
    pub(super) challenges: BTreeMap<(Window, Uid), Vec<DataChallengeInfo>>,
    pub(super) disputes: BTreeMap<EvaluationName, EvaluationDisputeInfo>,
    /// Who may judge the evaluations of a window, sorted by index.
    pub(super) benches: BTreeMap<Window, Vec<Judge<AccountBytes>>>,
    /// The slashes that wait.
    pub(super) slashes: BTreeMap<u32, SlashInfo>,
    /// How many there ever were: the number of the next.
    pub(super) slash_count: u32,
}

impl Proofs {
    /// Removes the benches of windows that are not `is_kept`, unless an evaluation of one is disputed still.
    pub(super) fn forget_benches(&mut self, is_kept: impl Fn(Window) -> bool) {
        let disputed = |window: Window| self.disputes.keys().any(|(of, ..)| *of == window);
        self.benches.retain(|window, _| is_kept(*window) || disputed(*window));
    }
}

/// The money of one validator. It outlives the validator's slot.
#[derive(Clone)]
pub(super) struct StakePool {
    pub(super) cold: AccountBytes,
    pub(super) index: Option<ValidatorIndex>,
    pub(super) own: Planck,
    /// What left, by window: it stays held.
    pub(super) unbonding: BTreeMap<Window, Planck>,
}
