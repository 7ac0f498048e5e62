//! Ranks what was revealed in a window by the standings that the chain has, to fetch first what will be accepted.

use node_client::chain::{MinerInfo, RevealInfo};
use protocol::{
    books::{self, FetchOrder, Revealed},
    settings::Incentive,
    Hash, Window,
};

/// In which order to fetch `reveals`, for who holds the state of `state_root`. A hint: the chain decides by the standings and the
/// settings of its own moment.
pub(crate) fn fetch_order(
    window: Window,
    reveals: &[RevealInfo],
    miners: &[MinerInfo],
    state_root: &Hash,
    incentive: &Incentive,
) -> FetchOrder {
    let revealed: Vec<Revealed> = reveals
        .iter()
        .map(|reveal| {
            let miner = miners.iter().find(|miner| miner.uid == reveal.uid);
            let standing = miner.map(|miner| &miner.standing);
            Revealed {
                uid: reveal.uid,
                base_state_root: reveal.opening.base_state_root,
                value: miner.map(|miner| miner.value).unwrap_or_default(),
                is_scored: standing.is_some_and(|standing| standing.scored_windows > 0),
                // Whom the chain does not know any more is a newcomer.
                registered_window: miner.map_or(window, |miner| miner.registered_window),
            }
        })
        .collect();
    books::fetch_order(window, &revealed, state_root, incentive)
}
