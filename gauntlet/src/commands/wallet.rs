//! `gauntlet wallet`: makes a key, shows its address.

use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use clap::{Args, Subcommand};
use node_client::keys::{self, Keypair};

use crate::{env, exit};

/// Commands on keys.
#[derive(Subcommand, Debug)]
pub enum WalletCommand {
    /// Make a key and keep it in a file, encrypted with GAUNTLET_PASSWORD; its phrase is printed once.
    New(WalletNewArgs),
    /// Show the address of a key.
    Show(KeyArgs),
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
    #[arg(long = "key-uri", value_name = "URI")]
    pub uri: Option<String>,
}

/// Runs a command on keys.
///
/// # Errors
/// As [`new`] and [`show`].
pub fn run(command: WalletCommand) -> Result<u8> {
    match command {
        WalletCommand::New(args) => new(args),
        WalletCommand::Show(args) => show(args),
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
    let account = match (&args.file, &args.uri) {
        (Some(file), _) => keys::key_file_account(file)?,
        (None, Some(uri)) => keys::account(&keys::keypair_from_uri(uri)?),
        (None, None) => bail!("name a key with --key-file or --key-uri"),
    };
    println!("address  {}", keys::address(&account));
    println!("public   0x{}", hex::encode(account));
    Ok(exit::SUCCESS)
}

/// Opens the key that the command line names.
///
/// # Errors
/// The text or file is not a key, or its password is wrong.
pub fn open(args: &KeyArgs) -> Result<Keypair> {
    match (&args.file, &args.uri) {
        (Some(file), _) => Ok(keys::load_key_file(file, &password()?)?),
        (None, Some(uri)) => Ok(keys::keypair_from_uri(uri)?),
        (None, None) => bail!("name a key with --key-file or --key-uri"),
    }
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
