//! Declares the chain's one emission schedule, a trait of which a runtime chooses an implementation.

use core::marker::PhantomData;

use frame_support::traits::{
    fungible::{Inspect, Mutate},
    tokens::{Fortitude, Precision, Preservation},
    Get,
};
pub use protocol::emission::Halving;
use protocol::{BlockNumber, Planck};

/// Gives the chain's runs, all together, an amount for each block. It is divided among them by the weights that
/// [`Config::AdminOrigin`](crate::Config::AdminOrigin) sets; no run's settings reach it.
pub trait EmissionSchedule<AccountId> {
    /// Planck that the blocks before `block` give together: never falls, and below 2^96. An upgrade may change what
    /// blocks to come give, not what past ones gave.
    fn through(block: BlockNumber) -> Planck;

    /// Puts up to `amount` into `account` and returns how much arrived. Must not fail: a source that is empty gives less,
    /// and a window pays less. The pallet asks for no more than [`Self::through`] allows.
    fn draw(account: &AccountId, amount: Planck) -> Planck;

    /// Takes up to `amount` back out of `account`, which nobody earned, and returns how much.
    fn give_back(account: &AccountId, amount: Planck) -> Planck;
}

/// No emission: runs live on their sponsors alone.
impl<AccountId> EmissionSchedule<AccountId> for () {
    fn through(_block: BlockNumber) -> Planck {
        0
    }

    fn draw(_account: &AccountId, _amount: Planck) -> Planck {
        0
    }

    fn give_back(_account: &AccountId, _amount: Planck) -> Planck {
        0
    }
}

/// Mints: the emission is new money by the numbers of `Schedule`, and never more in all than its cap. What comes back is
/// destroyed, and not minted again.
pub struct HalvingMint<Currency, Schedule>(PhantomData<(Currency, Schedule)>);

impl<AccountId: Eq, Currency, Schedule> EmissionSchedule<AccountId>
    for HalvingMint<Currency, Schedule>
where
    Currency: Mutate<AccountId> + Inspect<AccountId, Balance = Planck>,
    Schedule: Get<Halving>,
{
    fn through(block: BlockNumber) -> Planck {
        Schedule::get().through(block)
    }

    fn draw(account: &AccountId, amount: Planck) -> Planck {
        Currency::mint_into(account, amount).unwrap_or(0)
    }

    fn give_back(account: &AccountId, amount: Planck) -> Planck {
        let kept = Preservation::Preserve;
        Currency::burn_from(account, amount, kept, Precision::BestEffort, Fortitude::Polite)
            .unwrap_or(0)
    }
}

/// Draws on one account until it is empty, `PerBlock` planck for each block at most. What comes back is there again, for
/// blocks to come.
pub struct Pot<Currency, Source, PerBlock>(PhantomData<(Currency, Source, PerBlock)>);

impl<Currency, Source, PerBlock> Pot<Currency, Source, PerBlock> {
    /// Moves as much of `amount` as `from` can give without dying.
    fn transfer<AccountId: Eq>(from: &AccountId, to: &AccountId, amount: Planck) -> Planck
    where
        Currency: Mutate<AccountId> + Inspect<AccountId, Balance = Planck>,
    {
        let available =
            Currency::reducible_balance(from, Preservation::Preserve, Fortitude::Polite);
        Currency::transfer(from, to, amount.min(available), Preservation::Preserve).unwrap_or(0)
    }
}

impl<AccountId: Eq, Currency, Source, PerBlock> EmissionSchedule<AccountId>
    for Pot<Currency, Source, PerBlock>
where
    Currency: Mutate<AccountId> + Inspect<AccountId, Balance = Planck>,
    Source: Get<AccountId>,
    PerBlock: Get<Planck>,
{
    fn through(block: BlockNumber) -> Planck {
        PerBlock::get().saturating_mul(block.into())
    }

    fn draw(account: &AccountId, amount: Planck) -> Planck {
        Self::transfer(&Source::get(), account, amount)
    }

    fn give_back(account: &AccountId, amount: Planck) -> Planck {
        Self::transfer(account, &Source::get(), amount)
    }
}
