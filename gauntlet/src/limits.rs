//! Bounds of the numbers and texts that a person gives. Flags are checked as they are parsed, what a file can have too
//! when both are merged: by the same bounds, with the same words.

use std::{fmt::Display, ops::RangeInclusive};

use anyhow::{bail, Result};

/// Threads that compute.
pub(crate) const THREADS: RangeInclusive<u64> = 1..=4_096;

/// Steps of a training, or from one event of it to the next.
pub(crate) const STEPS: RangeInclusive<u64> = 1..=1_000_000_000_000;

/// Tokens of a training or a data set.
pub(crate) const TOKENS: RangeInclusive<u64> = 1..=1 << 60;

/// Samples of a step, or of an evaluation.
pub(crate) const SAMPLES: RangeInclusive<u64> = 1..=1 << 20;

/// Tokens of a sample, of a request to a model or of a batch of them.
pub(crate) const SAMPLE_TOKENS: RangeInclusive<u64> = 1..=1 << 24;

/// Things that are counted up to any number, but are of no use where there are none.
pub(crate) const SOME: RangeInclusive<u64> = 1..=u64::MAX >> 1;

/// That a number is within its bounds. `NaN` never is.
///
/// # Errors
/// It is not; the text names it and them.
pub(crate) fn within<T: PartialOrd + Display>(
    name: &str,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<()> {
    match bounds.contains(&value) {
        true => Ok(()),
        false => bail!("{name} is {value}, not from {} to {}", bounds.start(), bounds.end()),
    }
}

/// That a number is above zero and finite.
///
/// # Errors
/// It is not; the text names it.
pub(crate) fn above_zero(name: &str, value: f64) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => bail!("{name} is {value}, not a number above 0"),
    }
}

/// That a text, name or path says something.
///
/// # Errors
/// It is empty, or white space.
pub(crate) fn said(name: &str, text: impl AsRef<std::ffi::OsStr>) -> Result<()> {
    match text.as_ref().to_string_lossy().trim().is_empty() {
        true => bail!("{name} is empty"),
        false => Ok(()),
    }
}

/// Parses a count within bounds, for clap.
pub(crate) fn count<T: TryFrom<u64>>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let found: Option<u64> = text.parse().ok().filter(|value| bounds.contains(value));
        found.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
            format!("it is not a whole number from {} to {}", bounds.start(), bounds.end())
        })
    }
}

/// Parses a text that is not empty, for clap.
pub(crate) fn text(text: &str) -> Result<String, String> {
    said("it", text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_numbers_within_their_bounds() {
        let threads = count::<usize>(THREADS);
        assert_eq!(threads("4096"), Ok(4_096));
        for wrong in ["0", "4097", "-1", "1.5", "", "18446744073709551616"] {
            assert!(threads(wrong).unwrap_err().contains("from 1 to 4096"), "{wrong}");
        }
        assert!(within("steps", u64::MAX, &STEPS).is_err());
        assert!(within("floor", f64::NAN, &(0.0..=1.0)).is_err());
        assert!(above_zero("memory", f64::INFINITY).is_err());
        assert!(text(" \t").is_err());
        assert_eq!(text("a"), Ok("a".to_owned()));
    }
}
