//! Checked sums and products of bytes, and quantities with units as people write them.

use super::error::BudgetError;

/// The product of `factors`, below 2^63; `name` is for the error.
pub fn product(name: &'static str, factors: &[u64]) -> Result<u64, BudgetError> {
    let product = factors.iter().try_fold(1u64, |product, factor| product.checked_mul(*factor));
    below(name, product)
}

/// The sum of `terms`, below 2^63; `name` is for the error.
pub fn sum(name: &'static str, terms: impl IntoIterator<Item = u64>) -> Result<u64, BudgetError> {
    let sum = terms.into_iter().try_fold(0u64, |sum, term| sum.checked_add(term));
    below(name, sum)
}

fn below(name: &'static str, value: Option<u64>) -> Result<u64, BudgetError> {
    value.filter(|value| *value < 1 << 63).ok_or(BudgetError::TooLarge(name))
}

/// That `value` is from 1 to `max`.
pub fn in_range(name: &'static str, value: u64, max: u64) -> Result<(), BudgetError> {
    match (1..=max).contains(&value) {
        true => Ok(()),
        false => Err(BudgetError::Range { name, value, max }),
    }
}

/// Splits `500Mbps` into 500 and `Mbps`.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    Some((number, unit.trim()))
}

/// Bytes from `2TB`, `24GB`, `24GiB`, `512MB` or a bare number; a GB is 10^9, a GiB 2^30.
pub fn parse_bytes(text: &str) -> Result<u64, BudgetError> {
    let error =
        || BudgetError::Text { text: text.to_owned(), expected: "a size like 24GB, 24GiB or 2TB" };
    let (number, unit) = number_and_unit(text).ok_or_else(error)?;
    let scale = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" | "G" => 1e9,
        "TB" | "T" => 1e12,
        "PB" => 1e15,
        "KiB" => 1024.0,
        "MiB" => 1024f64.powi(2),
        "GiB" => 1024f64.powi(3),
        "TiB" => 1024f64.powi(4),
        _ => return Err(error()),
    };
    let bytes = number * scale;
    match (1.0..9e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(error()),
    }
}

/// Bits a second from `110Mbps`, `1Gbps`, or bytes a second as `110MB/s` or `110MBps`.
pub fn parse_rate(text: &str) -> Result<f64, BudgetError> {
    let error = || BudgetError::Text {
        text: text.to_owned(),
        expected: "a rate like 500Mbps, 1Gbps or 60MB/s",
    };
    let (number, unit) = number_and_unit(text).ok_or_else(error)?;
    let scale = match unit {
        "bps" => 1.0,
        "kbps" => 1e3,
        "Mbps" | "Mb/s" | "Mbit/s" => 1e6,
        "Gbps" | "Gb/s" | "Gbit/s" => 1e9,
        "kB/s" | "kBps" => 8e3,
        "MB/s" | "MBps" => 8e6,
        "GB/s" | "GBps" => 8e9,
        _ => return Err(error()),
    };
    let rate = number * scale;
    match (1.0..1e18).contains(&rate) {
        true => Ok(rate),
        false => Err(error()),
    }
}

/// A size for people, in units of 1000: `96.4 GB`.
pub fn format_bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match (unit, value < 9.995, value < 99.95) {
        (0, _, _) => format!("{bytes} B"),
        (_, true, _) => format!("{value:.2} {}", units[unit]),
        (_, _, true) => format!("{value:.1} {}", units[unit]),
        _ => format!("{value:.0} {}", units[unit]),
    }
}

/// A time for people: `87.2 µs`, `1.27 s`, `24.5 min`.
pub fn format_seconds(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "never".to_owned(),
        0.0 => "0 s".to_owned(),
        s if s < 99.5e-9 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 99.95 => format!("{s:.1} s"),
        s if s < 600.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 48.0 * 3600.0 => format!("{:.1} h", s / 3600.0),
        s if s < 1000.0 * 86_400.0 => format!("{:.1} days", s / 86_400.0),
        s => format!("{:.0} years", s / 86_400.0 / 365.25),
    }
}

/// The divisors of `count`, the largest first; `count` is at most 2^24.
pub fn divisors(count: u64) -> Vec<u64> {
    let low = (1..).take_while(|low| low * low <= count);
    let low: Vec<u64> = low.filter(|low| count.is_multiple_of(*low)).collect();
    let high = low.iter().map(|low| count / low);
    let mut all: Vec<u64> = high.chain(low.iter().rev().copied()).collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_bits_and_bytes_of_their_names() {
        assert_eq!(parse_bytes("24GB"), Ok(24_000_000_000));
        assert_eq!(parse_bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(parse_rate("110Mbps"), Ok(110e6));
        assert_eq!(parse_rate("110MB/s"), Ok(880e6));
        for wrong in ["", "GB", "-1GB", "1e3GB", "12 parsecs", "99999999PB", "0GB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format_bytes(96_400_000_000), "96.4 GB");
        assert_eq!(format_bytes(999_999), "1.00 MB");
        assert_eq!(format_seconds(18.3e-9), "18.3 ns");
        assert_eq!(format_seconds(87.2e-6), "87.2 µs");
        assert_eq!(format_seconds(39.44), "39.4 s");
        assert_eq!(format_seconds(3.2e10), "1014 years");
    }

    #[test]
    fn what_does_not_fit_63_bits_is_an_error() {
        assert_eq!(product("x", &[1 << 31, 1 << 31]), Ok(1 << 62));
        assert_eq!(product("x", &[1 << 31, 1 << 32]), Err(BudgetError::TooLarge("x")));
        assert!(product("x", &[u64::MAX, 2]).is_err());
        assert!(sum("x", [1 << 62, 1 << 62]).is_err());
    }
}
