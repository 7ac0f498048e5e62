//! Why a participant cannot work, or is not reached, is told from the chain, from the beginning of its run to its
//! bond's return.

use std::sync::Arc;

use node_client::{
    chain::{fake::FakeChain, Call},
    clock::SystemClock,
    keys::{self, Keypair},
    network::{MemoryHub, Network, PeerAddress, PeerId},
};
use participant::{
    handles::Role,
    hindrance::{find, Hindrance},
    reach::{self, Unreached},
};
use protocol::{consent, layout::Layout, settings::Settings};

fn key(name: &str) -> Keypair {
    keys::keypair_from_uri(&format!("//{name}")).unwrap()
}

#[tokio::test]
async fn a_miners_way_from_no_run_to_a_free_bond_has_a_reason_at_each_stop() {
    let accounts = ["Alice", "Bob"].map(|name| keys::account(&key(name)));
    let fake = FakeChain::new(1, accounts.map(|account| (account, 1_000_000_000_000_000_000)));
    let (hot, cold) = (keys::account(&key("Bob//hot")), accounts[1]);
    let why = || find(&fake, 0, &hot, Role::Miner);
    assert_eq!(why().await.unwrap(), Some(Hindrance::NoRun(0)));

    // Its first window begins at block 5, and each has 20.
    let settings = Box::new(Settings::example());
    let call = Call::CreateRun { settings, layout: Layout(vec![5_000]) };
    fake.execute(&key("Alice"), call).unwrap();
    let unknown = Hindrance::NotRegistered { hot, role: Role::Miner, run: 0 };
    assert_eq!(why().await.unwrap(), Some(unknown));

    let genesis = node_client::chain::Chain::genesis_hash(&fake).await.unwrap();
    let role = consent::Role::Miner;
    let proof = keys::prove_hot_key(&key("Bob//hot"), &genesis, 0, role, &cold);
    let join = Call::RegisterMiner { run: 0, hot, proof, max_price: u128::MAX };
    fake.execute(&key("Bob"), join).unwrap();
    let reason = why().await.unwrap().unwrap();
    assert!(matches!(reason, Hindrance::NotBegun { start: 5, left } if left <= 5), "{reason}");
    fake.advance(20);
    assert_eq!(why().await.unwrap(), None);
    let other = find(&fake, 0, &hot, Role::Validator).await.unwrap();
    assert!(matches!(other, Some(Hindrance::NotRegistered { .. })), "{other:?}");

    fake.execute(&key("Bob"), Call::LeaveMiner { run: 0, uid: 0 }).unwrap();
    let reason = why().await.unwrap().unwrap();
    assert!(matches!(reason, Hindrance::Leaving { fault: None, .. }), "{reason}");
    fake.advance(80);
    let reason = why().await.unwrap().unwrap();
    assert!(matches!(reason, Hindrance::Gone { fault: None, .. }), "{reason}");
    assert!(reason.to_string().contains("its bond is free in window"), "{reason}");
}

#[tokio::test]
async fn who_joins_while_a_window_is_open_waits_for_the_next() {
    let accounts = ["Alice", "Bob"].map(|name| keys::account(&key(name)));
    let fake = FakeChain::new(1, accounts.map(|account| (account, 1_000_000_000_000_000_000)));
    let settings = Box::new(Settings::example());
    let call = Call::CreateRun { settings, layout: Layout(vec![5_000]) };
    fake.execute(&key("Alice"), call).unwrap();
    fake.advance(10);
    let genesis = node_client::chain::Chain::genesis_hash(&fake).await.unwrap();
    let (hot, cold) = (keys::account(&key("Bob//hot")), accounts[1]);
    let role = consent::Role::Validator;
    let proof = keys::prove_hot_key(&key("Bob//hot"), &genesis, 0, role, &cold);
    let stake = Settings::example().incentive.validator_stake_min;
    let join = Call::RegisterValidator { run: 0, hot, proof, stake };
    fake.execute(&key("Bob"), join).unwrap();
    let reason = find(&fake, 0, &hot, Role::Validator).await.unwrap();
    assert_eq!(reason, Some(Hindrance::TooNew { first: 1, start: 25 }));
}

#[tokio::test]
async fn whom_nobody_can_dial_is_told_so_with_the_cure() {
    let accounts = ["Alice", "Bob"].map(|name| keys::account(&key(name)));
    let fake = FakeChain::new(1, accounts.map(|account| (account, 1_000_000_000_000_000_000)));
    let settings = Box::new(Settings::example());
    let call = Call::CreateRun { settings, layout: Layout(vec![5_000]) };
    fake.execute(&key("Alice"), call).unwrap();
    let genesis = node_client::chain::Chain::genesis_hash(&fake).await.unwrap();
    let (hot, cold) = (keys::account(&key("Bob//hot")), accounts[1]);
    let proof = keys::prove_hot_key(&key("Bob//hot"), &genesis, 0, consent::Role::Miner, &cold);
    let join = Call::RegisterMiner { run: 0, hot, proof, max_price: u128::MAX };
    fake.execute(&key("Bob"), join).unwrap();
    assert_eq!(reach::find(&fake, 0, &hot).await.unwrap(), None);

    let network = MemoryHub::new().join(1, Arc::new(SystemClock));
    let (peer, relay) = (network.local_peer(), PeerId::random());
    let proof = network.sign(&consent::peer_consent(&genesis, 0, &hot)).unwrap();
    let circuit = |port| format!("/ip4/192.0.2.1/tcp/{port}/p2p/{relay}/p2p-circuit");
    let direct = "/ip4/192.0.2.7/tcp/1".to_owned();
    for (addresses, unreached) in [
        (vec![], Some(Unreached::Nowhere)),
        (vec![circuit(1), circuit(2)], Some(Unreached::OverRelays(2))),
        (vec![direct], None),
    ] {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let (peer_id, addresses) = PeerAddress { peer, addresses }.to_announcement();
        let call = Call::Announce { run: 0, peer_id, addresses, proof };
        fake.execute(&key("Bob//hot"), call).unwrap();
        let found = reach::find(&fake, 0, &hot).await.unwrap();
        assert_eq!(found, unreached);
        assert!(found.is_none_or(|found| found.to_string().contains("[network] external")));
    }
}
