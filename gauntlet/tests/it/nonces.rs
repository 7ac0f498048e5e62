//! Another program signs with the key that a localnet pays with, all the time.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

use gauntlet::participant_file::ParticipantFile;
use node_client::{
    chain::{self, Call, Chain},
    keys,
};

use crate::localnet::Localnet;

#[test]
fn all_pay_is_claimed_while_another_program_sends_from_the_same_account() {
    let mut localnet = Localnet::start(&["--miners=2", "--validators=1", "--windows=4"]);
    localnet.wait_for("miner-0", |_| true);
    let config = std::fs::read_to_string(localnet.run().join("miner-0/config.toml")).unwrap();
    let file: ParticipantFile = toml::from_str(&config).unwrap();
    let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let sender = thread::spawn({
        let (is_over, sent, urls) = (is_over.clone(), sent.clone(), file.chain.urls);
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let chain = chain::connect(&urls).await.unwrap();
                let alice = keys::keypair_from_uri("//Alice").unwrap();
                let to = keys::account(&keys::keypair_from_uri("//Ferdie").unwrap());
                while !is_over.load(Ordering::SeqCst) {
                    let call = Call::Transfer { to, amount: 1_000_000_000_000 };
                    // Some at once, so that one is always on its way; the chain's end is no failure.
                    let transfer = || chain.submit(&alice, call.clone());
                    let together = async { futures::join!(transfer(), transfer(), transfer()) };
                    let patience = Duration::from_secs(30);
                    if let Ok((Ok(_), Ok(_), Ok(_))) =
                        tokio::time::timeout(patience, together).await
                    {
                        sent.fetch_add(3, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let (status, report, localnet) = localnet.finish();
    is_over.store(true, Ordering::SeqCst);
    sender.join().unwrap();
    assert!(status.success() && report.ok, "{:#?}", report.problems);
    assert!(sent.load(Ordering::SeqCst) > 0, "nothing was sent from //Alice");
    let said = localnet.output();
    assert!(!said.contains("cannot claim") && !said.contains("was not included"), "{said}");
    assert!(report.emission.paid > 0, "{:?}", report.emission);
}
