//! A network of namespaces on a bridge, and the peers in them.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::{
    command::{is_there, quiet, run},
    failure::Failure,
};

/// The bridge that all are on, and the one behind the delay, if there is one.
const HUB: &str = "hub";
const FAR: &str = "far";

/// What a queue holds before it drops, in time and in bytes let through at once.
const QUEUE: &str = "200ms";
const BURST: &str = "32kb";

/// Packets that TCP hands to a link at a time, at the least: what is sent in a millisecond at 110 Mb/s, which links of
/// 5.5 Mb/s stand for. It would be two there, and 28 peers take more of two processors than of their links.
const BUNDLE: &str = "8";

/// What the kernel counts processor time in, for programs, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// A link to the hub, in Mb/s.
#[derive(Clone, Copy, Default)]
pub(crate) struct Link {
    /// What it gives up and down; `None` is without limit.
    pub(crate) mbit: Option<(f64, f64)>,
    /// Share of packets that get lost on the way in.
    pub(crate) loss_percent: u32,
    /// Whether it is behind the delay.
    pub(crate) is_far: bool,
}

impl Link {
    /// A link of so many Mb/s up and down.
    pub(crate) fn of(up: f64, down: f64) -> Self {
        Self { mbit: Some((up, down)), ..Self::default() }
    }
}

/// How a NAT chooses ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// The inner port where it is free: a cone, as home routers are.
    Cone,
    /// Another one for each connection.
    Symmetric,
}

/// The daemon that many home routers run, and the package of Debian that has it. Only what needs it is left out without.
const ROUTER: &str = "miniupnpd";
pub(crate) const ROUTER_PACKAGE: &str = "miniupnpd-nftables";

/// Where a router that forwards ports is, which is in no private network: a peer believes none that is behind another one.
const OUTSIDE: &str = "9.9.9.9";

/// The lab: lives in the namespaces of this process, and goes with them.
pub(crate) struct Lab {
    program: PathBuf,
    nodes: u8,
    /// Whether new hosts' kernels send by BBR.
    is_bbr: bool,
    /// The wire of the delay, while there is one.
    wire: Option<Process>,
    /// They end with the namespaces.
    routers: Vec<Child>,
}

/// A host of the lab.
#[derive(Clone)]
pub(crate) struct Node {
    space: String,
    pub(crate) ip: String,
    /// Its address of IPv6, where the machine has that and no NAT is before it.
    six: Option<String>,
}

/// What the addresses of the hosts on the bridges begin with, before their number.
const FOUR: &str = "10.77.0.";
const SIX: &str = "fd77::";

impl Node {
    /// The same host by its address of IPv6, if it has one.
    pub(crate) fn by_six(&self) -> Option<Self> {
        Some(Self { ip: self.six.clone()?, ..self.clone() })
    }
}

impl Lab {
    /// An empty network. The process must be in a network and mount namespace of its own.
    pub(crate) fn new(program: &Path) -> Result<Self, Failure> {
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
        ip("link set lo up")?;
        ip(&format!("link add name {HUB} type bridge"))?;
        ip(&format!("link set {HUB} up"))?;
        // What crosses the bridge passes no firewall: that takes some hundredths of the processors.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        Ok(Self {
            program: program.to_owned(),
            nodes: 0,
            is_bbr: false,
            wire: None,
            routers: Vec::new(),
        })
    }

    /// A part of the network that is so many milliseconds away, one way.
    pub(crate) fn delay(&mut self, millis: u32) -> Result<(), Failure> {
        ip(&format!("link add name {FAR} type bridge"))?;
        ip(&format!("link set {FAR} up"))?;
        for (tap, bridge) in [("tap0", HUB), ("tap1", FAR)] {
            ip(&format!("tuntap add dev {tap} mode tap"))?;
            ip(&format!("link set {tap} master {bridge}"))?;
            ip(&format!("link set {tap} up"))?;
        }
        let mut command = Command::new(&self.program);
        command.args(["delay", "tap0", "tap1", &millis.to_string()]);
        let (wire, _) = Process::start(command)?;
        self.wire = Some(wire);
        Ok(())
    }

    /// Lets hosts that are added from then on send by BBR over TCP, or by what the kernel does.
    pub(crate) fn use_bbr(&mut self, is_bbr: bool) {
        self.is_bbr = is_bbr;
    }

    /// A host on a link.
    pub(crate) fn node(&mut self, link: Link) -> Result<Node, Failure> {
        let (space, outer) = (format!("n{}", self.nodes), format!("v{}", self.nodes));
        self.nodes += 1;
        let address = format!("{FOUR}{}", self.nodes);
        let bridge = if link.is_far { FAR } else { HUB };
        ip(&format!("netns add {space}"))?;
        ip(&format!("link add name {outer} type veth peer name eth0 netns {space}"))?;
        ip(&format!("link set {outer} master {bridge}"))?;
        ip(&format!("link set {outer} up"))?;
        for words in ["link set lo up", "link set eth0 up"] {
            ip(&format!("-n {space} {words}"))?;
        }
        ip(&format!("-n {space} address add {address}/24 dev eth0"))?;
        // Nobody else has it, which would otherwise be waited for. Some machines have no IPv6.
        let six = format!("{SIX}{}", self.nodes);
        let words = format!("-n {space} address add {six}/64 dev eth0 nodad");
        let six = quiet(Command::new("ip").args(words.split(' '))).then_some(six);
        if self.is_bbr {
            set(&space, "tcp_congestion_control", "bbr")?;
        }
        set(&space, "tcp_min_tso_segs", BUNDLE)?;
        if let Some((up, down)) = link.mbit {
            limit(&["-n", &space], "eth0", up)?;
            limit(&[], &outer, down)?;
        }
        if link.loss_percent > 0 {
            let rule = format!("numgen random mod 100 < {} drop", link.loss_percent);
            let chain = "add chain inet loss in { type filter hook input priority 0; }";
            let rule = format!("add table inet loss; {chain}; add rule inet loss in {rule}");
            nft(&space, &rule)?;
        }
        Ok(Node { space, ip: address, six })
    }

    /// A host behind a NAT of its own, whose outer side has the link.
    pub(crate) fn behind(&mut self, nat: Nat, link: Link) -> Result<Node, Failure> {
        let gate = self.node(link)?.space;
        let space = format!("{gate}in");
        ip(&format!("netns add {space}"))?;
        ip(&format!("-n {gate} link add name eth1 type veth peer name eth0 netns {space}"))?;
        ip(&format!("-n {gate} address add 192.168.7.1/24 dev eth1"))?;
        ip(&format!("-n {gate} link set eth1 up"))?;
        for words in [
            "link set lo up",
            "link set eth0 up",
            "address add 192.168.7.2/24 dev eth0",
            "route add default via 192.168.7.1",
        ] {
            ip(&format!("-n {space} {words}"))?;
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run(Command::new("ip").args(["netns", "exec", &gate, "sh", "-c", forward]))?;
        let random = if nat == Nat::Symmetric { " fully-random" } else { "" };
        let tables = [
            "add table ip nat",
            "add chain ip nat out { type nat hook postrouting priority 100; }",
            &format!("add rule ip nat out oifname eth0 masquerade{random}"),
            "add chain ip nat forward { type filter hook forward priority 0; policy drop; }",
            "add rule ip nat forward iifname eth1 accept",
            "add rule ip nat forward ct state established,related accept",
            // A stranger's packet that the NAT itself took would leave no port for ours to there.
            "add chain ip nat input { type filter hook input priority 0; policy drop; }",
            "add rule ip nat input iifname eth1 accept",
            "add rule ip nat input ct state established,related accept",
        ];
        nft(&gate, &tables.join("; "))?;
        Ok(Node { space, ip: "192.168.7.2".to_owned(), six: None })
    }

    /// A host behind a cone whose router forwards ports to whom asks it (UPnP); `None` if there is none on this machine.
    pub(crate) fn forwarding(&mut self, link: Link) -> Result<Option<Node>, Failure> {
        if !is_there(ROUTER) {
            return Ok(None);
        }
        let node = self.behind(Nat::Cone, link)?;
        let gate = node.space.trim_end_matches("in");
        ip(&format!("-n {gate} address add {OUTSIDE}/32 dev eth0"))?;
        let tables = [
            "add rule ip nat forward ct status dnat accept",
            "add table inet filter",
            "add chain inet filter miniupnpd",
            "add chain inet filter prerouting_miniupnpd",
            "add chain inet filter postrouting_miniupnpd",
            "add chain inet filter prerouting { type nat hook prerouting priority -100; }",
            "add rule inet filter prerouting jump prerouting_miniupnpd",
        ];
        nft(gate, &tables.join("; "))?;
        let settings = [
            "ext_ifname=eth0",
            &format!("ext_ip={OUTSIDE}"),
            "listening_ip=eth1",
            "enable_upnp=yes",
            "secure_mode=yes",
            "uuid=d2da5a39-adfd-4852-af79-3f0f8ecc8dd8",
            "allow 1024-65535 192.168.7.0/24 1024-65535",
            "deny 0-65535 0.0.0.0/0 0-65535",
        ];
        let path = format!("/run/{ROUTER}-{gate}");
        std::fs::write(&path, settings.join("\n") + "\n")
            .map_err(|error| format!("cannot write {path}: {error}"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", gate, ROUTER, "-d", "-f", &path]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let router = command.spawn().map_err(|error| format!("cannot start {ROUTER}: {error}"))?;
        self.routers.push(router);
        Ok(Some(node))
    }

    /// Lets a host reach routers that forward ports.
    pub(crate) fn outside(&self, node: &Node) -> Result<(), Failure> {
        ip(&format!("-n {} route add {OUTSIDE}/32 dev eth0", node.space))
    }

    /// Whether an address is that of such a router.
    pub(crate) fn is_outside(address: &str) -> bool {
        address.contains(&format!("/{OUTSIDE}/"))
    }

    /// Starts a peer that has its router forward a port.
    pub(crate) fn forwarded_peer(
        &self,
        node: &Node,
        transport: &str,
        folder: &str,
    ) -> Result<Peer, Failure> {
        self.peer_of(node, transport, folder, &["upnp"])
    }

    /// Starts the program on a host with these words; returns when it says its first line, with that.
    pub(crate) fn start(&self, node: &Node, words: &[&str]) -> Result<(Process, Value), Failure> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node.space]).arg(&self.program).args(words);
        Process::start(command)
    }

    /// Starts a peer on a host that serves a content of so many bytes as a rogue of this kind; its address beside it.
    pub(crate) fn rogue(
        &self,
        node: &Node,
        kind: &str,
        len: usize,
    ) -> Result<(Process, String), Failure> {
        let words = ["rogue", kind, &node.ip, &len.to_string()];
        let (process, first) = self.start(node, &words)?;
        Ok((process, text(&first, "address")?))
    }

    /// Starts an honest peer on a host, with a folder of its own or that of a peer before it.
    pub(crate) fn peer(&self, node: &Node, transport: &str, folder: &str) -> Result<Peer, Failure> {
        self.peer_of(node, transport, folder, &[])
    }

    /// The same, sending so many bytes a second at the most.
    pub(crate) fn capped_peer(
        &self,
        node: &Node,
        transport: &str,
        folder: &str,
        bytes_per_second: &str,
    ) -> Result<Peer, Failure> {
        self.peer_of(node, transport, folder, &[bytes_per_second])
    }

    fn peer_of(
        &self,
        node: &Node,
        transport: &str,
        folder: &str,
        more: &[&str],
    ) -> Result<Peer, Failure> {
        let folder = format!("/run/netlab/{folder}");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {folder}: {error}"))?;
        let words = [&["peer", transport, &node.ip, &folder], more].concat();
        let (process, first) = self.start(node, &words)?;
        Ok(Peer { process, address: text(&first, "address")? })
    }
}

/// A running program that answers lines.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(mut command: Command) -> Result<(Self, Value), Failure> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a peer: {error}"))?;
        let input = child.stdin.take().ok_or("a peer without input")?;
        let output = BufReader::new(child.stdout.take().ok_or("a peer without output")?);
        let mut process = Self { child, input, output };
        let first = process.answer()?;
        Ok((process, first))
    }

    /// Says a line to it, without waiting for the answer.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.input, "{line}").map_err(|error| format!("a peer ended: {error}"))
    }

    /// Says a line, and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> Result<Value, Failure> {
        self.tell(line)?;
        self.answer()
    }

    /// The next line that it says.
    pub(crate) fn answer(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| format!("a peer: {error}"))?;
        serde_json::from_str(&line).map_err(|_| format!("a peer ended or said `{line}`"))
    }

    /// The most memory it has had, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<f64, Failure> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.ok_or("no VmHWM")? / 1_024.0)
    }
}

impl Process {
    /// What it has had of the processors, in seconds: by itself and by the kernel for it.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // After the name, which may have blanks, the 12th and the 13th word.
        let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: f64 = words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An honest peer. Dropping it is `kill -9`.
pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) address: String,
}

impl Peer {
    /// Says a line to it, without waiting for the answer.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        self.process.tell(line)
    }

    /// Says a line, and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> Result<Value, Failure> {
        self.process.ask(line)
    }
}

/// A text of an answer.
fn text(value: &Value, key: &str) -> Result<String, Failure> {
    let text = value.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("no `{key}` in {value}"))
}

fn ip(words: &str) -> Result<(), Failure> {
    run(Command::new("ip").args(words.split(' ')))
}

/// Sets what a host's kernel has for all its sockets of IPv4.
fn set(space: &str, name: &str, value: &str) -> Result<(), Failure> {
    let set = format!("echo {value} > /proc/sys/net/ipv4/{name}");
    run(Command::new("ip").args(["netns", "exec", space, "sh", "-c", &set]))
}

fn limit(first: &[&str], device: &str, mbit: f64) -> Result<(), Failure> {
    let rate = format!("{}kbit", (mbit * 1_000.0).round());
    run(Command::new("tc")
        .args(first)
        .args(["qdisc", "add", "dev", device, "root", "tbf", "rate", &rate])
        .args(["burst", BURST, "latency", QUEUE]))
}

fn nft(space: &str, rules: &str) -> Result<(), Failure> {
    run(Command::new("ip").args(["netns", "exec", space, "nft", rules]))
}
