//! Share pools: rounding is against the mover, and no planck is lost.

use proptest::{collection::vec, prelude::*};
use protocol::{
    pool::{divide_slash, mul_div, split_pay, PaySplit, Pool, Take, TakeError},
    settings::{Settings, Staking},
};

const UNIT: u128 = 1_000_000_000_000;

fn staking() -> Staking {
    Settings::example().staking
}

#[test]
fn mul_div_is_exact_where_products_do_not_fit() {
    assert_eq!(mul_div(7, 3, 2), Some(10));
    assert_eq!(mul_div(u128::MAX, u128::MAX, u128::MAX), Some(u128::MAX));
    assert_eq!(mul_div(u128::MAX, u128::MAX - 1, u128::MAX), Some(u128::MAX - 1));
    assert_eq!(mul_div(u128::MAX, 2, 4), Some(u128::MAX / 2));
    assert_eq!(mul_div(u128::MAX, 2, 1), None);
    assert_eq!(mul_div(1, 1, 0), None);
    assert_eq!(mul_div(0, 5, 3), Some(0));
}

#[test]
fn shares_are_worth_what_was_paid_for_them() {
    let mut pool = Pool::default();
    assert_eq!(pool.join(1_000), Some(1_000));
    pool.pay(500).unwrap();
    assert_eq!(pool.value_of(1_000), Some(1_500));
    assert_eq!(pool.join(3_000), Some(2_000));
    assert_eq!(pool.slash(2_250), 2_250);
    assert_eq!(pool.value_of(1_000), Some(750));
    assert_eq!(pool.leave(2_000), Some(1_500));
    assert_eq!(pool.leave(1_000), Some(750));
    assert_eq!(pool, Pool::default());
}

#[test]
fn a_pool_refuses_what_it_cannot_divide() {
    let mut pool = Pool::default();
    assert_eq!(pool.join(0), None);
    assert_eq!(pool.pay(5), None);
    assert_eq!(pool.leave(1), None);
    pool.join(10).unwrap();
    assert_eq!(pool.leave(11), None);
    assert_eq!(pool.slash(99), 10);
    assert_eq!(pool.join(5), None, "a slash took everything: shares are worth nothing");
    assert_eq!(pool.leave(10), Some(0));
    assert_eq!(pool.join(5), Some(5));
}

/// The first joiner makes its one share dear, so that the next one's money would be rounded away.
#[test]
fn a_dear_share_cannot_steal_from_the_next_to_join() {
    let mut pool = Pool::default();
    pool.join(1).unwrap();
    pool.pay(1_000 * UNIT).unwrap();
    let before = pool;
    assert_eq!(pool.join(1_999 * UNIT), None);
    assert_eq!(pool, before);
}

#[test]
fn a_slash_is_divided_to_the_unit() {
    assert_eq!(divide_slash(10, &[1, 1, 1]), Some(vec![1, 1, 1]));
    assert_eq!(divide_slash(2, &[1, 1, 1]), Some(vec![1, 1, 0]));
    assert_eq!(divide_slash(50, &[75, 0, 25]), Some(vec![38, 0, 12]));
    assert_eq!(divide_slash(5, &[]), Some(vec![]));
    assert_eq!(divide_slash(5, &[u128::MAX, 1]), None);
}

#[test]
fn pay_is_divided_by_stake_after_the_take() {
    let split = |validator, nominators| Some(PaySplit { validator, nominators });
    assert_eq!(split_pay(1_000, 100, 0, 180_000), split(1_000, 0));
    assert_eq!(split_pay(1_000, 100, 300, 0), split(250, 750));
    assert_eq!(split_pay(1_000, 100, 300, 200_000), split(400, 600));
    assert_eq!(split_pay(1_000, 100, 300, 1_000_000), split(1_000, 0));
    assert_eq!(split_pay(1, 1, 1, 0), split(1, 0));
}

#[test]
fn take_falls_at_once_and_rises_late_by_a_step() {
    let staking = staking();
    let take = Take { ppm: 100_000, next: None };
    assert_eq!(take.changed(50_000, 3, &staking), Ok(Take { ppm: 50_000, next: None }));
    let rising = take.changed(110_000, 3, &staking).unwrap();
    assert_eq!((rising.at(18), rising.at(19)), (100_000, 110_000));
    assert_eq!(rising.changed(110_000, 4, &staking), Err(TakeError::Waiting));
    assert_eq!(take.changed(110_001, 3, &staking), Err(TakeError::TooFast));
    assert_eq!(
        Take { ppm: 180_000, next: None }.changed(180_001, 3, &staking),
        Err(TakeError::TooHigh)
    );
    let again = rising.changed(120_000, 19, &staking).unwrap();
    assert_eq!((again.at(34), again.at(35)), (110_000, 120_000));
    let fallen = rising.changed(0, 4, &staking).unwrap();
    assert_eq!(fallen.at(100), 0, "a fall cancels the rise that waits");
}

/// What somebody does to a pool.
#[derive(Clone, Debug)]
enum Move {
    Join(u128),
    Leave(usize, u128),
    Pay(u128),
    Slash(u128),
}

fn any_move() -> impl Strategy<Value = Move> {
    let amount = || prop_oneof![1u128..100, 1u128..1_000 * UNIT, 1u128..1 << 100];
    prop_oneof![
        3 => amount().prop_map(Move::Join),
        3 => (any::<usize>(), 1u128..1_001).prop_map(|(who, parts)| Move::Leave(who, parts)),
        2 => amount().prop_map(Move::Pay),
        1 => amount().prop_map(Move::Slash),
    ]
}

proptest! {
    #[test]
    fn mul_div_agrees_with_small_products(a in 0u128..1 << 64, b in 0u128..1 << 63, c in 1u128..1 << 90) {
        prop_assert_eq!(mul_div(a, b, c), Some(a * b / c));
    }

    #[test]
    fn a_pool_holds_what_went_in_less_what_came_out(moves in vec(any_move(), 0..60)) {
        let mut pool = Pool::default();
        let mut shares: Vec<u128> = Vec::new();
        let (mut inside, mut sum_of_shares) = (0u128, 0u128);
        for step in moves {
            let worth: Vec<_> = shares.iter().map(|share| pool.value_of(*share).unwrap()).collect();
            match step {
                Move::Join(amount) => if let Some(got) = pool.join(amount) {
                    inside += amount;
                    sum_of_shares += got;
                    let value = pool.value_of(got).unwrap();
                    prop_assert!(value <= amount, "the joiner gained");
                    prop_assert!(amount - value <= (amount / 1_000_000).max(1), "the joiner was robbed");
                    for (share, before) in shares.iter().zip(&worth) {
                        prop_assert!(pool.value_of(*share).unwrap() >= *before, "those who stay lost");
                    }
                    shares.push(got);
                },
                Move::Leave(who, parts) => if !shares.is_empty() {
                    let who = who % shares.len();
                    let part = mul_div(shares[who], parts, 1_000).unwrap().min(shares[who]);
                    let value = pool.leave(part).unwrap();
                    prop_assert!(value <= worth[who], "the leaver gained");
                    shares[who] -= part;
                    sum_of_shares -= part;
                    inside -= value;
                    for (at, share) in shares.iter().enumerate().filter(|(at, _)| *at != who) {
                        prop_assert!(pool.value_of(*share).unwrap() >= worth[at], "those who stay lost");
                    }
                },
                Move::Pay(amount) => if pool.pay(amount).is_some() {
                    inside += amount;
                },
                Move::Slash(amount) => inside -= pool.slash(amount),
            }
            prop_assert_eq!(pool.amount, inside);
            prop_assert_eq!(pool.shares, sum_of_shares);
        }
        // The last to leave takes the rest.
        let out: u128 = shares.iter().map(|share| pool.leave(*share).unwrap()).sum();
        prop_assert_eq!(out, if sum_of_shares > 0 { inside } else { 0 });
    }

    #[test]
    fn a_slash_takes_no_part_twice_and_sums_exactly(
        amount in any::<u64>(),
        parts in vec(any::<u64>(), 0..20),
    ) {
        let parts: Vec<u128> = parts.into_iter().map(u128::from).collect();
        let taken = divide_slash(u128::from(amount), &parts).unwrap();
        prop_assert!(taken.iter().zip(&parts).all(|(taken, part)| taken <= part));
        let sum: u128 = parts.iter().sum();
        prop_assert_eq!(taken.iter().sum::<u128>(), u128::from(amount).min(sum));
    }

    #[test]
    fn a_split_is_exact(amount in any::<u128>(), own in any::<u64>(), delegated in any::<u64>(), take in 0u32..1_000_001) {
        let split = split_pay(amount, own.into(), delegated.into(), take).unwrap();
        prop_assert_eq!(split.validator.checked_add(split.nominators), Some(amount));
    }
}
