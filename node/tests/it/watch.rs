//! Who watches a transaction on a development chain hears of its block before that block is final, by either RPC.

use std::time::Duration;

use pallet_balances::Call;
use serde_json::Value;
use sp_keyring::Sr25519Keyring::{Alice, Bob};
use subxt_rpcs::{client::RpcParams, rpc_params, RpcClient};

use crate::{process::Node, transactions::signed};

/// How many transactions are watched after another: one may pass by luck.
const WATCHED: u32 = 5;
/// How long the node may take to tell all of one of them.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_watched_transaction_is_in_a_block_before_it_is_final() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(folder.path(), &["--dev", "--block-millis", "200"]);
    let rpc = RpcClient::from_insecure_url(node.url()).await.expect("the node listens");
    let transfer = |nonce| {
        let dest = Bob.to_account_id().into();
        signed(&node, Alice, nonce, Call::transfer_keep_alive { dest, value: 1_000_000_000_000 })
    };

    for nonce in 0..WATCHED {
        let method = ["author_submitAndWatchExtrinsic", "author_unwatchExtrinsic"];
        let said = watch(&rpc, method, rpc_params![transfer(nonce)], "finalized").await;
        let in_block = place(&said, "inBlock");
        assert!(in_block < place(&said, "finalized"), "{said:?}");
        assert_eq!(said[in_block]["inBlock"], said[said.len() - 1]["finalized"]);
    }
    for nonce in WATCHED..2 * WATCHED {
        let method = ["transactionWatch_v1_submitAndWatch", "transactionWatch_v1_unwatch"];
        let said = watch(&rpc, method, rpc_params![transfer(nonce)], "finalized").await;
        let in_block = place(&said, "bestChainBlockIncluded");
        assert!(in_block < place(&said, "finalized"), "{said:?}");
        assert_eq!(said[in_block]["block"], said[said.len() - 1]["block"]);
    }
}

/// All that the node tells of a transaction, up to the message of that kind.
async fn watch(
    rpc: &RpcClient,
    [subscribe, unsubscribe]: [&str; 2],
    params: RpcParams,
    last: &str,
) -> Vec<Value> {
    let mut told = rpc
        .subscribe::<Value>(subscribe, params, unsubscribe)
        .await
        .expect("the transaction is valid");
    let mut said = Vec::new();
    while !said.iter().any(|message| is(message, last)) {
        let message = tokio::time::timeout(PATIENCE, told.next()).await;
        let message = message.unwrap_or_else(|_| panic!("nothing more was told than {said:?}"));
        said.push(message.expect("the node tells until the end").expect("it is JSON"));
    }
    said
}

/// Where in the messages the first of that kind is.
fn place(said: &[Value], kind: &str) -> usize {
    let place = said.iter().position(|message| is(message, kind));
    place.unwrap_or_else(|| panic!("{kind} was not told: {said:?}"))
}

/// Whether a message is of that kind: the older RPC tags it by a field, the newer one by `event`.
fn is(message: &Value, kind: &str) -> bool {
    message.get(kind).is_some() || message["event"] == kind
}
