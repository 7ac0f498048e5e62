//! The schedule, its division among runs, the pots, claims and sponsors, one by one.

use protocol::{
    consensus::ConsensusError,
    emission::{
        add_claim, claim_due_window, fund, payable, refunds, release, split_emission, take_due,
        Accrual, Claim, FundError, Funded, Halving, Ledger, LedgerError, Pot, Pots, RunWeight,
        Sponsorship, CLAIMS_MAX, SPONSORS_MAX,
    },
    settings::{Settings, CLAIM_DELAY_MAX},
    Planck,
};

const HALVING: Halving = Halving { start_block: 10, per_block: 9, halving_blocks: 4, cap: 1_000 };

#[test]
fn a_halving_mint_gives_the_sum_of_its_blocks() {
    let in_block = |block: u32| match block {
        10..=13 => 9,
        14..=17 => 4,
        18..=21 => 2,
        22..=25 => 1,
        _ => 0,
    };
    let mut sum = 0;
    for block in 0..60 {
        assert_eq!(HALVING.through(block), sum, "block {block}");
        sum += in_block(block);
    }
    assert_eq!(HALVING.through(u32::MAX), 64);
}

#[test]
fn a_halving_mint_ends_at_its_cap() {
    let capped = Halving { cap: 40, ..HALVING };
    assert_eq!(capped.through(13), 27);
    assert_eq!(capped.through(14), 36);
    assert_eq!(capped.through(15), 40);
    assert_eq!(capped.through(u32::MAX), 40);
    let steady = Halving { halving_blocks: 0, ..HALVING };
    assert_eq!(steady.through(15), 45);
    assert_eq!(steady.through(u32::MAX), 1_000);
    let absurd = Halving { per_block: Planck::MAX, halving_blocks: 1, ..HALVING };
    assert_eq!(absurd.through(u32::MAX), 1_000);
}

/// A schedule of 100 planck a block.
fn hundred(block: u32) -> Planck {
    100 * Planck::from(block)
}

fn with_weight(next: u16) -> RunWeight {
    RunWeight { next, ..RunWeight::default() }
}

#[test]
fn runs_divide_a_block_by_their_weights() {
    let mut accrual = Accrual::default();
    let (mut small, mut large, mut none) = (with_weight(1), with_weight(3), with_weight(0));
    for run in [&mut small, &mut large, &mut none] {
        assert_eq!(run.open_window(&mut accrual), 0);
    }
    accrual.advance(20, hundred);
    assert_eq!(small.open_window(&mut accrual), 500);
    assert_eq!(none.open_window(&mut accrual), 0);
    accrual.advance(30, hundred);
    // Its window was longer.
    assert_eq!(large.open_window(&mut accrual), 2_250);
    assert_eq!(small.open_window(&mut accrual), 250);
}

#[test]
fn a_new_weight_counts_from_the_next_window_and_never_makes_more_than_the_schedule_gives() {
    let mut accrual = Accrual::default();
    let (mut first, mut second) = (with_weight(1), with_weight(99));
    first.open_window(&mut accrual);
    accrual.advance(50, hundred);
    // In the midst of the first run's window the second gets nearly everything of what follows.
    second.open_window(&mut accrual);
    first.next = 50;
    accrual.advance(100, hundred);
    let (of_first, of_second) = (first.open_window(&mut accrual), second.open_window(&mut accrual));
    assert_eq!((of_first, of_second), (5_050, 4_950));
    accrual.advance(200, hundred);
    let sum = first.open_window(&mut accrual) + second.open_window(&mut accrual);
    assert!((9_998..=10_000).contains(&sum), "{sum}");
}

#[test]
fn a_suspended_run_earns_nothing_and_keeps_what_it_had() {
    let mut accrual = Accrual::default();
    let (mut paused, mut other) = (with_weight(1), with_weight(1));
    paused.open_window(&mut accrual);
    other.open_window(&mut accrual);
    accrual.advance(10, hundred);
    paused.suspend(&mut accrual);
    assert_eq!(accrual.total_weight, 1);
    accrual.advance(30, hundred);
    paused.suspend(&mut accrual);
    assert_eq!(paused.open_window(&mut accrual), 500);
    assert_eq!(other.open_window(&mut accrual), 2_500);
    assert_eq!(accrual.total_weight, 2);
}

#[test]
fn blocks_without_a_weight_give_nothing_to_who_comes_later() {
    let mut accrual = Accrual::default();
    accrual.advance(1_000, hundred);
    let mut run = with_weight(7);
    run.open_window(&mut accrual);
    accrual.advance(1_001, hundred);
    let budget = run.open_window(&mut accrual);
    assert!((99..=100).contains(&budget), "{budget}");
}

#[test]
fn an_absurd_schedule_stops_giving_and_does_not_overflow() {
    let all = |block: u32| if block == 0 { 0 } else { Planck::MAX };
    let mut accrual = Accrual::default();
    let mut run = with_weight(u16::MAX);
    run.open_window(&mut accrual);
    accrual.advance(1, all);
    let budget = run.open_window(&mut accrual);
    assert!(budget > 0 && budget < 1 << 96, "{budget}");
}

#[test]
fn a_split_is_exact_and_a_carry_is_paid_in_parts() {
    let mut emission = Settings::example().emission;
    let split = Pots { owner: 100, miners: 601, validators: 300 };
    assert_eq!(split_emission(&emission, 1_001), Ok(split));
    let whole = split_emission(&emission, Planck::MAX).unwrap();
    assert_eq!(whole.checked_sum(), Some(Planck::MAX));

    emission.release_ppm = 10_000;
    let carried = Pots { owner: 0, miners: 60_099, validators: 30_000 };
    let due = Pots { owner: 100, miners: 601 + 600, validators: 300 + 300 };
    assert_eq!(payable(&emission, &split, &carried, true), Ok(due));
    assert_eq!(payable(&emission, &split, &carried, false), Ok(Pots::default()));
    let full = Pots { miners: Planck::MAX, ..Pots::default() };
    let overflow = Err(ConsensusError::Overflow("payable"));
    assert_eq!(payable(&emission, &full, &full, true), overflow);

    emission.owner_ppm = 900_000;
    assert_eq!(split_emission(&emission, 1_001), Err(ConsensusError::EmissionParts));
    emission.owner_ppm = u32::MAX;
    assert_eq!(split_emission(&emission, Planck::MAX), Err(ConsensusError::EmissionParts));
}

#[test]
fn the_ledger_moves_money_or_changes_nothing() {
    let mut ledger = Ledger::default();
    ledger.deposit(50).unwrap();
    let split = Pots { owner: 10, miners: 60, validators: 30 };
    assert_eq!(ledger.receive(90, 11, &split), Err(LedgerError), "another sum");
    assert_eq!(ledger.receive(40, 60, &split), Err(LedgerError), "less is unspent");
    ledger.receive(80, 20, &split).unwrap();
    ledger.credit(Pot::Miners, 50).unwrap();
    assert_eq!(ledger.credit(Pot::Miners, 11), Err(LedgerError), "another group has it");
    ledger.pay(20).unwrap();
    assert_eq!(ledger.slash(20, 11), Err(LedgerError));
    ledger.slash(4, 6).unwrap();
    ledger.refund(30).unwrap();
    assert_eq!(ledger.forfeit(Pot::Owner, 51), Err(LedgerError));
    ledger.forfeit(Pot::Validators, 1).unwrap();
    ledger.credit(Pot::Validators, 1).unwrap();
    assert_eq!(ledger.refund(1), Err(LedgerError));
    ledger.give_back(Pot::Owner, 10).unwrap();
    let expected = Ledger {
        minted: 80,
        funded: 50,
        paid: 20,
        claimable: 20 + 30,
        carried_miners: 10,
        carried_validators: 30,
        slashed: 4,
        burned: 6 + 10,
        ..Ledger::default()
    };
    assert_eq!(ledger, expected);
    assert!(ledger.is_conserved());
    assert_eq!(ledger.held(), Some(90));
    let leak = Ledger { carried_owner: 1, ..ledger };
    assert!(!leak.is_conserved());
    let absurd = Ledger { paid: Planck::MAX, ..ledger };
    assert!(!absurd.is_conserved());
}

#[test]
fn claims_are_due_when_they_were_earned_for_and_merge_by_window() {
    let mut claims = Vec::new();
    add_claim(&mut claims, claim_due_window(3, 2), 5);
    // The delay was shortened since.
    add_claim(&mut claims, claim_due_window(4, 0), 7);
    add_claim(&mut claims, 6, 1);
    add_claim(&mut claims, 9, 0);
    assert_eq!(claims, [Claim { due: 5, amount: 7 }, Claim { due: 6, amount: 6 }]);
    assert_eq!(take_due(&mut claims, 4), 0);
    assert_eq!(take_due(&mut claims, 5), 7);
    assert_eq!(take_due(&mut claims, 6), 6);
    assert!(claims.is_empty());
}

#[test]
fn whatever_the_delays_nothing_is_early_and_nothing_is_locked() {
    for delay in 0..=CLAIM_DELAY_MAX {
        let mut claims = Vec::new();
        // What each claim was fixed for.
        let mut expected: Vec<(u64, Planck)> = Vec::new();
        for window in 0..300u64 {
            // The setting jumps between `delay` and another every few windows.
            let other = if window / 7 % 2 == 0 { delay } else { CLAIM_DELAY_MAX - delay };
            let due = claim_due_window(window, other);
            add_claim(&mut claims, due, 1 + Planck::from(window));
            expected.push((due, 1 + Planck::from(window)));
            assert!(claims.len() <= CLAIMS_MAX as usize);
            assert!(claims.windows(2).all(|pair| pair[0].due < pair[1].due));
            // What is claimable in the window of the settlement is what was fixed to be, to the unit.
            let due_now: Planck =
                expected.iter().filter(|(due, _)| *due <= window + 1).map(|(_, sum)| sum).sum();
            assert_eq!(take_due(&mut claims.clone(), window + 1), due_now, "{delay}, {window}");
        }
        let last = 299 + 1 + u64::from(CLAIM_DELAY_MAX);
        let all: Planck = expected.iter().map(|(_, sum)| sum).sum();
        assert_eq!(take_due(&mut claims, last), all);
    }
}

#[test]
fn a_sponsor_is_spent_at_its_own_rate() {
    let mut sponsors = Vec::new();
    assert_eq!(fund(&mut sponsors, &'a', 0, 1), Err(FundError::Nothing));
    assert_eq!(fund(&mut sponsors, &'a', 1, 0), Err(FundError::Nothing));
    assert_eq!(fund(&mut sponsors, &'a', 100, 30), Ok(Funded::Added));
    assert_eq!(fund(&mut sponsors, &'b', 5, 7), Ok(Funded::Added));
    let releases: Vec<Planck> = (0..5).map(|_| release(&mut sponsors)).collect();
    assert_eq!(releases, [35, 30, 30, 10, 0]);
    assert_eq!(fund(&mut sponsors, &'a', 20, 15), Ok(Funded::Added), "a new rate");
    assert_eq!(release(&mut sponsors), 15);
    assert_eq!((sponsors[0].unspent, sponsors[0].released), (5, 115));
    let full = fund(&mut sponsors, &'a', Planck::MAX, 1);
    assert_eq!(full, Err(FundError::Overflow));
}

#[test]
fn nobody_keeps_other_sponsors_out_with_dust() {
    let mut sponsors = Vec::new();
    for sponsor in 0..SPONSORS_MAX {
        let amount = if sponsor == 3 { 1 } else { 10 };
        assert_eq!(fund(&mut sponsors, &sponsor, amount, 1), Ok(Funded::Added));
    }
    assert_eq!(fund(&mut sponsors, &99, 1, 1), Err(FundError::NoPlace));
    assert_eq!(fund(&mut sponsors, &99, 2, 1), Ok(Funded::Replaced(3, 1)));
    assert_eq!(sponsors.len() as u32, SPONSORS_MAX);
}

#[test]
fn the_end_of_a_run_gives_sponsors_their_part_of_what_is_left() {
    let sponsorship =
        |sponsor, unspent, released| Sponsorship { sponsor, per_window: 1, unspent, released };
    let sponsors = [sponsorship('a', 7, 500), sponsorship('b', 0, 250)];
    let carried = Pots { owner: 40, miners: 101, validators: 0 };
    let found = refunds(&sponsors, &carried, 1_000);
    assert_eq!((found[0].unspent, found[0].carried.owner, found[0].carried.miners), (7, 20, 50));
    assert_eq!((found[1].unspent, found[1].carried.owner, found[1].carried.miners), (0, 10, 25));
    // Nothing was given: nothing of a carry is theirs.
    assert_eq!(refunds(&sponsors, &carried, 0)[0].carried, Pots::default());
    let rich = [sponsorship('a', 0, Planck::MAX - 5)];
    let carried = Pots { miners: Planck::MAX, ..Pots::default() };
    let part = refunds(&rich, &carried, Planck::MAX)[0].carried.miners;
    assert!(part <= Planck::MAX - 5 && part > Planck::MAX - (Planck::MAX >> 30), "{part}");
}
