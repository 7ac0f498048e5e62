//! Shows a localnet's progress: one line that lives, and a few that stay.
//!
//! On a terminal the living line is a bar; elsewhere each phase is a line.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use protocol::{
    window::{Moment, Phase, Schedule},
    Window,
};

use super::board::Board;
use crate::terminal::print;

/// Shows progress on stdout.
pub(crate) struct LocalnetProgress {
    bar: Option<ProgressBar>,
    windows: Window,
    shown: Option<(Window, Phase)>,
}

impl LocalnetProgress {
    /// Starts to show a localnet of `windows` windows.
    pub(crate) fn new(windows: Window) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is ours and known to be one.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            bar
        });
        Self { bar, windows, shown: None }
    }

    /// Prints a line that stays.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(line.as_ref())),
            None => print(line.as_ref()),
        }
    }

    /// Shows a step of the preparation before the first window.
    pub(crate) fn doing(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{what} …")),
            None => print(&format!("{what} …")),
        }
    }

    /// Shows the chain's current window and phase.
    pub(crate) fn block(
        &mut self,
        schedule: &Schedule,
        block: u32,
        moment: Option<Moment>,
        board: &Board,
    ) {
        let Some(moment) = moment else {
            let left = schedule.start_block.saturating_sub(block);
            if let Some(bar) = &self.bar {
                bar.set_message(format!("block {block} · the first window opens in {left} blocks"));
            }
            return;
        };
        let now = (moment.window, moment.phase);
        let phase = match moment.phase {
            _ if moment.window >= self.windows => "the last window is scored and settled",
            Phase::Commit => "train and commit",
            Phase::Reveal => "reveal",
            Phase::AttestCommit => "fetch and attest",
            Phase::AttestReveal => "reveal what is attested",
            Phase::Apply => "apply",
        };
        let text = format!(
            "block {block} · window {}/{} · {phase} ({}/{}){}",
            moment.window.min(self.windows),
            self.windows,
            moment.offset,
            schedule.window_blocks,
            board.losses_line(moment.window),
        );
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if self.shown != Some(now) => print(&text),
            None => {}
        }
        self.shown = Some(now);
    }

    /// Shows a settled window.
    pub(crate) fn settled(&self, window: Window, board: &Board) {
        for line in board.window_lines(window) {
            self.say(line);
        }
    }

    /// Clears the living line for good.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
