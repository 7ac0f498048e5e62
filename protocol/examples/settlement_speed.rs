//! Measures a settlement by standing and by Yuma consensus, and one Yuma epoch alone, on one core.
//!
//! ```text
//! cargo run --release -p gauntlet-protocol --example settlement_speed
//! ```

use std::{hint::black_box, time::Instant};

use protocol::{
    consensus::{
        settle,
        yuma::{judge, normalised, Row},
        Evaluation, MinerInput, SettlementInput, Standing, ValidatorInput,
    },
    fixed::Q32,
    settings::{ConsensusKind, Incentive, Settings, StandingKind, YumaSettings},
};

/// Passes; the fastest counts.
const PASSES: usize = 9;

/// SplitMix64.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Milliseconds of the fastest of some passes.
fn fastest(mut pass: impl FnMut()) -> f64 {
    let milliseconds = (0..PASSES).map(|_| {
        let start = Instant::now();
        pass();
        start.elapsed().as_secs_f64() * 1e3
    });
    milliseconds.fold(f64::MAX, f64::min)
}

/// Every validator measures every miner.
fn inputs(validators: u16, miners: u16) -> SettlementInput {
    let mut noise = Noise(1);
    let miner = |uid| MinerInput {
        uid,
        standing: Standing::default(),
        on_probation: false,
        revealed: true,
        fault: None,
    };
    let mut measured = |uid: u16| Evaluation {
        uid,
        own_before: 1 << 26,
        own_after: (1 << 26) - (1 << 16) - noise.below(1 << 16) as u32,
        random_before: 1 << 26,
        random_after: (1 << 26) - (1 << 15) - noise.below(1 << 16) as u32,
    };
    let validators = (0..validators).map(|index| ValidatorInput {
        index,
        stake: 1_000 + u64::from(index),
        present: true,
        attested: Q32::ONE,
        drawn: (0..miners).collect(),
        evaluations: (0..miners).map(&mut measured).collect(),
        bonds: (0..miners).map(|uid| (uid, 1 + (uid ^ index) % 60_000)).collect(),
    });
    let validators: Vec<ValidatorInput> = validators.collect();
    let permitted_stake = validators.iter().map(|found| u128::from(found.stake)).sum();
    let miners = (0..miners).map(miner).collect();
    SettlementInput { miners, validators, permitted_stake, is_final: true }
}

/// The rows of a Yuma epoch of the same size.
fn rows(validators: u16, miners: u16) -> (Vec<Q32>, Vec<Row<Q32>>, Vec<Row<u16>>) {
    let mut noise = Noise(2);
    let stakes = (0..validators).map(|index| Q32::from_int(1_000 + i32::from(index)));
    let mut weights = || {
        let row = (0..miners).map(|_| Q32::from_int(1 + noise.below(65_535) as i32));
        (0..miners).zip(normalised(row.collect())).collect()
    };
    let weights = (0..validators).map(|_| weights()).collect();
    let bonds = (0..validators)
        .map(|index| (0..miners).map(|uid| (uid, 1 + (uid ^ index) % 60_000)).collect());
    (normalised(stakes.collect()), weights, bonds.collect())
}

fn main() {
    println!("milliseconds of the fastest of {PASSES}, and how many of them an epoch takes");
    println!("validators x miners  epoch    gain  ratio  plackett-luce  ratio  yuma  ratio");
    for (validators, miners) in [(64u16, 256u16), (256, 4_096)] {
        let (stakes, weights, bonds) = rows(validators, miners);
        let epoch = fastest(|| {
            let columns = usize::from(miners);
            black_box(judge(columns, &stakes, &weights, &bonds, &YumaSettings::UPSTREAM));
        });
        let input = inputs(validators, miners);
        let settled = |standing, consensus| {
            let rules = Incentive { standing, consensus, ..Settings::example().incentive };
            fastest(|| {
                black_box(settle(&input, &rules).expect("settles"));
            })
        };
        let gain = settled(StandingKind::Gain, ConsensusKind::Gauntlet);
        let rated = settled(StandingKind::PlackettLuce, ConsensusKind::Gauntlet);
        let yuma = settled(StandingKind::Gain, ConsensusKind::Yuma(YumaSettings::UPSTREAM));
        println!(
            "{validators:>10} x {miners:<6}  {epoch:>5.1}  {gain:>6.1}  {:>5.2}  {rated:>13.1}  {:>5.2}  {yuma:>4.1}  {:>5.2}",
            gain / epoch,
            rated / epoch,
            yuma / epoch,
        );
    }
    println!("pallet-subtensor's epoch of this size by our timing: 1.4 to 2 ms, 180 to 240 ms");
}
