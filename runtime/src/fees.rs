//! Prices blocks: what a transaction pays for its computation and its bytes, and how both rise while blocks are full.
//!
//! Without congestion a block's 1.5 s of ordinary computation cost 7.5 UNIT and its 3.9 MB of ordinary bytes 39 UNIT,
//! whichever a transaction fills. Each block that is full in either measure makes the next one dearer by about a tenth:
//! ten times as dear after 25 blocks, a hundred times after 50. An empty block makes it cheaper by 3 %, never cheaper
//! than at first. A window's work pays none of it.

use frame_support::{
    dispatch::DispatchClass,
    parameter_types,
    weights::{
        constants::WEIGHT_REF_TIME_PER_SECOND, Weight, WeightToFee, WeightToFeeCoefficient,
        WeightToFeeCoefficients, WeightToFeePolynomial,
    },
};
use pallet_transaction_payment::{
    Multiplier, MultiplierUpdate, NextFeeMultiplier, TargetedFeeAdjustment,
};
use sp_runtime::{
    traits::{Convert, One, Saturating},
    FixedPointNumber, Perbill, Perquintill,
};

use crate::{limits::RuntimeBlockLength, Balance, Runtime, System, UNIT};

/// The fee of a second of computation, in planck.
pub const SECOND_FEE: Balance = 5 * UNIT;
/// The fee of a byte, in planck.
pub const BYTE_FEE: Balance = UNIT / 100_000;

parameter_types! {
    /// The part of the ordinary block that may be full without a block becoming dearer.
    pub const TargetFullness: Perquintill = Perquintill::from_percent(25);
    /// How fast the price follows: a full block raises it by about an eighth of what it is fuller than the target.
    pub FeeVariability: Multiplier = Multiplier::saturating_from_rational(1, 8);
    /// The least factor on a fee.
    pub FeeMultiplierMin: Multiplier = Multiplier::one();
    /// The greatest factor on a fee.
    pub FeeMultiplierMax: Multiplier = Multiplier::saturating_from_integer(1_000_000);
}

/// The fee of computation: [`SECOND_FEE`] a second of reference time.
pub struct WeightFee;

impl WeightToFeePolynomial for WeightFee {
    type Balance = Balance;

    fn polynomial() -> WeightToFeeCoefficients<Balance> {
        let a_second = Balance::from(WEIGHT_REF_TIME_PER_SECOND);
        let linear = WeightToFeeCoefficient {
            degree: 1,
            negative: false,
            coeff_integer: SECOND_FEE / a_second,
            coeff_frac: Perbill::from_rational(SECOND_FEE % a_second, a_second),
        };
        [linear].into_iter().collect()
    }
}

/// The fee of bytes: [`BYTE_FEE`] each, times what congestion makes of it.
pub struct LengthFee;

impl WeightToFee for LengthFee {
    type Balance = Balance;

    /// `weight` is a length, as the payment pallet gives it.
    fn weight_to_fee(weight: &Weight) -> Balance {
        let fee = BYTE_FEE.saturating_mul(Balance::from(weight.ref_time()));
        NextFeeMultiplier::<Runtime>::get().saturating_mul_int(fee)
    }
}

/// The adjustment by the computation of ordinary transactions.
type ByWeight = TargetedFeeAdjustment<
    Runtime,
    TargetFullness,
    FeeVariability,
    FeeMultiplierMin,
    FeeMultiplierMax,
>;

/// The factor on fees, which follows the fuller of a block's two measures, computation and bytes.
pub struct Congestion;

impl Congestion {
    /// The factor behind a block with so many bytes, for as long as they are more than the target; the least factor
    /// otherwise.
    fn by_length(previous: Multiplier, bytes: u32) -> Multiplier {
        let room = *RuntimeBlockLength::get().max.get(DispatchClass::Normal);
        let fullness =
            Perquintill::from_rational(u64::from(bytes.min(room)), u64::from(room.max(1)));
        let target = TargetFullness::get();
        if fullness <= target {
            return FeeMultiplierMin::get();
        }
        let excess = Multiplier::from(fullness.saturating_sub(target));
        let factor = Multiplier::one().saturating_add(excess.saturating_mul(FeeVariability::get()));
        previous.saturating_mul(factor).clamp(FeeMultiplierMin::get(), FeeMultiplierMax::get())
    }
}

impl Convert<Multiplier, Multiplier> for Congestion {
    fn convert(previous: Multiplier) -> Multiplier {
        ByWeight::convert(previous).max(Self::by_length(previous, System::block_size()))
    }
}

impl MultiplierUpdate for Congestion {
    fn min() -> Multiplier {
        FeeMultiplierMin::get()
    }

    fn max() -> Multiplier {
        FeeMultiplierMax::get()
    }

    fn target() -> Perquintill {
        TargetFullness::get()
    }

    fn variability() -> Multiplier {
        FeeVariability::get()
    }
}
