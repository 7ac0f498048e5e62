//! Turns the sum of the accepted updates into a change of the parameters: rate and divisor.

use crate::settings::{OuterStep, PPM};
use crate::Window;

/// What the sum of a window's accepted updates does to the parameters.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OuterRule {
    /// Outer rate α.
    pub rate: f32,
    /// c of the divisor max(senders, c · accepted), in parts per million; a million and more divide
    /// by the number of accepted updates.
    pub senders_min_ppm: u32,
}

impl OuterRule {
    /// The rule of one window: `rate_ppm` is its outer rate.
    pub fn new(rate_ppm: u32, senders_min_ppm: u32) -> Self {
        Self { rate: rate(rate_ppm), senders_min_ppm }
    }

    /// The rule of the outer step that ends window `window`.
    pub fn of_window(outer: &OuterStep, window: Window) -> Self {
        Self::new(outer.rate_ppm_at(window), outer.senders_min_ppm)
    }

    /// Whether the divisor depends on how many updates send a coordinate.
    pub fn counts_senders(&self) -> bool {
        self.senders_min_ppm < PPM
    }

    /// The least that a sum of `accepted` updates is divided by: c · accepted, but at least 1. The 1
    /// changes nothing that is sent, which has a sender, and keeps what nobody sends from 0 / 0.
    pub fn divisor_min(&self, accepted: usize) -> f32 {
        let part = f64::from(self.senders_min_ppm) * accepted as f64 / 1e6;
        (part as f32).max(1.0)
    }
}

/// An outer rate in parts per million as the `f32` that the outer step multiplies by.
pub fn rate(ppm: u32) -> f32 {
    (f64::from(ppm) / 1e6) as f32
}

/// `theta ← theta − rate · (sum / accepted)`, value by value: the mean over the accepted updates.
#[inline(always)]
pub fn step(theta: &mut [f32], sums: &[f32], accepted: usize, rate: f32) {
    let count = accepted as f32;
    for (theta, sum) in theta.iter_mut().zip(sums) {
        let delta = *sum / count;
        *theta -= rate * delta;
    }
}

/// `theta ← theta − rate · (sum / max(senders, c · accepted, 1))`, value by value.
#[inline(always)]
pub fn step_by_senders(
    theta: &mut [f32],
    sums: &[f32],
    senders: &[u16],
    accepted: usize,
    rule: OuterRule,
) {
    let least = rule.divisor_min(accepted);
    for ((theta, sum), senders) in theta.iter_mut().zip(sums).zip(senders) {
        let senders = f32::from(*senders);
        // Neither is NaN: one instruction, which `f32::max` is not.
        let divisor = if senders > least { senders } else { least };
        let delta = *sum / divisor;
        *theta -= rule.rate * delta;
    }
}
