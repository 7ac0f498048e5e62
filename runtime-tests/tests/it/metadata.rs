//! What clients keep of the runtime is the runtime's: the metadata, and a call that JavaScript starts from.

use std::path::Path;

use codec::Encode;
use pallet_gauntlet::{Call, LayoutVec};
use protocol::{settings::Settings, window::Schedule};
use runtime::{Runtime, RuntimeCall};

/// The version of the metadata format that subxt reads.
const METADATA_VERSION: u32 = 15;

/// Rewrites the copy when it is stale, so that a second run, and a commit of the file, mends it.
fn check_copy(path: &str, of_runtime: &[u8]) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let copy = std::fs::read(&full).unwrap_or_default();
    if copy != of_runtime {
        std::fs::write(&full, of_runtime).expect("the copy can be written");
        panic!("{path} was not the runtime's; it is now, commit it");
    }
}

#[test]
fn the_clients_metadata_is_the_runtimes() {
    let metadata = Runtime::metadata_at_version(METADATA_VERSION)
        .expect("the runtime has metadata of this version");
    check_copy("node-client/artifacts/metadata.scale", &metadata);
}

#[test]
fn the_call_that_javascript_starts_from_is_the_runtimes() {
    let mut settings = Settings::example();
    settings.schedule = Schedule {
        start_block: 0,
        window_blocks: 28,
        commit_end: 10,
        reveal_end: 16,
        attest_commit_end: 19,
        attest_end: 22,
        score_commit_end: 10,
        score_reveal_end: 18,
    };
    settings.training.genesis_state_root = [0; 32];
    settings.incentive.claim_delay_windows = 0;
    let layout = LayoutVec::truncate_from(vec![1]);
    let call = RuntimeCall::from(Call::create_run { settings: Box::new(settings), layout });
    check_copy(
        "runtime-tests/js/create-run.hex",
        format!("0x{}\n", hex::encode(call.encode())).as_bytes(),
    );
}
