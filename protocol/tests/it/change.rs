//! An owner's change of settings moves no number far, whichever it is.

use protocol::settings::{
    ChangeError, ConsensusKind, InnerOptimiser, Settings, YumaSettings, SCORE_VERSION,
};
use serde_json::Value;

/// Settings that name something, and have no near and far.
const FREE: [&str; 5] = [
    "/training/sample_count",
    "/incentive/score_version",
    // Windows, between two rates that are bound.
    "/training/outer/warm_up_windows",
    "/training/outer/decay_start",
    "/training/outer/decay_windows",
];

/// The places of all numbers below `value`, which is at `place`.
fn numbers(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(place.to_owned()),
        Value::Object(fields) => {
            for (name, field) in fields {
                numbers(field, &format!("{place}/{name}"), found);
            }
        }
        // Arrays and texts are hashes.
        _ => {}
    }
}

/// `settings` with another number at `place`, if one can have them at all.
fn with(settings: &Settings, place: &str, number: u64) -> Option<Settings> {
    let mut value = serde_json::to_value(settings).expect("settings are JSON");
    *value.pointer_mut(place).expect("the place exists") = number.into();
    let changed: Settings = serde_json::from_value(value).ok()?;
    changed.validate().is_ok().then_some(changed)
}

/// Numbers that are far from `number`, whatever it counts.
fn far_from(number: u64) -> [u64; 8] {
    [
        number.saturating_mul(5).saturating_add(5),
        number.saturating_mul(2).saturating_add(4),
        number.saturating_add(2),
        number.saturating_sub(2),
        number / 5,
        number / 3,
        number.saturating_add(150_000),
        number.saturating_sub(150_000),
    ]
}

/// Settings with all that has a number: of Muon and of Yuma, too.
fn settings() -> Settings {
    let mut settings = Settings::example();
    settings.training.optimiser = InnerOptimiser::Muon { rate_ppb: 20_000_000 };
    settings.incentive.consensus = ConsensusKind::Yuma(YumaSettings::UPSTREAM);
    settings.incentive.evaluators_per_miner = 64;
    // In the middle of their ranges, so that there is something far away.
    settings.incentive.uid_max = 16;
    settings.disputes.jurors = 3;
    settings
}

#[test]
fn no_number_moves_far_in_one_change() {
    let settings = settings();
    settings.validate().expect("they work");
    let value = serde_json::to_value(&settings).expect("settings are JSON");
    let mut places = Vec::new();
    numbers(&value, "", &mut places);
    assert!(places.len() > 60, "{places:?}");

    for place in places.iter().filter(|place| !FREE.contains(&place.as_str())) {
        // The schedule is bound as a whole; a group's part never changes alone (`the_parts_of_the_emission_move_together`).
        let is_part = place.starts_with("/emission/") && !place.ends_with("release_ppm");
        // All that it may be is a tenth.
        let is_narrow = place == "/disputes/copy_overlap_ppm";
        if is_part || is_narrow || place.starts_with("/schedule/") {
            continue;
        }
        let number = value.pointer(place).and_then(Value::as_u64).expect("a number");
        let far: Vec<_> = far_from(number)
            .into_iter()
            .filter_map(|far| with(&settings, place, far).map(|changed| (far, changed)))
            .collect();
        assert!(!far.is_empty(), "nothing is far from {place} = {number}");
        let refused = far.iter().filter(|(_, to)| settings.may_become(to).is_err()).count();
        // Small numbers and large parts are near in one direction.
        let tried: Vec<_> = far.iter().map(|(far, _)| far).collect();
        assert!(refused > 0, "{place} may go from {number} to any of {tried:?}");
        let field = place.rsplit('/').next().unwrap_or_default();
        for (_, to) in &far {
            match settings.may_become(to) {
                Ok(()) => {}
                Err(
                    ChangeError::TooFar { field: named, .. }
                    | ChangeError::Immutable { field: named },
                ) => {
                    assert_eq!(named.rsplit('.').next(), Some(field), "{place}");
                }
            }
        }
    }
}

#[test]
fn the_parts_of_the_emission_move_together() {
    let settings = settings();
    let moved = |ppm: u32| {
        let mut to = settings.clone();
        to.emission.miners_ppm -= ppm;
        to.emission.validators_ppm += ppm;
        to.validate().expect("they sum to one");
        settings.may_become(&to)
    };
    assert_eq!(moved(100_000), Ok(()));
    assert!(matches!(moved(100_001), Err(ChangeError::TooFar { field: "miners_ppm", .. })));
}

/// What an owner could do before: convict everybody at once, by the next window's rules.
#[test]
fn an_owner_cannot_make_faults_of_honest_work() {
    let settings = settings();
    let after = |change: fn(&mut Settings)| {
        let mut to = settings.clone();
        change(&mut to);
        to.validate().expect("they work");
        settings.may_become(&to)
    };
    let field = |outcome: Result<(), ChangeError>| match outcome {
        Err(ChangeError::TooFar { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        field(after(|to| to.disputes.evaluation_tolerance_ppm = 0)),
        "evaluation_tolerance_ppm"
    );
    assert_eq!(field(after(|to| to.disputes.answer_blocks = 1)), "answer_blocks");
    assert_eq!(field(after(|to| to.disputes.miner_slash_ppm = 1_000_000)), "miner_slash_ppm");
    assert_eq!(field(after(|to| to.entry.price_max <<= 20)), "price_max");
    assert_eq!(field(after(|to| to.staking.unbonding_windows = 4_096)), "unbonding_windows");
    assert_eq!(field(after(|to| to.incentive.bootstrap_windows = 1_000)), "bootstrap_windows");
}

#[test]
fn what_names_something_is_free() {
    let settings = settings();
    let mut to = settings.clone();
    to.training.data_root = [7; 32];
    to.training.sample_count *= 10;
    to.incentive.score_version = SCORE_VERSION + 5;
    to.incentive.consensus = ConsensusKind::Gauntlet;
    assert_eq!(settings.may_become(&to), Ok(()));
}
