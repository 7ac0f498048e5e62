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
        "scenario,rule,role,kind,owners,pay_{SHORT},pay_{LONG},pay_{LONG}_least,pay_{LONG}_most,net,net_least,net_most,cost,net_by_cost,unpaid,emission,\
         units,slashed,rewards\n"
    );
    for row in rows {
        let _ = writeln!(
            csv,
            "{},{},{},{},{},{:.4},{:.4},{:.4},{:.4},{:.4},{:.4},{:.4},{:.2},{:.3},{:.4},{:.4},{:.2},{:.2},{:.2}",
            csv_text(row.scenario),
            row.rule,
            row.role,
            row.kind,
            row.owners,
            row.pay_short,
            row.pay_long,
            row.pay_long_range[0],
            row.pay_long_range[1],
            row.net,
            row.net_range[0],
            row.net_range[1],
            row.cost,
            row.net / row.cost,
            row.unpaid,
            row.emission,
            row.units,
            row.slashed,
            row.rewards,
        );
    }
    csv
}

fn fairness_csv(fairness: &[Fairness]) -> String {
    let mut csv = format!(
        "scenario,rule,ratio_{SHORT},ratio_{SHORT}_most,ratio_{LONG},ratio_{LONG}_most,gini_{SHORT},gini_{LONG},blamed,carried,void,requests,answered,\
         requests_cost\n"
    );
    for row in fairness {
        let _ = writeln!(
            csv,
            "{},{},{:.3},{:.3},{:.3},{:.3},{:.4},{:.4},{:.4},{:.4},{},{},{},{:.2}",
            csv_text(row.scenario),
            row.rule,
            row.ratio_short,
            row.ratios_most[0],
            row.ratio_long,
            row.ratios_most[1],
            row.gini_short,
            row.gini_long,
            row.blamed,
            row.carried,
            row.void,
            row.requests.0,
            row.requests.1,
            row.requests_cost,
        );
    }
    csv
}

/// A name as a field: with quotes around a comma.
fn csv_text(name: &str) -> String {
    if name.contains(',') {
        format!("\"{name}\"")
    } else {
        name.into()
    }
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

/// What an owner had under the first rule, with what it paid for.
fn first_rule(page: &mut String, rows: &[Row]) {
    let Some(rule) = rows.first().map(|row| row.rule.clone()) else {
        return;
    };
    let _ = writeln!(
        page,
        "## What an owner had under {rule}, in honest ones\n\n*net* is all pay less bonds lost and prices of slots; in brackets least and most \
         of the seeds. *bonds* and *rewards* are what proven faults cost it and what reports brought, in units; *pay* over all windows likewise.\n"
    );
    let _ = writeln!(
        page,
        "| scenario | who | cost | {SHORT} windows | {LONG} windows | net | pay | bonds | rewards |\n|---|---|---|---|---|---|---|---|---|"
    );
    for row in rows.iter().filter(|row| row.rule == rule) {
        let with_range =
            |value: f64, [least, most]: [f64; 2]| format!("{value:.2} ({least:.2}–{most:.2})");
        let _ = writeln!(
            page,
            "| {} | {} {} | {} | {:.2} | {} | {} | {:.0} | {:.1} | {:.1} |",
            row.scenario,
            row.kind,
            row.role,
            row.cost,
            row.pay_short,
            with_range(row.pay_long, row.pay_long_range),
            with_range(row.net, row.net_range),
            row.units,
            row.slashed,
            row.rewards,
        );
    }
}

/// The page of tables.
pub fn page(rows: &[Row], fairness: &[Fairness]) -> String {
    let rules = rules(rows);
    let mut page = String::from(
        "# The incentive study's tables\n\nWritten by `cargo xtask simulate`; [the study](incentive.md) says what they mean.\n\n",
    );
    first_rule(&mut page, rows);
    let _ = writeln!(
        page,
        "\n## Pay of an owner over {LONG} windows, in honest ones\n\nIn brackets: the part of its windows from the tenth on \
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
        "\n## Honest miners among themselves\n\nLargest over smallest pay (in brackets the most of the seeds) and Gini coefficient after \
         {SHORT} and {LONG} windows; *blamed* are worked windows from the tenth on without pay, *carried* is what nobody was paid.\n"
    );
    page.push_str(
        "| scenario | rule | max/min short | long | Gini short | long | blamed | carried | void |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for row in fairness {
        let _ = writeln!(
            page,
            "| {} | {} | {:.2} ({:.2}) | {:.2} ({:.2}) | {:.3} | {:.3} | {:.1} % | {:.1} % | {} |",
            row.scenario,
            row.rule,
            row.ratio_short,
            row.ratios_most[0],
            row.ratio_long,
            row.ratios_most[1],
            row.gini_short,
            row.gini_long,
            100.0 * row.blamed,
            100.0 * row.carried,
            row.void,
        );
    }
    page
}
