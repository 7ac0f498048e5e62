//! The cards of this machine as the engine's GPUs, and which of them are meant.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::check;
use super::collective::Collective;
use super::cubins::Cubins;
use super::found::{self, Library};
use super::gpu::GpuError;
use super::hardware::{self, Card, Hardware};
use super::memory;
use super::nccl;
use super::seats::{Gpus, Seat};

/// Which cards are meant: all, or some by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chosen(u64);

impl Chosen {
    /// All of them.
    pub const ALL: Self = Self(0);

    /// The numbers, in order; empty means all.
    pub fn numbers(self) -> Vec<usize> {
        (0..u64::BITS as usize).filter(|number| self.0 >> number & 1 == 1).collect()
    }
}

impl FromStr for Chosen {
    type Err = String;

    /// Reads numbers with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut chosen = 0u64;
        for part in text.split(',') {
            let number: u32 = part
                .trim()
                .parse()
                .ok()
                .filter(|number| *number < u64::BITS)
                .ok_or_else(|| format!("{part:?} is not the number of a card, from 0 to 63"))?;
            if chosen >> number & 1 == 1 {
                return Err(format!("card {number} is named twice"));
            }
            chosen |= 1 << number;
        }
        Ok(Self(chosen))
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers().iter().map(ToString::to_string).collect::<Vec<_>>();
        f.write_str(&numbers.join(","))
    }
}

/// Cards that are there, a rank each.
#[derive(Debug)]
pub struct Cards {
    cards: Vec<Card>,
    cubins: Cubins,
}

impl Cards {
    /// Finds the cards that are meant.
    ///
    /// # Errors
    /// There is no driver, no card, or not the ones meant.
    pub fn find(chosen: Chosen) -> Result<Self, GpuError> {
        let mut cards = hardware::cards()?;
        let (numbers, count) = (chosen.numbers(), cards.len());
        if let Some(index) = numbers.iter().copied().find(|number| *number >= count) {
            return Err(GpuError::NoGpu { index, count });
        }
        if !numbers.is_empty() {
            cards.retain(|card| numbers.contains(&card.index));
        }
        Ok(Self { cards, cubins: Cubins::of_user() })
    }

    /// What the driver tells of each.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// Opens each and checks it against what the emulator computed.
    ///
    /// # Errors
    /// A card does not open, or computes something else.
    pub fn check(&self) -> Result<(), GpuError> {
        for card in &self.cards {
            let gpu = Hardware::open(card.index, &self.cubins)?;
            for (name, outputs) in check::run(&gpu)? {
                let findings = check::compare(&outputs?);
                if let Some(finding) = findings.iter().find(|finding| !finding.agrees) {
                    return Err(GpuError::Failed {
                        call: format!("the check of {name} on card {}", card.index),
                        reason: format!("{} differs from what it should be", finding.name),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Gpus for Cards {
    fn name(&self) -> String {
        let first = self.cards.first().map_or("no card", |card| &card.name);
        match self.cards.len() {
            1 => first.to_owned(),
            count => format!("{count} × {first}"),
        }
    }

    fn memory(&self) -> (usize, u64) {
        let memories = self.cards.iter().map(|card| card.memory);
        (self.cards.len(), memories.min().unwrap_or(0))
    }

    fn open(&self) -> Result<Vec<Seat>, GpuError> {
        let collectives = join(self.cards.len())?;
        let seat = |(card, collective): (&Card, _)| {
            let gpu = Box::new(Hardware::open(card.index, &self.cubins)?);
            Ok(Seat { gpu, collective })
        };
        self.cards.iter().zip(collectives).map(seat).collect()
    }
}

/// What joins so many cards: nothing, or NCCL.
fn join(world: usize) -> Result<Vec<Box<dyn Collective>>, GpuError> {
    if world > 1 {
        let found = found::need(Library::Nccl)?;
        let folder = found.path.as_deref().and_then(Path::parent).map(Path::to_owned);
        let functions = nccl::Functions::open(folder.as_slice())?;
        let ends = nccl::join(functions, world)?.into_iter();
        return Ok(ends.map(|end| Box::new(end) as Box<dyn Collective>).collect());
    }
    // One rank exchanges nothing but numbers of the host.
    let alone = memory::join(world).into_iter();
    Ok(alone.map(|end| Box::new(end) as Box<dyn Collective>).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_chosen_by_their_numbers() {
        assert_eq!("0,2, 5".parse::<Chosen>().unwrap().numbers(), [0, 2, 5]);
        assert_eq!("63".parse::<Chosen>().unwrap().to_string(), "63");
        assert_eq!(Chosen::ALL.numbers(), [0usize; 0]);
        for wrong in ["", "64", "-1", "0,0", "a", "1,"] {
            assert!(wrong.parse::<Chosen>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_cards_the_cause_is_named() {
        if let Err(error) = Cards::find(Chosen::ALL) {
            assert!(error.to_string().contains("libcuda") || error.to_string().contains("GPU"));
        }
    }
}
