//! Plays a run from its creation to its removal.
//!
//! Every call once, in eight scenes; each call's page names its scene. The one that is missing, `report_malformed`, is
//! `report_copy` (scene 4) of a chunk that does not decode: here the chain asks for every chunk, and refuses such a one at once.
//!
//! The runtime below it has balances and this pallet with
//! [`TestDefaultConfig`](crate::config_preludes::TestDefaultConfig); `signed` and `account` take names, `go_to` makes blocks up to
//! an offset of a window, and has `val` attest in each window behind the first that it has nothing: in one that nobody attests nobody is
//! at fault. Miners, `ann` and `bob`, have hot keys `ann-hot` and `bob-hot`; validators are `val` and `vera`; `nina` is
//! anybody.
//!
//! ```
//! # use frame_support::{assert_ok, derive_impl, traits::{ConstU128, Hooks}, weights::WeightMeter};
//! # use frame_system::{EnsureRoot, EnsureSigned};
//! # use pallet_gauntlet::{randomness::InsecureParentHash, weights::SubstrateWeight, *};
//! # use protocol::{
//! #     accept::bitmap_of,
//! #     commitment::*,
//! #     consensus::Evaluation,
//! #     consent::{hot_key_consent, peer_consent, Role},
//! #     entry::Seat,
//! #     fault::verdict_commitment_hash,
//! #     layout::{kept, CHUNK_LEN},
//! #     merkle,
//! #     settings::{Settings, SCORE_VERSION},
//! #     update::{encode_chunk, Chunk},
//! #     window::phase_at,
//! #     AccountBytes, Hash, Planck, Uid, Window,
//! # };
//! # use sp_core::{ed25519, sr25519, Pair, H256};
//! # use sp_runtime::{AccountId32, BuildStorage, MultiSignature};
//! #
//! # #[frame_support::runtime]
//! # mod runtime {
//! #     #[runtime::runtime]
//! #     #[runtime::derive(
//! #         RuntimeCall, RuntimeEvent, RuntimeError, RuntimeOrigin, RuntimeFreezeReason,
//! #         RuntimeHoldReason, RuntimeSlashReason, RuntimeLockId, RuntimeTask, RuntimeViewFunction
//! #     )]
//! #     pub struct Chain;
//! #     #[runtime::pallet_index(0)]
//! #     pub type System = frame_system;
//! #     #[runtime::pallet_index(1)]
//! #     pub type Balances = pallet_balances;
//! #     #[runtime::pallet_index(2)]
//! #     pub type Gauntlet = pallet_gauntlet;
//! # }
//! #
//! # #[derive_impl(frame_system::config_preludes::SolochainDefaultConfig)]
//! # impl frame_system::Config for Chain {
//! #     type Block = frame_system::mocking::MockBlockU32<Chain>;
//! #     type AccountData = pallet_balances::AccountData<Planck>;
//! # }
//! #
//! # #[derive_impl(pallet_balances::config_preludes::TestDefaultConfig)]
//! # impl pallet_balances::Config for Chain {
//! #     type Balance = Planck;
//! #     type ExistentialDeposit = ConstU128<1>;
//! #     type AccountStore = System;
//! # }
//! #
//! # #[derive_impl(pallet_gauntlet::config_preludes::TestDefaultConfig)]
//! # impl pallet_gauntlet::Config for Chain {
//! #     type BlockNumberProvider = System;
//! #     type Currency = Balances;
//! #     type CreateOrigin = EnsureSigned<AccountId32>;
//! #     type AdminOrigin = EnsureRoot<AccountId32>;
//! #     type Randomness = InsecureParentHash<Chain>;
//! #     type WeightInfo = SubstrateWeight<Chain>;
//! # }
//! #
//! # const UNIT: Planck = 1_000_000_000_000;
//! #
//! # fn key(name: &str) -> sr25519::Pair {
//! #     sr25519::Pair::from_string(&format!("//{name}"), None).unwrap()
//! # }
//! #
//! # fn account(name: &str) -> AccountId32 {
//! #     key(name).public().into()
//! # }
//! #
//! # fn bytes(name: &str) -> AccountBytes {
//! #     key(name).public().0
//! # }
//! #
//! # fn signed(name: &str) -> RuntimeOrigin {
//! #     RuntimeOrigin::signed(account(name))
//! # }
//! #
//! # fn genesis() -> Hash {
//! #     System::block_hash(0).into()
//! # }
//! #
//! # /// `hot` consents to work for `cold`.
//! # fn consent(hot: &str, role: Role, cold: &str) -> MultiSignature {
//! #     key(hot).sign(&hot_key_consent(&genesis(), 0, role, &bytes(cold))).into()
//! # }
//! #
//! # /// Goes to a block of a window.
//! # fn go_to(window: Window, offset: u32) {
//! #     let end = Gauntlet::schedule(0, window).unwrap().start + offset;
//! #     while System::block_number() < end {
//! #         let number = System::block_number() + 1;
//! #         Gauntlet::on_finalize(number - 1);
//! #         System::initialize(&number, &H256::repeat_byte(number as u8), &Default::default());
//! #         Gauntlet::on_initialize(number);
//! #         Gauntlet::on_poll(number, &mut WeightMeter::new());
//! #         attest_nothing(number);
//! #     }
//! # }
//! #
//! # fn attest_nothing(number: u32) {
//! #     let schedule = Settings::example().schedule;
//! #     let Some(moment) = phase_at(&schedule, number).filter(|moment| moment.window > 0) else {
//! #         return;
//! #     };
//! #     let window = moment.window;
//! #     let words = AttestationOpening { bitmap: Vec::new(), state_root: [0; 32], salt: [5; 32] };
//! #     let offset = number - schedule.window_start(window).unwrap();
//! #     if offset == schedule.reveal_end {
//! #         let hash = attestation_commitment_hash(&genesis(), 0, window, &bytes("val-hot"), &words);
//! #         let _ = Gauntlet::commit_attestation(signed("val-hot"), 0, window, hash);
//! #     }
//! #     if offset == schedule.attest_commit_end {
//! #         let (root, salt) = (words.state_root, words.salt);
//! #         let _ = Gauntlet::reveal_attestation(
//! #             signed("val-hot"), 0, window, Bitmap::default(), root, salt,
//! #         );
//! #     }
//! # }
//! #
//! # /// A miner's payload in two chunks, of which the first is everybody's: what a copier sends.
//! # fn payload(of: u8) -> [Vec<u8>; 2] {
//! #     [(CHUNK_LEN.into(), 0), (100, of)].map(|(len, code)| {
//! #         let keep = Settings::example().training.keep;
//! #         let count = kept(len, keep);
//! #         let codes = (0..count).map(|at| ((at + u16::from(code)) & 3) as u8).collect();
//! #         let chunk = Chunk { scale_bf16: 0x3c00, indices: (0..count).collect(), codes };
//! #         encode_chunk(&chunk, len, keep).unwrap()
//! #     })
//! # }
//! #
//! # fn leaves(of: u8) -> Vec<Hash> {
//! #     (0..).zip(&payload(of)).map(|(at, chunk)| merkle::leaf_hash(at, chunk)).collect()
//! # }
//! #
//! # fn opening(of: u8) -> Opening {
//! #     let payload_root = merkle::root_of_leaf_hashes(&leaves(of)).unwrap();
//! #     let byte_len = payload(of).concat().len() as u64;
//! #     Opening { payload_root, chunk_count: 2, byte_len, base_state_root: [0; 32], salt: [of; 32] }
//! # }
//! #
//! # fn shown(of: u8, index: u32) -> ShownChunk {
//! #     ShownChunk {
//! #         bytes: payload(of)[index as usize].clone().try_into().unwrap(),
//! #         proof: merkle::proof(&leaves(of), index).unwrap().try_into().unwrap(),
//! #     }
//! # }
//! #
//! # /// The chunks that the chain asks of a miner: of two, both.
//! # fn asked(of: u8) -> RevealedChunks {
//! #     let chunks = [0, 1].map(|index| {
//! #         let ShownChunk { bytes, proof } = shown(of, index);
//! #         RevealedChunk { index, chunk: bytes.into_inner().try_into().unwrap(), proof }
//! #     });
//! #     chunks.to_vec().try_into().unwrap()
//! # }
//! #
//! # /// Losses of 4 nats, lowered by two parts in a hundred on the miner's own samples and by one on random ones.
//! # fn evaluation(uid: Uid) -> Evaluation {
//! #     let before = 4 << 24;
//! #     Evaluation {
//! #         uid,
//! #         own_before: before,
//! #         own_after: before - before / 50,
//! #         random_before: before,
//! #         random_after: before - before / 100,
//! #     }
//! # }
//! #
//! # fn main() {
//! #     let names = ["owner", "ann", "bob", "val", "vera", "nina", "heir"];
//! #     let balances = names.map(|name| (account(name), 1_000_000 * UNIT)).to_vec();
//! #     let balances = BalancesConfig { balances, ..Default::default() };
//! #     let genesis = RuntimeGenesisConfig { balances, ..Default::default() };
//! #     let storage = genesis.build_storage().unwrap();
//! #     sp_io::TestExternalities::from(storage).execute_with(|| {
//! #         System::initialize(&1, &H256::repeat_byte(9), &Default::default());
//! #         story();
//! #     });
//! # }
//! #
//! # fn story() {
//! // Scene 1: a run, a part of the chain's emission for it, and a sponsor.
//! let mut settings = Settings::example();
//! settings.incentive.claim_delay_windows = 1;
//! settings.incentive.trust_windows = 0;
//! let layout = LayoutVec::truncate_from(vec![CHUNK_LEN.into(), 100]);
//! let run = 0;
//! assert_ok!(Gauntlet::create_run(signed("owner"), settings.clone().into(), layout));
//! assert_ok!(Gauntlet::set_run_weight(RuntimeOrigin::root(), run, 1));
//! assert_ok!(Gauntlet::fund_run(signed("owner"), run, 10_000 * UNIT, 100 * UNIT));
//!
//! // Scene 2: who takes part. Cold keys own the money, hot keys consent and own nothing.
//! for cold in ["ann", "bob"] {
//!     let hot = format!("{cold}-hot");
//!     let proof = consent(&hot, Role::Miner, cold);
//!     assert_ok!(Gauntlet::register_miner(signed(cold), run, account(&hot), proof, 100 * UNIT));
//! }
//! for cold in ["val", "vera"] {
//!     let hot = format!("{cold}-hot");
//!     let proof = consent(&hot, Role::Validator, cold);
//!     assert_ok!(Gauntlet::register_validator(
//!         signed(cold), run, account(&hot), proof, 1_000 * UNIT
//!     ));
//! }
//! assert_ok!(Gauntlet::delegate(signed("nina"), run, 0, 500 * UNIT));
//! assert_ok!(Gauntlet::set_take(signed("val"), run, 0, 10_000));
//! let peer = ed25519::Pair::from_seed(&[7; 32]);
//! let peer_id = [&[0, 36, 8, 1, 18, 32], &peer.public().0[..]].concat().try_into().unwrap();
//! let proof = peer.sign(&peer_consent(&genesis(), run, &bytes("ann-hot"))).0;
//! assert_ok!(Gauntlet::announce(signed("ann-hot"), run, peer_id, Default::default(), proof));
//!
//! // Scene 3: the work of window 0. Miners commit, and open what nobody can copy any more, with the chunks that the chain
//! // asks for.
//! go_to(0, 0);
//! for (of, hot) in [(0, "ann-hot"), (1, "bob-hot")] {
//!     let hash = commitment_hash(&genesis(), run, 0, &bytes(hot), &opening(of));
//!     assert_ok!(Gauntlet::commit_update(signed(hot), run, 0, hash));
//! }
//! go_to(0, settings.schedule.challenge_offset());
//! for (of, hot) in [(0, "ann-hot"), (1, "bob-hot")] {
//!     assert_ok!(Gauntlet::reveal_update(signed(hot), run, 0, opening(of), asked(of)));
//! }
//! // Validators attest what they could fetch and the state that they hold.
//! let root = [0; 32];
//! let words = AttestationOpening { bitmap: bitmap_of(&[0, 1]), state_root: root, salt: [5; 32] };
//! go_to(0, settings.schedule.reveal_end);
//! for hot in ["val-hot", "vera-hot"] {
//!     let hash = attestation_commitment_hash(&genesis(), run, 0, &bytes(hot), &words);
//!     assert_ok!(Gauntlet::commit_attestation(signed(hot), run, 0, hash));
//! }
//! go_to(0, settings.schedule.attest_commit_end);
//! for hot in ["val-hot", "vera-hot"] {
//!     let bitmap = Bitmap::truncate_from(words.bitmap.clone());
//!     assert_ok!(Gauntlet::reveal_attestation(signed(hot), run, 0, bitmap, root, words.salt));
//! }
//! go_to(0, settings.schedule.attest_end);
//! assert_eq!(Gauntlet::accepted_set(run, 0), Some(vec![0, 1]));
//! // In window 1 they tell what window 0's updates were worth, and it is settled.
//! let measured = vec![evaluation(0), evaluation(1)];
//! go_to(1, 0);
//! for hot in ["val-hot", "vera-hot"] {
//!     let hash = score_commitment_hash(
//!         &genesis(), run, 0, &bytes(hot), &measured, SCORE_VERSION, &[6; 32],
//!     );
//!     assert_ok!(Gauntlet::commit_scores(signed(hot), run, 0, hash, SCORE_VERSION));
//! }
//! go_to(1, settings.schedule.score_commit_end);
//! for hot in ["val-hot", "vera-hot"] {
//!     let measured = measured.clone().try_into().unwrap();
//!     assert_ok!(Gauntlet::reveal_scores(signed(hot), run, 0, measured, [6; 32], SCORE_VERSION));
//! }
//!
//! // Scene 4: proofs. Bob's first chunk is Ann's, and she committed first.
//! let name = |uid| CommitmentName { window: 0, uid, registered_window: 0 };
//! // The second is too short to tell anything, so that the first is the one that is drawn.
//! let chunks = vec![[shown(0, 0), shown(1, 0)]].try_into().unwrap();
//! assert_ok!(Gauntlet::report_copy(signed("nina"), run, [name(0), name(1)], chunks));
//! assert_ok!(Gauntlet::cancel_slash(RuntimeOrigin::root(), run, 0));
//! // Somebody asks for chunks, and has to pay for the answer; the second question is not answered.
//! assert_ok!(Gauntlet::challenge_data(signed("nina"), run, name(0), 1));
//! assert_ok!(Gauntlet::answer_data(signed("ann-hot"), run, name(0), 1, shown(0, 1).into()));
//! assert_ok!(Gauntlet::challenge_data(signed("nina"), run, name(0), 0));
//! // What validator 0 measured of miner 1 goes before a jury, which is vera.
//! let evaluation_name = (0, 0, 1);
//! assert_ok!(Gauntlet::dispute_evaluation(signed("nina"), run, evaluation_name));
//! go_to(2, 0);
//! let hash = verdict_commitment_hash(
//!     &genesis(), run, 0, 0, &bytes("vera-hot"), &evaluation(1), &[8; 32],
//! );
//! assert_ok!(Gauntlet::commit_verdict(signed("vera-hot"), run, evaluation_name, hash));
//! go_to(3, 0);
//! assert_ok!(Gauntlet::reveal_verdict(
//!     signed("vera-hot"), run, evaluation_name, evaluation(1), [8; 32]
//! ));
//! assert_ok!(Gauntlet::time_out(signed("nina"), run, name(0), 0));
//! // What window 0 has paid her is slashed beside a part of her bond, and is all of it: governance lets her off that.
//! assert_ok!(Gauntlet::cancel_slash(RuntimeOrigin::root(), run, 2));
//! go_to(4, 0);
//! assert_ok!(Gauntlet::close_dispute(signed("nina"), run, evaluation_name));
//!
//! // Scene 5: the money of window 0 is due.
//! assert_ok!(Gauntlet::claim(signed("nina"), run, account("ann")));
//! let batch = vec![(run, account("bob")), (run, account("val")), (run, account("owner"))];
//! assert_ok!(Gauntlet::claim_many(signed("nina"), batch.try_into().unwrap()));
//! assert_ok!(Gauntlet::compound(signed("nina"), run, 0));
//!
//! // Scene 6: seats change hands, stakes move.
//! let proof = consent("ann-new", Role::Miner, "ann");
//! assert_ok!(Gauntlet::rotate_hot_key(
//!     signed("ann"), run, Seat::Miner(0), account("ann-new"), proof
//! ));
//! assert_ok!(Gauntlet::offer_cold(signed("ann"), run, Seat::Miner(0), account("nina")));
//! assert_ok!(Gauntlet::cancel_cold(signed("ann"), run, Seat::Miner(0)));
//! assert_ok!(Gauntlet::offer_cold(signed("ann"), run, Seat::Miner(0), account("heir")));
//! assert_ok!(Gauntlet::add_stake(signed("val"), run, 0, 100 * UNIT));
//! assert_ok!(Gauntlet::unstake(signed("val"), run, 0, 50 * UNIT));
//! assert_ok!(Gauntlet::undelegate(signed("nina"), run, 0, 100 * UNIT));
//! go_to(6, 0);
//! assert_ok!(Gauntlet::accept_cold(signed("heir"), run, Seat::Miner(0)));
//!
//! // Scene 7: the owner announces, and the chain's governance may do more, sooner.
//! let mut later = settings.clone();
//! later.incentive.accepted_max += 1;
//! assert_ok!(Gauntlet::set_params(signed("owner"), run, later.clone().into()));
//! assert_ok!(Gauntlet::cancel_params(signed("owner"), run));
//! assert_ok!(Gauntlet::force_params(RuntimeOrigin::root(), run, later.into()));
//! assert_ok!(Gauntlet::pause_run(signed("owner"), run));
//! assert_ok!(Gauntlet::resume_run(signed("owner"), run));
//! assert_ok!(Gauntlet::offer_run(signed("owner"), run, Some(account("heir"))));
//! go_to(8, 0);
//! assert_ok!(Gauntlet::accept_run(signed("heir"), run));
//!
//! // Scene 8: the end. Who does nothing is evicted by anybody; what is held comes back when it can answer for nothing more.
//! assert_ok!(Gauntlet::leave_miner(signed("heir"), run, 0));
//! assert_ok!(Gauntlet::evict(signed("nina"), run, 1));
//! assert_ok!(Gauntlet::deregister_validator(signed("vera"), run, 1));
//! go_to(26, 0);
//! assert_ok!(Gauntlet::withdraw_bond(signed("nina"), run, 1, 0));
//! assert_ok!(Gauntlet::withdraw_unbonded(signed("nina"), run, 0));
//! assert_ok!(Gauntlet::close_run(signed("heir"), run));
//! go_to(42, 0);
//! assert_ok!(Gauntlet::reap_run(signed("nina"), run, 1_024));
//! assert_eq!(Gauntlet::settings(run), None);
//! # }
//! ```
