//! Specifies the chains that a node knows by name: `dev` and `local`.

use runtime::{SS58_PREFIX, WASM_BINARY};
use sc_service::{ChainType, GenericChainSpec, Properties};

/// The chain with one author, Alice, who seals on a timer.
pub(crate) fn development() -> Result<GenericChainSpec, String> {
    build(
        "Gauntlet Development",
        "dev",
        ChainType::Development,
        sp_genesis_builder::DEV_RUNTIME_PRESET,
    )
}

/// The chain whose authors Alice and Bob take turns by Aura and finalise by GRANDPA.
pub(crate) fn local() -> Result<GenericChainSpec, String> {
    build(
        "Gauntlet Local",
        "local",
        ChainType::Local,
        sp_genesis_builder::LOCAL_TESTNET_RUNTIME_PRESET,
    )
}

fn build(
    name: &str,
    id: &str,
    kind: ChainType,
    genesis_preset: &str,
) -> Result<GenericChainSpec, String> {
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
        .with_properties(properties)
        .with_genesis_config_preset_name(genesis_preset)
        .build())
}
