//! The golden vectors of Yuma consensus: `yuma2.json`, and every other file of that form beside it.
//!
//! A file is of the form if it has `scenarios`. Every key of a record is known by name, so that a file with another one
//! fails, and every record is counted.

use std::path::PathBuf;

use protocol::{
    consensus::yuma::{
        emissions, epoch, max_upscale, max_upscale_u16, proportion_u16, weighted_quantile,
        EpochInput, EpochOutcome, Neuron, Row,
    },
    fixed::Q32,
    settings::YumaSettings,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    #[serde(rename = "numbers")]
    _numbers: String,
    scenarios: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Medians {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "source")]
    _source: String,
    cases: Vec<MedianCase>,
    matrices: Vec<MedianMatrix>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upscales {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "source")]
    _source: String,
    fixed: Vec<FixedRow>,
    u16: Vec<WholeRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Epochs {
    #[serde(rename = "kind")]
    _kind: String,
    name: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "source")]
    _source: String,
    params: Params,
    epochs: Vec<Epoch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MedianCase {
    stakes: Vec<f64>,
    scores: Vec<f64>,
    kappa: f64,
    stakes_q32: Vec<i64>,
    scores_q32: Vec<i64>,
    kappa_q32: i64,
    expected: f64,
    expected_q32: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MedianMatrix {
    stakes: Vec<f64>,
    stakes_q32: Vec<i64>,
    weights: Vec<Vec<f64>>,
    weights_q32: Vec<Vec<i64>>,
    cases: Vec<MatrixCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixCase {
    kappa: f64,
    kappa_q32: i64,
    expected: Vec<f64>,
    expected_q32: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedRow {
    input: Vec<f64>,
    input_q32: Vec<i64>,
    expected: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeRow {
    input: Vec<u16>,
    expected: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    kappa_u16: u16,
    bonds_penalty_u16: u16,
    bonds_moving_average_ppm: u32,
    max_validators: usize,
    activity_cutoff: u64,
    tempo: u64,
    stake_threshold: u64,
    commit_reveal: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Epoch {
    name: String,
    #[serde(rename = "change")]
    _change: String,
    submitted: Vec<Submitted>,
    input: Input,
    expected: Expected,
    pinned_upstream: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submitted {
    uid: u16,
    dests: Vec<u16>,
    values: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    n: usize,
    block: u64,
    last_mechanism_step: u64,
    emission: u64,
    stakes: Vec<u64>,
    permits: Vec<bool>,
    last_update: Vec<u64>,
    registered_at: Vec<u64>,
    weights: Vec<Row<u16>>,
    bonds: Vec<Row<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    active_stake_q32: Vec<i64>,
    weights_q32: Vec<Row<i64>>,
    consensus_q32: Vec<i64>,
    validator_trust_q32: Vec<i64>,
    incentive_q32: Vec<i64>,
    dividends_q32: Vec<i64>,
    consensus_u16: Vec<u16>,
    incentive_u16: Vec<u16>,
    dividends_u16: Vec<u16>,
    bonds: Vec<Row<u16>>,
    permits: Vec<bool>,
    server_emission: Vec<u64>,
    validator_emission: Vec<u64>,
    emission: Vec<u64>,
}

/// The files of the form where the vectors lie: `GAUNTLET_VECTORS`, else the copies in this crate.
fn files() -> Vec<(String, Value)> {
    let dir = std::env::var_os("GAUNTLET_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors"), PathBuf::from);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if value.get("scenarios").is_some() {
            files.push((path.display().to_string(), value));
        }
    }
    assert!(!files.is_empty(), "{} has no Yuma vectors", dir.display());
    files
}

fn q32(bits: &[i64]) -> Vec<Q32> {
    bits.iter().map(|bits| Q32(*bits)).collect()
}

fn bits(values: &[Q32]) -> Vec<i64> {
    values.iter().map(|value| value.0).collect()
}

/// The decimal beside an integer is the same number, to its twelve places.
fn assert_decimal(decimals: &[f64], bits: &[i64], at: &str) {
    assert_eq!(decimals.len(), bits.len(), "{at}");
    for (decimal, bits) in decimals.iter().zip(bits) {
        assert!((decimal - Q32(*bits).to_f64()).abs() < 1e-9, "{at}: {decimal} is not {bits}");
    }
}

fn check_median(case: &MedianCase, at: &str) {
    assert_decimal(&case.stakes, &case.stakes_q32, at);
    assert_decimal(&case.scores, &case.scores_q32, at);
    assert_decimal(&[case.kappa, case.expected], &[case.kappa_q32, case.expected_q32], at);
    let found =
        weighted_quantile(&q32(&case.stakes_q32), &q32(&case.scores_q32), Q32(case.kappa_q32));
    assert_eq!(found.0, case.expected_q32, "{at}");
}

fn check_matrix(matrix: &MedianMatrix, case: &MatrixCase, at: &str) {
    assert_decimal(&matrix.stakes, &matrix.stakes_q32, at);
    assert_decimal(&[case.kappa], &[case.kappa_q32], at);
    assert_decimal(&case.expected, &case.expected_q32, at);
    for (decimals, bits) in matrix.weights.iter().zip(&matrix.weights_q32) {
        assert_decimal(decimals, bits, at);
    }
    let found: Vec<i64> = (0..case.expected_q32.len())
        .map(|column| {
            let scores: Vec<Q32> = matrix.weights_q32.iter().map(|row| Q32(row[column])).collect();
            weighted_quantile(&q32(&matrix.stakes_q32), &scores, Q32(case.kappa_q32)).0
        })
        .collect();
    assert_eq!(found, case.expected_q32, "{at}");
}

/// Stored rows are the submitted ones upscaled; a uid that submitted nothing keeps its row.
fn check_submitted(epoch: &Epoch, at: &str) {
    for submitted in &epoch.submitted {
        assert_eq!(submitted.dests.len(), submitted.values.len(), "{at}");
        let mut row: Row<u16> =
            submitted.dests.iter().copied().zip(max_upscale_u16(&submitted.values)).collect();
        row.sort_unstable();
        assert_eq!(epoch.input.weights[usize::from(submitted.uid)], row, "{at}");
    }
}

fn run(epoch_record: &Epoch, params: &Params) -> EpochOutcome {
    let input = &epoch_record.input;
    let neurons = (0..input.n)
        .map(|uid| Neuron {
            stake: input.stakes[uid],
            permit: input.permits[uid],
            last_update: input.last_update[uid],
            registered_at: input.registered_at[uid],
            weights: input.weights[uid].clone(),
            bonds: input.bonds[uid].clone(),
        })
        .collect();
    let settings = YumaSettings {
        kappa: params.kappa_u16,
        bonds_penalty: params.bonds_penalty_u16,
        bonds_moving_average_ppm: params.bonds_moving_average_ppm,
    };
    let input = EpochInput {
        neurons,
        block: input.block,
        last_step: input.last_mechanism_step,
        tempo: params.tempo,
        activity_cutoff: params.activity_cutoff,
        validators_max: params.max_validators,
    };
    epoch(&input, &settings)
}

fn check_epoch(record: &Epoch, params: &Params, at: &str) {
    let Expected {
        active_stake_q32,
        weights_q32,
        consensus_q32,
        validator_trust_q32,
        incentive_q32,
        dividends_q32,
        consensus_u16,
        incentive_u16,
        dividends_u16,
        bonds,
        permits,
        server_emission,
        validator_emission,
        emission,
    } = &record.expected;
    check_submitted(record, at);
    let outcome = run(record, params);
    assert_eq!(bits(&outcome.active_stake), *active_stake_q32, "{at}: active stake");
    let weights: Vec<Row<i64>> = outcome
        .weights
        .iter()
        .map(|row| row.iter().map(|(uid, weight)| (*uid, weight.0)).collect())
        .collect();
    assert_eq!(weights, *weights_q32, "{at}: weights");
    let judged = &outcome.judgement;
    assert_eq!(bits(&judged.consensus), *consensus_q32, "{at}: consensus");
    assert_eq!(bits(&judged.trust), *validator_trust_q32, "{at}: trust");
    assert_eq!(bits(&judged.incentive), *incentive_q32, "{at}: incentive");
    assert_eq!(bits(&judged.dividends), *dividends_q32, "{at}: dividends");
    let proportions =
        |values: &[Q32]| values.iter().map(|value| proportion_u16(*value)).collect::<Vec<u16>>();
    assert_eq!(proportions(&judged.consensus), *consensus_u16, "{at}: consensus");
    assert_eq!(proportions(&judged.incentive), *incentive_u16, "{at}: incentive");
    assert_eq!(proportions(&judged.dividends), *dividends_u16, "{at}: dividends");
    assert_eq!(judged.bonds, *bonds, "{at}: bonds");
    assert_eq!(outcome.permits, *permits, "{at}: permits");
    let paid = emissions(&outcome, record.input.emission);
    assert_eq!(paid.server, *server_emission, "{at}: server emission");
    assert_eq!(paid.validator, *validator_emission, "{at}: validator emission");
    assert_eq!(paid.combined, *emission, "{at}: emission");
}

fn check_medians(scenario: &Medians, at: &str) -> usize {
    let mut visited = 0;
    for case in &scenario.cases {
        check_median(case, &format!("{at}, case {visited}"));
        visited += 1;
    }
    for matrix in &scenario.matrices {
        for case in &matrix.cases {
            check_matrix(matrix, case, &format!("{at}, matrix case {visited}"));
            visited += 1;
        }
    }
    visited
}

fn check_upscales(scenario: &Upscales, at: &str) -> usize {
    let mut visited = 0;
    for row in &scenario.fixed {
        assert_decimal(&row.input, &row.input_q32, at);
        assert_eq!(max_upscale(&q32(&row.input_q32)), row.expected, "{at}");
        visited += 1;
    }
    for row in &scenario.u16 {
        assert_eq!(max_upscale_u16(&row.input), row.expected, "{at}");
        visited += 1;
    }
    visited
}

fn check_epochs(scenario: &Epochs, at: &str) -> usize {
    let Epochs { name, params, epochs, .. } = scenario;
    assert_eq!((params.stake_threshold, params.commit_reveal), (0, false), "{at}, {name}");
    for record in epochs {
        check_epoch(record, params, &format!("{at}, {name}, {}", record.name));
        // Names of outputs; which of them upstream asserts changes nothing here.
        assert!(record.pinned_upstream.iter().all(|pinned| !pinned.is_empty()));
    }
    epochs.len()
}

/// Checks a scenario of a known kind and returns its number of records.
fn check_scenario(scenario: Value, at: &str) -> Result<usize, serde_json::Error> {
    Ok(match scenario["kind"].as_str() {
        Some("weighted_median") => check_medians(&serde_json::from_value(scenario)?, at),
        Some("max_upscale") => check_upscales(&serde_json::from_value(scenario)?, at),
        Some("epochs") => check_epochs(&serde_json::from_value(scenario)?, at),
        kind => panic!("{at}: the kind {kind:?} is not known: no vector may stay unread"),
    })
}

/// The number of records of a scenario, counted without knowing what they are.
fn records(scenario: &Value) -> usize {
    let len = |key: &str| scenario[key].as_array().map_or(0, Vec::len);
    let matrices = scenario["matrices"].as_array().map_or(0, |matrices| {
        matrices.iter().map(|matrix| matrix["cases"].as_array().unwrap().len()).sum()
    });
    len("cases") + matrices + len("fixed") + len("u16") + len("epochs")
}

#[test]
fn vectors_yuma_are_met_to_the_bit() {
    let mut visited = 0;
    let mut expected = 0;
    for (name, value) in files() {
        expected += value["scenarios"].as_array().unwrap().iter().map(records).sum::<usize>();
        let file: File =
            serde_json::from_value(value).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file.format, 1, "{name}");
        for scenario in file.scenarios {
            let found = check_scenario(scenario, &name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(found > 0, "{name}: an empty scenario");
            visited += found;
        }
    }
    assert!(visited >= 1);
    assert_eq!(visited, expected);
}

#[test]
fn vectors_yuma_with_an_unknown_field_are_refused() {
    let (_, value) = files().remove(0);
    for scenario in value["scenarios"].as_array().unwrap() {
        let mut odd = scenario.clone();
        odd["surprise"] = Value::from(1);
        assert!(check_scenario(odd, "an odd scenario").is_err());
        for list in ["cases", "fixed", "u16", "epochs"] {
            let mut odd = scenario.clone();
            if let Some(record) = odd.get_mut(list).and_then(|list| list.get_mut(0)) {
                record["surprise"] = Value::from(1);
                assert!(check_scenario(odd, "an odd record").is_err(), "{list}");
            }
        }
    }
}
