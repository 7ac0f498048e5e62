//! Waits for what another library does by itself: asks again and again, and not for ever.

use std::thread;
use std::time::{Duration, Instant};

/// Questions between which only the processor is given away: what is nearly done is not to wait.
const EAGER: u32 = 1_000;

/// Time between later questions.
const PAUSE: Duration = Duration::from_millis(1);

/// Asks until there is an answer, for `longest` at most; `None` if there was none. The last question is asked after
/// that time, so that an answer that came meanwhile counts.
pub(super) fn ask<T>(longest: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    let mut asked = 0;
    loop {
        let is_last = started.elapsed() >= longest;
        let answer = question();
        if answer.is_some() || is_last {
            return answer;
        }
        asked += 1;
        if asked < EAGER {
            thread::yield_now();
        } else {
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_there_is_an_answer_and_gives_up_in_the_end() {
        let mut left = 2 * EAGER;
        let answer = ask(Duration::from_secs(600), || {
            left -= 1;
            (left == 0).then_some(7)
        });
        assert_eq!(answer, Some(7));
        let mut asked = 0;
        let none = ask(Duration::ZERO, || {
            asked += 1;
            None::<u8>
        });
        assert_eq!((none, asked), (None, 1));
    }
}
