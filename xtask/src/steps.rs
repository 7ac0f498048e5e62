//! Says what is being done and how far it is.

use std::time::{Duration, Instant};

use crate::failure::Failure;

/// The steps of a command, announced and timed on standard error.
pub(crate) struct Steps {
    count: usize,
    started: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Begins a command of so many steps.
    pub(crate) fn new(count: usize) -> Self {
        Self { count, started: Instant::now(), done: Vec::new() }
    }

    /// Takes the next step: `name` in a word or two, `about` in a sentence with what it takes where that is long.
    ///
    /// # Errors
    /// What the step fails with, after its name.
    pub(crate) fn take<T>(
        &mut self,
        name: &'static str,
        about: &str,
        step: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let number = self.done.len() + 1;
        eprintln!("── step {number} of {}, {name}: {about}", self.count);
        let started = Instant::now();
        let outcome = step();
        let taken = started.elapsed();
        self.done.push((name, taken));
        let end = if outcome.is_ok() { "done" } else { "failed" };
        eprintln!("── {name} {end} after {}", shown(taken));
        outcome.map_err(|failure| format!("{name}: {failure}"))
    }

    /// What each step took, a line each, and all together.
    pub(crate) fn account(&self) -> String {
        let lines = self.done.iter().map(|(name, taken)| line(*taken, name));
        lines.chain([line(self.started.elapsed(), "together")]).collect()
    }
}

fn line(taken: Duration, name: &str) -> String {
    format!("{:>14}  {name}\n", shown(taken))
}

/// A time as a person says it, to the second.
fn shown(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_is_named_and_counted() {
        let mut steps = Steps::new(2);
        assert_eq!(steps.take("build", "seconds", || Ok(3)), Ok(3));
        let failed = steps.take("tests", "a minute", || Err::<(), _>("one failed".to_owned()));
        assert_eq!(failed, Err("tests: one failed".to_owned()));
        let account = steps.account();
        let names: Vec<&str> = account.lines().filter_map(|line| line.split("  ").last()).collect();
        assert_eq!(names, ["build", "tests", "together"]);
    }

    #[test]
    fn times_are_shown_in_minutes_and_seconds() {
        assert_eq!(shown(Duration::from_millis(59_999)), "59 s");
        assert_eq!(shown(Duration::from_secs(3_725)), "62 min 5 s");
    }
}
