//! `gauntlet wallet`: makes a key, shows its address, has a hot key consent to work for a cold one, sends money.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use codec::Encode;
use node_client::keys;
use protocol::{consent::Role, Hash, RunId};

use crate::{exit, limits};

mod key;
mod leave;
mod send;

pub use key::{open, KeyArgs};
pub use leave::LeaveArgs;
pub use send::SendArgs;

pub(crate) use key::{account, warn_of_public_key};
use key::{load, password};

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
