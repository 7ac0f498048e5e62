//! Specifies the chains that a node knows by name, `dev` and `local`, and makes specifications of others.

use std::{fs, path::Path};

use runtime::{SS58_PREFIX, WASM_BINARY};
use sc_service::{ChainType, GenericChainSpec, Properties};
use serde_json::Value;

/// What a specification says beside its genesis.
type Builder = sc_chain_spec::ChainSpecBuilder;

/// The chain with one author, Alice, who seals on a timer.
pub(crate) fn development() -> Result<GenericChainSpec, String> {
    let spec = named("Gauntlet Development", "dev", ChainType::Development)?;
    Ok(spec.with_genesis_config_preset_name(sp_genesis_builder::DEV_RUNTIME_PRESET).build())
}

/// The chain whose authors Alice and Bob take turns by Aura and finalise by GRANDPA.
pub(crate) fn local() -> Result<GenericChainSpec, String> {
    let spec = named("Gauntlet Local", "local", ChainType::Local)?;
    Ok(spec
        .with_genesis_config_preset_name(sp_genesis_builder::LOCAL_TESTNET_RUNTIME_PRESET)
        .build())
}

/// A chain for strangers, from a genesis such as `docs/genesis.example.json`.
///
/// Refused are a file that is no JSON, one that names an account whose secret everybody knows, and one without authorities
/// or council.
pub(crate) fn live(name: &str, id: &str, genesis: &Path) -> Result<GenericChainSpec, String> {
    let shown = genesis.display();
    let text = fs::read(genesis).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let patch: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{shown} is no JSON: {error}"))?;
    if let Some(account) = runtime::genesis::well_known(&patch) {
        return Err(format!(
            "{shown} names {account}, an account of the test keyring: anybody could sign for it"
        ));
    }
    if let Some(lack) = runtime::genesis::lacks(&patch) {
        return Err(format!("{shown}: {lack}"));
    }
    Ok(named(name, id, ChainType::Live)?.with_genesis_config_patch(patch).build())
}

fn named(name: &str, id: &str, kind: ChainType) -> Result<Builder, String> {
    let wasm = WASM_BINARY
        .ok_or("this node was built with SKIP_WASM_BUILD, so it has no runtime to start from")?;

    let mut properties = Properties::new();
    properties.insert("ss58Format".into(), SS58_PREFIX.into());
    properties.insert("tokenDecimals".into(), 12.into());
    properties.insert("tokenSymbol".into(), "UNIT".into());

    Ok(GenericChainSpec::builder(wasm, None)
        .with_name(name)
        .with_id(id)
        .with_chain_type(kind)
        .with_properties(properties))
}
