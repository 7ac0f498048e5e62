//! The genesis states that a chain can start from, and the one that a chain for strangers is made of.

use pallet_collective::Instance1;
use runtime::{genesis, Runtime, UNIT};
use serde_json::Value;

use crate::network::{built_storage, open_block, roll_to};

/// The documented example of a genesis for strangers.
fn example() -> Value {
    serde_json::from_str(include_str!("../../../docs/genesis.example.json"))
        .expect("the example is JSON")
}

#[test]
fn the_example_for_strangers_is_a_genesis_from_which_blocks_follow() {
    sp_io::TestExternalities::from(built_storage(example())).execute_with(|| {
        open_block(1, sp_core::H256::repeat_byte(7));
        roll_to(3);
        let authors = pallet_aura::Authorities::<Runtime>::get().len();
        let voters = pallet_grandpa::Pallet::<Runtime>::grandpa_authorities().len();
        assert_eq!((authors, voters), (4, 4));
        assert_eq!(pallet_collective::Members::<Runtime, Instance1>::get().len(), 3);
        assert!(pallet_balances::TotalIssuance::<Runtime>::get() > UNIT);
    });
}

#[test]
fn the_example_for_strangers_names_nobody_whose_secret_is_public() {
    assert_eq!(genesis::well_known(&example()), None);
    for id in genesis::preset_names() {
        let preset = genesis::preset(&id).expect("a preset that is named exists");
        let preset = serde_json::from_slice(&preset).expect("a preset is JSON");
        assert!(genesis::well_known(&preset).is_some(), "{id:?} is for development");
    }
}

#[test]
fn a_public_secret_is_found_in_hexadecimal_too() {
    let voter = sp_keyring::Ed25519Keyring::Bob.public();
    let genesis =
        serde_json::json!({ "session": { "keys": [format!("{voter:?}"), hex::encode(voter)] } });
    assert!(genesis::well_known(&genesis).is_some());
}

#[test]
fn a_genesis_without_blocks_or_government_is_named() {
    assert_eq!(genesis::lacks(&example()), None);
    let without = |path: &str| {
        let mut genesis = example();
        *genesis.pointer_mut(path).expect("the example has it") = serde_json::json!([]);
        genesis::lacks(&genesis).expect("it lacks something")
    };
    assert!(without("/authorities/authorities").starts_with("authorities.authorities"));
    assert!(without("/session/keys").starts_with("session.keys"));
    assert!(without("/council/members").starts_with("council.members"));
}
