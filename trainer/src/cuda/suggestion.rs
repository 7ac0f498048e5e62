//! What would fit where something does not: fewer samples, another way to train, more cards, a smaller model. Each is
//! asked of the plan that the engine allocates by.

use super::fit::{self, beside, first_way, samples_that_fit};
use super::plan::Recompute;
use super::settings::CudaSettings;
use crate::budget::quantity::format_bytes;
use crate::model::config::{ModelConfig, PRESETS};

/// Numbers of cards that are suggested.
const WORLDS: [usize; 4] = [2, 4, 8, 16];

/// Cards, and the bytes that are free on each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) world: usize,
    pub(super) free: u64,
}

/// A way to train, in words.
fn way(settings: CudaSettings) -> String {
    let again = match settings.recompute {
        Recompute::None => "nothing computed again",
        Recompute::NormSwiglu => "norms and SwiGLU computed again",
        Recompute::Full => "layers computed again",
    };
    let offload = if settings.offload { " and states in the host's memory" } else { "" };
    format!("{again}{offload}")
}

/// What would train where `samples` samples of a model at once do not, in the way `settings` if one was chosen.
pub(super) fn training(
    config: &ModelConfig,
    samples: usize,
    muon: bool,
    settings: Option<CudaSettings>,
    room: Room,
) -> String {
    let Room { world, free } = room;
    let mut found = Vec::new();
    let fewer = match settings {
        Some(settings) => samples_that_fit(config, world, samples, settings, muon, free),
        None => first_way(config, world, samples, muon, free),
    };
    if let Some(fit) = fewer {
        found.push(format!(
            "{} at once (--micro-batch {})",
            count(fit.samples, "sample"),
            fit.samples
        ));
    }
    if let Some(fit) = first_way(config, world, samples, muon, free) {
        if settings.is_some_and(|chosen| chosen != fit.settings) {
            found.push(format!(
                "{} at once with {}",
                count(fit.samples, "sample"),
                way(fit.settings)
            ));
        }
    }
    let holds = |world: usize| first_way(config, world, 1, muon, free);
    let more =
        WORLDS.into_iter().filter(|more| *more > world).find_map(|more| Some((more, holds(more)?)));
    if let (true, Some((more, fit))) = (found.is_empty(), more) {
        found.push(format!("{more} such cards with {}", way(fit.settings)));
    }
    let of_preset = |config: &ModelConfig| {
        first_way(config, world, 1, muon, free).map(|fit| fit.bytes + beside(world))
    };
    found.extend(preset(config, &of_preset));
    said(&found)
}

/// What would be evaluated where `samples` samples of a model at once are not.
pub(super) fn prediction(
    config: &ModelConfig,
    samples: usize,
    updates: bool,
    room: Room,
) -> String {
    let Room { world, free } = room;
    let needs = |config: &ModelConfig, world: usize, samples: usize| {
        let bytes = fit::prediction_plan(config, world, samples, updates).bytes() + beside(world);
        (bytes <= free).then_some(bytes)
    };
    let mut found = Vec::new();
    if let Some(fewer) = (1..samples).rev().find(|fewer| needs(config, world, *fewer).is_some()) {
        found.push(format!("{} at once", count(fewer, "sample")));
    }
    let more = WORLDS.into_iter().find(|more| *more > world && needs(config, *more, 1).is_some());
    if let (true, Some(more)) = (found.is_empty(), more) {
        found.push(format!("{more} such cards"));
    }
    found.extend(preset(config, &|config| needs(config, world, 1)));
    said(&found)
}

/// The largest preset smaller than a model that `bytes` says fits, with what it takes.
fn preset(config: &ModelConfig, bytes: &dyn Fn(&ModelConfig) -> Option<u64>) -> Option<String> {
    let fits = |name: &&str| {
        let preset = ModelConfig::preset(name).ok()?;
        let parameters = preset.parameter_count();
        let fits = (parameters < config.parameter_count()).then(|| bytes(&preset)).flatten()?;
        Some((parameters, fits, (*name).to_owned()))
    };
    let (_, bytes, name) = PRESETS.iter().filter_map(fits).max()?;
    Some(format!("the preset {name} ({} of each card)", format_bytes(bytes)))
}

fn count(samples: usize, what: &str) -> String {
    format!("{samples} {what}{}", if samples == 1 { "" } else { "s" })
}

fn said(found: &[String]) -> String {
    match found {
        [] => "nothing that is known would fit".to_owned(),
        found => format!("what would fit: {}", found.join("; or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelConfig {
        ModelConfig::preset(name).unwrap()
    }

    #[test]
    fn what_is_suggested_fits() {
        // An H100 does not train 8B with its states on the card.
        let room = Room { world: 1, free: 81_559 << 20 };
        let chosen = CudaSettings { recompute: Recompute::NormSwiglu, offload: false };
        let said = training(&model("8B"), 4, false, Some(chosen), room);
        let fit = first_way(&model("8B"), 1, 4, false, room.free).unwrap();
        let words = "with layers computed again and states in the host's memory";
        assert!(
            said.contains(&format!("{} at once {words}", count(fit.samples, "sample"))),
            "{said}"
        );
        assert!(said.contains("or the preset 1B ("), "{said}");
        // Nor covenant-72b in any way, which eight do.
        let said = training(&model("covenant-72b"), 1, false, None, room);
        assert!(said.contains("8 such cards with layers computed again and states"), "{said}");
        assert!(first_way(&model("covenant-72b"), 4, 1, false, room.free).is_none());
        assert!(first_way(&model("covenant-72b"), 8, 1, false, room.free).is_some());
        // Fewer samples do where many do not.
        let said = training(&model("1B"), 64, false, None, room);
        let fit = first_way(&model("1B"), 1, 64, false, room.free).unwrap();
        assert!(said.contains(&format!("(--micro-batch {})", fit.samples)), "{said}");
        assert_eq!(
            training(&model("nano"), 1, false, None, Room { world: 16, free: 1 }),
            "nothing that is known would fit"
        );
    }

    #[test]
    fn an_evaluation_is_told_of_fewer_samples_or_more_cards() {
        let config = model("8B");
        let bytes = |samples| fit::prediction_plan(&config, 1, samples, true).bytes() + beside(1);
        let said = |free| prediction(&config, 8, true, Room { world: 1, free });
        assert!(
            said(bytes(3)).contains("what would fit: 3 samples at once; or"),
            "{}",
            said(bytes(3))
        );
        assert!(said(bytes(1) / 2 + beside(2)).contains("such cards; or the preset"));
    }
}
