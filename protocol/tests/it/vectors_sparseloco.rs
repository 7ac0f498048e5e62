//! The golden vectors of the update and its aggregation (`sparseloco.json`).
//!
//! Reads every record of every list, whatever their number; an unknown list fails the test, so that
//! no vector is left unread.

use std::path::PathBuf;

use protocol::{
    aggregate::{add_scaled, lower_median, median_norm_factors, step, sync_score},
    update::{accumulate, compatible::CompatibleCode, top_k},
};
use serde_json::Value;

use crate::known::assert_known;

/// The keys of an accumulation and what was selected from it, and those of a quantised one.
const FEEDBACK: [&str; 10] = [
    "accumulated",
    "beta",
    "chunk",
    "delta",
    "error_after",
    "error_before",
    "indices",
    "k",
    "selected",
    "transmitted",
];
const QUANTISED: [&str; 4] = ["centroids", "codes", "scale", "shift"];

/// Where the vectors lie: `GAUNTLET_VECTORS`, else the copy in this crate.
fn vectors() -> Value {
    let dir = std::env::var_os("GAUNTLET_VECTORS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors"));
    let text = std::fs::read_to_string(dir.join("sparseloco.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["format"], 1);
    file
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key}"))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key}"))
}

fn count(value: &Value, key: &str) -> usize {
    value[key].as_u64().unwrap_or_else(|| panic!("no count {key}")) as usize
}

fn floats(value: &Value, key: &str) -> Vec<f64> {
    list(value, key).iter().map(|item| item.as_f64().unwrap()).collect()
}

/// Inputs are exact in `f32`.
fn singles(value: &Value, key: &str) -> Vec<f32> {
    floats(value, key).into_iter().map(|item| item as f32).collect()
}

fn integers(value: &Value, key: &str) -> Vec<u32> {
    list(value, key).iter().map(|item| item.as_u64().unwrap() as u32).collect()
}

/// Compares within the file's tolerance.
struct Near(f64);

impl Near {
    fn check(&self, what: &str, found: f64, expected: f64) {
        assert!((found - expected).abs() <= self.0, "{what}: {found}, expected {expected}");
    }

    fn check_all(&self, what: &str, found: impl IntoIterator<Item = f64>, expected: &[f64]) {
        let found: Vec<f64> = found.into_iter().collect();
        assert_eq!(found.len(), expected.len(), "{what}");
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            self.check(&format!("{what}[{at}]"), *found, *expected);
        }
    }
}

fn wide(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|value| f64::from(*value))
}

/// `u = β·e + Δ` and the positions selected from each chunk of it, counted in the whole tensor.
fn accumulated_and_selected(case: &Value, near: &Near) -> (Vec<f32>, Vec<u32>) {
    let mut values = singles(case, "error_before");
    accumulate(&mut values, &singles(case, "delta"), number(case, "beta") as f32);
    near.check_all("accumulated", wide(&values), &floats(case, "accumulated"));
    let chunk_len = count(case, "chunk");
    let mut positions = Vec::new();
    for (index, chunk) in values.chunks(chunk_len).enumerate() {
        let selected = top_k(chunk, count(case, "k")).unwrap();
        positions.extend(selected.iter().map(|at| (index * chunk_len) as u32 + at));
    }
    assert_eq!(positions, integers(case, "indices"));
    let selected = positions.iter().map(|at| f64::from(values[*at as usize]));
    near.check_all("selected", selected, &floats(case, "selected"));
    (values, positions)
}

/// Checks what was sent and what it leaves behind.
fn check_residual(
    case: &Value,
    near: &Near,
    mut values: Vec<f32>,
    positions: &[u32],
    sent: &[f32],
) {
    near.check_all("transmitted", wide(sent), &floats(case, "transmitted"));
    for (at, sent) in positions.iter().zip(sent) {
        values[*at as usize] -= sent;
    }
    near.check_all("error_after", wide(&values), &floats(case, "error_after"));
}

fn check_top_k(case: &Value, _: &Near) {
    let input = singles(case, "input");
    let positions = top_k(&input, count(case, "k")).unwrap();
    assert_eq!(positions, integers(case, "indices"), "{}", case["about"]);
    let values: Vec<f32> = positions.iter().map(|at| input[*at as usize]).collect();
    assert_eq!(values, singles(case, "values"));
}

fn check_error_feedback(case: &Value, near: &Near) {
    let (values, positions) = accumulated_and_selected(case, near);
    let sent: Vec<f32> = positions.iter().map(|at| values[*at as usize]).collect();
    check_residual(case, near, values, &positions, &sent);
}

fn check_compatible(case: &Value, near: &Near) {
    let (values, positions) = accumulated_and_selected(case, near);
    let selected: Vec<f32> = positions.iter().map(|at| values[*at as usize]).collect();
    let code = CompatibleCode::quantise(&selected);
    near.check("shift", code.shift.into(), number(case, "shift"));
    near.check("scale", code.scale.into(), number(case, "scale"));
    let codes: Vec<u32> = code.codes.iter().map(|code| u32::from(*code)).collect();
    assert_eq!(codes, integers(case, "codes"));
    near.check_all("centroids", wide(&code.centroids), &floats(case, "centroids"));
    let sent: Vec<f32> = code.values().collect();
    check_residual(case, near, values, &positions, &sent);
}

fn check_median_norm_clip(case: &Value, near: &Near) {
    let norms = floats(case, "norms");
    near.check("median", lower_median(&norms), number(case, "median"));
    near.check_all("factors", median_norm_factors(&norms), &floats(case, "factors"));
}

fn check_sync_score(case: &Value, near: &Near) {
    near.check("score", sync_score(number(case, "steps_behind")), number(case, "score"));
}

fn check_aggregate(case: &Value, near: &Near) {
    let parameters = singles(case, "parameters");
    let updates = list(case, "updates");
    for update in updates {
        assert_known(update, &["indices", "norm", "values"], "an update");
    }
    assert_eq!(updates.len(), count(case, "peers"));
    let norms: Vec<f64> = updates
        .iter()
        .map(|update| {
            floats(update, "values").iter().map(|value| value * value).sum::<f64>().sqrt()
        })
        .collect();
    let expected: Vec<f64> = updates.iter().map(|update| number(update, "norm")).collect();
    near.check_all("norms", norms.clone(), &expected);
    near.check("median_norm", lower_median(&norms), number(case, "median_norm"));
    let factors = median_norm_factors(&norms);
    near.check_all("factors", factors.clone(), &floats(case, "factors"));

    let mut sums = vec![0.0f32; parameters.len()];
    let mut transmitters = vec![0u32; parameters.len()];
    for (update, factor) in updates.iter().zip(factors) {
        let positions = integers(update, "indices");
        let values = singles(update, "values");
        assert_eq!(positions.len(), values.len());
        for at in &positions {
            transmitters[*at as usize] += 1;
        }
        let places = positions.iter().map(|at| *at as usize);
        add_scaled(&mut sums, factor as f32, places.zip(values));
    }
    assert_eq!(transmitters, integers(case, "transmitters"));
    // Applied to zero with the rate 1, the step is the change itself, negated.
    let mut delta = vec![0.0f32; parameters.len()];
    step(&mut delta, &sums, updates.len(), 1.0);
    near.check_all("delta", wide(&delta).map(|value| -value), &floats(case, "delta"));
    for after in list(case, "after") {
        assert_known(after, &["alpha", "parameters"], "a step");
        let mut theta = parameters.clone();
        step(&mut theta, &sums, updates.len(), number(after, "alpha") as f32);
        near.check_all("parameters", wide(&theta), &floats(after, "parameters"));
    }
}

#[test]
fn vectors_sparseloco() {
    let file = vectors();
    let near = Near(number(&file, "tolerance"));
    let mut visited = 0;
    for (key, value) in file.as_object().unwrap() {
        let (check, keys): (fn(&Value, &Near), Vec<&str>) = match key.as_str() {
            "format" | "source" | "tolerance" => continue,
            "top_k" => (check_top_k, vec!["about", "indices", "input", "k", "values"]),
            "error_feedback" => (check_error_feedback, FEEDBACK.to_vec()),
            "error_feedback_2bit_compatible" => {
                (check_compatible, [&FEEDBACK[..], &QUANTISED[..]].concat())
            }
            "median_norm_clip" => {
                (check_median_norm_clip, vec!["about", "factors", "median", "norms"])
            }
            "sync_score" => (check_sync_score, vec!["score", "steps_behind"]),
            "aggregate" => (
                check_aggregate,
                vec![
                    "after",
                    "delta",
                    "factors",
                    "median_norm",
                    "parameters",
                    "peers",
                    "transmitters",
                    "updates",
                ],
            ),
            other => panic!("the list {other} is not known: no vector may stay unread"),
        };
        for case in value.as_array().unwrap() {
            assert_known(case, &keys, key);
            check(case, &near);
            visited += 1;
        }
    }
    assert!(visited > 0);
}
