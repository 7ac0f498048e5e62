//! Ratings against an `f64` oracle written straight from the formula.

use proptest::prelude::*;
use protocol::{
    fixed::Q32,
    rating::{
        average_rate, gain_sample, move_average, proof_sample, ranks, PlackettLuce, Rating,
        RatingError, PLAYERS_MAX,
    },
};

/// The bound that [`PlackettLuce::play`] states.
const TOLERANCE: f64 = 1e-6;

fn q(value: f64) -> Q32 {
    Q32((value * 4_294_967_296.0).round() as i64)
}

/// The double sum of the formula, O(n²) over players, without grouping.
fn oracle(players: &[(f64, f64)], ranks: &[u32]) -> Vec<(f64, f64)> {
    let n = players.len();
    let (beta, tau, kappa) = (7.0f64, 0.1f64, 1e-4f64);
    let variance: Vec<f64> = players.iter().map(|(_, s)| s * s + tau * tau).collect();
    let c = variance.iter().map(|v| v + beta * beta).sum::<f64>().sqrt();
    let top = players.iter().map(|(mu, _)| *mu).fold(f64::MIN, f64::max);
    let e: Vec<f64> = players.iter().map(|(mu, _)| ((mu - top) / c).exp()).collect();
    let mut after = Vec::new();
    for i in 0..n {
        let (mut omega, mut delta) = (0.0, 0.0);
        for j in (0..n).filter(|&j| ranks[j] <= ranks[i]) {
            let below: f64 = (0..n).filter(|&s| ranks[s] >= ranks[j]).map(|s| e[s]).sum();
            let tied = ranks.iter().filter(|&&rank| rank == ranks[j]).count() as f64;
            let p = e[i] / below;
            omega += (f64::from(u8::from(i == j)) - p) / tied;
            delta += p * (1.0 - p) / tied;
        }
        omega *= variance[i] / c;
        delta *= variance[i] / (c * c) * variance[i].sqrt() / c;
        let sigma = variance[i].sqrt() * (1.0 - delta).max(kappa).sqrt();
        after.push((players[i].0 + omega, sigma));
    }
    after
}

fn check(players: &[(f64, f64)], ranks: &[u32]) {
    let ratings: Vec<Rating> =
        players.iter().map(|&(mu, sigma)| Rating { mu: q(mu), sigma: q(sigma) }).collect();
    let after = PlackettLuce::default().play(&ratings, ranks).unwrap();
    for (rating, (mu, sigma)) in after.iter().zip(oracle(players, ranks)) {
        assert!((rating.mu.to_f64() - mu).abs() < TOLERANCE, "{} {mu}", rating.mu.to_f64());
        assert!((rating.sigma.to_f64() - sigma).abs() < TOLERANCE);
    }
}

#[test]
fn a_newcomer_is_25_and_a_third() {
    assert_eq!(Rating::default().mu.to_f64(), 25.0);
    assert!((Rating::default().sigma.to_f64() - 25.0 / 3.0).abs() < 1e-9);
}

#[test]
fn ranks_count_the_better_ones() {
    let scores = [3, 1, 3, 2, -5].map(Q32::from_int);
    assert_eq!(ranks(&scores), [0, 3, 0, 2, 4]);
    assert_eq!(ranks(&[]), Vec::<u32>::new());
}

#[test]
fn matches_of_odd_sizes_follow_the_oracle() {
    let fresh = (25.0, 25.0 / 3.0);
    check(&[fresh], &[0]);
    check(&[fresh; 2], &[1, 0]);
    check(&[fresh; 5], &[0, 0, 2, 2, 2]);
    check(&[fresh; 5], &[0; 5]);
    check(&[fresh; 256], &(0..256).collect::<Vec<_>>());
    // Wide gaps: the weak one wins, the strong one wins.
    check(&[(0.0, 1.0), (120.0, 1.0)], &[0, 1]);
    check(&[(0.0, 8.0), (120.0, 0.5), (-100.0, 20.0)], &[2, 0, 1]);
    assert_eq!(PlackettLuce::default().play(&[], &[]), Ok(vec![]));
}

#[test]
fn impossible_matches_are_errors() {
    let rules = PlackettLuce::default();
    let fresh = Rating::default();
    assert_eq!(rules.play(&[fresh], &[0, 1]), Err(RatingError::Length { players: 1, ranks: 2 }));
    let many = vec![fresh; PLAYERS_MAX + 1];
    let error = RatingError::TooManyPlayers(PLAYERS_MAX + 1);
    assert_eq!(rules.play(&many, &vec![0; PLAYERS_MAX + 1]), Err(error));
    let huge = Rating { mu: Q32::MAX, sigma: Q32::MAX };
    assert_eq!(rules.play(&[huge, fresh], &[0, 1]), Err(RatingError::Overflow));
}

#[test]
fn the_largest_match_is_played() {
    let ranks: Vec<u32> = (0..1_024).map(|i| i / 3 * 3).collect();
    let after = PlackettLuce::default().play(&vec![Rating::default(); 1_024], &ranks).unwrap();
    assert!(after.first().unwrap().mu > after.last().unwrap().mu);
}

#[test]
fn averages_gates_and_rates() {
    assert_eq!(proof_sample(q(0.2), q(0.1)), Q32::ONE);
    assert_eq!(proof_sample(q(0.1), q(0.1)), Q32::ZERO);
    assert_eq!(proof_sample(q(-0.2), q(0.1)), q(-1.0));
    assert_eq!(gain_sample(q(0.5), q(0.25)), Some(q(2.0)));
    assert_eq!(gain_sample(q(0.5), Q32(1)), Some(q(2.0)));
    assert_eq!(gain_sample(Q32::MIN, Q32(1)), Some(q(-1.0)));
    assert_eq!(gain_sample(q(0.5), Q32::ZERO), None);
    assert_eq!(gain_sample(q(0.5), Q32(-1)), None);
    assert_eq!(average_rate(0, 0, q(0.05)), Q32::ONE);
    assert_eq!(average_rate(3, 0, q(0.05)), q(0.25));
    // What was believed before counts like samples.
    assert_eq!(average_rate(1, 2, q(0.05)), q(0.25));
    assert_eq!(average_rate(u32::MAX, u32::MAX, q(0.05)), q(0.05));
    assert_eq!(move_average(q(1.0), q(3.0), q(0.25)), Some(q(1.5)));
    assert_eq!(move_average(Q32::MIN, Q32::MAX, Q32::ONE), None);
}

fn players(max: usize) -> impl Strategy<Value = Vec<(f64, f64, u32)>> {
    proptest::collection::vec((-20.0..70.0f64, 0.3..9.0f64, 0u32..12), 1..max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matches_follow_the_oracle(players in players(40)) {
        let scores: Vec<Q32> = players.iter().map(|p| Q32::from_int(p.2 as i32)).collect();
        let ratings: Vec<(f64, f64)> = players
            .iter()
            .map(|p| (q(p.0).to_f64(), q(p.1).to_f64()))
            .collect();
        check(&ratings, &ranks(&scores));
    }

    #[test]
    fn the_order_of_players_does_not_matter(players in players(20)) {
        let play = |players: &[(f64, f64, u32)]| {
            let ratings: Vec<Rating> =
                players.iter().map(|p| Rating { mu: q(p.0), sigma: q(p.1) }).collect();
            let ranks: Vec<u32> = players.iter().map(|p| p.2).collect();
            PlackettLuce::default().play(&ratings, &ranks).unwrap()
        };
        let mut reversed = players.clone();
        reversed.reverse();
        let mut after = play(&reversed);
        after.reverse();
        prop_assert_eq!(play(&players), after);
    }

    #[test]
    fn no_match_panics(players in proptest::collection::vec((any::<i64>(), any::<i64>(), any::<u32>()), 0..20)) {
        let ratings: Vec<Rating> =
            players.iter().map(|p| Rating { mu: Q32(p.0), sigma: Q32(p.1) }).collect();
        let ranks: Vec<u32> = players.iter().map(|p| p.2).collect();
        let _ = PlackettLuce::default().play(&ratings, &ranks);
    }
}
