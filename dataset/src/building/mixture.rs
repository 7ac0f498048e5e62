//! Chooses the source of the next document: the one that is furthest behind its share of the tokens.
//!
//! With weights w, and t tokens taken so far, it is the source with the smallest t / w, the first
//! among equals. So at any time no source is ahead of its share by more than one document, none is
//! behind it by more than one of each other source, and the choice depends on documents and weights
//! alone. The mixture ends when the source whose turn it
//! is has no more: going on without it would change the shares. Without weights the sources are
//! taken whole, one after the other.

/// The state of a mixture.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    /// In millionths; all 0 for no weights.
    weights: Vec<u64>,
    /// Without weights: the source that is being read.
    current: usize,
}

impl Mixture {
    /// A mixture of sources with these weights, all of them 0 or none.
    pub(super) fn new(weights: Vec<u64>) -> Self {
        Self { weights, current: 0 }
    }

    /// The source that gives the next document, after so many tokens from each; `None` at the end.
    pub(super) fn next(&self, taken: &[u64]) -> Option<usize> {
        if self.weights.iter().all(|weight| *weight == 0) {
            return (self.current < self.weights.len()).then_some(self.current);
        }
        let sources = 0..self.weights.len().min(taken.len());
        // t_a / w_a against t_b / w_b without rounding.
        let side = |t: usize, w: usize| u128::from(taken[t]) * u128::from(self.weights[w]);
        sources.min_by(|&a, &b| side(a, b).cmp(&side(b, a)))
    }

    /// `source` has no more documents; says whether others may go on.
    pub(super) fn exhausted(&mut self, source: usize) -> bool {
        let is_whole = self.weights.iter().all(|weight| *weight == 0);
        self.current = source + 1;
        is_whole && self.current < self.weights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_is_ahead_by_a_document_or_behind_by_one_of_each_other() {
        let weights = [700_000u64, 200_000, 100_000];
        let mixture = Mixture::new(weights.to_vec());
        let mut taken = [0u64; 3];
        let mut random = 1u64;
        for _ in 0..10_000 {
            let source = mixture.next(&taken).unwrap();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            taken[source] += 1 + (random >> 33) % 500;
            let total: u64 = taken.iter().sum();
            for (taken, weight) in taken.iter().zip(weights) {
                let share = total as f64 * weight as f64 / 1e6;
                let ahead = *taken as f64 - share;
                assert!((-1_000.0..=500.0).contains(&ahead), "{ahead} tokens ahead");
            }
        }
    }

    #[test]
    fn sources_without_weights_come_one_after_the_other() {
        let mut mixture = Mixture::new(vec![0, 0]);
        assert_eq!(mixture.next(&[5, 0]), Some(0));
        assert!(mixture.exhausted(0));
        assert_eq!(mixture.next(&[5, 0]), Some(1));
        assert!(!mixture.exhausted(1));
        assert_eq!(mixture.next(&[5, 5]), None);
        assert!(!Mixture::new(vec![1, 1]).exhausted(0));
    }
}
