//! What fits a card: by the very plan that the engine allocates by.

use super::kernels::attention::HEAD_WIDTHS;
use super::layout::Layout;
use super::plan::{Plan, Recompute, Work};
use super::products::WORKSPACE;
use super::settings::CudaSettings;
use crate::budget::quantity::divisors;
use crate::model::config::ModelConfig;

/// Bytes of a card that are left to CUDA's context, to loaded kernels and to what the driver rounds up.
const LEFT: u64 = 1 << 30;

/// Bytes of a card that NCCL takes where there are several.
const NCCL: u64 = 1 << 30;

/// What each of `world` cards needs beside its plan, in bytes by name.
pub fn parts_beside(world: usize) -> [(&'static str, u64); 3] {
    let nccl = if world > 1 { NCCL } else { 0 };
    [("cuBLASLt's workspace", WORKSPACE), ("NCCL", nccl), ("CUDA context and kernels", LEFT)]
}

/// Bytes that each of `world` cards needs beside its plan.
pub fn beside(world: usize) -> u64 {
    parts_beside(world).iter().map(|(_, bytes)| bytes).sum()
}

/// The way that needs least of a card.
pub const LEAST: CudaSettings = CudaSettings { recompute: Recompute::Full, offload: true };

/// Ways to train, those first that compute least again and do without the host's memory.
const WAYS: [CudaSettings; 3] = [
    CudaSettings { recompute: Recompute::NormSwiglu, offload: false },
    CudaSettings { recompute: Recompute::Full, offload: false },
    LEAST,
];

/// How a model trains on cards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fit {
    /// What is computed again, and whether the host's memory helps.
    pub settings: CudaSettings,
    /// Samples of a card at once.
    pub samples: usize,
    /// Bytes that a card's plan has.
    pub bytes: u64,
    /// Bytes in the host's pinned memory for each card.
    pub pinned: u64,
}

/// The plan of each of `world` cards.
pub fn plan(
    config: &ModelConfig,
    world: usize,
    samples: usize,
    settings: CudaSettings,
    muon: bool,
) -> Plan {
    let CudaSettings { recompute, offload, .. } = settings;
    let work = Work { samples, training: true, recompute, muon, offload, changes: false };
    Plan::new(config, &Layout::new(config, world), work)
}

/// The plan of each of `world` cards that only predict, with room for what updates change or without.
pub fn prediction_plan(config: &ModelConfig, world: usize, samples: usize, changes: bool) -> Plan {
    Plan::new(config, &Layout::new(config, world), Work::prediction(samples, changes))
}

/// The most samples at once, of those that divide `batch`, with which training fits `free` bytes of each card.
pub fn samples_that_fit(
    config: &ModelConfig,
    world: usize,
    batch: usize,
    settings: CudaSettings,
    muon: bool,
    free: u64,
) -> Option<Fit> {
    let mut samples = divisors(batch.max(1) as u64);
    samples.sort_unstable();
    samples.into_iter().rev().find_map(|samples| {
        let samples = usize::try_from(samples).ok()?;
        let plan = plan(config, world, samples, settings, muon);
        let bytes = plan.bytes();
        (bytes + beside(world) <= free).then_some(Fit {
            settings,
            samples,
            bytes,
            pinned: plan.pinned,
        })
    })
}

/// The first way in which a model trains on such cards: what computes least again, and without the host's memory if it
/// can. `None` if it does in no way, or has heads that no kernel is for.
pub fn first_way(
    config: &ModelConfig,
    world: usize,
    batch: usize,
    muon: bool,
    free: u64,
) -> Option<Fit> {
    if !HEAD_WIDTHS.contains(&(config.head_dim() as u32)) {
        return None;
    }
    WAYS.into_iter()
        .find_map(|settings| samples_that_fit(config, world, batch, settings, muon, free))
}

/// The first way in which `samples` samples at once fit; the one that needs least of a card where none does.
pub fn way_for(
    config: &ModelConfig,
    world: usize,
    samples: usize,
    muon: bool,
    free: u64,
) -> CudaSettings {
    let needs = |settings| plan(config, world, samples, settings, muon).bytes() + beside(world);
    WAYS.into_iter().find(|settings| needs(*settings) <= free).unwrap_or(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_way_that_fits_is_taken() {
        let config = ModelConfig::preset("8B").unwrap();
        let way = |gib: u64| way_for(&config, 1, 1, false, gib << 30);
        assert_eq!(way(130), CudaSettings::default());
        assert_eq!(way(76), LEAST);
        assert_eq!(way(1), LEAST);
        assert!(plan(&config, 1, 1, LEAST, false).bytes() + beside(1) <= 76 << 30);
    }

    #[test]
    fn more_memory_fits_more_samples_and_never_more_than_it_has() {
        let config = ModelConfig::preset("135M").unwrap();
        let mut samples = 0;
        for gib in [4u64, 8, 16, 32, 64] {
            let Some(fit) = first_way(&config, 1, 16, false, gib << 30) else { continue };
            assert!(fit.bytes + beside(1) <= gib << 30);
            assert!(16 % fit.samples == 0);
            if fit.settings == CudaSettings::default() {
                assert!(fit.samples >= samples);
                samples = fit.samples;
            }
        }
        assert_eq!(samples, 16);
        assert_eq!(first_way(&config, 1, 16, false, 1 << 30), None);
    }

    #[test]
    fn an_8b_model_fits_one_h200() {
        let config = ModelConfig::preset("8B").unwrap();
        let fit = first_way(&config, 1, 4, false, 143_771 << 20).unwrap();
        assert_eq!(fit.settings.recompute, Recompute::NormSwiglu);
        assert!(!fit.settings.offload);
    }

    #[test]
    fn a_72b_model_fits_eight_cards_of_80_gb_with_the_hosts_memory() {
        let config = ModelConfig::preset("covenant-72b").unwrap();
        let fit = |mib: u64| first_way(&config, 8, 1, false, mib << 20);
        let large = fit(143_771).unwrap();
        assert!(!large.settings.offload, "{large:?}");
        let small = fit(81_559).unwrap();
        assert!(small.settings.offload, "{small:?}");
        // Lower halves and averages, 6 bytes a parameter, are with the host.
        assert!(small.pinned > 6 * config.parameter_count() / 8, "{small:?}");
    }
}
