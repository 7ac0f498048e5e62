//! `gauntlet doctor --cuda`: from the driver to the presets that fit, a line each.

use anyhow::{bail, Result};
use trainer::{
    budget::{hardware::GPUS, quantity::format_bytes, Gpu as KnownCard, Recompute},
    cuda::{
        check::{self, Comparison},
        compiler, fit,
        found::{self, Library},
        hardware::{self, Card, Hardware},
        measure::{self, Sizes},
        Chosen, Gpu,
    },
    ModelConfig, PRESETS,
};

use super::args::DoctorArgs;
use crate::terminal::print;

/// Samples of a step that the presets are tried with.
const BATCH: usize = 64;

/// Looks at everything; what is missing or wrong is an error that names all of it.
///
/// # Errors
/// This machine cannot train on GPUs.
pub(super) fn look(args: &DoctorArgs) -> Result<()> {
    let mut wrong = libraries();
    let chosen = args.cards.unwrap_or(Chosen::ALL);
    let cards = match hardware::cards() {
        Ok(cards) => {
            cards.iter().for_each(|card| print(&line_of(card)));
            let numbers = chosen.numbers();
            let meant = |card: &Card| numbers.is_empty() || numbers.contains(&card.index);
            cards.into_iter().filter(meant).collect()
        }
        Err(error) => {
            // A missing driver is named among the libraries.
            if found::need(Library::Driver).is_ok() {
                wrong.push(error.to_string());
            }
            Vec::new()
        }
    };
    if wrong.is_empty() {
        for card in &cards {
            wrong.extend(card_works(args, card));
        }
    }
    presets(&cards);
    match wrong.len() {
        0 => Ok(()),
        1 => bail!("this machine does not train on GPUs: {}", wrong.join("")),
        count => bail!(
            "{count} things keep this machine from training on GPUs\n  {}",
            wrong.join("\n  ")
        ),
    }
}

/// Prints each library with its place; returns those that are needed and missing.
fn libraries() -> Vec<String> {
    let mut missing = Vec::new();
    for found in found::libraries() {
        let library = found.library;
        let [file, ..] = library.files() else { continue };
        let version = || match library {
            Library::Driver => hardware::driver_version().ok(),
            Library::Nvrtc => compiler::version().ok(),
            Library::CublasLt | Library::Nccl => None,
        };
        match (found::need(library), &found.path) {
            (Ok(_), Some(path)) => {
                let version = version().map(|(major, minor)| format!(", CUDA {major}.{minor}"));
                let version = version.unwrap_or_default();
                print(&format!("found    {} ({}{version})", path.display(), library.purpose()));
            }
            _ => {
                print(&format!("missing  {file} ({}): {}", library.purpose(), library.cure()));
                if library != Library::Nccl {
                    missing.push(library.missing().to_string());
                }
            }
        }
        for reason in &found.refused {
            print(&format!("         {reason}"));
        }
    }
    missing
}

fn line_of(card: &Card) -> String {
    format!(
        "card {}   {}, {}, compute capability {}, {} multiprocessors",
        card.index,
        card.name,
        format_bytes(card.memory),
        hardware::shown(card.capability),
        card.multiprocessors
    )
}

/// Opens a card, checks and times it; returns what is wrong.
fn card_works(args: &DoctorArgs, card: &Card) -> Vec<String> {
    let gpu = match Hardware::open(card.index, &args.cubins()) {
        Ok(gpu) => gpu,
        Err(error) => return vec![format!("card {}: {error}", card.index)],
    };
    let mut wrong = checks(&gpu, card.index);
    if args.quick || !wrong.is_empty() {
        return wrong;
    }
    let compare = |product: &_, repeats| gpu.compare_products(product, repeats);
    match measure::all(&gpu, &Sizes::LARGE, Some(&compare)) {
        Ok(measured) => {
            for one in measured {
                let rate = match one.unit {
                    "TFLOP/s" => format!("{:8.1} {}", one.rate / 1e12, one.unit),
                    _ => format!("{:8.1} {}", one.rate / 1e9, one.unit),
                };
                let ms = one.seconds * 1e3;
                print(&format!("card {}   {rate}  {ms:9.3} ms  {}", card.index, one.name));
            }
        }
        Err(error) => wrong.push(format!("card {}, while it is timed: {error}", card.index)),
    }
    wrong
}

/// Runs every kernel against what the emulator computed; returns what differs.
fn checks(gpu: &dyn Gpu, card: usize) -> Vec<String> {
    let results = match check::run(gpu) {
        Ok(results) => results,
        Err(error) => return vec![format!("card {card}: {error}")],
    };
    let (mut wrong, mut exact, mut near, mut farthest) = (Vec::new(), 0, 0, 0.0f64);
    for (name, outputs) in results {
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(error) => {
                wrong.push(format!("card {card}: the check of {name} ends with: {error}"));
                continue;
            }
        };
        for finding in check::compare(&outputs) {
            match (finding.agrees, finding.comparison) {
                (true, Comparison::Exact) => exact += 1,
                (true, _) => {
                    near += 1;
                    farthest = farthest.max(finding.distance);
                }
                (false, Comparison::Exact) => wrong.push(format!(
                    "card {card}: {} differs in its bits; nothing that is computed here is to be trusted",
                    finding.name
                )),
                (false, _) => wrong.push(format!(
                    "card {card}: {} is {:.1e} off; nothing that is computed here is to be trusted",
                    finding.name, finding.distance
                )),
            }
        }
    }
    print(&format!(
        "card {card}   kernels: {exact} results equal in every bit, {near} near (at most {farthest:.1e} off), {} wrong",
        wrong.len()
    ));
    wrong
}

/// What is known of a card by its name.
pub(crate) fn known_card(card: &Card) -> Option<KnownCard> {
    let is_of = |known: &&KnownCard| {
        let mut words = known.name.split('-');
        let kind = words.next().unwrap_or_default();
        match words.next() {
            // RTX-4090 is named by its number, A100-80 by its memory.
            Some(number) if kind == "RTX" => card.name.contains(number),
            Some(_) => {
                card.name.contains(kind) && card.memory.abs_diff(known.memory) < known.memory / 4
            }
            None => card.name.contains(kind),
        }
    };
    GPUS.iter().find(is_of).cloned()
}

/// Prints how each preset trains on the cards, if it does.
fn presets(cards: &[Card]) {
    let Some(free) = cards.iter().map(|card| card.memory).min() else { return };
    for preset in PRESETS {
        let Ok(config) = ModelConfig::preset(preset) else { continue };
        let line = match fit::first_way(&config, cards.len(), BATCH, false, free) {
            Some(way) => {
                let again = match way.settings.recompute {
                    Recompute::None => "nothing computed again",
                    Recompute::NormSwiglu => "norms and SwiGLU computed again",
                    Recompute::Full => "layers computed again",
                };
                let host = match way.pinned {
                    0 => String::new(),
                    pinned => format!(", {} of the host's memory a card", format_bytes(pinned)),
                };
                let bytes = format_bytes(way.bytes);
                let (samples, tokens) = (way.samples, config.seq_len);
                format!("fits     {samples} × {tokens} tokens at once, {again}: {bytes}{host}")
            }
            None => "does not fit".to_owned(),
        };
        print(&format!("{preset:<12} {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_what_the_driver_calls_them() {
        let known = |name: &str, gib: u64| {
            let card = Card {
                index: 0,
                name: name.to_owned(),
                memory: gib << 30,
                capability: 90,
                multiprocessors: 132,
            };
            known_card(&card).map(|known| known.name)
        };
        assert_eq!(known("NVIDIA H200", 140), Some("H200"));
        assert_eq!(known("NVIDIA H100 80GB HBM3", 79), Some("H100-80"));
        assert_eq!(known("NVIDIA A100-SXM4-40GB", 39), Some("A100-40"));
        assert_eq!(known("NVIDIA A100-SXM4-80GB", 79), Some("A100-80"));
        assert_eq!(known("NVIDIA GeForce RTX 4090", 24), Some("RTX-4090"));
        assert_eq!(known("NVIDIA L40S", 45), Some("L40S"));
        assert_eq!(known("NVIDIA T4", 15), None);
    }
}
