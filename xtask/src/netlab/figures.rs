//! What a scenario measured, beside its aim.

use serde_json::{json, Value};

use crate::failure::Failure;

/// One measured number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// The scenario, and which of its numbers.
    pub(crate) name: String,
    /// The number.
    pub(crate) value: f64,
    /// Of what it is.
    pub(crate) unit: String,
    /// What it should be, in words.
    pub(crate) aim: String,
    /// Whether it is.
    pub(crate) passes: bool,
}

impl Figure {
    /// A number that should be `bound` at most.
    pub(crate) fn at_most(name: impl Into<String>, value: f64, unit: &str, bound: f64) -> Self {
        let aim = format!("≤ {bound:.1}");
        Self { name: name.into(), value, unit: unit.to_owned(), aim, passes: value <= bound }
    }

    /// A number that should be `bound` at least.
    pub(crate) fn at_least(name: impl Into<String>, value: f64, unit: &str, bound: f64) -> Self {
        let aim = format!("≥ {bound:.1}");
        Self { name: name.into(), value, unit: unit.to_owned(), aim, passes: value >= bound }
    }

    /// A number to compare others with.
    pub(crate) fn beside(name: impl Into<String>, value: f64, unit: &str) -> Self {
        let aim = "to compare".to_owned();
        Self { name: name.into(), value, unit: unit.to_owned(), aim, passes: true }
    }
}

/// A table in Markdown.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut table = "| measurement | figure | aim | |\n|---|---|---|---|\n".to_owned();
    for Figure { name, value, unit, aim, passes } in figures {
        let passes = if *passes { "pass" } else { "fail" };
        table.push_str(&format!("| {name} | {value:.1} {unit} | {aim} | {passes} |\n"));
    }
    table
}

/// All of them as one JSON array, a line each.
pub(crate) fn json(figures: &[Figure]) -> String {
    let lines: Vec<String> = figures
        .iter()
        .map(|figure| {
            json!({
                "name": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "aim": figure.aim,
                "passes": figure.passes,
            })
            .to_string()
        })
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// Reads what [`json()`] wrote.
pub(crate) fn read(text: &str) -> Result<Vec<Figure>, Failure> {
    let values: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| format!("a scenario printed no figures: {error}"))?;
    let read = |value: &Value| -> Option<Figure> {
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        Some(Figure {
            name: text("name")?,
            value: value.get("value")?.as_f64()?,
            unit: text("unit")?,
            aim: text("aim")?,
            passes: value.get("passes")?.as_bool()?,
        })
    };
    let figures = values.iter().map(read).collect::<Option<_>>();
    figures.ok_or_else(|| format!("a scenario printed other figures: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_are_written() {
        let figures = [
            Figure::at_most("swarm, last", 59.4, "s", 6.4),
            Figure::at_least("far, QUIC", 90.0, "Mb/s", 85.0),
            Figure::beside("far, copy", 93.5, "Mb/s"),
        ];
        assert_eq!(read(&json(&figures)).as_deref(), Ok(&figures[..]));
        assert!(read("[{\"name\": 3}]").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn a_figure_passes_up_to_its_bound() {
        assert!(Figure::at_most("a", 2.0, "s", 2.0).passes);
        assert!(!Figure::at_most("a", 2.1, "s", 2.0).passes);
        assert!(!Figure::at_least("a", 1.9, "s", 2.0).passes);
        let table = table(&[Figure::at_most("a", 2.1, "s", 2.0)]);
        assert!(table.ends_with("| a | 2.1 s | ≤ 2.0 | fail |\n"), "{table}");
    }
}
