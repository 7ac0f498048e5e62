//! `gauntlet wallet`: makes a key, shows its address, has a hot key consent to work for a cold one, sends money.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use codec::Encode;
use node_client::keys::{self, Keypair};
use protocol::{consent::Role, AccountBytes, Hash, RunId};

use crate::{env, exit, limits};

mod leave;
mod send;

pub use leave::LeaveArgs;
pub use send::SendArgs;

/// Commands on keys.
#[derive(Subcommand, Debug)]
pub enum WalletCommand {
    /// Make a key and keep it in a file, encrypted with GAUNTLET_PASSWORD; its phrase is printed once.
    New(WalletNewArgs),
    /// Show the address of a key.
    Show(KeyArgs),
    /// Have a hot key consent to work for a cold key: prints the proof that the registration takes.
    Consent(ConsentArgs),
    /// Send money to another account.
    Send(SendArgs),
    /// Take a miner out of its run after the open window; once it is gone, fetch its bond.
    Leave(LeaveArgs),
}

/// Options of `wallet new`.
#[derive(Args, Debug)]
pub struct WalletNewArgs {
    /// The file to write, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// Options that name a key.
#[derive(Args, Debug, Clone)]
#[group(required = true, multiple = false)]
pub struct KeyArgs {
    /// An encrypted key file; its password is in GAUNTLET_PASSWORD.
    #[arg(long = "key-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A secret URI, for development: `//Alice`.
    #[arg(long = "key-uri", value_name = "URI", value_parser = limits::text)]
    pub uri: Option<String>,
}

/// Options of `wallet consent`. The key is the hot one.
#[derive(Args, Debug)]
pub struct ConsentArgs {
    /// The hot key.
    #[command(flatten)]
    pub hot: KeyArgs,
    /// The run's number on its chain.
    #[arg(long, value_name = "NUMBER")]
    pub run: RunId,
    /// What the hot key will work as.
    #[arg(long, value_enum)]
    pub role: RoleArg,
    /// Address of the cold key, which will own bond or stake and the pay.
    #[arg(long, value_name = "ADDRESS", value_parser = limits::text)]
    pub cold: String,
    /// Hash of the chain's block 0, 64 hexadecimal digits.
    #[arg(long, value_name = "HASH", value_parser = genesis_hash)]
    pub genesis: Hash,
}

/// What a key works as.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum RoleArg {
    /// It trains.
    Miner,
    /// It measures.
    Validator,
}

pub(crate) fn genesis_hash(text: &str) -> Result<Hash, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).map_err(|error| error.to_string())?;
    Ok(hash)
}

/// Runs a command on keys.
///
/// # Errors
/// As [`new`], [`show`], [`consent`], `send` and `leave`.
pub async fn run(command: WalletCommand) -> Result<u8> {
    match command {
        WalletCommand::New(args) => new(args),
        WalletCommand::Show(args) => show(args),
        WalletCommand::Consent(args) => consent(args),
        WalletCommand::Send(args) => send::run(args).await,
        WalletCommand::Leave(args) => leave::run(args).await,
    }
}

/// Makes a key and writes it, encrypted, to a new file. Its phrase is printed once.
///
/// # Errors
/// There is no password, or the file exists.
pub fn new(args: WalletNewArgs) -> Result<u8> {
    let phrase = keys::new_phrase()?;
    let keypair = keys::create_key_file(&args.file, &phrase, &password()?)?;
    println!("address  {}", keys::address(&keys::account(&keypair)));
    println!("file     {}", args.file.display());
    println!("phrase   {phrase}");
    println!("Write the phrase down and keep it secret: whoever has it has the account, and it is not shown again.");
    Ok(exit::SUCCESS)
}

/// Shows the address of a key; needs no password.
///
/// # Errors
/// The text or file is not a key.
pub fn show(args: KeyArgs) -> Result<u8> {
    let account = account(&args)?;
    println!("address  {}", keys::address(&account));
    println!("public   0x{}", hex::encode(account));
    Ok(exit::SUCCESS)
}

/// Prints a hot key's consent to work for a cold key.
///
/// # Errors
/// The text or file is not a key, its password is wrong, or the address is none.
pub fn consent(args: ConsentArgs) -> Result<u8> {
    let cold = keys::account_from_address(&args.cold)?;
    let hot = load(&args.hot)?;
    let role = match args.role {
        RoleArg::Miner => Role::Miner,
        RoleArg::Validator => Role::Validator,
    };
    let proof = keys::prove_hot_key(&hot, &args.genesis, args.run, role, &cold);
    let keys::HotKeyProof::Sr25519(signature) = &proof;
    println!("hot      {}", keys::address(&keys::account(&hot)));
    println!("cold     {}", keys::address(&cold));
    println!("sr25519  0x{}", hex::encode(signature));
    println!("proof    0x{}", hex::encode(proof.encode()));
    Ok(exit::SUCCESS)
}

/// Opens the key that the command line names, to sign for the chain at `url`.
///
/// # Errors
/// The text or file is not a key, or its password is wrong.
pub fn open(args: &KeyArgs, url: &str) -> Result<Keypair> {
    if let Some(uri) = &args.uri {
        warn_of_public_key(uri, [url]);
    }
    load(args)
}

/// The account of the key that the command line names; needs no password.
///
/// # Errors
/// The text or file is not a key.
pub(crate) fn account(args: &KeyArgs) -> Result<AccountBytes> {
    match (&args.file, &args.uri) {
        (Some(file), _) => Ok(keys::key_file_account(file)?),
        (None, Some(uri)) => Ok(keys::account(&keys::keypair_from_uri(uri)?)),
        (None, None) => bail!("name a key with --key-file or --key-uri"),
    }
}

/// An account by its address, or by the key file that has its key.
///
/// # Errors
/// The text is neither.
pub(crate) fn account_of(text: &str) -> Result<AccountBytes> {
    let file = Path::new(text);
    match file.is_file() {
        true => Ok(keys::key_file_account(file)?),
        false => Ok(keys::account_from_address(text)?),
    }
}

/// Reads the key that the command line names.
fn load(args: &KeyArgs) -> Result<Keypair> {
    match (&args.file, &args.uri) {
        (Some(file), _) => Ok(keys::load_key_file(file, &password()?)?),
        (None, Some(uri)) => Ok(keys::keypair_from_uri(uri)?),
        (None, None) => bail!("name a key with --key-file or --key-uri"),
    }
}

/// Warns of a key that everybody has, where the chain is not one on this machine.
pub(crate) fn warn_of_public_key<'a>(uri: &str, urls: impl IntoIterator<Item = &'a str>) {
    let is_far = urls.into_iter().find(|url| !is_local(url));
    if let Some(url) = is_far.filter(|_| keys::is_public(uri)) {
        tracing::warn!(
            url,
            "this secret URI derives from the public development phrase: everybody has its money"
        );
    }
}

/// Whether an address is one of this machine.
fn is_local(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or(rest);
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(bracketed),
        None => host.split(':').next().unwrap_or(host),
    };
    let is_loopback = name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    is_loopback || name == "localhost"
}

/// The password in the environment.
fn password() -> Result<String> {
    let password = std::env::var(env::PASSWORD)
        .with_context(|| format!("a key file needs a password in {}", env::PASSWORD))?;
    if password.is_empty() {
        bail!("{} is empty", env::PASSWORD);
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_on_this_machine_is_told_by_its_address() {
        for url in
            ["ws://127.0.0.1:9944", "ws://localhost:1/x", "ws://[::1]:9944", "ws://127.9.0.1"]
        {
            assert!(is_local(url), "{url}");
        }
        for url in
            ["wss://node.example:443", "ws://10.0.0.1", "ws://127.0.0.1.example", "ws://[::2]"]
        {
            assert!(!is_local(url), "{url}");
        }
    }
}
