//! The chain's emission and a run's money; mirrors the pallet's `emission`.

use protocol::{
    consensus::ConsensusError,
    emission::{
        add_claim, claim_due_window, fund, payable, release, split_emission, take_due, Accrual,
        Claim, FundError, Funded, Halving, Ledger, Pot, Pots, RunWeight, Sponsorship,
    },
    settings::Settings,
    AccountBytes, BlockNumber, Planck, Window,
};

use super::{
    super::UNIT,
    cost::EXISTENTIAL_DEPOSIT,
    refusal::{ensure, Refusal},
};

/// The runtime's schedule.
const SCHEDULE: Halving = Halving {
    start_block: 0,
    per_block: UNIT / 4,
    halving_blocks: 63_072_000,
    cap: 31_500_000 * UNIT,
};

/// The least that a sponsor puts in: the runtime's existential deposit.
const FUNDING_MIN: Planck = EXISTENTIAL_DEPOSIT;

/// What the chain's schedule gave so far, and to whom.
#[derive(Clone, Default)]
pub(super) struct ChainEmission {
    accrual: Accrual,
    emitted: Planck,
}

impl ChainEmission {
    /// Opens a run's window. Returns the budget of the one that ends.
    pub(super) fn open_window(&mut self, number: BlockNumber, weight: &mut RunWeight) -> Planck {
        self.accrual.advance(number, |block| SCHEDULE.through(block));
        weight.open_window(&mut self.accrual)
    }

    fn draw(&mut self, number: BlockNumber, budget: Planck) -> Planck {
        let drawn = budget.min(SCHEDULE.through(number).saturating_sub(self.emitted));
        self.emitted = self.emitted.saturating_add(drawn);
        drawn
    }
}

/// What a window got.
pub(super) struct WindowFunds {
    pub(super) minted: Planck,
    pub(super) funded: Planck,
    carried: Pots,
}

impl WindowFunds {
    /// What the window may pay.
    pub(super) fn payable(
        &self,
        settings: &Settings,
        has_final_root: bool,
    ) -> Result<Pots, ConsensusError> {
        let split = split_emission(&settings.emission, self.minted.saturating_add(self.funded))?;
        payable(&settings.emission, &split, &self.carried, has_final_root)
    }
}

/// A run's money.
#[derive(Clone, Default)]
pub(super) struct Money {
    /// There is none before governance set one.
    pub(super) weight: Option<RunWeight>,
    pub(super) sponsors: Vec<Sponsorship<AccountBytes>>,
    pub(super) claims: std::collections::BTreeMap<AccountBytes, Vec<Claim>>,
    pub(super) ledger: Ledger,
}

impl Money {
    /// Brings a window its budget of the schedule and what the sponsors release.
    pub(super) fn fund_window(
        &mut self,
        chain: &mut ChainEmission,
        number: BlockNumber,
        budget: Planck,
        settings: &Settings,
    ) -> Result<WindowFunds, ConsensusError> {
        let carried = self.ledger.carried();
        let minted = chain.draw(number, budget);
        let funded = release(&mut self.sponsors);
        let split = split_emission(&settings.emission, minted.saturating_add(funded))?;
        let received = self.ledger.receive(minted, funded, &split);
        received.map_err(|_| ConsensusError::Overflow("ledger"))?;
        Ok(WindowFunds { minted, funded, carried })
    }

    /// Moves `amount` from what a group carries to what `account` may claim. Returns what was moved.
    pub(super) fn credit(
        &mut self,
        pot: Pot,
        account: AccountBytes,
        due: Window,
        amount: Planck,
    ) -> Planck {
        if amount == 0 || self.ledger.credit(pot, amount).is_err() {
            return 0;
        }
        add_claim(self.claims.entry(account).or_default(), due, amount);
        amount
    }

    /// Takes out what `account` may claim in window `now`.
    pub(super) fn claim(&mut self, account: &AccountBytes, now: Window) -> Result<Planck, Refusal> {
        let amount = self.claims.get_mut(account).map_or(0, |claims| take_due(claims, now));
        ensure(amount > 0, "NothingClaimable")?;
        self.claims.retain(|_, claims| !claims.is_empty());
        self.ledger.pay(amount).map_err(|_| Refusal::gauntlet("Internal"))?;
        Ok(amount)
    }

    /// Takes in what a sponsor brings.
    pub(super) fn fund(
        &mut self,
        sponsor: AccountBytes,
        amount: Planck,
        per_window: Planck,
    ) -> Result<(), Refusal> {
        ensure(amount >= FUNDING_MIN, "FundingTooSmall")?;
        let funded = fund(&mut self.sponsors, &sponsor, amount, per_window).map_err(refused)?;
        let internal = |_| Refusal::gauntlet("Internal");
        self.ledger.deposit(amount).map_err(internal)?;
        if let Funded::Replaced(other, left) = funded {
            self.ledger.refund(left).map_err(internal)?;
            add_claim(self.claims.entry(other).or_default(), 0, left);
        }
        Ok(())
    }
}

/// The window from which on the pay of `window` can be claimed under its settings.
pub(super) fn due_window(window: Window, settings: &Settings) -> Window {
    claim_due_window(window, settings.incentive.claim_delay_windows)
}

fn refused(error: FundError) -> Refusal {
    Refusal::gauntlet(match error {
        FundError::Nothing => "FundingTooSmall",
        FundError::NoPlace => "TooManySponsors",
        FundError::Overflow => "Internal",
    })
}
