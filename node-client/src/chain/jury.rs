//! Draws the jury of a dispute as the chain does, so that a validator knows that it is drawn before anybody has voted.

use protocol::{books::stakes_u64, fault::draw_jury, AccountBytes, Hash, Planck};

use super::{EvaluationDisputeInfo, JurorInfo, ValidatorInfo};

/// The chain divides stakes by its slots of validators, so that all of them sum to less than 2^64.
const VALIDATORS_MAX: u64 = 64;

/// The seats of a dispute's jury of up to `jurors`, by index: of `validators` (by index), by the seed of the window after the dispute.
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
    let is_candidate = |found: &&ValidatorInfo| {
        found.index != accused
            && found.registered_window <= dispute.opened
            && found.cold != dispute.challenger
            && Some(found.cold) != accused_cold
    };
    let candidates: Vec<&ValidatorInfo> = validators.iter().filter(is_candidate).collect();
    let stakes: Vec<Planck> = candidates.iter().map(|found| found.stake).collect();
    let weighed: Vec<_> = candidates
        .iter()
        .zip(stakes_u64(&stakes))
        .map(|(found, stake)| (found.index, stake / VALIDATORS_MAX))
        .collect();
    let drawn = draw_jury(seed, &weighed, usize::from(jurors));
    let seats = candidates.into_iter().filter(|found| drawn.contains(&found.index));
    let seat = |found: &ValidatorInfo| JurorInfo {
        index: found.index,
        cold: found.cold,
        commitment: None,
        measured: None,
    };
    seats.map(seat).collect()
}
