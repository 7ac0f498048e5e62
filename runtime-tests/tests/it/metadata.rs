//! The clients' copy of the metadata is the runtime's.

use std::path::Path;

/// The version of the metadata format that subxt reads.
const METADATA_VERSION: u32 = 15;

/// Rewrites the copy when it is stale, so that a second run, and a commit of the file, mends it.
#[test]
fn the_clients_metadata_is_the_runtimes() {
    let metadata = runtime::Runtime::metadata_at_version(METADATA_VERSION)
        .expect("the runtime has metadata of this version");
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../node-client/artifacts/metadata.scale");
    let copy = std::fs::read(&path).unwrap_or_default();
    if copy != *metadata {
        std::fs::write(&path, &*metadata).expect("the copy can be written");
        panic!("node-client/artifacts/metadata.scale was not the runtime's; it is now, commit it");
    }
}
