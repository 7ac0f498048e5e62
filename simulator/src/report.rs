//! Writes the results as CSV and as a page of tables.

use std::{fmt::Write, fs, io, path::Path};

use crate::statistics::{Fairness, Row, LONG, SHORT};

/// Writes `incentive.csv`, `fairness.csv` and `incentive-table.md` into a folder.
pub fn write(folder: &Path, rows: &[Row], fairness: &[Fairness]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("incentive.csv"), rows_csv(rows))?;
    fs::write(folder.join("fairness.csv"), fairness_csv(fairness))?;
    fs::write(folder.join("incentive-table.md"), page(rows, fairness))
}

fn rows_csv(rows: &[Row]) -> String {
    let mut csv = format!(
        "scenario,rule,role,kind,owners,pay_{SHORT},pay_{LONG},cost,pay_by_cost,unpaid,emission,slashed\n"
    );
    for row in rows {
        let _ = writeln!(
            csv,
            "{},{},{},{},{},{:.4},{:.4},{:.2},{:.3},{:.4},{:.4},{:.2}",
            row.scenario,
            row.rule,
            row.role,
            row.kind,
            row.owners,
            row.pay_short,
            row.pay_long,
            row.cost,
            row.pay_long / row.cost,
            row.unpaid,
            row.emission,
            row.slashed,
        );
    }
    csv
}

fn fairness_csv(fairness: &[Fairness]) -> String {
    let mut csv = format!(
        "scenario,rule,ratio_{SHORT},ratio_{LONG},gini_{SHORT},gini_{LONG},blamed,carried,void\n"
    );
    for row in fairness {
        let _ = writeln!(
            csv,
            "{},{},{:.3},{:.3},{:.4},{:.4},{:.4},{:.4},{}",
            row.scenario,
            row.rule,
            row.ratio_short,
            row.ratio_long,
            row.gini_short,
            row.gini_long,
            row.blamed,
            row.carried,
            row.void,
        );
    }
    csv
}

/// Rules in the order in which they first appear.
fn rules(rows: &[Row]) -> Vec<&str> {
    let mut rules: Vec<&str> = Vec::new();
    for row in rows {
        if !rules.contains(&row.rule.as_str()) {
            rules.push(&row.rule);
        }
    }
    rules
}

/// The page of tables.
pub fn page(rows: &[Row], fairness: &[Fairness]) -> String {
    let rules = rules(rows);
    let mut page = String::from(
        "# The incentive study's tables\n\nWritten by `cargo xtask simulate`; [the study](incentive.md) says what they mean.\n\n",
    );
    let _ = writeln!(
        page,
        "## Pay of an owner over {LONG} windows, in honest ones\n\nIn brackets: the part of its windows from the tenth on \
         without pay, and the part of all pay for the role that the kind took.\n"
    );
    let head = rules.iter().map(|rule| format!(" {rule} |")).collect::<String>();
    let lines = "---|".repeat(rules.len());
    let _ = writeln!(page, "| scenario | who | cost |{head}\n|---|---|---|{lines}");
    for row in rows.iter().filter(|row| Some(row.rule.as_str()) == rules.first().copied()) {
        let same = |other: &&Row| {
            (other.scenario, &other.kind, other.role) == (row.scenario, &row.kind, row.role)
        };
        let _ = write!(page, "| {} | {} {} | {} |", row.scenario, row.kind, row.role, row.cost);
        for rule in &rules {
            let found = rows.iter().filter(same).find(|other| other.rule == **rule);
            let text = found.map_or("–".into(), |row| {
                let parts = (100.0 * row.unpaid, 100.0 * row.emission);
                format!("{:.2} ({:.0} %, {:.0} %)", row.pay_long, parts.0, parts.1)
            });
            let _ = write!(page, " {text} |");
        }
        page.push('\n');
    }
    let _ = writeln!(
        page,
        "\n## Honest miners among themselves\n\nLargest over smallest pay and Gini coefficient after {SHORT} and {LONG} windows; \
         *blamed* are worked windows from the tenth on without pay, *carried* is what nobody was paid.\n"
    );
    page.push_str(
        "| scenario | rule | max/min short | long | Gini short | long | blamed | carried | void |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for row in fairness {
        let _ = writeln!(
            page,
            "| {} | {} | {:.2} | {:.2} | {:.3} | {:.3} | {:.1} % | {:.1} % | {} |",
            row.scenario,
            row.rule,
            row.ratio_short,
            row.ratio_long,
            row.gini_short,
            row.gini_long,
            100.0 * row.blamed,
            100.0 * row.carried,
            row.void,
        );
    }
    page
}
