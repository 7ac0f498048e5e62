//! What is signed is included once, also where the node loses it or another program uses its nonce.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    time::Duration,
};

use node_client::{
    chain::{fake::FakeChain, Call, Chain},
    journal::Journal,
    keys::{self, Keypair},
};
use participant::{
    desk::{Desk, Registration},
    heads::Heads,
    work::Work,
};
use protocol::{layout::Layout, settings::Settings};

fn key(name: &str) -> Keypair {
    keys::keypair_from_uri(&format!("//{name}")).unwrap()
}

#[tokio::test]
async fn a_registration_survives_nonces_that_another_program_used() {
    let names = ["Alice", "Bob"];
    let money = 10_000_000_000_000_000;
    let fake = FakeChain::new(1, names.map(|name| (keys::account(&key(name)), money)));
    let settings = Box::new(Settings::example());
    let call = Call::CreateRun { settings, layout: Layout(vec![5_000]) };
    fake.execute(&key("Alice"), call).unwrap();
    let blocks = tokio::spawn({
        let fake = fake.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                fake.advance(1);
            }
        }
    });

    let chain: Arc<dyn Chain> = Arc::new(fake.clone());
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(folder.path().join("journal")).unwrap());
    let (heads, _) = Heads::follow(chain.clone()).await.unwrap();
    let salts = Arc::new(|_, _| [0; 32]);
    let (hot, work) = (key("Bob//hot"), Work::on_threads());
    let desk = Desk::new(chain.clone(), hot, heads, journal, work, salts, 0);
    fake.overtake(keys::account(&key("Bob")), 3);
    let looks = AtomicUsize::new(0);
    let is_there = || async {
        looks.fetch_add(1, Ordering::SeqCst);
        Ok(!chain.miners(0, None).await?.is_empty())
    };
    let patience = Duration::from_secs(20);
    let cold = key("Bob");
    desk.register(&cold, Registration::Miner(None), &is_there, patience).await.unwrap();
    assert_eq!(chain.miners(0, None).await.unwrap().len(), 1);
    // Again: it is there, and nothing is signed.
    desk.register(&cold, Registration::Miner(None), &is_there, patience).await.unwrap();
    assert_eq!(chain.miners(0, None).await.unwrap().len(), 1);
    assert!(looks.load(Ordering::SeqCst) >= 2);
    blocks.abort();
}
