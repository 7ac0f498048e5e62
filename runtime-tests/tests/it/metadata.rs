//! What clients keep of the runtime is the runtime's: the metadata, and a call that JavaScript starts from.

use std::path::Path;

use codec::{Decode, Encode};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use node_client::chain::{views, RunCost};
use pallet_gauntlet::{Call, LayoutVec};
use protocol::{settings::Settings, window::Schedule};
use runtime::{Gauntlet, Runtime, RuntimeCall};

/// The version of the metadata format that subxt asks nodes for: the first with view functions.
const METADATA_VERSION: u32 = 16;

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

/// What `node_client` asks of a view function, the runtime's API answers as the pallet does.
#[test]
fn a_question_of_the_client_is_answered_by_the_runtimes_view_function() {
    sp_io::TestExternalities::default().execute_with(|| {
        let ask = |id: &[u8; 32], arguments: &[u8]| {
            let question = views::question(id, arguments);
            let returned = runtime::apis::api::dispatch(views::CALL, &question);
            views::answer::<RunCost>(&returned.expect("the runtime has the call"))
        };
        let id = view_id("run_cost");
        for tensors in [0, 1, 64, 300] {
            let layout = LayoutVec::truncate_from(vec![7; tensors]);
            let expected = Gauntlet::run_cost(layout.clone());
            let told = ask(&id, &layout.encode()).expect("it answers");
            assert_eq!((told.deposit, told.foundation), (expected.deposit, expected.foundation));
        }
        assert!(ask(&id, &[1]).is_err(), "no layout");
        assert!(ask(&[7; 32], &[0]).is_err(), "no view function");
    });
}

/// How the metadata say that a view function of the pallet is asked.
fn view_id(name: &str) -> [u8; 32] {
    let metadata = Runtime::metadata_at_version(METADATA_VERSION).expect("it has the version");
    let metadata = RuntimeMetadataPrefixed::decode(&mut &metadata[..]).expect("it is whole");
    let RuntimeMetadata::V16(metadata) = metadata.1 else { panic!("it is of another version") };
    let pallet = metadata.pallets.iter().find(|pallet| pallet.name == "Gauntlet");
    let views = &pallet.expect("the pallet is there").view_functions;
    views.iter().find(|view| view.name == name).expect("the view is there").id
}
