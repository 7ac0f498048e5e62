//! What the view functions answer.

use alloc::vec::Vec;

use codec::{Decode, Encode};
use protocol::{
    consensus::Standing, emission::Pots, fault::ProvenFault, fixed::Q32, window::Moment,
    BlockNumber, Hash, Planck, Uid, ValidatorIndex, Window,
};
use scale_info::TypeInfo;

use super::{Announcement, DataChallenges, EvaluationDispute, Miner, Validator};

/// Where a run is, as the view function `phase` answers.
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct PhaseInfo {
    /// The current block.
    pub block: BlockNumber,
    /// Its window and phases; `None` before the run's first block.
    pub moment: Option<Moment>,
    /// The next block in which a phase begins; `None` past the last block number.
    pub next_boundary: Option<BlockNumber>,
}

/// What a miner trains on in the current window, as the view function `assignment` answers.
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The window.
    pub window: Window,
    /// The seed behind the draws of the window.
    pub seed: Hash,
    /// How many samples the miner has in all.
    pub sample_count: u64,
    /// The samples of the page, in the order of training, as numbers in the data set.
    pub samples: Vec<u64>,
}

/// A miner's score, as the view function `standing` answers.
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct StandingInfo {
    /// The score over time, as of the last settlement.
    pub standing: Standing,
    /// The standing as one number, F.
    pub value: Q32,
    /// The part of the miners' pot in the last settled window.
    pub share: Q32,
}

/// What a run costs the account that creates it, as the view function `run_cost` answers.
#[derive(Encode, Decode, TypeInfo, Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunCost {
    /// Held of the owner until the run is removed, in planck.
    pub deposit: Planck,
    /// Goes to the run's account, which it keeps alive, in planck: the existential deposit. As much must be left to the
    /// owner.
    pub foundation: Planck,
}

/// What a run owes an account, as the view function `claimable` answers.
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct Claimable {
    /// What `claim` would transfer now, in planck.
    pub now: Planck,
    /// What will be due later, in planck.
    pub later: Planck,
}

/// What a settled window credited, as the view function `pay` answers. Who was credited nothing is not listed.
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct WindowPay {
    /// The sum of each group, in planck; the owner's is all that the owner got.
    pub paid: Pots,
    /// The miners' pay by uid, in planck.
    pub miners: Vec<(Uid, Planck)>,
    /// The validators' pay by index, in planck, with what their nominators got of it.
    pub validators: Vec<(ValidatorIndex, Planck)>,
}

/// What a settled window credited to the holder of a seat, as the view function `pay_history` answers.
#[derive(Encode, Decode, TypeInfo, Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeatPay {
    /// The window.
    pub window: Window,
    /// Its pay, in planck; of a validator with what its nominators got of it.
    pub amount: Planck,
}

/// What is disputed and proven of a window, as the view function `disputes` answers; of each list the first
/// [`VIEW_PAGE`](crate::view::VIEW_PAGE).
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct Disputes<AccountId> {
    /// The chunks that are asked for, by uid.
    pub challenges: Vec<(Uid, DataChallenges<AccountId>)>,
    /// The evaluations that are before a jury, by validator and miner.
    pub evaluations: Vec<((ValidatorIndex, Uid), EvaluationDispute<AccountId>)>,
    /// The faults that are proven, by uid.
    pub faults: Vec<(Uid, ProvenFault)>,
}

/// A page of the participants of a run, as the view function `metagraph` answers.
#[derive(Encode, Decode, TypeInfo, Clone, PartialEq, Eq, Debug)]
pub struct Metagraph<AccountId> {
    /// The current window; `None` before the run's first block.
    pub window: Option<Window>,
    /// How many pages there are.
    pub pages: u32,
    /// The miners of the page by uid.
    pub miners: Vec<(Uid, Miner<AccountId>)>,
    /// The validators by index, all of them in page 0.
    pub validators: Vec<(ValidatorIndex, Validator<AccountId>)>,
    /// How to reach those of the page, by hot key.
    pub announcements: Vec<(AccountId, Announcement)>,
}
