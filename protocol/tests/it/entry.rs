//! What joining costs, who makes room, who is idle.

use proptest::prelude::*;
use protocol::{
    consent::{hot_key_consent, Role},
    entry::{entry_price, is_idle, is_immune, victim, EntryPrice, Holder},
    fixed::Q32,
    settings::{Entry, Settings},
    Planck, Uid,
};

const UNIT: Planck = 1_000_000_000_000;

fn entry() -> Entry {
    Entry {
        price_min: UNIT,
        price_max: 1_000 * UNIT,
        price_halving_blocks: 100,
        ..Settings::example().entry
    }
}

fn left(price: Planck, block: u32) -> Option<EntryPrice> {
    Some(EntryPrice { price, block })
}

#[test]
fn the_price_starts_at_its_floor_and_rises_with_each_join_to_its_ceiling() {
    let entry = entry();
    assert_eq!(entry_price(None, 77, &entry), UNIT);
    let mut price = UNIT;
    for expected in [1_260_000_000_000, 1_587_600_000_000, 2_000_376_000_000] {
        let row = EntryPrice::after_join(price, 9, &entry);
        price = entry_price(Some(row), 9, &entry);
        assert_eq!(price, expected);
    }
    for _ in 0..60 {
        price = EntryPrice::after_join(price, 9, &entry).price;
    }
    assert_eq!(price, entry.price_max);
    // The smallest price rises, too.
    assert_eq!(EntryPrice::after_join(1, 9, &entry).price, 2);
}

#[test]
fn the_price_halves_exactly_and_falls_by_equal_steps_between() {
    let entry = entry();
    let price = |block| entry_price(left(512 * UNIT, 1_000), block, &entry);
    assert_eq!(price(1_000), 512 * UNIT);
    assert_eq!(price(1_050), 384 * UNIT);
    assert_eq!(price(1_100), 256 * UNIT);
    assert_eq!(price(1_101), 256 * UNIT - 128 * UNIT / 100);
    assert_eq!(price(1_300), 64 * UNIT);
    assert_eq!(price(1_900), UNIT);
    assert_eq!(price(u32::MAX), UNIT);
    // A block before the join, which the chain never has.
    assert_eq!(price(0), 512 * UNIT);
}

#[test]
fn settings_that_change_bind_the_price_at_once() {
    let mut changed = entry();
    changed.price_max = 10 * UNIT;
    assert_eq!(entry_price(left(512 * UNIT, 0), 0, &changed), 10 * UNIT);
    changed.price_min = 5 * UNIT;
    assert_eq!(entry_price(left(UNIT, 0), 0, &changed), 5 * UNIT);
}

fn holder(uid: Uid, value: i32, registered_window: u64) -> Holder {
    Holder { uid, value: Q32::from_int(value), registered_window, is_leaving: false }
}

#[test]
fn the_least_standing_makes_room_then_the_earliest_registration_then_the_lowest_uid() {
    let entry = Entry { immunity_windows: 8, ..entry() };
    let find = |holders: &[Holder], window| victim(holders.iter().copied(), window, &entry);
    let mut holders =
        vec![holder(0, 3, 0), holder(1, 1, 4), holder(2, 1, 2), holder(3, 1, 2), holder(4, 0, 95)];
    for _ in 0..5 {
        assert_eq!(find(&holders, 100), Some(2));
        holders.rotate_left(1);
    }
    // The newcomer's immunity ends.
    assert_eq!(find(&holders, 103), Some(4));
    assert!(is_immune(95, 102, &entry) && !is_immune(95, 103, &entry));
    // Who leaves makes room by itself.
    let leaving = Holder { is_leaving: true, ..holder(7, -1, 0) };
    assert_eq!(find(&[leaving], 100), None);
    assert_eq!(find(&[holder(0, 0, 99), holder(1, 0, 98)], 100), None);
    assert_eq!(find(&[], 100), None);
}

#[test]
fn idle_is_who_commits_to_nothing_in_whole_windows() {
    let entry = Entry { idle_windows: 3, ..entry() };
    let idle = |committed, registered, window| is_idle(committed, registered, window, &entry);
    // Windows 5, 6 and 7 have passed.
    assert!(!idle(None, 5, 7));
    assert!(idle(None, 5, 8));
    assert!(!idle(Some(5), 5, 8));
    assert!(idle(Some(5), 5, 9));
    // Before the run's first block, or a participant's, nobody is.
    assert!(!idle(None, 0, 0));
    assert!(!idle(None, 9, 8));
}

#[test]
fn a_consent_is_good_for_one_chain_run_role_and_cold_key() {
    let base = hot_key_consent(&[1; 32], 2, Role::Miner, &[3; 32]);
    let others = [
        hot_key_consent(&[0; 32], 2, Role::Miner, &[3; 32]),
        hot_key_consent(&[1; 32], 3, Role::Miner, &[3; 32]),
        hot_key_consent(&[1; 32], 2, Role::Validator, &[3; 32]),
        hot_key_consent(&[1; 32], 2, Role::Miner, &[4; 32]),
    ];
    assert!(others.iter().all(|other| *other != base));
}

#[test]
fn entry_settings_are_bounded() {
    let valid = |change: fn(&mut Entry)| {
        let mut settings = Settings::example();
        change(&mut settings.entry);
        settings.validate().is_ok()
    };
    assert!(valid(|_| ()));
    assert!(!valid(|entry| entry.price_min = 0));
    assert!(!valid(|entry| entry.price_max = entry.price_min - 1));
    assert!(!valid(|entry| entry.price_max = Planck::MAX));
    assert!(!valid(|entry| entry.price_halving_blocks = 0));
    assert!(!valid(|entry| entry.price_rise_ppm = 999_999));
    assert!(!valid(|entry| entry.idle_windows = 1));
    assert!(!valid(|entry| entry.hand_over_windows = 0));
    assert!(!valid(|entry| entry.immunity_windows = u32::MAX));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (1u128..1 << 90, 1u128..1 << 90, 1u32..u32::MAX, 1_000_000u32..10_000_000).prop_map(
        |(a, b, price_halving_blocks, price_rise_ppm)| Entry {
            price_min: a.min(b),
            price_max: a.max(b),
            price_halving_blocks,
            price_rise_ppm,
            ..Settings::example().entry
        },
    )
}

proptest! {
    #[test]
    fn a_price_keeps_its_bounds_and_never_rises_by_itself(
        entry in any_entry(),
        price in any::<u128>(),
        joined in any::<u32>(),
        block in any::<u32>(),
        later in any::<u32>(),
    ) {
        let last = left(price.min(entry.price_max), joined);
        let now = entry_price(last, block, &entry);
        prop_assert!((entry.price_min..=entry.price_max).contains(&now));
        let then = entry_price(last, block.saturating_add(later), &entry);
        prop_assert!(then <= now);
    }

    #[test]
    fn a_join_never_lowers_the_price_and_raises_it_below_the_ceiling(
        entry in any_entry(),
        price in 1u128..1 << 90,
        block in any::<u32>(),
    ) {
        let price = price.clamp(entry.price_min, entry.price_max);
        let risen = EntryPrice::after_join(price, block, &entry);
        let next = entry_price(Some(risen), block, &entry);
        prop_assert!(next >= price);
        prop_assert!(next > price || next == entry.price_max || entry.price_rise_ppm == 1_000_000);
    }

    #[test]
    fn a_halving_is_exact_and_lazy(entry in any_entry(), price in 1u128..1 << 90, halvings in 0u32..90) {
        let entry = Entry { price_min: 1, price_max: 1 << 90, price_halving_blocks: 1_000, ..entry };
        let at = entry_price(left(price, 5), 5 + halvings * 1_000, &entry);
        prop_assert_eq!(at, (price >> halvings).max(1));
        // Within a halving it is between the two.
        let half = entry_price(left(price, 5), 5 + halvings * 1_000 + 500, &entry);
        prop_assert!(half <= at && half >= (price >> (halvings + 1)).max(1));
    }
}
