//! Draws the jury of a dispute as the chain does, so that a validator knows that it is drawn before anybody has voted.

use protocol::{
    fault::{seat_jury, Candidate, Parties},
    AccountBytes, Hash,
};

use super::{EvaluationDisputeInfo, JurorInfo, ValidatorInfo};

/// The seats of a dispute's jury of up to `jurors`, by index: of `validators`, by the seed of the window after the dispute.
/// `accused_cold` is the cold key of the pool that answers for the evaluation.
///
/// The chain draws at the first commitment. A stake that changes between this draw and that one may change the jury.
pub fn draw_seats(
    validators: &[ValidatorInfo],
    dispute: &EvaluationDisputeInfo,
    accused_cold: Option<AccountBytes>,
    seed: &Hash,
    jurors: u8,
) -> Vec<JurorInfo> {
    let (_, accused, _) = dispute.name;
    let (challenger, opened) = (dispute.challenger, dispute.opened);
    let parties = Parties { accused, accused_cold, challenger, opened };
    let candidates = validators.iter().map(|found| Candidate {
        index: found.index,
        cold: found.cold,
        registered_window: found.registered_window,
        stake: found.stake,
    });
    let seats = seat_jury(seed, candidates.collect(), &parties, usize::from(jurors)).into_iter();
    let seat =
        |Candidate { index, cold, .. }| JurorInfo { index, cold, commitment: None, measured: None };
    seats.map(seat).collect()
}
