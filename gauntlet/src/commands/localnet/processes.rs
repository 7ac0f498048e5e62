//! Starts and stops the processes of a localnet: the chain and the participants, each with its own configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use dataset::place::CACHE_BYTES_MAX;
use participant::snapshots::SNAPSHOT_EVERY;
use protocol::RunId;

use super::{
    nodes,
    order::{LocalnetOrder, Member},
    progress::LocalnetProgress,
    settings::HELD_OUT_SAMPLES,
};
use crate::{
    chain_process::Node,
    participant_file::{
        ChainSection, KeySource, KeysSection, NetworkSection, ParticipantFile, ProofsSection,
    },
    run_folder::{LOGS_FOLDER, PAYLOADS_FOLDER},
    supervise::{self, Process, Program},
};

/// How long participants, and then the chain, may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How many miners a validator asks for a chunk in a window, and how many evaluations it disputes, at most.
const ACCUSED_PER_WINDOW: u32 = 2;

/// The processes that were started; dropping it kills those that still run.
#[derive(Default)]
pub(super) struct Processes {
    pub(super) nodes: Vec<Node>,
    pub(super) participants: Vec<Process>,
}

impl Processes {
    /// The chain's nodes and the participants.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Process> {
        let nodes = self.nodes.iter_mut().map(|node| &mut node.process);
        nodes.chain(&mut self.participants)
    }

    /// Ends the participants, then the chain. No effect the second time.
    pub(super) async fn stop(&mut self, progress: &LocalnetProgress) {
        if !self.nodes.is_empty() {
            progress.doing("stopping");
        }
        supervise::stop(&mut self.participants, END_PATIENCE).await;
        self.participants.clear();
        let nodes = self.nodes.iter_mut().map(|node| &mut node.process);
        let stopping = nodes.map(|node| supervise::stop(std::slice::from_mut(node), END_PATIENCE));
        futures::future::join_all(stopping).await;
        self.nodes.clear();
    }
}

/// Writes each participant's configuration, with the `urls` of the chain's nodes, and starts its process.
///
/// # Errors
/// The disk failed, or a process cannot be started.
pub(super) fn start_participants(
    order: &LocalnetOrder,
    urls: &[String],
    run: RunId,
) -> Result<Vec<Process>> {
    let binary = std::env::current_exe()?;
    let first_validator = order.members.iter().position(|member| !member.is_miner());
    let mut processes = Vec::with_capacity(order.members.len());
    for (index, member) in order.members.iter().enumerate() {
        let own = order.folder.join(&member.name);
        std::fs::create_dir(&own)?;
        let mut file = participant_file(order, member);
        file.chain =
            ChainSection { urls: nodes::rotated(urls, index), run, ..ChainSection::default() };
        if Some(index) == first_validator {
            file.held_out_samples = HELD_OUT_SAMPLES;
        }
        let number = u16::try_from(index)?;
        let port = order.args.metrics_port.and_then(|port| port.checked_add(number));
        file.metrics = port.map(|port| ([127, 0, 0, 1], port).into());
        processes.push(start(&binary, &own, member, &file, &order.folder.join(LOGS_FOLDER))?);
    }
    Ok(processes)
}

/// The configuration of a participant, but for its chain, its metrics and its held-out samples.
fn participant_file(order: &LocalnetOrder, member: &Member) -> ParticipantFile {
    let is_validator = !member.is_miner();
    ParticipantFile {
        name: member.name.clone(),
        folder: ".".into(),
        model: order.args.model.clone(),
        data: "../data".into(),
        data_cache_bytes_max: CACHE_BYTES_MAX,
        // All participants share this machine's cores.
        threads: 1,
        device: order.args.device,
        window_end: Some(order.args.windows),
        metrics: None,
        adversary: member.adversary(),
        archive_bytes_max: None,
        archive: is_validator.then(|| PathBuf::from("..").join(PAYLOADS_FOLDER)),
        held_out_samples: 0,
        store_bytes_max: 1 << 30,
        checkpoint_every: 1,
        snapshot_every: SNAPSHOT_EVERY,
        memory_bytes: Some(match is_validator {
            true => order.shares.validator,
            false => order.shares.miner,
        }),
        chain: ChainSection::default(),
        keys: KeysSection {
            hot: KeySource::Uri(member.hot_uri()),
            cold: None,
            bonds: is_validator.then(|| KeySource::Uri(member.bonds_uri())),
            stake: None,
            entry_price_max: None,
        },
        mirror: None,
        network: NetworkSection {
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0".into()],
            ..NetworkSection::default()
        },
        proofs: match is_validator {
            true => proofs(),
            false => ProofsSection::default(),
        },
    }
}

/// Validators of a localnet accuse whoever they can, so that each fault is seen to cost what it should.
fn proofs() -> ProofsSection {
    ProofsSection {
        challenges_per_window: ACCUSED_PER_WINDOW,
        disputes_per_window: ACCUSED_PER_WINDOW,
        ..ProofsSection::default()
    }
}

/// Writes the configuration into the participant's `own` folder and starts its process.
fn start(
    binary: &Path,
    own: &Path,
    member: &Member,
    file: &ParticipantFile,
    logs: &Path,
) -> Result<Process> {
    let config = own.join("config.toml");
    std::fs::write(&config, toml::to_string(file)?)?;
    let program = Program {
        name: member.name.clone(),
        binary: binary.to_owned(),
        args: vec![member.role.clone(), format!("--config={}", config.display())],
        logs: logs.to_owned(),
    };
    program.start()
}
