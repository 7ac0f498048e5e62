//! A node as a child process, and how the tests talk to it.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{json, Value};

/// How long anything may take before the test fails; generous, as the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// A running node; dropping it kills it as `kill -9` would.
pub(crate) struct Node {
    child: Child,
    rpc_port: u16,
    p2p_port: u16,
    log: std::path::PathBuf,
}

impl Node {
    /// Starts a node whose database and log are in `folder`, listening on loopback only.
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_with(folder, args, &[])
    }

    /// [`Self::start`] with variables of the environment.
    pub(crate) fn start_with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let [rpc_port, p2p_port] = free_ports();
        let log = folder.join("node.log");
        let open = || {
            File::options().create(true).append(true).open(&log).expect("the log can be written")
        };
        let child = Command::new(env!("CARGO_BIN_EXE_gauntlet-node"))
            .args(args)
            .envs(variables.iter().copied())
            .args(["--no-prometheus", "--no-telemetry", "--no-mdns"])
            .arg("--base-path")
            .arg(folder)
            .args(["--rpc-port", &rpc_port.to_string()])
            .args(["--listen-addr", &format!("/ip4/127.0.0.1/tcp/{p2p_port}")])
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("the node starts");
        let mut node = Self { child, rpc_port, p2p_port, log };
        node.wait("answers", |node| node.try_call("system_health", json!([])).map(drop));
        node
    }

    /// What the node has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where a client of the RPC connects to.
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.rpc_port)
    }

    /// The address under which another node finds this one.
    pub(crate) fn address(&self) -> String {
        let peer = self.call("system_localPeerId", json!([]));
        let peer = peer.as_str().expect("a peer id is text");
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", self.p2p_port)
    }

    /// The height of the last final block.
    pub(crate) fn finalized_number(&self) -> u64 {
        let hash = self.call("chain_getFinalizedHead", json!([]));
        number_of(&self.call("chain_getHeader", json!([hash])))
    }

    /// The hash of the block at a height of the best chain.
    pub(crate) fn block_hash(&self, number: u64) -> String {
        let hash = self.call("chain_getBlockHash", json!([number]));
        hash.as_str().expect("the block is there").to_owned()
    }

    /// Waits until the block at `number` is final.
    pub(crate) fn wait_for_finalized(&mut self, number: u64) {
        self.wait(&format!("finalises block {number}"), |node| {
            (node.finalized_number() >= number).then_some(())
        });
    }

    /// The result of an RPC method.
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|| panic!("{method} has no answer"))
    }

    /// The answers to as many calls of an RPC method as there are parameters, in one request; each a result or an error.
    pub(crate) fn batch(&self, method: &str, params: Vec<Value>) -> Vec<Value> {
        let calls = (0u32..).zip(params).map(
            |(id, params)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
        );
        let answer = self.post(&Value::Array(calls.collect()));
        let Some(Value::Array(answers)) = answer else {
            panic!("{method} has no answers: {answer:?}");
        };
        answers
    }

    /// The height of the best block.
    pub(crate) fn best_number(&self) -> u64 {
        number_of(&self.call("chain_getHeader", json!([])))
    }

    /// Waits until the best chain is so high.
    pub(crate) fn wait_for_best(&self, number: u64) {
        let started = Instant::now();
        while self.best_number() < number {
            assert!(started.elapsed() < PATIENCE, "waited for block {number}");
            thread::sleep(PAUSE);
        }
    }

    fn try_call(&self, method: &str, params: Value) -> Option<Value> {
        let answer =
            self.post(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))?;
        answer.get("result").cloned()
    }

    /// The answer to a request's body; `None` if the node does not answer.
    fn post(&self, body: &Value) -> Option<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.rpc_port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.rpc_port,
            body.len()
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    fn wait<T>(&mut self, what: &str, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            let ended = self.child.try_wait().expect("the process can be asked");
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "waited until the node {what}; ended: {ended:?}; its log:\n{}",
                self.log()
            );
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Either the process is ours to kill or it has ended by itself; both are fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The height in a header.
fn number_of(header: &Value) -> u64 {
    let number = header["number"].as_str().expect("a block has a number");
    u64::from_str_radix(number.trim_start_matches("0x"), 16).expect("it is hexadecimal")
}

/// Ports that nothing listens on now.
fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until all are chosen, so that they differ.
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}
