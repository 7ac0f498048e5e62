//! Makes the genesis states that a chain can start from, by name.

use alloc::{vec, vec::Vec};

use frame_support::{build_struct_json_patch, BoundedVec};
use serde_json::Value;
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_consensus_grandpa::AuthorityId as GrandpaId;
#[cfg(feature = "std")]
use sp_core::crypto::Ss58Codec;
use sp_genesis_builder::{PresetId, DEV_RUNTIME_PRESET, LOCAL_TESTNET_RUNTIME_PRESET};
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};

use crate::{
    AccountId, AuthoritiesConfig, Balance, BalancesConfig, CouncilConfig, RuntimeGenesisConfig,
    SessionConfig, SessionKeys, UNIT,
};

/// The money that each well-known account starts with, in planck.
const ENDOWMENT: Balance = 1_000_000 * UNIT;

/// A chain whose blocks the named accounts author and finalise, with Alice as its council's only member.
///
/// Every account of the test keyring (Alice, Bob, …, their stashes, One and Two) gets [`ENDOWMENT`]. The keys are
/// public knowledge: such a chain is for development only.
fn with_authorities(authorities: &[(Sr25519Keyring, Ed25519Keyring)]) -> Value {
    let accounts = authorities.iter().map(|(author, _)| author.to_account_id());
    let keys = authorities.iter().map(|(author, voter)| {
        let account = author.to_account_id();
        let aura = AuraId::from(author.public());
        let grandpa = GrandpaId::from(voter.public());
        (account.clone(), account, SessionKeys { aura, grandpa })
    });
    let endowed = Sr25519Keyring::iter().map(|account| (account.to_account_id(), ENDOWMENT));

    build_struct_json_patch!(RuntimeGenesisConfig {
        authorities: AuthoritiesConfig {
            authorities: BoundedVec::truncate_from(accounts.collect())
        },
        session: SessionConfig { keys: keys.collect::<Vec<_>>() },
        balances: BalancesConfig { balances: endowed.collect::<Vec<_>>() },
        council: CouncilConfig { members: vec![Sr25519Keyring::Alice.to_account_id()] },
    })
}

/// The test keyring's account that a genesis names, if it names one: everybody knows the secrets of those.
///
/// `genesis` is JSON as `docs/genesis.example.json` shows it, with accounts and keys in text form or hexadecimal.
#[cfg(feature = "std")]
pub fn well_known(genesis: &Value) -> Option<AccountId> {
    let text = genesis.to_string();
    let named = |public: [u8; 32]| {
        let account = AccountId::new(public);
        let hexadecimal = sp_core::hexdisplay::HexDisplay::from(&public).to_string();
        let found = text.contains(&account.to_ss58check()) || text.contains(&hexadecimal);
        found.then_some(account)
    };
    let voters = Ed25519Keyring::iter().map(|voter| voter.public().0);
    Sr25519Keyring::iter().map(|account| account.public().0).chain(voters).find_map(named)
}

/// What a chain from this genesis would lack, if it lacks anything: blocks or a government.
///
/// `genesis` is JSON as `docs/genesis.example.json` shows it.
#[cfg(feature = "std")]
pub fn lacks(genesis: &Value) -> Option<&'static str> {
    let list =
        |path| genesis.pointer(path).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let authorities = list("/authorities/authorities");
    if authorities.is_empty() {
        return Some("authorities.authorities names nobody who could make blocks");
    }
    let keys = list("/session/keys");
    let has_keys = |authority| keys.iter().any(|entry| entry.get(1) == Some(authority));
    if !authorities.iter().all(has_keys) {
        return Some("session.keys has no keys of one of the authorities");
    }
    if list("/council/members").is_empty() {
        return Some("council.members names nobody who could decide anything");
    }
    None
}

/// The genesis state of that name, as a JSON patch over the default one; `None` if there is none.
pub fn preset(id: &PresetId) -> Option<Vec<u8>> {
    let alice = (Sr25519Keyring::Alice, Ed25519Keyring::Alice);
    let bob = (Sr25519Keyring::Bob, Ed25519Keyring::Bob);
    let patch = match id.as_ref() {
        DEV_RUNTIME_PRESET => with_authorities(&[alice]),
        LOCAL_TESTNET_RUNTIME_PRESET => with_authorities(&[alice, bob]),
        _ => return None,
    };
    serde_json::to_vec(&patch).ok()
}

/// The names that [`preset`] knows.
pub fn preset_names() -> Vec<PresetId> {
    vec![PresetId::from(DEV_RUNTIME_PRESET), PresetId::from(LOCAL_TESTNET_RUNTIME_PRESET)]
}
