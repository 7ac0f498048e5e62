//! Writes amounts of money and bytes for people.

use protocol::Planck;

/// One unit of the chain's money.
pub(crate) const UNIT: Planck = 1_000_000_000_000;

/// An amount in units, for people.
pub(crate) fn units(amount: Planck) -> String {
    let whole = amount / UNIT;
    let thousandths = amount % UNIT / (UNIT / 1000);
    format!("{whole}.{thousandths:03}")
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_cut_not_rounded() {
        assert_eq!(units(UNIT - 1), "0.999");
        assert_eq!(units(12 * UNIT + UNIT / 2), "12.500");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_500_000), "1.5 MB");
    }
}
