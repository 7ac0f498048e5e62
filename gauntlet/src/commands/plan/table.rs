//! Prints a plan as text for a terminal.

use std::fmt::Write as _;

use trainer::budget::{
    advice::Advice,
    quantity::{format_bytes, format_seconds},
    Devices, MemoryAccount, PlanRequest, Recompute, Sharding,
};

use super::report::PlanReport;

/// Width of the names.
const NAMES: usize = 42;

pub(super) fn text(request: &PlanRequest, report: &PlanReport) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, request, report);
    out
}

fn write(out: &mut String, request: &PlanRequest, report: &PlanReport) -> std::fmt::Result {
    let (budget, model) = (&report.budget, &report.budget.model);
    let measured = match report.rates.as_ref().map(|rates| rates.measured) {
        Some(true) => " (measured)",
        Some(false) => " (assumed rates; --calibrate measures)",
        None => "",
    };
    writeln!(out, "{} parameters on {}{measured}", grouped(model.parameters), report.machine)?;

    for ledger in &budget.ledgers {
        write_ledger(out, ledger)?;
    }
    for account in &budget.others {
        write_ledger(out, account)?;
    }
    write_step(out, request, report)?;

    let window = &request.window;
    writeln!(
        out,
        "\nwindow of {} steps, {} peers: {}, {:.1} % of it training",
        window.inner_steps,
        window.peers,
        format_seconds(budget.window_seconds),
        100.0 * budget.utilisation
    )?;
    for phase in &budget.phases {
        row(out, phase.name, &format_seconds(phase.seconds))?;
    }
    writeln!(
        out,
        "\nupdate: {} (k {} of 4096, {:.2} bits a value, 1/{:.0} of f32; at most {})",
        format_bytes(model.payload_bytes),
        window.keep,
        model.bits_per_value,
        model.ratio,
        format_bytes(model.payload_bytes_max)
    )?;
    writeln!(
        out,
        "over whole windows: {} tokens/s a peer; {} for 10^12 tokens with {} peers",
        rate(budget.peer_tokens_per_second),
        format_seconds(budget.days_per_trillion_tokens * 86_400.0),
        window.peers
    )?;

    write_advice(out, report)
}

fn write_ledger(out: &mut String, ledger: &MemoryAccount) -> std::fmt::Result {
    let verdict = match (ledger.capacity, ledger.fits()) {
        (None, _) => String::new(),
        (Some(capacity), true) => format!(" of {}", format_bytes(capacity)),
        (Some(capacity), false) => format!(" of {}: DOES NOT FIT", format_bytes(capacity)),
    };
    writeln!(out, "\n{}: {}{verdict}", ledger.name, format_bytes(ledger.bytes))?;
    for line in &ledger.lines {
        row(out, line.name, &format_bytes(line.bytes))?;
    }
    Ok(())
}

fn write_step(out: &mut String, request: &PlanRequest, report: &PlanReport) -> std::fmt::Result {
    let step = &report.budget.step;
    let again = match step.recompute {
        Recompute::None => "nothing computed again",
        Recompute::NormSwiglu => "norms and SwiGLU computed again",
        Recompute::Full => "layers computed again",
    };
    let each = match request.machine.devices.count() {
        1 => "",
        _ => " on each GPU",
    };
    let spread = match step.sharding {
        Sharding::None => "",
        Sharding::Optimiser => ", optimiser spread (ZeRO-1)",
        Sharding::Full => ", all spread (ZeRO-3)",
    };
    let muon = if request.choice.muon { ", Muon" } else { "" };
    writeln!(
        out,
        "\nstep of {} samples x {} tokens: {} ({} x {} samples at once{each}; {again}{spread}{muon})",
        request.window.batch,
        request.model.seq_len,
        format_seconds(step.seconds),
        step.accumulations,
        step.micro_batch
    )?;
    for time in &step.times {
        let part = format!("{:>5.1} %", 100.0 * time.seconds / step.seconds);
        row(out, time.name, &format!("{:>9}  {part}", format_seconds(time.seconds)))?;
    }
    let of = match request.machine.devices {
        Devices::Cpu(_) => "of the products' rate",
        Devices::Gpus { .. } if request.choice.mfu.is_some() => "MFU, as said",
        Devices::Gpus { .. } => "MFU, the most to be expected (--mfu PART if you know)",
    };
    let per_second = step.tokens_per_second;
    let line = format!(
        "{} tokens/s, {} a token, {:.1} % {of}",
        rate(per_second),
        format_seconds(1.0 / per_second),
        100.0 * step.mfu
    );
    writeln!(out, "  {line}")
}

fn write_advice(out: &mut String, report: &PlanReport) -> std::fmt::Result {
    if report.budget.fits {
        writeln!(out, "It fits.")?;
    } else if report.what_would_fit.is_empty() {
        writeln!(out, "It does not fit, nor with any one or two changes that were tried.")?;
    } else {
        writeln!(out, "It does not fit. Each of these would:")?;
        report.what_would_fit.iter().try_for_each(|advice| write_one(out, advice))?;
    }
    if !report.what_would_wait_less.is_empty() {
        writeln!(out, "Less waiting in a window:")?;
        report.what_would_wait_less.iter().try_for_each(|advice| write_one(out, advice))?;
    }
    Ok(())
}

fn write_one(out: &mut String, advice: &Advice) -> std::fmt::Result {
    let memory = format_bytes(advice.memory);
    writeln!(
        out,
        "  - {}: {memory}, {} tokens/s, {:.1} % training",
        advice.change,
        rate(advice.peer_tokens_per_second),
        100.0 * advice.utilisation
    )
}

fn row(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "  {name:<NAMES$} {value:>10}")
}

/// Tokens a second: two digits of slow ones.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 99.5 => grouped(rate.round() as u64),
        rate if rate >= 9.95 => format!("{rate:.0}"),
        rate if rate >= 0.995 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// 70599843840 as 70,599,843,840.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
