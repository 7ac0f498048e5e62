//! Writes amounts of the chain's money for people, and reads them.

use protocol::Planck;

/// One unit of the chain's money.
pub const UNIT: Planck = 1_000_000_000_000;

/// An amount in units, for people.
pub fn units(amount: Planck) -> String {
    let whole = amount / UNIT;
    let thousandths = amount % UNIT / (UNIT / 1000);
    format!("{whole}.{thousandths:03}")
}

/// Reads an amount in units, with up to twelve decimals: `10`, `0.5`.
///
/// # Errors
/// It is no such number, 0, or more than there can be.
pub fn parse_units(text: &str) -> Result<Planck, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    let amount = || {
        let whole: Planck = whole.parse().ok()?;
        let part: Planck = format!("{part:0<12}").parse().ok()?;
        whole.checked_mul(UNIT)?.checked_add(part).filter(|amount| *amount > 0)
    };
    let is_written = is_number(whole) && is_number(part) && part.len() <= 12;
    is_written.then(amount).flatten().ok_or_else(|| format!("{text:?} is no amount in UNIT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_cut_not_rounded_and_read_to_the_last_planck() {
        assert_eq!(units(UNIT - 1), "0.999");
        assert_eq!(units(12 * UNIT + UNIT / 2), "12.500");
        for (text, amount) in [("12.5", 12 * UNIT + UNIT / 2), ("0.000000000001", 1)] {
            assert_eq!(parse_units(text), Ok(amount));
        }
        let huge = "9".repeat(40);
        for wrong in ["", "0", "-1", ".5", "+1", "1e3", "0.0000000000001", &huge] {
            assert!(parse_units(wrong).is_err(), "{wrong}");
        }
    }
}
