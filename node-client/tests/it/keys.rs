//! Keys: known addresses, encrypted files, and what is refused.

use std::{fs, os::unix::fs::PermissionsExt};

use node_client::keys::{
    account, account_from_address, address, create_key_file, is_public, key_file_account,
    keypair_from_uri, load_key_file, load_or_create_network_key, new_phrase, KeyError,
};
use tempfile::TempDir;

/// Substrate's well-known development account.
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

#[test]
fn development_accounts_have_their_known_addresses() {
    let alice = account(&keypair_from_uri("//Alice").unwrap());
    assert_eq!(address(&alice), ALICE);
    assert_eq!(account_from_address(ALICE).unwrap(), alice);
    let hot = account(&keypair_from_uri("//Alice//hot").unwrap());
    assert_ne!(hot, alice);
}

#[test]
fn a_phrase_and_its_derivations_are_keys() {
    let phrase = new_phrase().unwrap();
    assert_eq!(phrase.split(' ').count(), 12);
    assert_ne!(phrase, new_phrase().unwrap());
    let cold = account(&keypair_from_uri(&phrase).unwrap());
    let hot = account(&keypair_from_uri(&format!("{phrase}//hot")).unwrap());
    assert_ne!(cold, hot);
}

#[test]
fn what_is_no_secret_uri_is_refused_without_repeating_it() {
    // The empty ones name the root of the public development accounts elsewhere.
    for text in ["", " ", "///", "///password", "not a phrase", "0x1234", "//"] {
        let Err(error) = keypair_from_uri(text) else {
            panic!("{text:?} was taken for a key");
        };
        assert!(matches!(error, KeyError::NotASecretUri { .. }));
        assert!(!error.to_string().contains("1234"));
    }
}

#[test]
fn keys_that_everybody_has_are_told_apart() {
    let phrase = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
    for uri in ["//Alice", "/soft", "//Alice//hot", phrase, &format!("{phrase}//hot")] {
        assert!(is_public(uri), "{uri}");
    }
    assert!(!is_public(&new_phrase().unwrap()));
    assert!(!is_public(&format!("{}//Alice", new_phrase().unwrap())));
    let alice = keypair_from_uri(&format!("{phrase}//Alice")).unwrap();
    assert_eq!(account(&alice), account(&keypair_from_uri("//Alice").unwrap()));
}

#[test]
fn a_key_file_opens_with_its_password_only() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys").join("cold.json");
    let phrase = new_phrase().unwrap();
    let key = create_key_file(&path, &phrase, "correct horse").unwrap();
    let loaded = load_key_file(&path, "correct horse").unwrap();
    assert_eq!(account(&loaded), account(&key));
    assert_eq!(key_file_account(&path).unwrap(), account(&key));
    assert!(matches!(load_key_file(&path, "wrong horse"), Err(KeyError::WrongPassword { .. })));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!fs::read_to_string(&path).unwrap().contains(&phrase));
}

#[test]
fn a_key_file_is_never_overwritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key.json");
    create_key_file(&path, "//Alice", "").unwrap();
    assert!(matches!(create_key_file(&path, "//Bob", ""), Err(KeyError::Exists { .. })));
    assert_eq!(address(&account(&load_key_file(&path, "").unwrap())), ALICE);
}

#[test]
fn a_changed_key_file_does_not_open() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key.json");
    create_key_file(&path, "//Alice", "pw").unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let bob = address(&account(&keypair_from_uri("//Bob").unwrap()));
    fs::write(&path, text.replace(ALICE, &bob)).unwrap();
    assert!(matches!(load_key_file(&path, "pw"), Err(KeyError::WrongPassword { .. })));
    fs::write(&path, text.replace("\"scrypt_log_n\": 15", "\"scrypt_log_n\": 60")).unwrap();
    assert!(matches!(load_key_file(&path, "pw"), Err(KeyError::NotAKeyFile { .. })));
    for text in ["", "{}", "[1]", "//Alice"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(load_key_file(&path, "pw"), Err(KeyError::NotAKeyFile { .. })));
    }
}

#[test]
fn another_networks_address_is_refused() {
    // Alice with prefix 0 (Polkadot) and with a wrong checksum.
    for text in [
        "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5",
        "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ",
        "",
    ] {
        assert!(matches!(account_from_address(text), Err(KeyError::NotAnAddress { .. })));
    }
}

#[test]
fn the_network_key_is_made_once_and_then_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("network.key");
    let made = load_or_create_network_key(&path).unwrap();
    let read = load_or_create_network_key(&path).unwrap();
    assert_eq!(made.public().to_peer_id(), read.public().to_peer_id());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&path, "no key").unwrap();
    assert!(matches!(load_or_create_network_key(&path), Err(KeyError::NotAKeyFile { .. })));
}
