//! Lists the kinds of miners: what each sends, what that is worth, and what it costs.

use protocol::Window;

use crate::{chain::KEEP, random::Random, truth::Gain};

/// What a miner does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Conduct {
    /// Trains as the protocol asks.
    Honest,
    /// Trains with half of the effect.
    Weak,
    /// Trains as well as the honest, and varies five times as much.
    Noisy,
    /// Trained once, and sends that update again and again under new bytes.
    Lazy,
    /// Sends what harms the model.
    Garbage,
    /// Sends again the payload that an honest miner revealed in the window before.
    Copier,
    /// Lazy, and comes back as a newcomer every ten windows, before the gate of the proof closes.
    FreeRider,
    /// Honest, and comes back as a newcomer every ten windows.
    Returning,
    /// Honest, joins in window 30.
    Newcomer,
    /// Honest, leaves at random after 25 windows on average, and another takes its place.
    Churning,
    /// One of `uids` that send one computation, trained on the samples of all of them, each under its own bytes.
    NearCopy {
        /// The uids of the owner.
        uids: u8,
        /// Of the [`KEEP`] positions of an update, those that it has in common with the owner's first one.
        common: u8,
    },
    /// One of `uids` that train with an equal part of one machine each.
    Split {
        /// The uids of the owner.
        uids: u8,
    },
    /// Sends garbage that colluding validators praise.
    Praised,
    /// Honest, and has the better of two draws of samples where its owner's validator chooses.
    Favoured,
}

/// Windows between two registrations of who comes back again and again.
const RETURN_WINDOWS: Window = 10;
/// The window in which a newcomer joins.
pub const NEWCOMER_WINDOW: Window = 30;
/// What an old update still gains, in typical gains: an assumption, from the audit of the pallet.
const STALE: f64 = 0.8;
/// What a machine that computes nothing costs beside one that trains.
pub const IDLE_COST: f64 = 0.02;

impl Conduct {
    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Conduct::Honest => "honest".into(),
            Conduct::Weak => "weak".into(),
            Conduct::Noisy => "noisy".into(),
            Conduct::Lazy => "lazy".into(),
            Conduct::Garbage => "garbage".into(),
            Conduct::Copier => "copier".into(),
            Conduct::FreeRider => "free rider".into(),
            Conduct::Returning => "returning".into(),
            Conduct::Newcomer => "newcomer".into(),
            Conduct::Churning => "churning".into(),
            Conduct::NearCopy { uids, common } => {
                format!("near copy of {uids} with {common}/{KEEP}")
            }
            Conduct::Split { uids } => format!("split of {uids}"),
            Conduct::Praised => "praised garbage".into(),
            Conduct::Favoured => "favoured".into(),
        }
    }

    /// What its owner computes for all its uids together, in honest miners.
    pub fn cost(self) -> f64 {
        match self {
            Conduct::Weak => 0.5,
            Conduct::Lazy
            | Conduct::Garbage
            | Conduct::Copier
            | Conduct::FreeRider
            | Conduct::Praised => IDLE_COST,
            _ => 1.0,
        }
    }

    /// How many uids an owner has.
    pub fn uids(self) -> u8 {
        match self {
            Conduct::NearCopy { uids, .. } | Conduct::Split { uids } => uids,
            _ => 1,
        }
    }

    /// Whether it does what the protocol asks, as well as it can.
    pub fn is_honest(self) -> bool {
        matches!(
            self,
            Conduct::Honest
                | Conduct::Weak
                | Conduct::Noisy
                | Conduct::Newcomer
                | Conduct::Churning
        )
    }

    /// What its update of a window is worth.
    pub fn gain(self, random: &mut Random) -> Gain {
        match self {
            Conduct::Weak => Gain::trained(0.5, 0.1 * random.normal()),
            Conduct::Noisy => Gain::trained(1.0, 0.5 * random.normal()),
            Conduct::Lazy | Conduct::FreeRider | Conduct::Copier => {
                Gain::untrained(STALE * (1.0 + 0.1 * random.normal()))
            }
            Conduct::Garbage | Conduct::Praised => {
                Gain::untrained(-0.5 * (1.0 + 0.1 * random.normal()))
            }
            // One computation over the samples of all: the bonus is divided.
            Conduct::NearCopy { uids, .. } => {
                let whole = Gain::trained(1.0, 0.1 * random.normal());
                let own = whole.random + (whole.own - whole.random) / f64::from(uids);
                Gain { own, ..whole }
            }
            // A part of the steps gains as its square root.
            Conduct::Split { uids } => {
                Gain::trained(f64::from(uids).sqrt().recip(), 0.1 * random.normal())
            }
            _ => Gain::trained(1.0, 0.1 * random.normal()),
        }
    }

    /// Whether it leaves and registers anew at the beginning of a window, `age` windows after it registered.
    pub fn comes_back(self, age: Window, random: &mut Random) -> bool {
        match self {
            Conduct::FreeRider | Conduct::Returning => age >= RETURN_WINDOWS,
            Conduct::Churning => age > 0 && random.unit() < 0.04,
            _ => false,
        }
    }

    /// The window in which it joins.
    pub fn joins(self) -> Window {
        if self == Conduct::Newcomer {
            NEWCOMER_WINDOW
        } else {
            0
        }
    }
}
