//! Opens the keys that a command line names.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;
use node_client::keys::{self, Keypair};
use protocol::AccountBytes;

use crate::{env, limits};

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
pub(super) fn load(args: &KeyArgs) -> Result<Keypair> {
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
pub(super) fn password() -> Result<String> {
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
