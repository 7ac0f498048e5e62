//! How full a run of 256 miners and 64 validators makes the blocks of the real runtime: a window of everybody's work in signed
//! transactions, all of a phase sent at once, in blocks that are committed as a node commits them.
//!
//! Without nextest's capture of output it prints the table of docs/COST.md. Its times are of the native runtime on a state in
//! memory.

use std::{collections::VecDeque, time::Instant};

use frame_support::{dispatch::DispatchClass, traits::fungible::Mutate};
use pallet_gauntlet::{Call, LayoutVec, Permits, WindowStatus, Windows};
use protocol::{books::draw, consensus::Evaluation, settings::Settings, Uid, Window};
use runtime::{
    transactions::sign, AccountId, Balances, Executive, Runtime, System, UncheckedExtrinsic, UNIT,
};
use sp_core::{sr25519, Pair, H256};
use sp_io::{hashing::blake2_256, TestExternalities};
use sp_runtime::transaction_validity::InvalidTransaction;

use crate::network::{
    attest_calls, call, check_state, evaluation, genesis_hash, genesis_storage, layout, miner_hot,
    miner_key, open_block, owner, register_miner, register_validator, score_calls, settings,
    validator_hot, validator_key, Model, Update, RUN, STAKE,
};

const MINERS: u16 = 256;
const VALIDATORS: u8 = 64;

/// The calls of a phase, each with the key that signs it.
type Calls = Vec<(sr25519::Pair, Call<Runtime>)>;

/// The example's settings with as many slots as there are miners, all at one price.
fn crowded() -> Settings {
    let mut settings = settings();
    settings.incentive.uid_max = MINERS;
    settings.entry.price_rise_ppm = protocol::settings::PPM;
    settings
}

fn miners() -> impl Iterator<Item = u8> {
    0..=u8::MAX
}

fn uids() -> Vec<Uid> {
    (0..MINERS).collect()
}

/// A block that was made.
struct Block {
    window: Window,
    offset: u32,
    transactions: usize,
    /// What it used in thousandths of a block: for ordinary transactions, for work, and for hooks.
    used: [u64; 3],
    milliseconds: f64,
}

/// A chain whose blocks take as many of the transactions that wait as they have room for.
struct Chain {
    state: TestExternalities,
    number: u32,
    parent: H256,
    waiting: VecDeque<UncheckedExtrinsic>,
    blocks: Vec<Block>,
}

impl Chain {
    /// One on which everybody is registered, before window 0.
    fn new() -> Self {
        let mut state = TestExternalities::from(genesis_storage());
        let parent = state.execute_with(|| {
            open_block(1, H256::repeat_byte(7));
            register();
            Executive::finalize_block().hash()
        });
        state.commit_all().expect("no storage transaction is open");
        Chain { state, number: 1, parent, waiting: VecDeque::new(), blocks: Vec::new() }
    }

    /// Signs calls and has them wait for the next block.
    fn send(&mut self, calls: impl FnOnce() -> Calls) {
        let signed = self.state.execute_with(|| {
            let genesis = genesis_hash().into();
            let sign = |(signer, call): (sr25519::Pair, _)| {
                let nonce = System::account_nonce(AccountId::from(signer.public()));
                sign(&signer, nonce, 0, genesis, call)
            };
            calls().into_iter().map(sign).collect::<Vec<_>>()
        });
        self.waiting.extend(signed);
    }

    /// Makes and commits the next block.
    fn block(&mut self) {
        self.number += 1;
        let (number, parent, waiting) = (self.number, self.parent, &mut self.waiting);
        let begun = Instant::now();
        let (transactions, header) = self.state.execute_with(|| {
            open_block(number, parent);
            (take(waiting), Executive::finalize_block())
        });
        self.state.commit_all().expect("no storage transaction is open");
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        self.parent = header.hash();
        let used = self.state.execute_with(|| {
            check_state();
            used()
        });
        let schedule = settings().schedule;
        if let Some(run) = number.checked_sub(schedule.start_block) {
            let window = Window::from(run / schedule.window_blocks);
            let offset = run % schedule.window_blocks;
            self.blocks.push(Block { window, offset, transactions, used, milliseconds });
        }
    }

    /// Makes blocks up to the one before a block of a window.
    fn before(&mut self, window: Window, offset: u32) {
        let start = settings().schedule.window_start(window).expect("the window is near");
        while self.number + 1 < start + offset {
            self.block();
        }
        assert!(self.waiting.is_empty(), "a phase had no room for all its work");
    }

    /// Everybody's work of a window, with the scores of the one before.
    fn work(&mut self, window: Window) {
        let schedule = settings().schedule;
        let root = Model::genesis().root();
        let flavour = |number: u8| number.wrapping_add(window as u8);
        let updates: Vec<_> =
            miners().map(|number| (number, Update::new(flavour(number), root))).collect();
        self.before(window, 1);
        let scores = self.state.execute_with(|| scores(window));
        self.send(|| {
            let commit = |(number, update): &(u8, Update)| {
                (miner_key(*number), update.commit_call(window, &miner_hot(*number)))
            };
            updates.iter().map(commit).chain(of_validators(&scores, 0)).collect()
        });
        self.before(window, schedule.score_commit_end);
        self.send(|| of_validators(&scores, 1));
        // The challenge is known after the block that draws it.
        self.before(window, schedule.challenge_offset() + 1);
        self.send(|| {
            let reveal = |(number, update): &(u8, Update)| {
                (miner_key(*number), update.reveal_call(window, &miner_hot(*number)))
            };
            updates.iter().map(reveal).collect()
        });
        self.before(window, schedule.reveal_end);
        let said = self.state.execute_with(|| {
            let said = |number| attest_calls(window, &validator_hot(number), &uids(), root);
            (0..VALIDATORS).map(said).collect::<Vec<_>>()
        });
        self.send(|| of_validators(&said, 0));
        self.before(window, schedule.attest_commit_end);
        self.send(|| of_validators(&said, 1));
    }
}

/// Applies what waits, up to the first transaction that a block has no room for; returns how many it took.
fn take(waiting: &mut VecDeque<UncheckedExtrinsic>) -> usize {
    let mut taken = 0;
    while let Some(next) = waiting.front() {
        match Executive::apply_extrinsic(next.clone()) {
            Ok(done) => assert_eq!(done, Ok(())),
            Err(error) => {
                assert_eq!(error, InvalidTransaction::ExhaustsResources.into());
                break;
            }
        }
        waiting.pop_front();
        taken += 1;
    }
    taken
}

/// What the last block used of its weight, in thousandths: for ordinary transactions, for work, and for hooks.
fn used() -> [u64; 3] {
    let max = <Runtime as frame_system::Config>::BlockWeights::get().max_block.ref_time();
    let weight = System::block_weight();
    [DispatchClass::Normal, DispatchClass::Operational, DispatchClass::Mandatory]
        .map(|class| weight.get(class).ref_time() * 1_000 / max)
}

/// The run, its sponsor and everybody who takes part.
fn register() {
    let settings = Box::new(crowded());
    let create = Call::create_run { settings, layout: LayoutVec::truncate_from(layout().0) };
    call(&owner(), create).expect("the run is valid");
    let fund = Call::fund_run { run: RUN, amount: 1_000 * UNIT, per_window: 100 * UNIT };
    call(&owner(), fund).expect("the owner has the money");
    let rich = |name: &[u8]| {
        let cold = AccountId::new(blake2_256(name));
        Balances::set_balance(&cold, 10 * STAKE);
        cold
    };
    for number in miners() {
        let cold = rich(&[b'M', number]);
        let register = register_miner(&miner_key(number), RUN, &cold);
        call(&cold, register).expect("there is a slot");
    }
    for number in 0..VALIDATORS {
        let cold = rich(&[b'V', number]);
        let register = register_validator(&validator_key(number), RUN, &cold, STAKE);
        call(&cold, register).expect("there is a slot");
    }
}

/// What validators 0, 1, … commit to (`step` 0), or reveal (1).
fn of_validators(calls: &[[Call<Runtime>; 2]], step: usize) -> Calls {
    (0..).zip(calls).map(|(number, pair)| (validator_key(number), pair[step].clone())).collect()
}

/// The scores of the window before, of the miners that each validator drew.
fn scores(window: Window) -> Vec<[Call<Runtime>; 2]> {
    let Some(scored) = window.checked_sub(1) else {
        return Vec::new();
    };
    let seed = Windows::<Runtime>::get(RUN, window).expect("the window is open").seed;
    let permits = Permits::<Runtime>::get(RUN, scored);
    let drawn = draw(&seed, &permits, &uids(), &crowded().incentive);
    let of = |number: u8| {
        let measure = |uid: Uid| evaluation(uid, 10 + i64::from(uid) / 8, 10);
        let measured: Vec<Evaluation> = drawn.of(number.into()).into_iter().map(measure).collect();
        score_calls(scored, &validator_hot(number), measured)
    };
    (0..VALIDATORS).map(of).collect()
}

fn print(blocks: &[&Block]) {
    println!("| block | transactions | ordinary, ‰ | work, ‰ | hooks, ‰ | ms |");
    println!("|---|---|---|---|---|---|");
    for Block { offset, transactions, used: [ordinary, work, hooks], milliseconds, .. } in blocks {
        println!(
            "| {offset} | {transactions} | {ordinary} | {work} | {hooks} | {milliseconds:.1} |"
        );
    }
}

#[test]
fn a_window_of_256_miners_and_64_validators_leaves_room_in_every_block() {
    let mut chain = Chain::new();
    chain.work(0);
    chain.work(1);
    chain.before(2, 0);
    let blocks: Vec<&Block> = chain.blocks.iter().filter(|block| block.window == 1).collect();
    print(&blocks);

    let taken: usize = blocks.iter().map(|block| block.transactions).sum();
    assert_eq!(taken, 2 * usize::from(MINERS) + 4 * usize::from(VALIDATORS));
    for block in &blocks {
        let used: u64 = block.used.iter().sum();
        assert!(used < 500, "{used} thousandths of block {} are used", block.offset);
    }
    // The settlement of window 0 is done in the block in which it is due, and pays everybody.
    let due = settings().schedule.score_reveal_end as usize;
    assert!(blocks[due].used[2] > 10 * blocks[due + 1].used[2], "the settlement goes on");
    chain.state.execute_with(|| {
        let status = |window| Windows::<Runtime>::get(RUN, window).map(|record| record.status);
        assert_eq!(status(0), Some(WindowStatus::Settled));
        assert_eq!(status(1), Some(WindowStatus::Accepted));
        let paid = pallet_gauntlet::PaidWindows::<Runtime>::get(RUN, 0).expect("it is settled");
        assert_eq!(paid.validators.len(), usize::from(VALIDATORS));
        let pages = pallet_gauntlet::PaidMiners::<Runtime>::iter_prefix_values((RUN, 0));
        assert!(pages.flatten().count() > 0, "miners are paid");
    });
}
