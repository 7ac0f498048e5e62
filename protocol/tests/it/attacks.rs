//! The attacks of docs/study/attacks.md on rules and bytes, each over many trials from seeds: how many are noticed, and
//! how many honest ones are blamed.

mod bytes;
mod copies;
mod mutated;
mod rules;
mod tally;

use crate::incentive::Random;

/// A number below `end`.
fn below(random: &mut Random, end: usize) -> usize {
    (random.uniform() * end as f64) as usize
}
