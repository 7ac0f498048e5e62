//! What clients and pages are told is what storage holds.

use frame_support::{assert_ok, traits::fungible::Mutate};
use protocol::{
    assignment::assigned_sample,
    entry::Seat,
    layout::LAYOUT_TENSORS_MAX,
    window::{Phase, ScorePhase},
    Planck, Uid, Window,
};

use crate::{
    mock::*, view::VIEW_PAGE, Claims, Event, HoldReason, LayoutVec, MinerPayPage, PaidMiners,
    PaidWindows, Runs, SeatPay, WindowPay, WindowStatus, HISTORY_WINDOWS,
};

#[test]
fn views_answer_what_storage_holds() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        assert_eq!(Gauntlet::assignment_seed(0), None);
        play_window(0, 2, 1);
        let graph = Gauntlet::metagraph(0, 0).unwrap();
        assert_eq!(graph.window, Some(0));
        assert_eq!(graph.miners.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(graph.validators.len(), 1);
        assert_eq!(Gauntlet::settings(0), Some(settings()));
        assert_eq!(Gauntlet::assignment_seed(0), Some((0, record(0).seed)));
        assert_eq!(Gauntlet::accepted_set(0, 0), Some(vec![0, 1]));
        assert_eq!(Gauntlet::window_info(0, 1), None);
        assert_eq!(Gauntlet::standing(0, 1).unwrap().value, graph.miners[1].1.value);
    });
}

#[test]
fn views_of_what_is_not_there_are_none() {
    ExtBuilder::default().participants(1, 0).build_and_execute(|| {
        assert_eq!(Gauntlet::metagraph(1, 0), None);
        assert_eq!(Gauntlet::phase(1), None);
        assert_eq!(Gauntlet::schedule(1, 0), None);
        assert_eq!(Gauntlet::schedule(0, u64::MAX), None);
        assert_eq!(Gauntlet::standing(0, 1), None);
        assert_eq!(Gauntlet::claimable(1, miner_cold(0)), None);
        assert_eq!(Gauntlet::assignment(0, 0, 0), None, "the run has not begun");
        roll_to(START);
        assert_eq!(Gauntlet::assignment(0, 1, 0), None);
    });
}

#[test]
fn the_cost_view_says_what_create_run_takes_and_the_most_that_is_refused() {
    new_test_ext().execute_with(|| {
        for tensors in [1, 2, 999, LAYOUT_TENSORS_MAX as usize] {
            let layout = LayoutVec::truncate_from(vec![4_096; tensors]);
            let told = Gauntlet::run_cost(layout.clone());
            let create = || {
                Gauntlet::create_run(
                    RuntimeOrigin::signed(account(2)),
                    settings().into(),
                    layout.clone(),
                )
            };
            let needed = told.deposit + 2 * told.foundation;
            Balances::set_balance(&account(2), needed - 1);
            assert!(create().is_err(), "{tensors}");
            Balances::set_balance(&account(2), needed);
            let held = Gauntlet::held(HoldReason::RunDeposit, &account(2));
            assert_ok!(create());
            assert_eq!(Gauntlet::held(HoldReason::RunDeposit, &account(2)) - held, told.deposit);
            assert_eq!(Balances::free_balance(account(2)), told.foundation);
        }
    });
}

#[test]
fn the_phase_view_names_the_next_block_in_which_something_changes() {
    ExtBuilder::default().build_and_execute(|| {
        let before = Gauntlet::phase(0).unwrap();
        assert_eq!((before.moment, before.next_boundary), (None, Some(START)));

        // Every block of two windows: the next boundary is where the moment's phases next differ.
        let schedule = settings().schedule;
        for block in START..START + 2 * schedule.window_blocks {
            roll_to(block);
            let told = Gauntlet::phase(0).unwrap();
            let phases = |block| {
                let moment = protocol::window::phase_at(&schedule, block).unwrap();
                (moment.window, moment.phase, moment.score_phase)
            };
            let next = (block + 1..).find(|next| phases(*next) != phases(block));
            assert_eq!((told.block, told.next_boundary), (block, next));
            let moment = told.moment.unwrap();
            assert_eq!((moment.window, moment.phase, moment.score_phase), phases(block));
        }
    });
}

#[test]
fn the_schedule_view_has_every_boundary_of_a_window() {
    ExtBuilder::default().build_and_execute(|| {
        let told = Gauntlet::schedule(0, 3).unwrap();
        let schedule = settings().schedule;
        assert_eq!(Some(told.start), schedule.window_start(3));
        assert_eq!(Some(told.attest_end), schedule.phase_end_block(3, Phase::AttestReveal));
        assert_eq!(Some(told.end), schedule.window_start(4));
        let settled = schedule.score_phase_end_block(3, ScorePhase::Reveal);
        assert_eq!(Some(told.score_reveal_end), settled);
        assert!(told.start < told.commit_end && told.commit_end < told.reveal_end);
        assert!(told.end < told.score_commit_end && told.score_commit_end < told.score_reveal_end);
    });
}

#[test]
fn the_assignment_view_has_the_samples_that_a_miner_draws() {
    ExtBuilder::default().participants(2, 0).build_and_execute(|| {
        roll_to(START);
        let told = Gauntlet::assignment(0, 1, 0).unwrap();
        let settings = settings();
        let per_miner = settings.samples_per_miner();
        assert_eq!((told.window, told.seed, told.sample_count), (0, record(0).seed, per_miner));
        assert_eq!(told.samples.len() as u64, per_miner.min(VIEW_PAGE.into()));
        for (position, sample) in (0..).zip(&told.samples) {
            let samples = settings.training.sample_count;
            let drawn = assigned_sample(&told.seed, 1, position, per_miner, samples);
            assert_eq!(Some(*sample), drawn);
        }
        assert!(Gauntlet::assignment(0, 1, u32::MAX).unwrap().samples.is_empty());
    });
}

#[test]
fn the_claimable_view_says_what_a_claim_transfers() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        let cold = miner_cold(0);
        let mut claimed = 0;
        // Every other one, as a window is scored past the commits of the next.
        for window in (0..8).step_by(2) {
            play_window(window, 2, 1);
            score_window(window, 2, 1);
            let told = Gauntlet::claimable(0, cold.clone()).unwrap();
            let owed: u128 = Claims::<Test>::get(0, &cold).iter().map(|claim| claim.amount).sum();
            assert_eq!(told.now + told.later, owed);
            let before = Balances::free_balance(&cold);
            let claim = Gauntlet::claim(RuntimeOrigin::signed(cold.clone()), 0, cold.clone());
            assert_eq!(claim.is_ok(), told.now > 0);
            assert_eq!(Balances::free_balance(&cold) - before, told.now);
            claimed += told.now;
        }
        assert!(claimed > 0);
    });
}

#[test]
fn the_pay_view_says_what_the_settlement_credited() {
    ExtBuilder::default().participants(3, 2).build_and_execute(|| {
        play_window(0, 3, 2);
        assert_eq!(Gauntlet::pay(0, 0), None, "it is not settled");
        score_window(0, 3, 2);
        let (mut miners, mut validators, mut sums) = (Vec::new(), Vec::new(), None);
        for event in events() {
            match event {
                Event::MinerScored { uid, paid, .. } if paid > 0 => miners.push((uid, paid)),
                Event::ValidatorPaid { index, paid, .. } => validators.push((index, paid)),
                Event::WindowSettled { paid, .. } => sums = Some(paid),
                _ => {}
            }
        }
        assert_eq!((miners.len(), validators.len()), (3, 2));
        let told = Gauntlet::pay(0, 0).unwrap();
        assert_eq!(told, WindowPay { paid: sums.unwrap(), miners, validators });
        assert_eq!(told.miners.iter().map(|(_, amount)| amount).sum::<Planck>(), told.paid.miners);
        assert_eq!(told.paid.owner, claimable(&owner()));
        assert_eq!(told.paid.checked_sum(), Some(ledger().claimable));

        // Nobody worked in window 1: it is settled, and pays nobody.
        roll_to_settlement(1);
        let nothing = WindowPay { paid: Default::default(), miners: vec![], validators: vec![] };
        assert_eq!(Gauntlet::pay(0, 1), Some(nothing));
        assert_eq!(Gauntlet::pay(1, 0), None, "there is no such run");
    });
}

#[test]
fn a_void_window_has_no_pay() {
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        play_window(0, 1, 1);
        let penalty = |penalty| {
            crate::Miners::<Test>::mutate(0, 0, |miner| {
                miner.as_mut().unwrap().standing.penalty = penalty;
            });
        };
        penalty(protocol::fixed::Q32::MIN);
        score_window(0, 1, 1);
        penalty(protocol::fixed::Q32::ONE);
        assert_eq!(record(0).status, WindowStatus::Void);
        assert_eq!(Gauntlet::pay(0, 0), None);
        let history = Gauntlet::pay_history(0, Seat::Miner(0), 0, 9);
        assert_eq!(history, Some(vec![]));
    });
}

#[test]
fn the_history_of_pay_has_each_settled_window_whatever_was_claimed() {
    ExtBuilder::default().participants(3, 2).build_and_execute(|| {
        for window in 0..4 {
            play_window(window, 2, 2);
        }
        assert_eq!(run().next_settlement, 3);
        let amounts = |seat, first, last| {
            let told = Gauntlet::pay_history(0, seat, first, last).unwrap();
            told.into_iter().map(|pay| (pay.window, pay.amount)).collect::<Vec<_>>()
        };
        let of_miner = amounts(Seat::Miner(1), 0, 9);
        assert_eq!(of_miner.iter().map(|(window, _)| *window).collect::<Vec<_>>(), [0, 1, 2]);
        let paid: Planck = of_miner.iter().map(|(_, amount)| amount).sum();
        assert!(paid > 0);
        assert_eq!(paid, claimable(&miner_cold(1)));
        let of_validator: Planck =
            amounts(Seat::Validator(1), 0, 9).iter().map(|(_, amount)| amount).sum();
        assert_eq!(of_validator, claimable(&validator_cold(1)));
        assert_eq!(amounts(Seat::Miner(2), 0, 9), [(0, 0), (1, 0), (2, 0)], "it never worked");
        assert_eq!(amounts(Seat::Miner(1), 1, 1), of_miner[1..2]);
        assert_eq!(amounts(Seat::Miner(1), 2, Window::MAX), of_miner[2..]);
        assert_eq!(amounts(Seat::Miner(1), 2, 1), []);
        assert_eq!(Gauntlet::pay_history(1, Seat::Miner(1), 0, 9), None);

        assert!(Gauntlet::do_claim(0, miner_cold(1)).is_ok());
        assert!(claimable(&miner_cold(1)) < paid);
        assert_eq!(amounts(Seat::Miner(1), 0, 9), of_miner);
    });
}

#[test]
fn pay_is_told_of_all_pages_of_a_settlement() {
    ExtBuilder::default().participants(3, 2).build().execute_with(|| {
        play_window(0, 3, 2);
        score_window(0, 3, 2);
        let far = 700;
        let page = MinerPayPage::truncate_from(vec![(far, 5)]);
        PaidMiners::<Test>::insert((0, 0, 1), page);
        let told = Gauntlet::pay(0, 0).unwrap().miners;
        assert_eq!(told.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [0, 1, 2, far]);
        let history = Gauntlet::pay_history(0, Seat::Miner(far), 0, 0);
        assert_eq!(history, Some(vec![SeatPay { window: 0, amount: 5 }]));
    });
}

#[test]
fn pay_is_forgotten_with_its_window() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        for window in 0..3 {
            play_window(window, 2, 1);
        }
        let kept = HISTORY_WINDOWS;
        // The settlement of a window is in the one after it.
        roll_to_settlement(kept - 1);
        assert!(Gauntlet::pay(0, 0).is_some());
        roll_to_settlement(kept);
        assert_eq!(run().next_pruning, 1);
        assert_eq!(Gauntlet::pay(0, 0), None);
        assert_eq!(PaidMiners::<Test>::iter_prefix((0, 0)).count(), 0);
        assert!(Gauntlet::pay(0, 1).is_some_and(|pay| pay.paid.miners > 0));
        let told = Gauntlet::pay_history(0, Seat::Miner(0), 0, 9).unwrap();
        assert_eq!(told.first().map(|pay| pay.window), Some(1));
        roll_to_settlement(2 * kept);
        assert_eq!(PaidMiners::<Test>::iter().count(), 0, "nobody worked since");
        assert!(PaidWindows::<Test>::iter().count() as Window <= kept + 2);
    });
}

#[test]
fn pay_is_removed_with_its_run_and_never_told_in_part() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        play_window(0, 2, 1);
        score_window(0, 2, 1);
        let paid = PaidWindows::<Test>::get(0, 0).unwrap();
        let page = PaidMiners::<Test>::get((0, 0, 0)).unwrap();
        assert!(Gauntlet::close_run(RuntimeOrigin::root(), 0).is_ok());
        roll_to_window(16);
        // As if the hooks had had no room to remove them.
        for window in 20..23 {
            PaidWindows::<Test>::insert(0, window, paid.clone());
            PaidMiners::<Test>::insert((0, window, 0), page.clone());
        }
        while Runs::<Test>::contains_key(0) {
            assert!(Gauntlet::reap_run(RuntimeOrigin::signed(account(90)), 0, 2).is_ok());
            let mut told = (20..23).filter_map(|window| Gauntlet::pay(0, window));
            assert!(told.all(|pay| pay.miners == page.to_vec()));
        }
        assert_eq!(PaidWindows::<Test>::iter().count(), 0);
        assert_eq!(PaidMiners::<Test>::iter().count(), 0);
    });
}

#[test]
fn the_metagraph_comes_in_pages() {
    ExtBuilder::default().participants(2, 1).build_and_execute(|| {
        let pages = u32::from(settings().incentive.uid_max).div_ceil(VIEW_PAGE);
        assert_eq!(Gauntlet::metagraph(0, 0).unwrap().pages, pages);
        // A miner in a slot of the second page.
        let miner = crate::Miners::<Test>::get(0, 1).unwrap();
        let far = VIEW_PAGE as Uid + 7;
        crate::Miners::<Test>::insert(0, far, miner);
        let uids = |page| {
            let told = Gauntlet::metagraph(0, page).unwrap();
            told.miners.iter().map(|(uid, _)| *uid).collect::<Vec<_>>()
        };
        assert_eq!((uids(0), uids(1), uids(2)), (vec![0, 1], vec![far], vec![]));
        assert!(Gauntlet::metagraph(0, 1).unwrap().validators.is_empty());
        crate::Miners::<Test>::remove(0, far);
    });
}
