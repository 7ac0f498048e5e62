//! Q32 against exact integers and against `f64`, with the error bounds that its docs state.

use proptest::prelude::*;
use protocol::fixed::Q32;

/// One unit of the last bit.
const ULP: f64 = 1.0 / 4_294_967_296.0;

#[test]
fn ratios_truncate_toward_zero() {
    assert_eq!(Q32::from_ratio(1, 3), Some(Q32(1_431_655_765)));
    assert_eq!(Q32::from_ratio(-1, 3), Some(Q32(-1_431_655_765)));
    assert_eq!(Q32::from_ratio(7, 7), Some(Q32::ONE));
    assert_eq!(Q32::from_ratio(1, 0), None);
    assert_eq!(Q32::from_ratio(1 << 31, 1), None);
    assert_eq!(Q32::from_ratio(-(1 << 31), 1), Some(Q32::MIN));
    assert_eq!(Q32::from_ratio(i128::MAX, 1), None);
    assert_eq!(Q32::from_ratio(i128::MIN, -1), None);
    assert_eq!(Q32::from_ppm(1_000_000), Q32::ONE);
    assert_eq!(Q32::from_ppm(u32::MAX), Q32::from_ratio(u32::MAX.into(), 1_000_000).unwrap());
    assert_eq!(Q32::from_int(-3), Q32(-3 << 32));
}

#[test]
fn products_round_down_and_quotients_toward_zero() {
    assert_eq!(Q32(1).checked_mul(Q32(1)), Some(Q32(0)));
    assert_eq!(Q32(-1).checked_mul(Q32(1)), Some(Q32(-1)));
    assert_eq!(Q32(-1).checked_div(Q32::from_int(2)), Some(Q32(0)));
    assert_eq!(Q32::ONE.checked_div(Q32::ZERO), None);
    assert_eq!(Q32::MAX.checked_mul(Q32::MAX), None);
    assert_eq!(Q32::MAX.checked_add(Q32(1)), None);
    assert_eq!(Q32::MIN.checked_sub(Q32(1)), None);
    assert_eq!(Q32::MIN.checked_neg(), None);
    assert_eq!(Q32::MIN.checked_abs(), None);
}

#[test]
fn exp_knows_its_range() {
    assert_eq!(Q32::ZERO.exp(), Some(Q32::ONE));
    assert_eq!(Q32::from_int(22).exp(), None);
    assert_eq!(Q32::MAX.exp(), None);
    assert_eq!(Q32::MIN.exp(), Some(Q32::ZERO));
    assert_eq!(Q32::from_int(-23).exp(), Some(Q32::ZERO));
    // 31 · ln 2 = 21.4875…
    assert!(Q32::from_ratio(214_875, 10_000).unwrap().exp().is_some());
    assert_eq!(Q32::from_ratio(214_876, 10_000).unwrap().exp(), None);
}

#[test]
fn q32_is_its_integer_on_the_wire() {
    use codec::{Decode, Encode};
    let value = Q32(-0x0102_0304_0506_0708);
    assert_eq!(value.encode(), (-0x0102_0304_0506_0708i64).to_le_bytes());
    assert_eq!(Q32::decode(&mut value.encode().as_slice()), Ok(value));
    assert_eq!(serde_json::to_string(&value).unwrap(), "-72623859790382856");
}

proptest! {
    #[test]
    fn square_roots_are_exact(n in 0..=i64::MAX) {
        let root = Q32(n).sqrt().unwrap().0 as u128;
        let wide = (n as u128) << 32;
        prop_assert!(root * root <= wide && wide < (root + 1) * (root + 1));
    }

    #[test]
    fn negative_numbers_have_no_root(n in i64::MIN..0) {
        prop_assert_eq!(Q32(n).sqrt(), None);
    }

    #[test]
    fn exp_stays_within_its_bound(x in -95_000_000_000i64..92_000_000_000) {
        let exact = Q32(x).to_f64().exp();
        let result = Q32(x).exp().unwrap().to_f64();
        // The f64 oracle itself is off by a few 2^-53 of the value, and so is converting to it.
        let tolerance = ULP + exact * (2f64.powi(-56) + 2f64.powi(-50));
        prop_assert!((result - exact).abs() <= tolerance, "{result} {exact}");
    }

    #[test]
    fn exp_never_falls(x in -100_000_000_000i64..92_000_000_000, step in 0i64..1 << 33) {
        let (low, high) = (Q32(x).exp(), Q32(x + step).exp());
        prop_assert!(high.is_none() || low <= high);
    }

    #[test]
    fn arithmetic_follows_f64(a in any::<i32>(), b in any::<i32>()) {
        let (x, y) = (Q32(i64::from(a) << 10), Q32(i64::from(b) << 10));
        let product = x.checked_mul(y).unwrap().to_f64();
        prop_assert!((product - x.to_f64() * y.to_f64()).abs() <= 2.0 * ULP);
        if let Some(quotient) = x.checked_div(y) {
            let exact = x.to_f64() / y.to_f64();
            prop_assert!((quotient.to_f64() - exact).abs() <= ULP + exact.abs() * 1e-15);
        }
    }

    #[test]
    fn nothing_panics(a in any::<i64>(), b in any::<i64>(), n in any::<i128>(), d in any::<i128>()) {
        let (a, b) = (Q32(a), Q32(b));
        let _ = (a.checked_add(b), a.checked_sub(b), a.checked_mul(b), a.checked_div(b));
        let _ = (a.sqrt(), a.exp(), a.checked_abs(), a.checked_neg(), Q32::from_ratio(n, d));
    }
}
