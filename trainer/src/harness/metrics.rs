//! From scores to figures, with the formulas of lm-evaluation-harness.

use serde::Serialize;

use super::question::Question;
use super::request::Score;

/// A figure and how far it may be off by the choice of questions.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Metric {
    /// The figure.
    pub value: f64,
    /// Its standard error; none for a single question and for perplexities.
    pub stderr: Option<f64>,
}

/// Which choice wins, by three measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Winners {
    /// By log-likelihood.
    pub plain: usize,
    /// By log-likelihood for each character of the choice.
    pub by_characters: usize,
    /// By log-likelihood for each byte of the choice.
    pub by_bytes: usize,
}

impl Winners {
    /// The winners of a question; of equal choices the first wins.
    ///
    /// As NumPy divides and compares: for each of no characters a choice is infinitely unlikely, and
    /// what is not a number wins.
    pub fn new(question: &Question, scores: &[Score]) -> Self {
        let best = |length: &dyn Fn(&str) -> usize| {
            let mut best = (0, f64::NEG_INFINITY);
            for (index, score) in scores.iter().enumerate() {
                let value = score.log_likelihood / length(question.choice(index).1) as f64;
                if value.is_nan() {
                    return index;
                }
                if value > best.1 {
                    best = (index, value);
                }
            }
            best.0
        };
        Self {
            plain: best(&|_| 1),
            by_characters: best(&|text| text.chars().count()),
            by_bytes: best(&|text| text.len()),
        }
    }
}

/// The share of right ones: its mean, and the standard error of the mean from the sample's
/// variance (n − 1).
pub fn accuracy(right: &[bool]) -> Metric {
    let count = right.len() as f64;
    let value = right.iter().filter(|right| **right).count() as f64 / count;
    // Σ (x − mean)² of zeros and ones.
    let squares = count * value * (1.0 - value);
    let stderr = (right.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
    Metric { value, stderr }
}

/// Several subjects as one, each with as much weight as it has questions; the variance is pooled.
pub fn pooled(parts: &[(Metric, usize)]) -> Metric {
    let total: usize = parts.iter().map(|(_, count)| count).sum();
    let sum = |value: &dyn Fn(&Metric, f64) -> f64| {
        let values = parts.iter().map(|(metric, count)| value(metric, *count as f64));
        values.sum::<f64>()
    };
    let value = sum(&|metric, count| metric.value * count) / total as f64;
    let squares = sum(&|metric, count| {
        let stderr = metric.stderr.unwrap_or(0.0);
        (count - 1.0) * stderr * stderr * count
    });
    let freedom = total.saturating_sub(parts.len());
    let stderr = (freedom > 0).then(|| (squares / freedom as f64 / total as f64).sqrt());
    Metric { value, stderr }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(value: f64, stderr: f64) -> Metric {
        let stderr = Some(stderr);
        Metric { value, stderr }
    }

    fn close(a: Metric, b: Metric) -> bool {
        let errors = (a.stderr.unwrap() - b.stderr.unwrap()).abs();
        (a.value - b.value).abs() < 1e-12 && errors < 1e-12
    }

    /// `lm_eval.api.metrics`: mean, mean_stderr, aggregate_subtask_metrics, pooled_sample_stderr.
    #[test]
    fn errors_are_those_of_lm_eval() {
        let right = [true, false, false, true, false];
        assert!(close(accuracy(&right), metric(0.4, 0.2449489742783178)));
        assert_eq!(accuracy(&[true]).stderr, None);
        let parts = [(metric(0.4, 0.25), 5), (metric(0.7, 0.15), 10)];
        assert!(close(pooled(&parts), metric(0.6, 0.1295950299775103)));
    }

    #[test]
    fn characters_and_bytes_may_choose_differently() {
        let question = Question {
            prompts: vec!["?".into()],
            endings: vec!["aaaa".into(), "ééé".into(), "b".into()],
            answer: 0,
        };
        let scores =
            [-8.0, -6.6, -2.1].map(|log_likelihood| Score { log_likelihood, greedy: false });
        let winners = Winners::new(&question, &scores);
        assert_eq!(winners.plain, 2);
        assert_eq!(winners.by_characters, 0);
        assert_eq!(winners.by_bytes, 1);
    }
}
