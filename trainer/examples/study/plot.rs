//! The two figures as SVG: loss over tokens, and the loss of every arm as a bar.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::arms::Purpose;
use crate::report::{mean, Rows};

const COLOURS: [&str; 6] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];
/// The arms whose curves are drawn.
const CURVES: [&str; 6] = [
    "long: data parallel adamw",
    "long: data parallel muon",
    "long: sparseloco muon h15",
    "long: sparseloco muon h30",
    "long: sparseloco adamw h15",
    "long: sparseloco adamw h30",
];
const WIDTH: f64 = 760.0;

/// Writes `curves.svg` and `results.svg`.
pub(crate) fn write(folder: &Path, rows: &Rows) -> io::Result<()> {
    fs::write(folder.join("curves.svg"), curves(rows))?;
    fs::write(folder.join("results.svg"), results(rows))
}

fn open(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// The mean curve over the seeds of an arm, without its first point, which is untrained.
fn mean_curve(rows: &Rows, name: &str) -> Vec<(f64, f64)> {
    let curves: Vec<&Vec<(u64, f64)>> = rows
        .curves
        .iter()
        .filter(|((of, seed), _)| of == name && rows.has(of, *seed))
        .map(|(_, curve)| curve)
        .collect();
    let points = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
    (1..points)
        .map(|at| {
            let losses: Vec<f64> = curves.iter().map(|curve| curve[at].1).collect();
            (curves[0][at].0 as f64, mean(&losses))
        })
        .collect()
}

fn curves(rows: &Rows) -> String {
    let (left, top, right, bottom) = (60.0, 20.0, 570.0, 340.0);
    let curves: Vec<(&str, Vec<(f64, f64)>)> = CURVES
        .iter()
        .map(|name| (*name, mean_curve(rows, name)))
        .filter(|(_, curve)| !curve.is_empty())
        .collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    let tokens = points().fold(1.0, |most, point| point.0.max(most));
    let low = points().fold(f64::MAX, |least, point| point.1.min(least)) - 0.05;
    let high = points().fold(0.0, |most, point| point.1.max(most)) + 0.05;
    let x = |at: f64| left + (right - left) * at / tokens;
    let y = |at: f64| bottom - (bottom - top) * (at - low) / (high - low).max(1e-9);

    let mut svg = open(390.0);
    let mut tick = (low * 5.0).ceil() / 5.0;
    while tick < high {
        line(&mut svg, (left, y(tick)), (right, y(tick)), "#dddddd");
        text(&mut svg, left - 8.0, y(tick) + 4.0, "end", &format!("{tick:.1}"));
        tick += 0.2;
    }
    for part in 1..=4 {
        let at = tokens * f64::from(part) / 4.0;
        text(&mut svg, x(at), bottom + 18.0, "middle", &format!("{:.2} M", at / 1e6));
    }
    text(&mut svg, (left + right) / 2.0, bottom + 38.0, "middle", "tokens of all peers");
    text(&mut svg, left, top - 6.0, "middle", "held-out loss, nats a byte");
    line(&mut svg, (left, bottom), (right, bottom), "black");
    line(&mut svg, (left, top), (left, bottom), "black");
    for (index, ((name, curve), colour)) in curves.iter().zip(COLOURS).enumerate() {
        let mut path = String::new();
        for (at, loss) in curve {
            let _ = write!(path, "{:.1},{:.1} ", x(*at), y(*loss));
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let at = top + 16.0 + 18.0 * index as f64;
        line(&mut svg, (right + 12.0, at - 4.0), (right + 32.0, at - 4.0), colour);
        text(&mut svg, right + 38.0, at, "start", name);
    }
    svg + "</svg>\n"
}

fn results(rows: &Rows) -> String {
    let arms: Vec<_> = rows
        .by_name()
        .into_iter()
        .filter(|(arm, _)| arm.purpose != Purpose::Search)
        .map(|(arm, rows)| (arm.name, rows.iter().map(|row| row.loss).collect::<Vec<_>>()))
        .collect();
    let all = || arms.iter().flat_map(|(_, losses)| losses.iter().copied());
    let low = all().fold(f64::MAX, f64::min) - 0.05;
    let high = all().fold(0.0, f64::max) + 0.02;
    let (left, right, row) = (300.0, 700.0, 22.0);
    let x = |at: f64| left + (right - left) * (at - low) / (high - low).max(1e-9);
    let bottom = 24.0 + row * arms.len() as f64;
    let mut svg = open(bottom + 16.0);
    text(
        &mut svg,
        left,
        14.0,
        "start",
        "held-out loss, nats a byte, mean over the seeds; the line is their range",
    );
    for (index, (name, losses)) in arms.iter().enumerate() {
        let at = 24.0 + row * index as f64;
        let middle_loss = mean(losses);
        let least = losses.iter().copied().fold(f64::MAX, f64::min);
        let most = losses.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{at:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>",
            x(middle_loss) - left,
            row - 6.0,
            COLOURS[0]
        );
        let middle = at + (row - 6.0) / 2.0;
        line(&mut svg, (x(least), middle), (x(most), middle), "black");
        text(&mut svg, left - 8.0, at + 13.0, "end", name);
        text(&mut svg, x(most) + 6.0, at + 13.0, "start", &format!("{middle_loss:.3}"));
    }
    svg + "</svg>\n"
}
