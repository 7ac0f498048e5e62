//! Makes the genesis states that a chain can start from, by name.

use alloc::{vec, vec::Vec};

use frame_support::build_struct_json_patch;
use serde_json::Value;
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_consensus_grandpa::AuthorityId as GrandpaId;
use sp_genesis_builder::{PresetId, DEV_RUNTIME_PRESET, LOCAL_TESTNET_RUNTIME_PRESET};
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};

use crate::{
    AuraConfig, Balance, BalancesConfig, GrandpaConfig, RuntimeGenesisConfig, SudoConfig, UNIT,
};

/// The money that each well-known account starts with, in planck.
const ENDOWMENT: Balance = 1_000_000 * UNIT;

/// A chain whose blocks the named accounts author and finalise, with Alice as its administrator.
///
/// Every account of the test keyring (Alice, Bob, …, their stashes, One and Two) gets [`ENDOWMENT`]. The keys are
/// public knowledge: such a chain is for development only.
fn with_authorities(authorities: &[(Sr25519Keyring, Ed25519Keyring)]) -> Value {
    let aura = authorities.iter().map(|(author, _)| AuraId::from(author.public()));
    let grandpa = authorities.iter().map(|(_, voter)| (GrandpaId::from(voter.public()), 1));
    let endowed = Sr25519Keyring::iter().map(|account| (account.to_account_id(), ENDOWMENT));

    build_struct_json_patch!(RuntimeGenesisConfig {
        aura: AuraConfig { authorities: aura.collect::<Vec<_>>() },
        grandpa: GrandpaConfig { authorities: grandpa.collect::<Vec<_>>() },
        balances: BalancesConfig { balances: endowed.collect::<Vec<_>>() },
        sudo: SudoConfig { key: Some(Sr25519Keyring::Alice.to_account_id()) },
    })
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
