//! A million blocks of several runs whose windows are not aligned, for each source of money: to the unit, nothing is made
//! and nothing is lost.

use protocol::{
    consensus::pay,
    emission::{
        add_claim, claim_due_window, fund, payable, refunds, release, split_emission, take_due,
        Accrual, Claim, Funded, Halving, Ledger, Pot, RunWeight, Sponsorship,
    },
    fixed::Q32,
    settings::{Emission, Settings, CLAIM_DELAY_MAX, RELEASE_PPM_MAX},
    Planck, Window,
};

const BLOCKS: u32 = 1_000_000;
/// Blocks of a window of each run: not aligned, none a multiple of another but by chance.
const WINDOW_BLOCKS: [u32; 5] = [4, 7, 20, 33, 100];
const ACCOUNTS: usize = 6;
const UNIT: Planck = 1_000_000_000_000;

/// The numbers of a seed, one after the other (splitmix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    /// Shares that sum to at most one, some of them zero.
    fn shares(&mut self) -> Vec<Q32> {
        let mut left = Q32::ONE.0;
        let mut draw = || {
            let share = self.below(left as u64 + 1) as i64 * self.below(2) as i64;
            left -= share;
            Q32(share)
        };
        (0..3).map(|_| draw()).collect()
    }
}

/// Where the schedule's money comes from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// New money, halving, with a cap that is reached.
    Mint,
    /// An account with so much, of which a block gives so much at most.
    Pot { balance: Planck, per_block: Planck },
    /// Nothing but sponsors.
    Nothing,
}

impl Source {
    fn through(&self, block: u32) -> Planck {
        match self {
            Source::Mint => Halving {
                start_block: 1_000,
                per_block: 5 * UNIT / 3,
                halving_blocks: 150_000,
                cap: 480_000 * UNIT,
            }
            .through(block),
            Source::Pot { per_block, .. } => per_block * Planck::from(block),
            Source::Nothing => 0,
        }
    }

    fn draw(&mut self, amount: Planck) -> Planck {
        match self {
            Source::Mint => amount,
            Source::Pot { balance, .. } => {
                let given = amount.min(*balance);
                *balance -= given;
                given
            }
            Source::Nothing => 0,
        }
    }
}

/// A run as the chain keeps it, and the balance of its account as the currency would.
struct Run {
    window_blocks: u32,
    weight: RunWeight,
    budget: Planck,
    sponsors: Vec<Sponsorship<usize>>,
    ledger: Ledger,
    claims: Vec<Vec<Claim>>,
    account: Planck,
}

impl Run {
    fn new(window_blocks: u32) -> Self {
        Run {
            window_blocks,
            weight: RunWeight::default(),
            budget: 0,
            sponsors: Vec::new(),
            ledger: Ledger::default(),
            claims: vec![Vec::new(); ACCOUNTS],
            account: 0,
        }
    }

    fn sponsor(&mut self, draws: &mut Draws) {
        let sponsor = draws.below(ACCOUNTS as u64) as usize;
        let amount = Planck::from(draws.below(1_000_000)) * UNIT / 7;
        let per_window = Planck::from(draws.below(1_000)) * UNIT / 3;
        if let Ok(funded) = fund(&mut self.sponsors, &sponsor, amount, per_window) {
            assert_eq!(funded, Funded::Added, "there is a place for each account");
            self.ledger.deposit(amount).unwrap();
            self.account += amount;
        }
    }

    /// Settles a window under settings that are drawn: its money arrives, and shares of it are earned.
    fn settle(&mut self, window: Window, source: &mut Source, draws: &mut Draws) {
        let emission = drawn_emission(draws);
        let minted = source.draw(std::mem::take(&mut self.budget));
        let released = release(&mut self.sponsors);
        self.account += minted;
        let split = split_emission(&emission, minted + released).unwrap();
        let carried = self.ledger.carried();
        self.ledger.receive(minted, released, &split).unwrap();
        let pots = payable(&emission, &split, &carried, draws.below(4) > 0).unwrap();
        let delay = draws.below(u64::from(CLAIM_DELAY_MAX) + 1) as u32;
        for pot in Pot::ALL {
            let (amounts, rest) = pay(pots.of(pot), &draws.shares()).unwrap();
            let before = self.ledger.carried();
            for (account, amount) in amounts.iter().enumerate() {
                self.ledger.credit(pot, *amount).unwrap();
                add_claim(&mut self.claims[account], claim_due_window(window, delay), *amount);
            }
            // What this group did not earn stays this group's, and no other carry moved.
            let after = self.ledger.carried();
            for other in Pot::ALL.into_iter().filter(|other| *other != pot) {
                assert_eq!(before.of(other), after.of(other));
            }
            assert_eq!(after.of(pot), before.of(pot) - pots.of(pot) + rest);
        }
    }

    fn claim(&mut self, window: Window, draws: &mut Draws) {
        let account = draws.below(ACCOUNTS as u64) as usize;
        let amount = take_due(&mut self.claims[account], window);
        self.ledger.pay(amount).unwrap();
        self.account -= amount;
    }

    fn slash(&mut self, draws: &mut Draws) {
        let account = draws.below(ACCOUNTS as u64) as usize;
        let amount = take_due(&mut self.claims[account], Window::MAX);
        let to_reporter = amount / 2;
        self.ledger.slash(to_reporter, amount - to_reporter).unwrap();
        self.account -= amount;
    }

    /// The run ends: everything that is left goes back, to sponsors as claims and else to the schedule.
    fn sweep(&mut self) {
        let (carried, ledger) = (self.ledger.carried(), self.ledger);
        let given = ledger.minted + (ledger.funded - ledger.unspent);
        for refund in refunds(&std::mem::take(&mut self.sponsors), &carried, given) {
            self.ledger.refund(refund.unspent).unwrap();
            add_claim(&mut self.claims[refund.sponsor], 0, refund.unspent);
            for pot in Pot::ALL {
                self.ledger.credit(pot, refund.carried.of(pot)).unwrap();
                add_claim(&mut self.claims[refund.sponsor], 0, refund.carried.of(pot));
            }
        }
        for pot in Pot::ALL {
            let left = self.ledger.carried().of(pot);
            self.ledger.give_back(pot, left).unwrap();
            self.account -= left;
        }
    }

    fn check(&self) {
        assert!(self.ledger.is_conserved(), "{:?}", self.ledger);
        assert_eq!(self.ledger.held(), Some(self.account), "{:?}", self.ledger);
        let claims: Planck = self.claims.iter().flatten().map(|claim| claim.amount).sum();
        assert_eq!(claims, self.ledger.claimable);
    }
}

fn drawn_emission(draws: &mut Draws) -> Emission {
    let owner_ppm = draws.below(250_001) as u32;
    let validators_ppm = draws.below(u64::from(1_000_001 - owner_ppm)) as u32;
    let emission = Emission {
        owner_ppm,
        validators_ppm,
        miners_ppm: 1_000_000 - owner_ppm - validators_ppm,
        release_ppm: 1 + draws.below(RELEASE_PPM_MAX.into()) as u32,
    };
    let settings = Settings { emission: emission.clone(), ..Settings::example() };
    assert_eq!(settings.validate(), Ok(()));
    emission
}

/// Runs all blocks, and returns what the runs were given by the schedule, and the runs.
fn simulate(seed: u64, mut source: Source, sponsored: bool) -> (Planck, Vec<Run>) {
    let mut draws = Draws(seed);
    let mut accrual = Accrual::default();
    let mut runs: Vec<Run> = WINDOW_BLOCKS.map(Run::new).into();
    let mut budgets: Planck = 0;
    for block in 0..BLOCKS {
        for run in &mut runs {
            let (window, offset) = (block / run.window_blocks, block % run.window_blocks);
            if offset == 0 {
                accrual.advance(block, |block| source.through(block));
                run.budget += run.weight.open_window(&mut accrual);
                budgets += run.budget;
            } else if offset == 2 && window > 0 {
                run.settle(u64::from(window) - 1, &mut source, &mut draws);
                run.check();
            }
            match draws.below(2_000) {
                0 => run.weight.next = draws.below(4) as u16 * draws.below(20_000) as u16,
                1 if sponsored => run.sponsor(&mut draws),
                2..=20 => run.claim(window.into(), &mut draws),
                21 => run.slash(&mut draws),
                22 if draws.below(20) == 0 => {
                    accrual.advance(block, |block| source.through(block));
                    run.weight.suspend(&mut accrual);
                }
                _ => {}
            }
        }
        // All runs together never have more than the schedule gave until now.
        assert!(budgets <= source.through(block), "block {block}");
        if block % 1_000 == 0 {
            let weights = runs.iter().map(|run| u32::from(run.weight.current)).sum::<u32>();
            assert_eq!(weights, accrual.total_weight);
        }
    }
    for run in &mut runs {
        run.sweep();
        run.check();
        let owed = run.ledger.claimable;
        for account in 0..ACCOUNTS {
            let amount = take_due(&mut run.claims[account], Window::MAX);
            run.ledger.pay(amount).unwrap();
            run.account -= amount;
        }
        assert_eq!((run.ledger.claimable, run.account), (0, 0), "{owed} were owed");
        assert!(run.ledger.is_conserved());
    }
    (runs.iter().map(|run| run.ledger.minted).sum(), runs)
}

#[test]
fn a_million_blocks_of_a_mint_conserve_every_unit() {
    let (minted, runs) = simulate(1, Source::Mint, true);
    let given = Source::Mint.through(BLOCKS);
    assert_eq!(given, 480_000 * UNIT, "the cap is reached");
    assert!(minted <= given && minted > given * 9 / 10, "{minted}");
    assert!(runs.iter().all(|run| run.ledger.paid > 0 && run.ledger.slashed > 0));
}

#[test]
fn a_million_blocks_of_a_pot_give_what_the_pot_has() {
    let balance = 300_000 * UNIT + 7;
    let (minted, _) = simulate(2, Source::Pot { balance, per_block: UNIT / 3 }, false);
    assert!(minted > 300_000 * UNIT / 2 && minted <= balance, "{minted}");
    let (minted, _) = simulate(3, Source::Pot { balance: 1_000, per_block: UNIT }, false);
    assert_eq!(minted, 1_000, "the pot is empty");
}

#[test]
fn a_million_blocks_of_sponsors_alone_conserve_every_unit() {
    let (minted, runs) = simulate(4, Source::Nothing, true);
    assert_eq!(minted, 0);
    assert!(runs.iter().all(|run| run.ledger.funded > 0 && run.ledger.paid > 0));
}
