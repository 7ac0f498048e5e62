//! The chain in memory keeps the pallet's rules and names; the client's records fit the metadata it was built for.

use codec::Encode;
use futures::{FutureExt, StreamExt};
use node_client::{
    chain::{
        fake::{FakeChain, STATES_MAX},
        BlockRef, Call, Chain, ChainError, GauntletEvent, HotKeyProof, Included, Keypair, Offender,
        SubmitError, VoidReason, WindowInfo, WindowStatus,
    },
    keys,
};
use protocol::{
    accept::bitmap_of,
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, ChunkProof, Opening,
    },
    consensus::Evaluation,
    consent::Role,
    emission::Pots,
    entry::Seat,
    fault::{ProvenFault, Verdict},
    fixed::Q32,
    layout::Layout,
    settings::Settings,
    update::{Encoder, Payload},
    AccountBytes, Hash, Planck, Uid, Window,
};
use subxt::{ext::scale_value, metadata::Metadata};

const UNIT: Planck = 1_000_000_000_000;
const RUN: u32 = 0;
const BASE: Hash = [7; 32];
/// The example's: the version of what validators measure.
const SCORE_VERSION: u32 = 1;

fn key(name: &str) -> Keypair {
    keys::keypair_from_uri(&format!("//{name}")).unwrap()
}

fn account(name: &str) -> AccountBytes {
    keys::account(&key(name))
}

fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.training.genesis_state_root = BASE;
    // Behind the calls that a story begins with; the chunks are drawn at offset 10.
    settings.schedule.start_block = 10;
    settings.schedule.commit_end = 9;
    settings
}

fn layout() -> Layout {
    Layout(vec![5_000, 300])
}

/// A payload that differs by `number`.
fn payload(number: u32) -> Vec<u8> {
    let values = |len: u32| -> Vec<f32> {
        let value = |i: u32| ((i * 31 + number * 17) % 97) as f32 / 97.0 - 0.5;
        (0..len).map(value).collect()
    };
    let (mut a, mut b) = (values(5_000), values(300));
    let mut tensors: Vec<&mut [f32]> = vec![&mut a, &mut b];
    let keep = settings().training.keep;
    Encoder::new().encode(&mut tensors, &layout(), keep).unwrap()
}

/// A run with two miners and two validators, whose hot keys are `name//hot`, in the block before window 0.
struct Story {
    chain: FakeChain,
    genesis: Hash,
}

impl Story {
    async fn begin() -> Self {
        let names = ["Alice", "Bob", "Charlie", "Dave", "Eve"];
        let chain = FakeChain::new(7, names.map(|name| (account(name), 10_000 * UNIT)));
        let genesis = chain.genesis_hash().await.unwrap();
        let story = Self { chain, genesis };
        let call = Call::CreateRun { settings: Box::new(settings()), layout: layout() };
        let alice = key("Alice");
        let bob = key("Bob");
        let charlie = key("Charlie");
        // Four calls that wait for one block, in order.
        let (create, first, second, ()) = futures::join!(
            story.chain.submit(&alice, call),
            story.chain.submit(&bob, register(&genesis, "Bob")),
            story.chain.submit(&charlie, register(&genesis, "Charlie")),
            async { story.chain.advance(1) },
        );
        assert_eq!(create.unwrap().block, first.unwrap().block);
        assert_eq!(second.unwrap().block.number, 1);
        // With what governance's weight brings, a window has 100 UNIT.
        story.chain.set_run_weight(RUN, 1);
        let (amount, per_window) = (190 * UNIT, 95 * UNIT);
        let fund = Call::FundRun { run: RUN, amount, per_window };
        story.chain.execute(&alice, fund).unwrap();
        for (name, stake) in [("Dave", 300 * UNIT), ("Eve", 200 * UNIT)] {
            let (hot, proof) = consent(&genesis, name, Role::Validator);
            let call = Call::RegisterValidator { run: RUN, hot, proof, stake };
            story.chain.execute(&key(name), call).unwrap();
        }
        story
    }

    fn hot(&self, name: &str, call: Call) -> Result<Included, SubmitError> {
        self.chain.execute(&key(&format!("{name}//hot")), call)
    }

    /// Goes to the block before the one at `offset` of `window`, in which the next call then is.
    fn before(&self, window: Window, offset: u32) {
        let start = settings().schedule.window_start(window).unwrap();
        self.chain.advance_to(start + offset - 1);
    }

    async fn window(&self, window: Window) -> WindowInfo {
        let found = self.chain.window(RUN, window, None).await;
        found.unwrap().unwrap()
    }

    fn opening(&self, payload: &Payload<'_>, salt: u8) -> Opening {
        Opening {
            payload_root: payload.root(),
            chunk_count: payload.chunk_count(),
            byte_len: payload.bytes().len() as u64,
            base_state_root: BASE,
            salt: [salt; 32],
        }
    }

    fn commit(&self, name: &str, window: Window, opening: &Opening) -> Call {
        let hot = account(&format!("{name}//hot"));
        let hash = commitment_hash(&self.genesis, RUN, window, &hot, opening);
        let run = RUN;
        Call::CommitUpdate { run, window, hash }
    }

    async fn reveal(
        &self,
        uid: Uid,
        window: Window,
        payload: &Payload<'_>,
        opening: &Opening,
    ) -> Call {
        let seed = self.window(window).await.challenge_seed.unwrap();
        let count = settings().incentive.challenge_chunks;
        let asked = challenged_chunks(&seed, RUN, window, uid, payload.chunk_count(), count);
        let leaves = payload.leaf_hashes();
        let chunk = |index| payload.chunk_proof(&leaves, index).unwrap();
        Call::RevealUpdate {
            run: RUN,
            window,
            opening: opening.clone(),
            chunks: asked.into_iter().map(chunk).collect(),
        }
    }
}

/// The hot key of `name`, and its consent to work for the cold key of that name.
fn consent(genesis: &Hash, name: &str, role: Role) -> (AccountBytes, HotKeyProof) {
    let hot = key(&format!("{name}//hot"));
    let proof = keys::prove_hot_key(&hot, genesis, RUN, role, &account(name));
    (keys::account(&hot), proof)
}

fn register(genesis: &Hash, name: &str) -> Call {
    let (hot, proof) = consent(genesis, name, Role::Miner);
    Call::RegisterMiner { run: RUN, hot, proof, max_price: Planck::MAX }
}

fn name_of(outcome: Result<Included, SubmitError>) -> String {
    match outcome {
        Err(SubmitError::Rejected { pallet, error, .. }) => format!("{pallet}::{error}"),
        other => panic!("not refused: {other:?}"),
    }
}

fn evaluation(uid: Uid, own_after: u32, random_after: u32) -> Evaluation {
    Evaluation { uid, own_before: 5 << 24, own_after, random_before: 5 << 24, random_after }
}

#[tokio::test]
async fn a_window_ends_in_pay_and_every_planck_is_somewhere() {
    let story = Story::begin().await;
    let layout = layout();
    let keep = settings().training.keep;
    let bytes = [payload(1), payload(2)];
    let payloads = bytes.each_ref().map(|bytes| Payload::parse(bytes, &layout, keep).unwrap());
    let openings = [story.opening(&payloads[0], 1), story.opening(&payloads[1], 2)];
    let miners = ["Bob", "Charlie"];
    story.before(0, 0);
    for (name, opening) in miners.iter().zip(&openings) {
        let call = story.commit(name, 0, opening);
        story.hot(name, call).unwrap();
    }
    story.before(0, 10);
    story.chain.advance(1);
    for uid in 0..2u16 {
        let at = usize::from(uid);
        let call = story.reveal(uid, 0, &payloads[at], &openings[at]).await;
        story.hot(miners[at], call).unwrap();
    }
    let during_reveal = story.chain.finalized_head().await.unwrap();

    story.before(0, 13);
    let opening =
        AttestationOpening { bitmap: bitmap_of(&[0, 1]), state_root: BASE, salt: [8; 32] };
    for name in ["Dave", "Eve"] {
        let hot = account(&format!("{name}//hot"));
        let hash = attestation_commitment_hash(&story.genesis, RUN, 0, &hot, &opening);
        story.hot(name, Call::CommitAttestation { run: RUN, window: 0, hash }).unwrap();
    }
    story.before(0, 15);
    let reveal = |name: &str| {
        let hot = account(&format!("{name}//hot"));
        let call = Call::RevealAttestation { run: RUN, window: 0, opening: opening.clone() };
        story.chain.enqueue(hot, call).unwrap()
    };
    let revealed = ["Dave", "Eve"].map(reveal);
    story.chain.advance(1);
    for submission in revealed {
        submission.wait().await.unwrap();
    }
    story.before(0, 17);
    let window = story.window(0).await;
    assert_eq!(window.accepted, [0, 1]);
    assert_eq!(window.state_root, Some(BASE));
    assert_eq!(window.status, WindowStatus::Accepted);

    let evaluations = vec![evaluation(0, 4 << 24, 9 << 23), evaluation(1, 9 << 23, 19 << 22)];
    let salt = [9; 32];
    story.before(1, 0);
    for name in ["Dave", "Eve"] {
        let hot = account(&format!("{name}//hot"));
        let hash =
            score_commitment_hash(&story.genesis, RUN, 0, &hot, &evaluations, SCORE_VERSION, &salt);
        let (run, window, version) = (RUN, 0, SCORE_VERSION);
        story.hot(name, Call::CommitScores { run, window, hash, version }).unwrap();
    }
    story.before(1, 8);
    for name in ["Dave", "Eve"] {
        let call = Call::RevealScores {
            run: RUN,
            window: 0,
            evaluations: evaluations.clone(),
            salt,
            version: SCORE_VERSION,
        };
        story.hot(name, call).unwrap();
    }
    story.before(1, 13);
    assert_eq!(story.window(0).await.status, WindowStatus::Settled);
    let head = story.chain.finalized_head().await.unwrap();
    let events = story.chain.events_at(head.hash).await.unwrap();
    let mut paid = 0;
    for event in &events {
        match event {
            GauntletEvent::MinerScored { uid, paid: own, .. } => {
                assert!(*own > 0, "miner {uid} is paid");
                paid += own;
            }
            GauntletEvent::ValidatorPaid { paid: own, .. } => paid += own,
            GauntletEvent::WindowSettled { minted, funded, paid: pots, .. } => {
                assert_eq!((*minted, *funded), (5 * UNIT, 95 * UNIT));
                paid += pots.owner;
            }
            other => panic!("not an event of a settlement: {other:?}"),
        }
    }
    let ledger = story.chain.ledger(RUN, None).await.unwrap();
    assert_eq!((ledger.minted, ledger.funded, ledger.unspent), (5 * UNIT, 190 * UNIT, 95 * UNIT));
    assert_eq!(ledger.claimable, paid);
    assert_eq!(Some(100 * UNIT - paid), ledger.carried().checked_sum());
    let standings = story.chain.miners(RUN, None).await.unwrap();
    assert!(standings[0].value > standings[1].value);

    // Too early; then the claim is what the settlement said.
    let claim = |name: &str| Call::Claim { run: RUN, account: account(name) };
    let early = story.hot("Bob", claim("Bob"));
    assert_eq!(name_of(early), "Gauntlet::NothingClaimable");
    story.before(3, 0);
    let owed = story.chain.claims(RUN, account("Bob"), None).await.unwrap();
    let before = story.chain.balance(account("Bob"), None).await.unwrap();
    story.hot("Bob", claim("Bob")).unwrap();
    let after = story.chain.balance(account("Bob"), None).await.unwrap();
    assert_eq!(after - before, owed[0].amount);
    let ledger = story.chain.ledger(RUN, None).await.unwrap();
    assert!(ledger.is_conserved(), "{ledger:?}");
    assert_eq!(ledger.paid, owed[0].amount);

    // A block of the past still shows what was then.
    let at = Some(during_reveal.hash);
    let then = story.chain.window(RUN, 0, at).await.unwrap().unwrap();
    assert_eq!(then.status, WindowStatus::Open);
    assert_eq!(story.chain.reveals(RUN, 0, at).await.unwrap().len(), 2);
    assert_eq!(story.chain.ledger(RUN, at).await.unwrap().minted, 0);
}

#[tokio::test]
async fn refusals_have_the_pallets_names_and_change_nothing() {
    let story = Story::begin().await;
    let layout = layout();
    let bytes = payload(1);
    let payload = Payload::parse(&bytes, &layout, settings().training.keep).unwrap();
    let opening = story.opening(&payload, 1);
    let copy = story.opening(&payload, 2);

    let early = story.commit("Bob", 0, &opening);
    assert_eq!(name_of(story.hot("Bob", early)), "Gauntlet::RunNotStarted", "before window 0");
    assert_eq!(
        name_of(story.chain.execute(&key("Bob"), register(&story.genesis, "Bob"))),
        "Gauntlet::HotKeyTaken"
    );
    assert_eq!(
        name_of(story.chain.execute(&key("Ferdie"), register(&story.genesis, "Ferdie"))),
        "Runtime::Token(FundsUnavailable)"
    );
    let miners = story.chain.miners(RUN, None).await.unwrap();
    assert_eq!(miners.len(), 2, "Ferdie's slot was not kept");

    story.before(0, 0);
    let commit = story.commit("Bob", 0, &opening);
    story.hot("Bob", commit.clone()).unwrap();
    assert_eq!(name_of(story.hot("Bob", commit)), "Gauntlet::AlreadyCommitted");
    let other_window = story.commit("Charlie", 1, &copy);
    assert_eq!(name_of(story.hot("Charlie", other_window)), "Gauntlet::WrongWindow");
    let commit = story.commit("Charlie", 0, &copy);
    story.hot("Charlie", commit).unwrap();
    let attest = Call::CommitAttestation { run: RUN, window: 0, hash: [1; 32] };
    assert_eq!(name_of(story.hot("Dave", attest)), "Gauntlet::WrongPhase");

    story.before(0, 10);
    story.chain.advance(1);
    let honest = story.reveal(0, 0, &payload, &opening).await;
    let mut other = opening.clone();
    other.salt = [3; 32];
    let mismatch = story.reveal(0, 0, &payload, &other).await;
    // The copy is revealed first and is removed when the original comes; it cannot return.
    let copied = story.reveal(1, 0, &payload, &copy).await;
    let mut forged = honest.clone();
    if let Call::RevealUpdate { chunks, .. } = &mut forged {
        let flip = |chunk: &mut ChunkProof| chunk.chunk[0] ^= 1;
        chunks.iter_mut().for_each(flip);
    }
    let mut submissions = Vec::new();
    for (name, call) in [
        ("Bob", mismatch),
        ("Bob", forged),
        ("Charlie", copied.clone()),
        ("Bob", honest),
        ("Charlie", copied),
    ] {
        let hot = account(&format!("{name}//hot"));
        submissions.push(story.chain.enqueue(hot, call).unwrap());
    }
    story.chain.advance(1);
    let mut outcomes = Vec::new();
    for submission in submissions {
        outcomes.push(submission.wait().await);
    }
    let last = name_of(outcomes.pop().unwrap());
    assert_eq!(last, "Gauntlet::CopiedPayload");
    let events = outcomes.pop().unwrap().unwrap().events;
    assert!(matches!(
        events[..],
        [
            GauntletEvent::CopyRefused { uid: 1, original: 0, .. },
            GauntletEvent::UpdateRevealed { uid: 0, .. }
        ]
    ));
    assert!(outcomes.pop().unwrap().is_ok(), "the copy came first");
    assert_eq!(name_of(outcomes.pop().unwrap()), "Gauntlet::ProofInvalid");
    assert_eq!(name_of(outcomes.pop().unwrap()), "Gauntlet::OpeningMismatch");
    let reveals = story.chain.reveals(RUN, 0, None).await.unwrap();
    assert_eq!(reveals.iter().map(|row| row.uid).collect::<Vec<_>>(), [0]);
}

#[tokio::test]
async fn a_slow_reader_sees_every_block_once() {
    let chain = FakeChain::new(1, []);
    chain.advance(3);
    let mut blocks = chain.subscribe_finalized().await.unwrap();
    let past_states = STATES_MAX as u32 + 100;
    chain.advance(past_states);
    for number in 3..=3 + past_states {
        let block = blocks.next().await.unwrap();
        let hash = chain.block_hash(number).await.unwrap().unwrap();
        assert_eq!(block, BlockRef { number, hash });
    }
    assert!(blocks.next().now_or_never().is_none(), "no block to come");
    chain.advance(1);
    assert_eq!(blocks.next().await.unwrap().number, 4 + past_states);

    // Two chains of one seed have one history, and old states are gone.
    let other = FakeChain::new(1, []);
    let hash = other.genesis_hash().await.unwrap();
    assert_eq!(hash, chain.genesis_hash().await.unwrap());
    let pruned = chain.events_at(hash).await;
    assert!(matches!(pruned, Err(ChainError::UnknownBlock(_))));
}

/// The metadata that the client was built for.
fn metadata() -> Metadata {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/artifacts/metadata.scale");
    let bytes = std::fs::read(path).unwrap();
    Metadata::decode_from(&bytes).unwrap()
}

#[test]
fn every_call_is_in_the_metadata_with_these_arguments() {
    let metadata = metadata();
    let id = [0; 32];
    let settings = Box::new(settings());
    let (run, window, hash, hot, account) = (RUN, 0, id, id, id);
    let (seat, proof) = (Seat::Miner(0), HotKeyProof::Sr25519([0; 64]));
    let opening =
        Opening { payload_root: id, chunk_count: 1, byte_len: 1, base_state_root: id, salt: id };
    let attestation = AttestationOpening { bitmap: vec![], state_root: id, salt: id };
    let chunk = ChunkProof { index: 0, chunk: vec![1], proof: vec![id] };
    let (commitment, evaluation) = ((0, 0, 0), (0, 0, 0));
    let measured =
        Evaluation { uid: 0, own_before: 1, own_after: 1, random_before: 1, random_after: 1 };
    #[rustfmt::skip]
    let calls: Vec<(Call, &[&str])> = vec![
        (Call::CreateRun { settings: settings.clone(), layout: layout() }, &["settings", "layout"]),
        (Call::RegisterMiner { run, hot, proof, max_price: 0 }, &["run", "hot", "proof", "max_price"]),
        (Call::LeaveMiner { run, uid: 0 }, &["run", "uid"]),
        (Call::RegisterValidator { run, hot, proof, stake: 0 }, &["run", "hot", "proof", "stake"]),
        (Call::AddStake { run, index: 0, amount: 0 }, &["run", "index", "amount"]),
        (Call::DeregisterValidator { run, index: 0 }, &["run", "index"]),
        (Call::Announce { run, peer_id: vec![], addresses: vec![], proof: [0; 64] }, &["run", "peer_id", "addresses", "proof"]),
        (Call::CommitUpdate { run, window, hash }, &["run", "window", "hash"]),
        (Call::RevealUpdate { run, window, opening, chunks: vec![] }, &["run", "window", "opening", "chunks"]),
        (Call::CommitAttestation { run, window, hash }, &["run", "window", "hash"]),
        (Call::RevealAttestation { run, window, opening: attestation }, &["run", "window", "bitmap", "state_root", "salt"]),
        (Call::CommitScores { run, window, hash, version: 1 }, &["run", "window", "hash", "version"]),
        (Call::RevealScores { run, window, evaluations: vec![], salt: id, version: 1 }, &["run", "window", "evaluations", "salt", "version"]),
        (Call::Claim { run, account }, &["run", "account"]),
        (Call::SetParams { run, settings }, &["run", "settings"]),
        (Call::FundRun { run, amount: 1, per_window: 1 }, &["run", "amount", "per_window"]),
        (Call::Evict { run, uid: 0 }, &["run", "uid"]),
        (Call::WithdrawBond { run, uid: 0, registered_window: 0 }, &["run", "uid", "registered_window"]),
        (Call::RotateHotKey { run, seat, hot, proof }, &["run", "seat", "hot", "proof"]),
        (Call::OfferCold { run, seat, to: id }, &["run", "seat", "to"]),
        (Call::AcceptCold { run, seat }, &["run", "seat"]),
        (Call::CancelCold { run, seat }, &["run", "seat"]),
        (Call::PauseRun { run }, &["run"]),
        (Call::ResumeRun { run }, &["run"]),
        (Call::CloseRun { run }, &["run"]),
        (Call::ReapRun { run, rows: 1 }, &["run", "rows"]),
        (Call::OfferRun { run, to: None }, &["run", "to"]),
        (Call::AcceptRun { run }, &["run"]),
        (Call::CancelParams { run }, &["run"]),
        (Call::ReportCopy { run, commitments: [(0, 0, 0); 2], chunks: vec![[chunk.clone(), chunk.clone()]] }, &["run", "commitments", "chunks"]),
        (Call::ReportMalformed { run, commitment, chunk: chunk.clone() }, &["run", "commitment", "index", "chunk"]),
        (Call::ChallengeData { run, commitment, index: 0 }, &["run", "commitment", "index"]),
        (Call::AnswerData { run, commitment, chunk }, &["run", "commitment", "index", "chunk"]),
        (Call::TimeOut { run, commitment, index: 0 }, &["run", "commitment", "index"]),
        (Call::DisputeEvaluation { run, evaluation }, &["run", "evaluation"]),
        (Call::CommitVerdict { run, evaluation, hash }, &["run", "evaluation", "hash"]),
        (Call::RevealVerdict { run, evaluation, measured, salt: id }, &["run", "evaluation", "measured", "salt"]),
        (Call::CloseDispute { run, evaluation }, &["run", "evaluation"]),
    ];
    let pallet = metadata.pallet_by_name("Gauntlet").unwrap();
    // `set_run_weight` and `force_params` are governance's, `claim_many` somebody's who pays for others; from 50 to 59 are those of the
    // money behind validators, which people make.
    let variants = pallet.call_variants().unwrap().iter();
    let made = variants.filter(|variant| !(50..60).contains(&variant.index));
    assert_eq!(made.count(), calls.len() + 3);
    for (call, arguments) in calls {
        let variant = pallet.call_variant_by_name(call.name()).unwrap();
        let names = variant.fields.iter().map(|field| field.name.as_deref());
        assert!(names.eq(arguments.iter().map(|name| Some(*name))), "{}", call.name());
    }
    let transfer = Call::Transfer { to: id, amount: 0 };
    let balances = metadata.pallet_by_name("Balances").unwrap();
    assert!(balances.call_variant_by_name(transfer.name()).is_some());
}

/// Three amounts from `first` on.
fn pots(first: Planck) -> Pots {
    Pots { owner: first, miners: first + 1, validators: first + 2 }
}

#[test]
fn every_event_decodes_by_the_metadata() {
    let metadata = metadata();
    let (run, window, uid, index, id) = (1, 2u64, 3, 4, [5; 32]);
    let (hot, cold, hash, seed, state_root, owner, account) = (id, id, id, id, id, id, id);
    let (stake, amount, share) = (6, 7, Q32::ONE);
    let (seat, pool) = (Seat::Validator(index), 14);
    #[rustfmt::skip]
    let events = [
        GauntletEvent::RunCreated { run, owner },
        GauntletEvent::MinerRegistered { run, uid, hot, cold, price: amount },
        GauntletEvent::MinerLeft { run, uid, registered_window: window, due: Some(window) },
        GauntletEvent::ValidatorRegistered { run, index, hot, cold, stake },
        GauntletEvent::StakeAdded { run, index, stake },
        GauntletEvent::ValidatorLeft { run, index },
        GauntletEvent::Announced { run, hot },
        GauntletEvent::WindowOpened { run, window, seed },
        GauntletEvent::UpdateCommitted { run, window, uid, hash },
        GauntletEvent::UpdateRevealed { run, window, uid, payload_root: id, byte_len: 9 },
        GauntletEvent::CopyRefused { run, window, uid, original: 8 },
        GauntletEvent::Attested { run, window, index, state_root },
        GauntletEvent::WindowAccepted { run, window, state_root: Some(id), accepted: vec![1, 2] },
        GauntletEvent::ScoresCommitted { run, window, index, hash },
        GauntletEvent::ScoresRevealed { run, window, index, count: 2 },
        GauntletEvent::MinerScored { run, window, uid, own: None, random: Some(share), standing_value: share, share, paid: 1 },
        GauntletEvent::ValidatorPaid { run, window, index, agreement: share, paid: 1 },
        GauntletEvent::WindowSettled { run, window, minted: 1, funded: 2, paid: pots(3), carried: pots(6) },
        GauntletEvent::WindowVoid { run, window, error: VoidReason::TooLate, minted: 1, funded: 2 },
        GauntletEvent::Claimed { run, account, amount },
        GauntletEvent::SettingsScheduled { run, window },
        GauntletEvent::SettingsApplied { run, window },
        GauntletEvent::MinerLeaving { run, uid, last_window: window },
        GauntletEvent::MinerDisplaced { run, uid, value: share },
        GauntletEvent::MinerEvicted { run, uid },
        GauntletEvent::BondReturned { run, uid, cold, amount },
        GauntletEvent::HotKeyRotating { run, seat, hot, window },
        GauntletEvent::HotKeyRotated { run, seat, hot },
        GauntletEvent::ColdOffered { run, seat, to: cold, window },
        GauntletEvent::ColdOfferCancelled { run, seat },
        GauntletEvent::ColdHandedOver { run, seat, cold },
        GauntletEvent::SettingsCancelled { run },
        GauntletEvent::RunPauseAnnounced { run, window },
        GauntletEvent::RunPaused { run, window },
        GauntletEvent::RunResumed { run },
        GauntletEvent::RunClosing { run, last_window: window },
        GauntletEvent::RunClosed { run },
        GauntletEvent::RunReaped { run },
        GauntletEvent::RunOffered { run, to: id, window },
        GauntletEvent::RunOfferWithdrawn { run },
        GauntletEvent::RunHandedOver { run, owner },
        GauntletEvent::AttestationCommitted { run, window, index, hash },
        GauntletEvent::RunWeightSet { run, weight: 3 },
        GauntletEvent::RunFunded { run, sponsor: id, amount, per_window: 8 },
        GauntletEvent::RunSwept { run, refunded: 1, given_back: 2 },
        GauntletEvent::ValidatorDisplaced { run, index },
        GauntletEvent::Delegated { run, pool, who: id, amount, shares: 9 },
        GauntletEvent::Unbonding { run, pool, who: id, amount, due: window },
        GauntletEvent::Withdrawn { run, pool, who: id, amount },
        GauntletEvent::TakeSet { run, pool, ppm: 10, window },
        GauntletEvent::Compounded { run, pool, amount },
        GauntletEvent::SlashDeferred { run, slash: 11, offender: Offender::Pool(pool), amount, window },
        GauntletEvent::SlashCancelled { run, slash: 11 },
        GauntletEvent::Slashed { run, slash: 11, offender: Offender::Miner { uid, registered_window: window }, amount, reporter: Some(id) },
        GauntletEvent::FaultProven { run, window, uid, fault: ProvenFault::Withheld, reporter: id },
        GauntletEvent::DataChallenged { run, window, uid, index: 12, challenger: id, deadline: 13 },
        GauntletEvent::DataAnswered { run, window, uid, index: 12 },
        GauntletEvent::EvaluationDisputed { run, window, index, uid, challenger: id },
        GauntletEvent::DisputeClosed { run, window, index, uid, verdict: Verdict::Open },
    ];
    let pallet = metadata.pallet_by_name("Gauntlet").unwrap();
    let variants = pallet.event_variants().unwrap();
    assert_eq!(variants.len(), events.len());
    let event_type = pallet.event_ty_id().unwrap();
    for event in events {
        let bytes = event.encode();
        let text = format!("{event:?}");
        let variant = pallet.event_variant_by_index(bytes[0]).unwrap();
        assert_eq!(text.split(' ').next(), Some(variant.name.as_str()));
        for field in &variant.fields {
            let name = field.name.as_deref().unwrap();
            assert!(text.contains(&format!(" {name}: ")), "{text}: {name}");
        }
        let mut rest = &bytes[..];
        let types = metadata.types();
        scale_value::scale::decode_as_type(&mut rest, event_type, types).unwrap();
        assert!(rest.is_empty(), "{text}: the bytes are the event's");
    }
}

#[test]
fn the_fakes_refusals_and_the_storage_of_the_reads_are_in_the_metadata() {
    let metadata = metadata();
    let pallet = metadata.pallet_by_name("Gauntlet").unwrap();
    let errors = pallet.error_variants().unwrap();
    let names = [
        "RunUnknown",
        "TooManyRuns",
        "ScheduleInvalid",
        "SettingOutOfRange",
        "DecayInWarmUp",
        "TooFewSamples",
        "EmissionSumWrong",
        "LayoutInvalid",
        "StartsInThePast",
        "StartsTooLate",
        "SettingImmutable",
        "ChangeTooLarge",
        "NotOwner",
        "HotKeyTaken",
        "NoFreeSlot",
        "MinerUnknown",
        "ValidatorUnknown",
        "NotColdKey",
        "StakeTooLow",
        "StakeTooHigh",
        "WorkOpen",
        "HotKeyUnknown",
        "RunNotStarted",
        "NotYetActive",
        "WrongWindow",
        "WrongPhase",
        "AlreadyCommitted",
        "NotCommitted",
        "AlreadyRevealed",
        "OpeningMismatch",
        "ChunkCountWrong",
        "ByteLenOutOfRange",
        "ChunksNotChallenged",
        "ProofInvalid",
        "ChunkMalformed",
        "CopiedPayload",
        "BitmapTooLong",
        "NoPermit",
        "ScoreVersionWrong",
        "NothingClaimable",
        "Internal",
        "ChallengeNotDrawn",
        "ChunkWellFormed",
        "ChunkTooCommon",
        "NotACopy",
        "ChunkUnknown",
        "NotRevealed",
        "FaultTooOld",
        "FaultKnown",
        "TooManyChallenges",
        "AlreadyChallenged",
        "ChallengeUnknown",
        "TooLate",
        "TooEarly",
        "AlreadyDisputed",
        "DisputeUnknown",
        "NotAJuror",
        "HotKeyProofInvalid",
        "PeerProofInvalid",
        "PriceTooHigh",
        "CoolingOff",
        "LeavingAlready",
        "NotIdle",
        "NoBond",
        "BondNotDue",
        "NotOffered",
        "OfferNotDue",
        "ClaimTooSmall",
        "FundingTooSmall",
        "TooManySponsors",
    ];
    // From 100 to 111, and from 140 on, are those of calls that the fake does not know.
    let is_known = |index: u8| index < 100 || (112..127).contains(&index);
    let errors = errors.iter().filter(|error| is_known(error.index));
    assert!(errors.map(|error| error.name.as_str()).eq(names));
    let storage = pallet.storage().unwrap();
    for (entry, keys) in [
        ("Runs", 1),
        ("Layouts", 1),
        ("Miners", 2),
        ("Validators", 2),
        ("Announcements", 2),
        ("Windows", 2),
        ("Commitments", 3),
        ("Reveals", 3),
        ("Attestations", 3),
        ("ScoreCommitments", 3),
        ("ScoreReveals", 3),
        ("Claims", 2),
        ("Ledgers", 1),
        ("Departures", 2),
        ("ProvenFaults", 3),
        ("OpenChallenges", 3),
        ("EvaluationDisputes", 4),
        ("Pools", 2),
        ("UnappliedSlashes", 2),
    ] {
        let found = storage.entry_by_name(entry).unwrap();
        assert_eq!(found.keys().len(), keys, "{entry}");
    }
}

#[tokio::test]
async fn a_call_survives_a_nonce_that_another_program_used() {
    let chain = FakeChain::new(1, [(account("Alice"), 10 * UNIT)]);
    chain.overtake(account("Alice"), 2);
    let transfer = |name: &str| Call::Transfer { to: account(name), amount: UNIT };
    let alice = key("Alice");
    let blocks = async {
        for _ in 0..200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            chain.advance(1);
        }
    };
    let (bob, charlie, ()) = futures::join!(
        chain.submit(&alice, transfer("Bob")),
        chain.submit(&alice, transfer("Charlie")),
        blocks,
    );
    bob.unwrap();
    charlie.unwrap();
    for name in ["Bob", "Charlie"] {
        assert_eq!(chain.balance(account(name), None).await.unwrap(), UNIT, "{name}");
    }
}
