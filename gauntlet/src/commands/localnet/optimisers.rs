//! What a localnet's miners and its outer step are set to: docs/decisions/0010.

use protocol::settings::InnerOptimiser;

/// The miners' optimiser.
pub(crate) const OPTIMISER: InnerOptimiser = InnerOptimiser::Muon { rate_ppb: 4_000_000 };

/// AdamW's rate, of embedding and norms.
pub(crate) const INNER_RATE_PPB: u32 = 8_000_000;

/// The outer rate, over the mean of the accepted updates.
pub(crate) const OUTER_RATE_PPM: u32 = 2_000_000;

/// k of 4096 of its updates.
pub(crate) const KEEP: u16 = 64;
