//! Prints a localnet's results, and the command that recomputes them.

use std::path::Path;

use anyhow::Result;

use super::report::{LocalnetReport, ParticipantReport, REPORT_FILE};
use crate::terminal;

/// Prints the report in the run's `folder`.
///
/// # Errors
/// This program's own path is not known.
pub(super) fn print(report: &LocalnetReport, folder: &Path) -> Result<()> {
    terminal::print("");
    for participant in &report.participants {
        let earned = terminal::units(participant.earned);
        let refused = match participant.reveals_refused {
            0 => String::new(),
            count => format!("  {count} reveals refused by the chain"),
        };
        let proofs = proofs(participant);
        terminal::print(&format!(
            "{:<14} {:<10} {:<10} earned {earned:>10}{refused}{proofs}",
            participant.name, participant.role, participant.kind
        ));
    }
    let first = report.windows.first().and_then(|window| window.heldout_loss);
    if let (Some(first), Some(last)) = (first, report.last_state.heldout_loss) {
        let change = (last / first - 1.0) * 100.0;
        terminal::print(&format!(
            "\nheld-out loss {first:.3} → {last:.3} ({change:+.1} %) in {:.0} s",
            report.seconds
        ));
    }
    terminal::print(&format!("training:     {:.0} % of the time", report.training_share * 100.0));
    for problem in &report.problems {
        terminal::print(&format!("PROBLEM: {problem}"));
    }
    terminal::print(&format!("report:       {}", folder.join(REPORT_FILE).display()));
    let program = std::env::current_exe()?;
    terminal::print(&format!("recompute it: {} audit {}", program.display(), folder.display()));
    Ok(())
}

/// What proofs brought a participant and cost it.
fn proofs(participant: &ParticipantReport) -> String {
    let ParticipantReport { convictions, slashed, rewarded, .. } = *participant;
    let mut text = String::new();
    if convictions > 0 {
        text += &format!("  convicted {convictions} times, slashed {}", terminal::units(slashed));
    }
    if rewarded > 0 {
        text += &format!("  rewarded {}", terminal::units(rewarded));
    }
    text
}
