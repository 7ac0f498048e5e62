//! Draws the jury of a dispute as the chain does, so that a validator knows that it is drawn before anybody has voted.

use protocol::{
    books::{permit_of, Permit},
    fault::{seat_jury, Candidate, Parties},
    AccountBytes, Hash,
};

use super::{EvaluationDisputeInfo, JurorInfo, ValidatorInfo};

/// The seats of a dispute's jury of up to `jurors`, by index: of `validators`, by the seed and the permits (sorted by index)
/// of the window after the dispute. `accused_cold` is the cold key of the pool that answers for the evaluation.
///
/// The chain draws at the first commitment. A validator that leaves between this draw and that one may change the jury.
pub fn draw_seats(
    validators: &[ValidatorInfo],
    permits: &[Permit],
    dispute: &EvaluationDisputeInfo,
    accused_cold: Option<AccountBytes>,
    seed: &Hash,
    jurors: u8,
) -> Vec<JurorInfo> {
    let (_, accused, _) = dispute.name;
    let (challenger, opened) = (dispute.challenger, dispute.opened);
    let parties = Parties { accused, accused_cold, challenger, opened };
    let candidates = validators.iter().filter_map(|found| {
        Some(Candidate {
            index: found.index,
            cold: found.cold,
            registered_window: found.registered_window,
            stake: permit_of(permits, found.index)?.into(),
        })
    });
    let seats = seat_jury(seed, candidates.collect(), &parties, usize::from(jurors)).into_iter();
    let seat =
        |Candidate { index, cold, .. }| JurorInfo { index, cold, commitment: None, measured: None };
    seats.map(seat).collect()
}
