//! Refuses what a test of vectors does not read.

use serde_json::Value;

/// Checks that a record has no other keys than `keys`, so that nothing of a file stays unread.
pub(crate) fn assert_known(record: &Value, keys: &[&str], at: &str) {
    let record = record.as_object().unwrap_or_else(|| panic!("{at} is no record"));
    for key in record.keys() {
        assert!(keys.contains(&key.as_str()), "{at}: nobody reads the field `{key}`");
    }
}

#[test]
#[should_panic(expected = "nobody reads the field `surprise`")]
fn an_unknown_field_is_refused() {
    assert_known(&serde_json::json!({ "known": 1, "surprise": 2 }), &["known"], "a record");
}
