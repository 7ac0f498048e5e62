//! A chain that is read and written through a light client alone.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::StreamExt;
use node_client::{
    chain::{self, Call, Chain, ChainError},
    keys,
};

use crate::localnet::gauntlet;

/// One of the two authorities of the chain `local`, whose finality is voted for.
struct Authority(Child);

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn binary() -> PathBuf {
    let beside = || PathBuf::from(gauntlet()).with_file_name("gauntlet-node");
    std::env::var_os("GAUNTLET_NODE").map_or_else(beside, PathBuf::from)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Makes a network key and returns the peer id that belongs to it.
fn network_key(file: &Path) -> String {
    let made = Command::new(binary())
        .args(["key", "generate-node-key", "--chain=local", "--file"])
        .arg(file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stderr).unwrap().trim().to_owned()
}

fn authority(name: &str, folder: &Path, key: &Path, listen: &str, bootnode: &str) -> Authority {
    let mut command = Command::new(binary());
    command
        .args(["--chain=local", &format!("--{name}"), "--validator", "--no-mdns"])
        .args(["--no-telemetry", "--no-prometheus", "--allow-private-ip"])
        .arg(format!("--listen-addr={listen}"))
        .arg("--rpc-port=0")
        .arg(format!("--base-path={}", folder.join(name).display()))
        .arg(format!("--node-key-file={}", key.display()));
    if !bootnode.is_empty() {
        command.arg(format!("--bootnodes={bootnode}"));
    }
    Authority(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// The chain's specification, without nodes that others reach.
fn specification() -> serde_json::Value {
    let exported = Command::new(binary())
        .args(["export-chain-spec", "--chain=local", "--raw"])
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    serde_json::from_slice(&exported.stdout).unwrap()
}

/// What a read says that succeeds: on a busy machine nobody may prove anything for a while.
async fn read<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, ChainError>>,
{
    loop {
        match attempt().await {
            Ok(read) => return read,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

#[tokio::test]
async fn a_light_client_is_enough_to_follow_read_and_write_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let keys = ["alice-key", "bob-key"].map(|name| folder.join(name));
    let [alice, _] = [0, 1].map(|index| network_key(&keys[index]));
    let mut chain = specification();
    // Of what others may take, too, not long before it is used.
    let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let bootnode = format!("{listen}/p2p/{alice}");
    let _alice = authority("alice", folder, &keys[0], &listen, "");
    let _bob = authority("bob", folder, &keys[1], "/ip4/127.0.0.1/tcp/0", &bootnode);
    let spec = folder.join("chain.json");
    chain["bootNodes"] = serde_json::json!([bootnode]);
    std::fs::write(&spec, serde_json::to_vec(&chain).unwrap()).unwrap();

    let urls = [format!("light:{}", spec.display())];
    let story = async {
        // The authorities need some seconds to begin.
        let chain = read(|| chain::connect(&urls)).await;
        let mut blocks = read(|| chain.subscribe_finalized()).await;
        let first = blocks.next().await.unwrap();
        for number in first.number + 1..first.number + 6 {
            let block = blocks.next().await.unwrap();
            assert_eq!(block.number, number);
            assert_eq!(read(|| chain.block_hash(number)).await, Some(block.hash));
            read(|| chain.events_at(block.hash)).await;
        }
        let alice = keys::keypair_from_uri("//Alice").unwrap();
        let to = keys::account(&keys::keypair_from_uri("//Ferdie").unwrap());
        let before = read(|| chain.balance(to, None)).await;
        let amount = 1_000_000_000_000;
        // The same call again is the same bytes.
        while chain.submit(&alice, Call::Transfer { to, amount }).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        while read(|| chain.balance(to, None)).await < before + amount {
            blocks.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(450), story).await.unwrap();
}
