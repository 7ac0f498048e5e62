//! Shows progress over a number of bytes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between lines where no bar can be shown.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A bar over bytes on stderr, or a line in the log from time to time where that is no terminal.
pub(crate) struct ByteBar {
    bar: ProgressBar,
    total: u64,
    told: Instant,
}

impl ByteBar {
    pub(crate) fn new(total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left · {msg}";
        // The template is ours and known to be one.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, total, told: Instant::now() }
    }

    pub(crate) fn update(&mut self, bytes: u64, message: impl FnOnce() -> String) {
        // Drawn by every so many documents, the bar would cost more than tokenising them.
        let is_line = self.bar.is_hidden();
        let interval = match is_line {
            true => LINE_INTERVAL,
            false => Duration::from_millis(100),
        };
        if self.told.elapsed() < interval {
            return;
        }
        self.told = Instant::now();
        if is_line {
            let percent = 100 * bytes / self.total.max(1);
            tracing::info!("{percent} % of the input read, {}", message());
        } else {
            self.bar.set_length(self.total.max(bytes));
            self.bar.set_position(bytes);
            self.bar.set_message(message());
        }
    }

    pub(crate) fn warn(&self, line: &str) {
        self.bar.suspend(|| tracing::warn!("{line}"));
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}
