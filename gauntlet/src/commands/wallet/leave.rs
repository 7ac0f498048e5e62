//! `gauntlet wallet leave`: takes a miner out of its run, and fetches its bond when it is free.

use anyhow::{bail, Result};
use clap::Args;
use node_client::chain::{Call, Chain};
use protocol::RunId;

use super::key::{self, KeyArgs};
use crate::{
    chain_process::connect,
    env::{self, DEFAULT_URL},
    exit, limits,
};

/// Options of `wallet leave`. The key is the cold one.
#[derive(Args, Debug)]
pub struct LeaveArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// The run's number on its chain.
    #[arg(long, value_name = "NUMBER")]
    pub run: RunId,
    /// The hot key of the miner: its address, or its file.
    #[arg(long, value_name = "ADDRESS|FILE", value_parser = limits::text)]
    pub hot: String,
    /// The cold key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Takes a miner out of its run after the open window; or, when it is gone, fetches its bond.
///
/// # Errors
/// The hot key is not a miner of the run for this cold key, its bond is not free yet, or the chain refuses.
pub(super) async fn run(args: LeaveArgs) -> Result<u8> {
    let hot = key::account_of(&args.hot)?;
    let cold = key::account(&args.key)?;
    let chain = connect(&args.url).await?;
    let miners = chain.miners(args.run, None).await?;
    let gone = chain.departures(args.run, None).await?;
    let is_own = |key: &[u8; 32], owner: &[u8; 32]| *key == hot && *owner == cold;
    if let Some(miner) = miners.iter().find(|miner| is_own(&miner.hot, &miner.cold)) {
        if let Some(last) = miner.last_window {
            println!("it leaves after window {last}; let its process end by itself");
            return Ok(exit::SUCCESS);
        }
        let call = Call::LeaveMiner { run: args.run, uid: miner.uid };
        chain.submit(&key::open(&args.key, &args.url)?, call).await?;
        println!("it leaves after the open window; let its process end by itself");
        return Ok(exit::SUCCESS);
    }
    let Some(gone) = gone.iter().find(|gone| is_own(&gone.hot, &gone.cold)) else {
        bail!("this hot key is no miner of run {} for this cold key", args.run);
    };
    let call = Call::WithdrawBond {
        run: args.run,
        uid: gone.uid,
        registered_window: gone.registered_window,
    };
    let key = key::open(&args.key, &args.url)?;
    let withdrawn = chain.submit(&key, call).await;
    if let Err(refused) = withdrawn {
        bail!("its bond is free in window {}: {refused}", gone.due);
    }
    println!("its bond is back");
    Ok(exit::SUCCESS)
}
