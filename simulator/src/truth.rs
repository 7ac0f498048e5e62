//! Says what an update is worth: its gain on random samples, and on the miner's own.
//!
//! A gain is the relative improvement of a loss. In a window an honest update gains [`TYPICAL`] on random samples, give or take
//! 15 % that all miners share and 10 % of its own, and [`OWN_BONUS`] of that more on the samples that it was trained on. The samples
//! of an evaluation are the same for every validator and too few: they move either gain by [`SAMPLE_NOISE`], so that own is above
//! random for 92 % of honest updates, the rate that decision 0003 asks for. Validators differ by [`MEASUREMENT_NOISE`] beside that.

use protocol::{consensus::Evaluation, Uid};

use crate::random::Random;

/// What an honest update gains on random samples.
pub const TYPICAL: f64 = 0.01;
/// What it gains more on its own samples, in typical gains.
pub const OWN_BONUS: f64 = 0.3;
/// Standard deviation of a gain over the draw of its samples, in typical gains.
pub const SAMPLE_NOISE: f64 = 0.15;
/// Standard deviation of what one validator measures on the same samples, in typical gains.
pub const MEASUREMENT_NOISE: f64 = 0.03;
/// Loss before an update, in nats as Q8.24.
const BEFORE: u32 = 4 << 24;

/// What an update is worth, in typical gains of the window.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Gain {
    /// On the miner's own samples.
    pub own: f64,
    /// On random samples.
    pub random: f64,
}

impl Gain {
    /// As trained on the miner's own samples, with a part of the usual effect.
    pub fn trained(part: f64, noise: f64) -> Gain {
        let random = part * (1.0 + noise);
        Gain { own: random + part * OWN_BONUS, random }
    }

    /// As of an update that never saw the miner's samples.
    pub fn untrained(random: f64) -> Gain {
        Gain { own: random, random }
    }

    /// As it is on the samples that the chain drew.
    pub fn sampled(self, random: &mut Random) -> Gain {
        let mut on = |gain: f64| gain + SAMPLE_NOISE * random.normal();
        Gain { own: on(self.own), random: on(self.random) }
    }

    /// As one validator measures it, with `scale` of the window's typical gain.
    pub fn measured(self, uid: Uid, scale: f64, random: &mut Random) -> Evaluation {
        let mut after = |gain: f64| {
            let noisy = (gain + MEASUREMENT_NOISE * random.normal()) * scale * TYPICAL;
            (f64::from(BEFORE) * (1.0 - noisy)).round() as u32
        };
        Evaluation {
            uid,
            own_before: BEFORE,
            own_after: after(self.own),
            random_before: BEFORE,
            random_after: after(self.random),
        }
    }

    /// The evaluation that claims exactly this.
    pub fn claimed(self, uid: Uid) -> Evaluation {
        let after = |gain: f64| (f64::from(BEFORE) * (1.0 - gain * TYPICAL)).round() as u32;
        Evaluation {
            uid,
            own_before: BEFORE,
            own_after: after(self.own),
            random_before: BEFORE,
            random_after: after(self.random),
        }
    }
}
