//! Audits a story when it has ended, from its chain and the payloads that were revealed.

use std::{path::Path, sync::Arc};

use node_client::chain::Chain;
use participant::{payloads::archive_path, Audit, AuditSettings};
use trainer::ModelConfig;

use super::world::World;

const RUN: u32 = 0;

/// Where chain and replay part, in windows `0..windows`; `folder` is for the payloads.
pub(super) async fn differences(
    world: &World,
    model: &ModelConfig,
    windows: u64,
    folder: &Path,
) -> Vec<String> {
    let chain: Arc<dyn Chain> = Arc::new(world.chain.clone());
    let settings = AuditSettings {
        run: RUN,
        genesis: chain.genesis_hash().await.unwrap(),
        model: model.clone(),
        archive: folder.to_owned(),
        threads: 1,
    };
    for window in 0..windows {
        for reveal in chain.reveals(RUN, window, None).await.unwrap() {
            let path = archive_path(folder, window, reveal.uid);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(payload) = world.content(&reveal.opening.payload_root) {
                std::fs::write(path, payload).unwrap();
            }
        }
    }
    let mut audit = Audit::open(chain, settings).await.unwrap();
    assert_eq!(audit.settlements(Some(windows)).await.unwrap(), windows);
    while audit.next_window().await.unwrap().is_some() {}
    audit.ledger().await.unwrap();
    audit.differences().iter().map(ToString::to_string).collect()
}
