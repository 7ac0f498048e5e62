//! A chain that is read and written through a light client alone, and a miner that has no other.

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

use crate::{
    localnet::gauntlet,
    walk::{cold, config},
};

/// A process that ends with the test: one of the two authorities of the chain `local`, whose finality is voted for, or a
/// participant.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn binary() -> PathBuf {
    let beside = || PathBuf::from(gauntlet()).with_file_name("gauntlet-node");
    std::env::var_os("GAUNTLET_NODE").map_or_else(beside, PathBuf::from)
}

/// Two ports on which nobody listens now.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|port| port.local_addr().unwrap().port())
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

fn authority(
    name: &str,
    folder: &Path,
    key: &Path,
    listen: &str,
    rpc_port: u16,
    bootnode: &str,
) -> Running {
    let mut command = Command::new(binary());
    command
        .args(["--chain=local", &format!("--{name}"), "--validator", "--no-mdns"])
        .args(["--no-telemetry", "--no-prometheus", "--allow-private-ip"])
        .arg(format!("--listen-addr={listen}"))
        .arg(format!("--rpc-port={rpc_port}"))
        .arg(format!("--base-path={}", folder.join(name).display()))
        .arg(format!("--node-key-file={}", key.display()));
    if !bootnode.is_empty() {
        command.arg(format!("--bootnodes={bootnode}"));
    }
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
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

/// Runs one of gauntlet's commands in `folder`, which succeeds.
async fn succeed(folder: &Path, line: &str) {
    let mut command = tokio::process::Command::new(gauntlet());
    let output = command
        .args(line.split(' '))
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {said}");
}

/// Starts a participant of the run 0 that asks `url`.
fn participant(folder: &Path, role: &str, url: &str, cold_uri: &str) -> Running {
    let text = config(role, "nano", "data", "run = 0", role, &cold(cold_uri));
    let file = format!("{role}.toml");
    std::fs::write(folder.join(&file), text.replace("ws://127.0.0.1:9944", url)).unwrap();
    let log = std::fs::File::create(folder.join(format!("{role}.log"))).unwrap();
    let mut command = Command::new(gauntlet());
    command.args([role, "--config", &file]).current_dir(folder);
    Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
}

#[tokio::test]
async fn a_light_client_is_all_that_a_miner_needs_of_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let keys = ["alice-key", "bob-key"].map(|name| folder.join(name));
    let [alice, _] = [0, 1].map(|index| network_key(&keys[index]));
    let mut chain = specification();
    // Of what others may take, too, not long before it is used.
    let [listen_port, rpc_port] = free_ports();
    let listen = format!("/ip4/127.0.0.1/tcp/{listen_port}");
    let bootnode = format!("{listen}/p2p/{alice}");
    let _alice = authority("alice", folder, &keys[0], &listen, rpc_port, "");
    let _bob = authority("bob", folder, &keys[1], "/ip4/127.0.0.1/tcp/0", 0, &bootnode);
    let spec = folder.join("chain.json");
    chain["bootNodes"] = serde_json::json!([bootnode]);
    std::fs::write(&spec, serde_json::to_vec(&chain).unwrap()).unwrap();

    let (node, light) = (format!("ws://127.0.0.1:{rpc_port}"), format!("light:{}", spec.display()));
    let urls = [light.clone()];
    let story = async {
        // The authorities need some seconds to begin.
        let chain = read(|| chain::connect(&urls)).await;
        follow(&chain).await;
        transfer(&chain).await;

        let line = "A miner trains, a validator measures, and the chain keeps the books. ";
        let lines: Vec<String> = (0..6_000).map(|number| format!("{number}: {line}\n")).collect();
        std::fs::write(folder.join("text.txt"), lines.concat()).unwrap();
        let build = "data build --input text.txt --tokenizer bytes --sample-len 128 --out data";
        succeed(folder, build).await;
        let create = "run create --model nano --data data --key-uri //Alice --window-blocks 42 --inner-steps 2 --batch-size 4 --start-in 25";
        succeed(folder, &format!("{create} --url {node}")).await;
        let _validator = participant(folder, "validator", &node, "//Charlie");
        let _miner = participant(folder, "miner", &light, "//Dave");
        let mut blocks = read(|| chain.subscribe_finalized()).await;
        // Its update of some window is what everybody applies.
        loop {
            blocks.next().await.unwrap();
            let windows = futures::future::join_all((0..4).map(|window| {
                let chain = &chain;
                read(move || chain.window(0, window, None))
            }));
            let windows = windows.await;
            if windows.iter().flatten().any(|window| window.accepted == [0]) {
                break;
            }
        }
    };
    let story = tokio::time::timeout(Duration::from_secs(800), story).await;
    let log = || {
        ["validator", "miner"]
            .map(|role| std::fs::read_to_string(folder.join(format!("{role}.log"))))
    };
    assert!(story.is_ok(), "{:#?}", log());
}

/// Every final block is told of, in order and with its events.
async fn follow(chain: &impl Chain) {
    let mut blocks = read(|| chain.subscribe_finalized()).await;
    let first = blocks.next().await.unwrap();
    for number in first.number + 1..first.number + 6 {
        let block = blocks.next().await.unwrap();
        assert_eq!(block.number, number);
        assert_eq!(read(|| chain.block_hash(number)).await, Some(block.hash));
        read(|| chain.events_at(block.hash)).await;
    }
}

async fn transfer(chain: &impl Chain) {
    let mut blocks = read(|| chain.subscribe_finalized()).await;
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
}
