//! `gauntlet wallet send`: sends money to another account.

use anyhow::{Context, Result};
use clap::Args;
use node_client::{
    chain::{Call, Chain},
    keys,
};
use protocol::Planck;

use super::key::{self, KeyArgs};
use crate::{
    chain_process::connect,
    commands::money,
    env::{self, DEFAULT_URL},
    exit, limits,
    terminal::{parse_units, units},
};

/// Options of `wallet send`.
#[derive(Args, Debug)]
pub struct SendArgs {
    /// WebSocket address of the chain.
    #[arg(long, env = env::URL, default_value = DEFAULT_URL, value_parser = limits::text)]
    pub url: String,
    /// The key that pays.
    #[command(flatten)]
    pub key: KeyArgs,
    /// Who receives it: an address, or the file of a key.
    #[arg(long, value_name = "ADDRESS|FILE", value_parser = limits::text)]
    pub to: String,
    /// How much, in UNIT.
    #[arg(long, value_name = "UNITS", value_parser = parse_units)]
    pub amount: Planck,
}

/// Sends money.
///
/// # Errors
/// The keys cannot be read, or the chain refuses.
pub(super) async fn run(args: SendArgs) -> Result<u8> {
    let to = key::account_of(&args.to).context("--to")?;
    let chain = connect(&args.url).await?;
    money::check(&chain, &key::account(&args.key)?, args.amount, "is to be sent").await?;
    let key = key::open(&args.key, &args.url)?;
    let call = Call::Transfer { to, amount: args.amount };
    chain.submit(&key, call).await.context("cannot send the money")?;
    let has = chain.balance(to, None).await?;
    println!("{} UNIT to {}, which has {} now", units(args.amount), keys::address(&to), units(has));
    Ok(exit::SUCCESS)
}
