//! The golden vectors of the Plackett–Luce rating (`plackett_luce.json`).

use std::path::PathBuf;

use protocol::{
    fixed::Q32,
    rating::{ranks, PlackettLuce, Rating},
};
use serde_json::Value;

use crate::known::assert_known;

/// Where the vectors lie: `GAUNTLET_VECTORS`, else the copy in this crate.
fn vectors() -> Value {
    let dir = std::env::var_os("GAUNTLET_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors"), PathBuf::from);
    let path = dir.join("plackett_luce.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["format"], 1);
    value
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    list(value).iter().map(number).collect()
}

fn integers(value: &Value) -> Vec<u32> {
    list(value).iter().map(|x| u32::try_from(x.as_u64().unwrap()).unwrap()).collect()
}

fn q(value: f64) -> Q32 {
    Q32((value * 4_294_967_296.0).round() as i64)
}

fn rating(mu: f64, sigma: f64) -> Rating {
    Rating { mu: q(mu), sigma: q(sigma) }
}

fn rules(params: &Value) -> PlackettLuce {
    PlackettLuce {
        beta: q(number(&params["beta"])),
        tau: q(number(&params["tau"])),
        kappa: q(number(&params["kappa"])),
    }
}

fn check(ratings: &[Rating], mu: &Value, sigma: &Value, tolerance: f64, at: &str) {
    let (mu, sigma) = (numbers(mu), numbers(sigma));
    assert_eq!((ratings.len(), ratings.len()), (mu.len(), sigma.len()), "{at}");
    for (place, ((rating, mu), sigma)) in ratings.iter().zip(mu).zip(sigma).enumerate() {
        let off = (rating.mu.to_f64() - mu).abs().max((rating.sigma.to_f64() - sigma).abs());
        assert!(off <= tolerance, "{at}, player {place}: off by {off}");
    }
}

/// The scores in the same order as whole numbers: what is not a multiple of 2^-32 stays distinct.
fn order_of(scores: &[f64]) -> Vec<Q32> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let place = |score: &f64| sorted.iter().position(|other| other == score).unwrap();
    scores.iter().map(|score| Q32::from_int(place(score) as i32)).collect()
}

#[test]
fn vectors_plackett_luce_fresh_players() {
    let vectors = vectors();
    let keys =
        ["format", "source", "params", "tolerance_float64", "tolerance_q32", "fresh", "sequences"];
    assert_known(&vectors, &keys, "the file");
    assert_known(&vectors["params"], &["beta", "kappa", "mu", "sigma", "tau"], "params");
    let params = &vectors["params"];
    let start = rating(number(&params["mu"]), number(&params["sigma"]));
    let tolerance = number(&vectors["tolerance_q32"]);
    let mut visited = 0;
    for (at, record) in list(&vectors["fresh"]).iter().enumerate() {
        assert_known(record, &["n", "ranks", "mu", "sigma"], &format!("fresh {at}"));
        let ranks = integers(&record["ranks"]);
        assert_eq!(record["n"].as_u64(), Some(ranks.len() as u64));
        let after = rules(params).play(&vec![start; ranks.len()], &ranks).unwrap();
        check(&after, &record["mu"], &record["sigma"], tolerance, &format!("fresh {at}"));
        visited += 1;
    }
    assert!(visited > 0 && visited == list(&vectors["fresh"]).len());
}

#[test]
fn vectors_plackett_luce_sequences() {
    let vectors = vectors();
    let tolerance = number(&vectors["tolerance_q32"]);
    let rules = rules(&vectors["params"]);
    let mut visited = 0;
    for sequence in list(&vectors["sequences"]) {
        let name = sequence["name"].as_str().unwrap();
        let keys =
            ["name", "about", "seed", "players", "prior", "matches", "final_mu", "final_sigma"];
        assert_known(sequence, &keys, name);
        let mut ratings: Vec<Rating> = list(&sequence["prior"])
            .iter()
            .map(|prior| rating(number(&prior[0]), number(&prior[1])))
            .collect();
        assert_eq!(sequence["players"].as_u64(), Some(ratings.len() as u64));
        for (at, played) in list(&sequence["matches"]).iter().enumerate() {
            let at = format!("{name}, match {at}");
            assert_known(played, &["players", "ranks", "scores", "mu", "sigma"], &at);
            let players: Vec<usize> =
                integers(&played["players"]).into_iter().map(|p| p as usize).collect();
            let given = integers(&played["ranks"]);
            let scores = order_of(&numbers(&played["scores"]));
            assert_eq!(ranks(&scores), given, "{at}");
            let before: Vec<Rating> = players.iter().map(|&player| ratings[player]).collect();
            let after = rules.play(&before, &given).unwrap();
            check(&after, &played["mu"], &played["sigma"], tolerance, &at);
            for (player, rating) in players.into_iter().zip(after) {
                ratings[player] = rating;
            }
            visited += 1;
        }
        check(&ratings, &sequence["final_mu"], &sequence["final_sigma"], tolerance, name);
    }
    let matches: usize =
        list(&vectors["sequences"]).iter().map(|s| list(&s["matches"]).len()).sum();
    assert!(visited > 0 && visited == matches);
}
