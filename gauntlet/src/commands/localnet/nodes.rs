//! The nodes of a localnet: the first one makes the chain's blocks, the others follow it.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use node_client::chain::Chain;

use super::args::LocalnetArgs;
use crate::chain_process::{self, Node, Pace};

/// Starts the nodes, each with a database of its own in the run folder. Those that run are in `nodes`, also when one
/// fails.
///
/// # Errors
/// One cannot be started.
pub(super) fn start(
    nodes: &mut Vec<Node>,
    binary: &Path,
    folder: &Path,
    args: &LocalnetArgs,
) -> Result<()> {
    let LocalnetArgs { block_ms: block_millis, finality_lag, fork_every, .. } = *args;
    let pace = Pace { block_millis, finality_lag, fork_every };
    nodes.push(chain_process::start(binary, folder, pace)?);
    for number in 1..args.nodes {
        let first = nodes.first().context("the chain has no first node")?;
        nodes.push(chain_process::follow(binary, folder, pace, first, number)?);
    }
    Ok(())
}

/// Waits until each node answers; returns the chain, by whichever answers, and where all are reached.
///
/// # Errors
/// One has ended, or does not answer in time.
pub(super) async fn connect(nodes: &mut [Node]) -> Result<(Arc<dyn Chain>, Vec<String>)> {
    let urls: Vec<String> = nodes.iter().map(|node| node.url.clone()).collect();
    let (first, others) = nodes.split_first_mut().context("the chain has no node")?;
    for node in others {
        node.connect().await?;
    }
    Ok((first.connect_by(&urls).await?, urls))
}

/// The `urls` as the `index`-th participant has them: all of them, from another one on.
pub(super) fn rotated(urls: &[String], index: usize) -> Vec<String> {
    let count = urls.len().max(1);
    urls.iter().cycle().skip(index % count).take(urls.len()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_participant_has_all_nodes_and_begins_with_another_one() {
        let urls = ["a", "b", "c"].map(str::to_owned);
        let begun: Vec<String> = (0..4).map(|index| rotated(&urls, index).concat()).collect();
        assert_eq!(begun, ["abc", "bca", "cab", "abc"]);
        assert_eq!(rotated(&urls[..1], 5), ["a"]);
        assert!(rotated(&[], 1).is_empty());
    }
}
