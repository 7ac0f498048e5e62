//! Draws the results as SVG: what each kind is paid, and how far equal miners part.

use std::{fmt::Write, fs, io, path::Path};

use crate::statistics::{Fairness, Row, LONG};

const COLOURS: [&str; 5] = ["#4477aa", "#66ccee", "#ee6677", "#ccbb44", "#228833"];
const WIDTH: f64 = 820.0;
/// Where the bars begin and end.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 640.0;
/// Height of a bar.
const BAR: f64 = 8.0;

/// Writes `incentive.svg` and `fairness.svg` into a folder.
pub fn write(folder: &Path, rows: &[Row], fairness: &[Fairness]) -> io::Result<()> {
    let pays = rows.iter().filter(|row| row.kind != "honest");
    let pays = pays.map(|row| Bar {
        group: format!("{}: {}", row.scenario, row.kind),
        series: row.rule.clone(),
        value: row.pay_long,
        range: row.pay_long_range,
    });
    let about = format!("pay of an owner over {LONG} windows, in honest ones");
    fs::write(folder.join("incentive.svg"), bars(&about, 2.0, &pays.collect::<Vec<_>>()))?;
    let spreads = fairness.iter().flat_map(|row| {
        let bar = |length: &str, value: f64, most: f64| Bar {
            group: format!("{}, {length}", row.scenario),
            series: row.rule.clone(),
            value: value - 1.0,
            range: [value - 1.0, most - 1.0],
        };
        let [most_short, most_long] = row.ratios_most;
        [bar("short", row.ratio_short, most_short), bar("long", row.ratio_long, most_long)]
    });
    let about = "largest over smallest pay of equal miners, less 1";
    fs::write(folder.join("fairness.svg"), bars(about, 2.0, &spreads.collect::<Vec<_>>()))
}

struct Bar {
    group: String,
    series: String,
    value: f64,
    /// Least and most of the seeds.
    range: [f64; 2],
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// Bars in groups, with a line for the range; one that is longer than `most` ends there with its number.
fn bars(about: &str, most: f64, bars: &[Bar]) -> String {
    let groups = distinct(bars.iter().map(|bar| bar.group.as_str()));
    let series = distinct(bars.iter().map(|bar| bar.series.as_str()));
    let height = 60.0 + groups.len() as f64 * (series.len() as f64 * BAR + 10.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"white\"/>\n"
    );
    text(&mut svg, LEFT, 16.0, "start", about);
    let x = |value: f64| LEFT + (RIGHT - LEFT) * value.clamp(0.0, most) / most;
    for tick in 0..=4 {
        let value = most * f64::from(tick) / 4.0;
        let at = x(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"40\" x2=\"{at:.1}\" y2=\"{height:.0}\" stroke=\"#dddddd\"/>"
        );
        text(&mut svg, at, 34.0, "middle", &format!("{value:.1}"));
    }
    let mut top = 46.0;
    for group in groups {
        text(&mut svg, LEFT - 8.0, top + BAR * series.len() as f64 / 2.0 + 4.0, "end", group);
        for (name, colour) in series.iter().zip(COLOURS) {
            let found = bars.iter().find(|bar| bar.group == group && bar.series == *name);
            if let Some(bar) = found {
                let length = x(bar.value) - LEFT;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"
                );
                let [from, to] = bar.range.map(x);
                let middle = top + BAR / 2.0;
                let _ = writeln!(
                    svg,
                    "<line x1=\"{from:.1}\" y1=\"{middle:.1}\" x2=\"{to:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>"
                );
                if bar.value > most {
                    let number = format!("{:.1}", bar.value);
                    text(&mut svg, RIGHT + 4.0, top + BAR, "start", &number);
                }
            }
            top += BAR;
        }
        top += 10.0;
    }
    for (place, (name, colour)) in series.iter().zip(COLOURS).enumerate() {
        let y = 46.0 + 18.0 * place as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"690\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        );
        text(&mut svg, 708.0, y + 10.0, "start", name);
    }
    svg + "</svg>\n"
}
