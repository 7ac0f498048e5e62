//! Leaving and coming back under other keys, window after window, with the real settlement and the price of joining.
//! (p08 and p09 of the audit: what a first sample that counts whole and pay on probation are worth to who is always new.)

use protocol::{
    consensus::{pay, MinerInput, Standing, ValidatorInput},
    entry::{entry_price, EntryPrice},
    settings::{Entry, Settings},
    Planck,
};

use crate::consensus::{evaluation, miner, settle, validator};

const WINDOWS: u64 = 200;
const HONEST: u16 = 10;
/// The uid of who comes back.
const NEWCOMER: u16 = HONEST;

/// How somebody works: the gain of its updates as a part of an honest miner's, and whether it computed them.
#[derive(Clone, Copy)]
struct Work {
    gain: f64,
    is_computed: bool,
}

const HONEST_WORK: Work = Work { gain: 1.0, is_computed: true };
/// A stale payload, as the audit assumes it.
const FREE_RIDE: Work = Work { gain: 0.8, is_computed: false };

/// Numbers from −1 to 1, nearly normal; the same in every run.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn normal(&mut self) -> f64 {
        // The variance of the sum of three is one.
        self.uniform() + self.uniform() + self.uniform()
    }
}

/// What a window is given in planck: 100 UNIT.
const PER_WINDOW: Planck = 100_000_000_000_000;

/// What a window's work measures, as (own, random).
fn measured(work: Work, noise: f64, draws: &mut Noise) -> (f64, f64) {
    let random = 0.01 * work.gain * (1.0 + noise * draws.normal());
    let own = if work.is_computed { 1.5 * random.abs() } else { random + 0.002 * draws.normal() };
    (own, random)
}

/// What `work` earns in [`WINDOWS`] and what it pays to join, in planck, if it joins anew every so many windows.
fn income(work: Work, noise: f64, every: Option<u64>, settings: &Settings) -> (Planck, Planck) {
    let pot = PER_WINDOW / 1_000_000 * Planck::from(settings.emission.miners_ppm);
    let mut draws = Noise(7);
    let mut standings = vec![Standing::default(); usize::from(HONEST) + 1];
    let (mut earned, mut burned, mut last) = (0, 0, None);
    for window in 0..WINDOWS {
        if every.map_or(window == 0, |every| window.is_multiple_of(every)) {
            let block = window as u32 * settings.schedule.window_blocks;
            let price = entry_price(last, block, &settings.entry);
            last = Some(EntryPrice::after_join(price, block, &settings.entry));
            burned += price;
            standings[usize::from(NEWCOMER)] = Standing::default();
        }
        let evaluations: Vec<_> = (0..=HONEST)
            .map(|uid| {
                let work = if uid == NEWCOMER { work } else { HONEST_WORK };
                let (own, random) = measured(work, noise, &mut draws);
                evaluation(uid, own, random)
            })
            .collect();
        let miners: Vec<MinerInput> = (0..=HONEST)
            .zip(&standings)
            .map(|(uid, standing)| MinerInput { standing: standing.clone(), ..miner(uid) })
            .collect();
        let validators: Vec<ValidatorInput> =
            (0..3).map(|index| validator(index, 100, evaluations.clone())).collect();
        let outcome = settle(&miners, &validators, &settings.incentive).unwrap();
        let shares: Vec<_> = outcome.miners.iter().map(|miner| miner.share).collect();
        let (amounts, _) = pay(pot, &shares).unwrap();
        earned += amounts[usize::from(NEWCOMER)];
        standings = outcome.miners.into_iter().map(|miner| miner.standing).collect();
    }
    (earned, burned)
}

/// The example, where joining costs at least a sixth of what a window pays to all miners.
fn settings() -> Settings {
    let settings = Settings::example();
    assert_eq!(settings.entry.price_min * 6, PER_WINDOW * 6 / 10);
    settings
}

#[test]
fn leaving_and_coming_back_earns_less_than_staying() {
    let settings = settings();
    for (name, work, noise) in [
        ("free ride, 10 % noise", FREE_RIDE, 0.1),
        ("honest, 10 % noise", HONEST_WORK, 0.1),
        ("honest, 30 % noise", HONEST_WORK, 0.3),
        ("honest, 50 % noise", HONEST_WORK, 0.5),
    ] {
        let net = |every| {
            let (earned, burned) = income(work, noise, every, &settings);
            println!(
                "{name}, new every {every:?}: earned {} burned {}",
                earned / 1_000_000_000_000,
                burned / 1_000_000_000_000
            );
            earned as i128 - burned as i128
        };
        let stays = net(None);
        for every in [1, 2, 3, 5, 10, 20, 50] {
            assert!(net(Some(every)) < stays, "{name}, new every {every} windows");
        }
    }
}

/// Under the first rules it was the price alone that made it so; now the standing does, too.
#[test]
fn coming_back_earns_less_even_without_a_price() {
    let mut settings = settings();
    settings.entry = Entry { price_min: 1, price_max: 1, ..settings.entry };
    let earned = |work, noise, every| income(work, noise, every, &settings).0;
    for (work, noise) in [(FREE_RIDE, 0.1), (HONEST_WORK, 0.1), (HONEST_WORK, 0.5)] {
        let stays = earned(work, noise, None);
        assert!(earned(work, noise, Some(10)) < stays);
        assert!(earned(work, noise, Some(1)) < stays);
    }
}
