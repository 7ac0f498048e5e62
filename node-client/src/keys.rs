//! Makes, reads and writes keys: sr25519 for the chain, in encrypted files, and ed25519 for the peer-to-peer network.
//!
//! A chain key is written as a *secret URI*, the notation of every Substrate tool: a BIP-39 phrase or a `0x…` seed,
//! optionally followed by derivation steps (`//hot`), or only steps, which derive from the publicly known development
//! phrase (`//Alice`). A key file holds the secret URI, encrypted with a password: scrypt makes the key,
//! ChaCha20-Poly1305 encrypts and authenticates; the account's address stands beside it in clear and is authenticated
//! too, so that a file can be recognised without its password.
//!
//! The network key is not worth a password: who steals it can speak as this peer, and sign nothing. It is a plain file
//! that only its owner can read.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use chacha20poly1305::{
    aead::{Aead, KeyInit, Payload},
    ChaCha20Poly1305,
};
use codec::Encode;
use protocol::{
    consent::{hot_key_consent, Role},
    AccountBytes, Hash, RunId,
};
use rand::{rngs::OsRng, RngCore};
use serde::{Deserialize, Serialize};
use subxt_signer::{bip39::Mnemonic, sr25519, SecretUri};

pub use libp2p::identity::Keypair as NetworkKeypair;
pub use subxt_signer::sr25519::Keypair;

/// The ss58 prefix of Gauntlet's addresses: Substrate's generic one.
pub const SS58_PREFIX: u8 = 42;

/// Format of a key file.
const VERSION: u32 = 1;

/// The largest key file that is read: ours are under 1 KiB.
const FILE_LEN_MAX: u64 = 16 * 1024;

/// scrypt's cost for new files: 2^15 rounds of 8 blocks use 32 MiB and about a tenth of a second
/// (the parameters of scrypt's paper for interactive logins, doubled).
const SCRYPT_LOG_N: u8 = 15;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// The costs that a file may ask of us: 1 GiB at the most.
const SCRYPT_LOG_N_MAX: u8 = 20;

/// What is wrong with a key or its file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The secret URI is none, or its phrase is not a BIP-39 phrase. Says nothing of the secret.
    #[error("not a secret URI (a phrase, 0x… seed or //Name): {reason}")]
    NotASecretUri {
        /// What the parser says.
        reason: String,
    },
    /// The password does not open the file (or the file was changed): ask again.
    #[error("wrong password for {}", path.display())]
    WrongPassword {
        /// The key file.
        path: PathBuf,
    },
    /// The file is not a key file, or one of a version this program does not know.
    #[error("{} is not a key file: {reason}", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a file already; it is never overwritten.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The address is not ss58 with Gauntlet's prefix.
    #[error("{address:?} is not an address: {reason}")]
    NotAnAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed.
    #[error("key file: {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { action, path, source }
}

fn not_a_key_file(path: &Path, reason: impl ToString) -> KeyError {
    KeyError::NotAKeyFile { path: path.to_owned(), reason: reason.to_string() }
}

/// The phrase of the development accounts, which everybody has; a URI without a phrase derives from it.
const DEVELOPMENT_PHRASE: &str =
    "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

/// Whether everybody has the key of a secret URI: it derives from the development phrase, as `//Alice` does.
pub fn is_public(secret_uri: &str) -> bool {
    let phrase = secret_uri.split('/').next().unwrap_or_default();
    phrase.trim().is_empty() || phrase.split_whitespace().eq(DEVELOPMENT_PHRASE.split(' '))
}

/// The key pair that a secret URI names: `//Alice`, `//Alice//hot`, a phrase with or without steps, or `0x…`.
///
/// # Errors
/// [`KeyError::NotASecretUri`]; also for a URI with neither phrase nor steps, such as an empty one, which elsewhere names
/// the root of the development accounts: it is nothing that anybody means.
pub fn keypair_from_uri(secret_uri: &str) -> Result<Keypair, KeyError> {
    let not_a_uri = |reason: String| KeyError::NotASecretUri { reason };
    let (steps, _password) = secret_uri.split_once("///").unwrap_or((secret_uri, ""));
    if steps.trim().is_empty() {
        return Err(not_a_uri("it has neither a phrase nor steps like //Alice".to_owned()));
    }
    let uri = SecretUri::from_str(secret_uri).map_err(|error| not_a_uri(error.to_string()))?;
    Keypair::from_uri(&uri).map_err(|error| not_a_uri(error.to_string()))
}

/// A new BIP-39 phrase of 12 words from the system's randomness. Whoever has it has the account.
///
/// # Errors
/// [`KeyError::NotASecretUri`] never happens with 128 bits of entropy.
pub fn new_phrase() -> Result<String, KeyError> {
    let mut entropy = [0; 16];
    OsRng.fill_bytes(&mut entropy);
    let phrase = Mnemonic::from_entropy(&entropy)
        .map_err(|error| KeyError::NotASecretUri { reason: error.to_string() })?;
    Ok(phrase.to_string())
}

/// The account of a key pair: its public key.
pub fn account(keypair: &Keypair) -> AccountBytes {
    keypair.public_key().0
}

/// A hot key's signature over [`protocol::consent::hot_key_consent`], as the chain reads it (a `MultiSignature`); see
/// [`prove_hot_key`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode)]
pub enum HotKeyProof {
    /// Made by an sr25519 key, which all of ours are.
    #[codec(index = 1)]
    Sr25519([u8; 64]),
}

/// The consent of `hot` to work in `role` of a run for the account `cold`, which then owns its bond or stake and its pay.
pub fn prove_hot_key(
    hot: &Keypair,
    genesis: &Hash,
    run: RunId,
    role: Role,
    cold: &AccountBytes,
) -> HotKeyProof {
    HotKeyProof::Sr25519(hot.sign(&hot_key_consent(genesis, run, role, cold)).0)
}

/// The signature of a network key over `message`; `None` for one that is not ed25519, as all of ours are.
pub fn sign_as_peer(key: &NetworkKeypair, message: &Hash) -> Option<[u8; 64]> {
    key.sign(message).ok()?.try_into().ok()
}

/// Whether the hot key `hot` gave a consent as [`prove_hot_key`] makes it.
pub fn is_consent_of(
    hot: &AccountBytes,
    proof: &HotKeyProof,
    genesis: &Hash,
    run: RunId,
    role: Role,
    cold: &AccountBytes,
) -> bool {
    let HotKeyProof::Sr25519(signature) = proof;
    let message = hot_key_consent(genesis, run, role, cold);
    sr25519::verify(&sr25519::Signature(*signature), message, &sr25519::PublicKey(*hot))
}

/// The ss58 address of an account, with [`SS58_PREFIX`].
pub fn address(account: &AccountBytes) -> String {
    // AccountId32's own text form uses prefix 42.
    subxt::utils::AccountId32(*account).to_string()
}

/// The account that an ss58 address names.
///
/// # Errors
/// [`KeyError::NotAnAddress`], also for another network's prefix: sending money there would lose it.
pub fn account_from_address(text: &str) -> Result<AccountBytes, KeyError> {
    let not_an_address =
        |reason: String| KeyError::NotAnAddress { address: text.to_owned(), reason };
    let account = subxt::utils::AccountId32::from_str(text)
        .map_err(|error| not_an_address(error.to_string()))?;
    // Only one text names an account with prefix 42, so any other is another network's.
    if address(&account.0) != text {
        return Err(not_an_address(format!("its prefix is not {SS58_PREFIX}")));
    }
    Ok(account.0)
}

/// A key file's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    /// Says what the file is to who finds it.
    kind: String,
    version: u32,
    address: String,
    scrypt_log_n: u8,
    scrypt_r: u32,
    scrypt_p: u32,
    salt: String,
    nonce: String,
    /// The encrypted secret URI with its 16-byte tag.
    secret: String,
}

const KIND: &str = "gauntlet key";

impl KeyFile {
    /// What is authenticated but not encrypted.
    fn associated_data(&self) -> String {
        format!("{KIND} {} {}", self.version, self.address)
    }

    fn cipher(&self, password: &str, salt: &[u8]) -> Result<ChaCha20Poly1305, String> {
        if self.scrypt_log_n > SCRYPT_LOG_N_MAX || self.scrypt_r > 8 || self.scrypt_p > 4 {
            return Err("its scrypt cost is out of range".into());
        }
        let params = scrypt::Params::new(self.scrypt_log_n, self.scrypt_r, self.scrypt_p, 32)
            .map_err(|error| error.to_string())?;
        let mut key = [0; 32];
        scrypt::scrypt(password.as_bytes(), salt, &params, &mut key)
            .map_err(|error| error.to_string())?;
        Ok(ChaCha20Poly1305::new(&key.into()))
    }
}

/// Writes the key that `secret_uri` names to a new file at `path`, encrypted with `password`, readable by its owner
/// only, and returns the key. Takes about a tenth of a second of one core.
///
/// # Errors
/// [`KeyError::NotASecretUri`]; [`KeyError::Exists`]; [`KeyError::Io`].
pub fn create_key_file(path: &Path, secret_uri: &str, password: &str) -> Result<Keypair, KeyError> {
    let keypair = keypair_from_uri(secret_uri)?;
    let mut salt = [0; 32];
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut salt);
    OsRng.fill_bytes(&mut nonce);
    let mut file = KeyFile {
        kind: KIND.to_owned(),
        version: VERSION,
        address: address(&account(&keypair)),
        scrypt_log_n: SCRYPT_LOG_N,
        scrypt_r: SCRYPT_R,
        scrypt_p: SCRYPT_P,
        salt: hex::encode(salt),
        nonce: hex::encode(nonce),
        secret: String::new(),
    };
    let cipher = file.cipher(password, &salt).map_err(|reason| not_a_key_file(path, reason))?;
    let associated_data = file.associated_data();
    let plain = Payload { msg: secret_uri.as_bytes(), aad: associated_data.as_bytes() };
    let secret =
        cipher.encrypt(&nonce.into(), plain).map_err(|error| not_a_key_file(path, error))?;
    file.secret = hex::encode(secret);
    let mut json = serde_json::to_vec_pretty(&file).map_err(|error| not_a_key_file(path, error))?;
    json.push(b'\n');
    write_new(path, &json)?;
    Ok(keypair)
}

/// The key of the file at `path`.
///
/// # Errors
/// [`KeyError::WrongPassword`]; [`KeyError::NotAKeyFile`]; [`KeyError::Io`].
pub fn load_key_file(path: &Path, password: &str) -> Result<Keypair, KeyError> {
    let file = read_key_file(path)?;
    let bytes = |hex: &str| hex::decode(hex).map_err(|error| not_a_key_file(path, error));
    let nonce: [u8; 12] = bytes(&file.nonce)?
        .try_into()
        .map_err(|_| not_a_key_file(path, "its nonce is not 12 bytes"))?;
    let cipher = file
        .cipher(password, &bytes(&file.salt)?)
        .map_err(|reason| not_a_key_file(path, reason))?;
    let secret = bytes(&file.secret)?;
    let associated_data = file.associated_data();
    let encrypted = Payload { msg: &secret, aad: associated_data.as_bytes() };
    let plain = cipher
        .decrypt(&nonce.into(), encrypted)
        .map_err(|_| KeyError::WrongPassword { path: path.to_owned() })?;
    let uri =
        String::from_utf8(plain).map_err(|_| not_a_key_file(path, "its secret is not text"))?;
    keypair_from_uri(&uri)
}

/// The account of the key file at `path`, which needs no password. It is authenticated only once the file is loaded.
///
/// # Errors
/// [`KeyError::NotAKeyFile`]; [`KeyError::NotAnAddress`]; [`KeyError::Io`].
pub fn key_file_account(path: &Path) -> Result<AccountBytes, KeyError> {
    account_from_address(&read_key_file(path)?.address)
}

fn read_key_file(path: &Path) -> Result<KeyFile, KeyError> {
    let bytes = read_bounded(path)?;
    let file: KeyFile =
        serde_json::from_slice(&bytes).map_err(|error| not_a_key_file(path, error))?;
    if file.kind != KIND || file.version != VERSION {
        let found = format!("it says {:?}, version {}", file.kind, file.version);
        return Err(not_a_key_file(path, found));
    }
    Ok(file)
}

/// This peer's network key: read from `path`, or made and written there, readable by its owner only.
///
/// # Errors
/// [`KeyError::NotAKeyFile`] if there is something else; [`KeyError::Io`].
pub fn load_or_create_network_key(path: &Path) -> Result<NetworkKeypair, KeyError> {
    if !path.exists() {
        let key = NetworkKeypair::generate_ed25519();
        let encoded = key.to_protobuf_encoding().map_err(|error| not_a_key_file(path, error))?;
        match write_new(path, format!("{}\n", hex::encode(encoded)).as_bytes()) {
            // Another process was quicker: its key is read below.
            Ok(()) | Err(KeyError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let bytes = read_bounded(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| not_a_key_file(path, error))?;
    let encoded = hex::decode(text.trim()).map_err(|error| not_a_key_file(path, error))?;
    NetworkKeypair::from_protobuf_encoding(&encoded).map_err(|error| not_a_key_file(path, error))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KeyError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(not_a_key_file(path, "it is too long"));
    }
    Ok(bytes)
}

/// Writes a file that did not exist, whole or not at all, with mode 0600 (that of temporary files).
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let mut file =
        tempfile::NamedTempFile::new_in(folder).map_err(io_error("create in", folder))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(io_error("write in", folder))?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => io_error("rename to", path)(error.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
}
