//! `gauntlet status`: shows where a run stands, in one screen or as JSON.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use node_client::{
    chain::{self, Chain, Ledger, MinerInfo, ValidatorInfo},
    keys,
};
use participant::{
    diary::{DiaryRecord, Reader},
    handles::Role,
    hindrance::{self, Hindrance},
    reach,
};
use protocol::{
    emission::Pots,
    window::{phase_at, Moment, Schedule},
    BlockNumber, RunId, Window,
};
use serde_json::{json, Value};

use crate::{
    chain_process,
    env::{self, DEFAULT_URL},
    exit, limits, participant_file,
};

/// Options of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// The run's number on the chain.
    #[arg(default_value_t = 0)]
    pub run: RunId,
    /// Say whether the participant of this configuration can work, and if not, why: one line, and one more if nobody can dial it. Chain
    /// and run are those of the file. Needs no password.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run", "json"])]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Shows where a run stands.
///
/// # Errors
/// The chain does not answer, or has no such run.
pub async fn run(args: StatusArgs) -> Result<u8> {
    if let Some(path) = &args.config {
        return of_participant(path).await;
    }
    let chain = chain_process::connect(&args.url).await?;
    let head = chain.finalized_head().await?;
    let at = Some(head.hash);
    let info = chain
        .run(args.run, at)
        .await?
        .with_context(|| format!("there is no run {} on this chain", args.run))?;
    let status = Status {
        run: args.run,
        block: head.number,
        schedule: info.settings.schedule,
        miners: chain.miners(args.run, at).await?,
        validators: chain.validators(args.run, at).await?,
        ledger: chain.ledger(args.run, at).await?,
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&status.json())?),
        false => status.print(),
    }
    Ok(exit::SUCCESS)
}

/// Prints why a participant cannot work, or that nothing is in its way; with the duty that it missed last, if it did none since, and in
/// a second line why others do not reach it.
///
/// # Errors
/// The file is no configuration, or the chain does not answer. That it cannot work is the exit code [`exit::FAILURE`].
async fn of_participant(path: &Path) -> Result<u8> {
    let file = participant_file::read(path)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let hot = file.keys.hot.account(base).context("keys.hot")?;
    let chain = chain::connect(&file.chain.urls).await?;
    let run = file.chain.run;
    // The file does not say which of the two it is of.
    let as_miner = hindrance::find(&chain, run, &hot, Role::Miner).await?;
    let as_validator = hindrance::find(&chain, run, &hot, Role::Validator).await?;
    let (role, found) = match (&as_miner, &as_validator) {
        (Some(Hindrance::NotRegistered { .. }), other)
            if !matches!(other, Some(Hindrance::NotRegistered { .. })) =>
        {
            ("validator", as_validator)
        }
        (Some(Hindrance::NotRegistered { .. } | Hindrance::NoRun(_)), _) => {
            ("participant", as_miner)
        }
        _ => ("miner", as_miner),
    };
    let name = &file.name;
    if let Some(unreached) = reach::find(&chain, run, &hot).await? {
        println!("{name}, a {role}: {unreached}");
    }
    if let Some(reason) = found {
        println!("{name} cannot work: {reason}");
        return Ok(exit::FAILURE);
    }
    match last_missed(&base.join(&file.folder))? {
        Some((window, duty, reason)) => {
            println!(
                "{name}, a {role}, missed its last duty ({duty} of window {window}): {reason}"
            );
        }
        None => println!("{name} works as a {role} of run {run}"),
    }
    Ok(exit::SUCCESS)
}

/// The duty of a participant's diary that was missed last, if none was done since.
fn last_missed(folder: &Path) -> Result<Option<(Window, &'static str, String)>> {
    let mut reader = Reader::new(folder);
    let mut missed = None;
    loop {
        let records = reader.read()?;
        if records.is_empty() {
            return Ok(missed);
        }
        for record in records {
            match record {
                DiaryRecord::Missed { window, duty, reason } => {
                    missed = Some((window, duty.name(), reason));
                }
                DiaryRecord::Done { .. } => missed = None,
                _ => {}
            }
        }
    }
}

/// A run as one finalised block has it.
struct Status {
    run: RunId,
    block: BlockNumber,
    schedule: Schedule,
    miners: Vec<MinerInfo>,
    validators: Vec<ValidatorInfo>,
    ledger: Ledger,
}

impl Status {
    fn json(&self) -> Value {
        let moment = phase_at(&self.schedule, self.block);
        let ledger = &self.ledger;
        json!({
            "run": self.run,
            "block": self.block,
            "window": moment.map(|moment| moment.window),
            "phase": moment.map(|moment| format!("{:?}", moment.phase).to_lowercase()),
            "miners": self.miners.iter().map(|miner| json!({
                "uid": miner.uid,
                "account": keys::address(&miner.cold),
                "value": miner.value.to_f64(),
                "share": miner.share.to_f64(),
                "scored_windows": miner.standing.scored_windows,
            })).collect::<Vec<_>>(),
            "validators": self.validators.iter().map(|validator| json!({
                "index": validator.index,
                "account": keys::address(&validator.cold),
                "stake": validator.stake.to_string(),
                "attested_window": validator.attested_window,
            })).collect::<Vec<_>>(),
            "emission": {
                "minted": ledger.minted.to_string(),
                "funded": ledger.funded.to_string(),
                "paid": ledger.paid.to_string(),
                "claimable": ledger.claimable.to_string(),
                "carried": {
                    "owner": ledger.carried_owner.to_string(),
                    "miners": ledger.carried_miners.to_string(),
                    "validators": ledger.carried_validators.to_string(),
                },
                "unspent": ledger.unspent.to_string(),
                "slashed": ledger.slashed.to_string(),
                "burned": ledger.burned.to_string(),
            },
        })
    }

    /// Prints one screen.
    fn print(&self) {
        self.print_moment();
        self.print_participants();
        self.print_money();
    }

    fn print_money(&self) {
        let Ledger { minted, funded, paid, claimable, unspent, slashed, burned, .. } = &self.ledger;
        let Pots { owner, miners, validators } = self.ledger.carried();
        println!("\nminted {minted} + funded {funded} = paid {paid} + claimable {claimable}");
        println!("  + carried {owner} (owner) + {miners} (miners) + {validators} (validators)");
        println!("  + unspent {unspent} + slashed {slashed} + burned {burned}");
    }

    fn print_moment(&self) {
        let Self { run, block, schedule, .. } = self;
        match phase_at(schedule, *block) {
            Some(Moment { window, phase, offset, .. }) => println!(
                "run {run} · block {block} · window {window} · {phase:?} ({offset}/{})",
                schedule.window_blocks
            ),
            None => {
                println!("run {run} · block {block} · begins at block {}", schedule.start_block);
            }
        }
    }

    fn print_participants(&self) {
        println!("\n uid  share    standing  proof   windows  account");
        for miner in &self.miners {
            println!(
                "{:>4}  {:>5.1} %  {:>8.3}  {:>6.3}  {:>7}  {}",
                miner.uid,
                miner.share.to_f64() * 100.0,
                miner.value.to_f64(),
                miner.standing.proof.to_f64(),
                miner.standing.scored_windows,
                keys::address(&miner.cold),
            );
        }
        println!("\n validator  stake (planck)          last attested  account");
        for validator in &self.validators {
            let attested =
                validator.attested_window.map_or("never".to_owned(), |window| window.to_string());
            println!(
                "{:>10}  {:<22}  {:>13}  {}",
                validator.index,
                validator.stake,
                attested,
                keys::address(&validator.cold),
            );
        }
    }
}
