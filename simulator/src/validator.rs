//! Lists the kinds of validators: what each attests and which scores it reveals.

use protocol::{consensus::Evaluation, Uid};

use crate::{
    miner::{Conduct, IDLE_COST},
    random::Random,
    truth::{Gain, TYPICAL},
};

/// What a validator does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Validation {
    /// Measures what it is assigned, and attests what it saw.
    Honest,
    /// Measures nothing, and reveals the medians of the window before.
    Repeating,
    /// Measures nothing, and reveals what the first validator revealed of the window before.
    Copying,
    /// Honest, reveals its scores in every second window.
    Absent,
    /// Honest, sees the draw of samples with its salt and without it, and keeps it back where its owner's miners would
    /// gain more without it: by more than so many standard deviations of the difference.
    Grinding {
        /// The standard deviations.
        deviations: u8,
    },
    /// Praises the garbage of its friends, and says of everybody else that it harms.
    Colluding,
    /// Honest in its scores, and attests that no payload can be had.
    Blaming,
}

impl Validation {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Validation::Honest => "honest",
            Validation::Repeating => "repeats medians",
            Validation::Copying => "copies scores",
            Validation::Absent => "absent half",
            Validation::Grinding { deviations: 0 } => "salt grinder",
            Validation::Grinding { .. } => "rare salt grinder",
            Validation::Colluding => "colluding",
            Validation::Blaming => "blaming",
        }
    }

    /// What it computes, in honest validators.
    pub fn cost(self) -> f64 {
        match self {
            Validation::Repeating | Validation::Copying | Validation::Colluding => IDLE_COST,
            _ => 1.0,
        }
    }

    /// Whether it attests that a miner's payload can be had.
    pub fn attests(self, miner: Conduct) -> bool {
        match self {
            Validation::Blaming => false,
            Validation::Colluding => miner == Conduct::Praised,
            _ => true,
        }
    }

    /// Whether it reveals the scores that it committed to. `better` is what the other draw would give its miners more,
    /// in standard deviations.
    pub fn reveals(self, better: f64, random: &mut Random) -> bool {
        match self {
            Validation::Absent => random.unit() < 0.5,
            Validation::Grinding { deviations } => better <= f64::from(deviations),
            _ => true,
        }
    }
}

/// What is known of one miner's update when it is scored.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its slot.
    pub uid: Uid,
    /// Who it is.
    pub conduct: Conduct,
    /// What it is worth.
    pub gain: Gain,
    /// The medians of the window before, in typical gains, if its uid had any.
    pub before: Option<Gain>,
}

impl Validation {
    /// What it says of an update; `None` if nothing. `copied` is what the first validator said of the uid in the window before.
    pub fn score(
        self,
        seen: &Seen,
        scale: f64,
        copied: Option<&Evaluation>,
        random: &mut Random,
    ) -> Option<Evaluation> {
        match self {
            Validation::Repeating => seen.before.map(|gain| gain.claimed(seen.uid)),
            Validation::Copying => copied.cloned(),
            Validation::Colluding => {
                let says = if seen.conduct == Conduct::Praised { 2.0 } else { -1.0 };
                Some(Gain::trained(says, 0.0).claimed(seen.uid))
            }
            _ => Some(seen.gain.measured(seen.uid, scale, random)),
        }
    }
}

/// A median of the chain, in typical gains.
pub fn in_typical_gains(own: f64, random: f64) -> Gain {
    Gain { own: own / TYPICAL, random: random / TYPICAL }
}
