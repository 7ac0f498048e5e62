//! Several nodes, of which one answers and stands still.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::StreamExt;
use gauntlet::participant_file::ParticipantFile;
use node_client::chain::{self, Chain, SubxtChain};
use participant::diary::{DiaryRecord, Duty};

use crate::localnet::{gauntlet, Localnet};

/// A node of the development chain, and what it keeps.
struct Node {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Node {
    /// Starts one that makes a block every so many milliseconds; 0: none.
    fn start(block_millis: u64) -> Self {
        Self::launch(&[
            &format!("--block-millis={block_millis}"),
            "--listen-addr=/ip4/127.0.0.1/tcp/0",
        ])
    }

    fn launch(own: &[&str]) -> Self {
        let beside = || PathBuf::from(gauntlet()).with_file_name("gauntlet-node");
        let binary = std::env::var_os("GAUNTLET_NODE").map_or_else(beside, PathBuf::from);
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let process = Command::new(binary)
            .args(["--dev", "--no-telemetry", "--no-prometheus", "--no-mdns"])
            .arg(format!("--rpc-port={port}"))
            .arg(format!("--base-path={}", folder.path().display()))
            .args(own)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, url: format!("ws://127.0.0.1:{port}"), _folder: folder }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn connect(urls: &[String]) -> SubxtChain {
    loop {
        match chain::connect(urls).await {
            Ok(chain) => return chain,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

#[tokio::test]
async fn a_node_that_answers_and_stands_still_is_left_for_one_that_goes_on() {
    let (still, moving) = (Node::start(0), Node::start(250));
    let patience = Duration::from_secs(120);
    let story = async {
        // Both answer before the client has to choose.
        drop(connect(std::slice::from_ref(&moving.url)).await);
        drop(connect(std::slice::from_ref(&still.url)).await);
        let chain = connect(&[still.url.clone(), moving.url.clone()]).await;
        let mut blocks = chain.subscribe_finalized().await.unwrap();
        let mut best = chain.subscribe_best().await.unwrap();
        assert_eq!(blocks.next().await.unwrap().number, 0);
        for number in 1..20 {
            assert_eq!(blocks.next().await.unwrap().number, number);
        }
        assert!(best.next().await.unwrap() >= 3);
    };
    tokio::time::timeout(patience, story).await.unwrap();
}

/// A key for a node's own network, and the peer that has it.
const NODE_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const PEER_ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

#[tokio::test]
async fn a_node_whose_blocks_do_not_become_final_is_left_for_one_whose_do() {
    let port = free_port();
    let moving = Node::launch(&[
        "--block-millis=250",
        &format!("--node-key={NODE_KEY}"),
        &format!("--listen-addr=/ip4/127.0.0.1/tcp/{port}"),
    ]);
    // It has the same blocks.
    let stalled = Node::launch(&[
        "--follow",
        "--block-millis=250",
        "--finality-lag=100000",
        "--listen-addr=/ip4/127.0.0.1/tcp/0",
        &format!("--bootnodes=/ip4/127.0.0.1/tcp/{port}/p2p/{PEER_ID}"),
    ]);
    let story = async {
        for node in [&moving, &stalled] {
            goes_on(&connect(std::slice::from_ref(&node.url)).await).await;
        }
        let chain = connect(&[stalled.url.clone(), moving.url.clone()]).await;
        let mut blocks = chain.subscribe_finalized().await.unwrap();
        assert_eq!(blocks.next().await.unwrap().number, 0);
        let best = chain.best_number().await.unwrap();
        while blocks.next().await.unwrap().number <= best {}
    };
    tokio::time::timeout(Duration::from_secs(120), story).await.unwrap();
}

/// Waits until a chain has another best block than now.
async fn goes_on(chain: &SubxtChain) {
    let before = chain.best_number().await.unwrap();
    let mut best = chain.subscribe_best().await.unwrap();
    while best.next().await.unwrap() <= before {}
}

/// Blocks of 2 s, and what a client does when its node ends or hangs. How long that takes is said, not asserted: the aim is
/// three blocks and 5 s.
#[tokio::test]
async fn a_node_that_ends_or_hangs_is_left_for_one_that_goes_on() {
    for signal in ["-KILL", "-STOP"] {
        let nodes = [Node::start(2_000), Node::start(2_000)];
        let urls = nodes.each_ref().map(|node| node.url.clone());
        let story = async {
            for url in &urls {
                goes_on(&connect(std::slice::from_ref(url)).await).await;
            }
            let chain = connect(&urls).await;
            let mut best = chain.subscribe_best().await.unwrap();
            let last = best.next().await.unwrap();
            let pid = nodes[0].process.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            let began = Instant::now();
            // What was on its way from the first node comes at once.
            while best.next().await.unwrap() <= last + 1 {}
            let follows = began.elapsed();
            goes_on(&chain).await;
            println!(
                "{signal}: another node's block after {follows:.1?}, reads go on after {:.1?}",
                began.elapsed()
            );
        };
        tokio::time::timeout(Duration::from_secs(120), story).await.unwrap();
    }
}

/// The nodes that a participant of a localnet asks, in their order.
fn urls(localnet: &Localnet, name: &str) -> Vec<String> {
    let config = std::fs::read_to_string(localnet.run().join(name).join("config.toml")).unwrap();
    toml::from_str::<ParticipantFile>(&config).unwrap().chain.urls
}

#[tokio::test]
async fn a_localnet_goes_on_while_the_node_that_a_miner_asks_first_stands_still() {
    let mut localnet =
        Localnet::start(&["--nodes=2", "--miners=2", "--validators=1", "--windows=6"]);
    localnet.wait_for("miner-1", |line| matches!(line, DiaryRecord::Trained { window: 0, .. }));
    let (mut first, second) = (urls(&localnet, "miner-0"), urls(&localnet, "miner-1"));
    // The one that follows has the chain's final blocks.
    let chain = chain::connect(&second[..1]).await.unwrap();
    let mut blocks = chain.subscribe_finalized().await.unwrap();
    let follows = async { while blocks.next().await.unwrap().number == 0 {} };
    tokio::time::timeout(Duration::from_secs(120), follows).await.unwrap();
    drop((blocks, chain));
    localnet.signal("node-1", "-STOP");
    localnet.wait_for("miner-1", |line| {
        matches!(line, DiaryRecord::Done { window: 2.., duty: Duty::Commit, .. })
    });
    localnet.signal("node-1", "-CONT");
    let (_, report, _localnet) = localnet.finish();
    assert_eq!(report.restarts.len(), 0, "{:?}", report.restarts);
    assert_eq!(report.windows.last().unwrap().accepted.len(), 2, "{:#?}", report.windows);
    first.rotate_left(1);
    assert_eq!((&first, first.len()), (&second, 2), "each begins with another one");
}
