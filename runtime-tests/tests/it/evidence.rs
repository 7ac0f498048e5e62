//! What participants of random walks say, always the same, so that what they reveal fits what they committed to.

use pallet_gauntlet::{account_bytes, Departures, EvaluationDisputes, EvaluationName, Miners};
use protocol::{consensus::Evaluation, Hash, RunId, Uid, Window};
use runtime::{AccountId, Runtime};
use sp_io::hashing::blake2_256;

use crate::{draws::Draws, network::evaluation};

/// Since when a slot has, or had, its miner.
pub(crate) fn registered_window(run: RunId, uid: Uid) -> Window {
    let miner = Miners::<Runtime>::get(run, uid).map(|miner| miner.registered_window);
    let gone = || Departures::<Runtime>::iter_key_prefix(run).find(|(of, _)| *of == uid);
    miner.or_else(|| gone().map(|(_, window)| window)).unwrap_or(0)
}

/// What a validator says as a juror, and its salt; in every other case what the jury is asked about.
pub(crate) fn verdict(run: RunId, name: EvaluationName, validator: u8) -> (Evaluation, Hash) {
    let (window, index, uid) = name;
    let dispute = EvaluationDisputes::<Runtime>::get((run, window, index, uid));
    let said = dispute.map_or(evaluation(uid, 1, 1), |dispute| dispute.evaluation);
    let is_true = (window + u64::from(index)).is_multiple_of(2);
    let measured = if is_true { said } else { evaluation(uid, 500, 400) };
    (measured, [validator; 32])
}

/// What a validator says of so many miners in a window, and its salt: mostly gains, some losses.
pub(crate) fn measured(
    validator: u64,
    hot: &AccountId,
    window: Window,
    miners: Uid,
) -> (Vec<Evaluation>, Hash) {
    let mut draws = Draws::after(validator % 3, window << 16);
    let evaluations = (0..miners)
        .map(|uid| {
            let own = draws.below(60) as i64 - 10;
            evaluation(uid, own, own - draws.below(10) as i64)
        })
        .collect();
    (evaluations, blake2_256(&account_bytes(hot)))
}
