//! Draws what moves the money of participants: stakes, delegations, bonds and pay, also of runs that are gone.

use pallet_gauntlet::{
    Call, Claims, Delegation, Delegations, Departures, PoolId, Pools, Unbondings,
};
use protocol::{Planck, RunId, Uid, Window};
use runtime::{AccountId, Gauntlet, Runtime, UNIT};

use super::{Drawn, Scene, Script};

/// What names a delegation.
type DelegationName = (RunId, PoolId, AccountId);

impl Script {
    /// One of the calls of this file.
    pub(super) fn of_money(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        match self.draws.below(26) {
            0..=2 => {
                let amount = self.amount();
                let (index, cold) = self.validator_and_cold(run);
                Drawn::signed(cold, Call::add_stake { run, index, amount })
            }
            3 | 4 => {
                let amount = self.amount();
                let (index, cold) = self.validator_and_cold(run);
                Drawn::signed(cold, Call::unstake { run, index, amount })
            }
            5..=7 => {
                let amount = self.amount();
                let index = self.validator(run).map_or(0, |(index, _)| index);
                Drawn::signed(self.somebody(), Call::delegate { run, index, amount })
            }
            8..=10 => self.undelegate(),
            11..=13 => self.withdraw_unbonded(),
            14 => {
                let take_ppm = self.draws.below(200_000) as u32;
                let (index, cold) = self.validator_and_cold(run);
                Drawn::signed(cold, Call::set_take { run, index, take_ppm })
            }
            15 | 16 => self.compound(),
            17 | 18 => self.withdraw_bond(scene),
            19..=23 => {
                let (run, account) = self.claimant(run);
                Drawn::signed(self.somebody(), Call::claim { run, account })
            }
            _ => {
                let count = 1 + self.draws.below(4);
                let claims: Vec<_> = (0..count).map(|_| self.claimant(run)).collect();
                let claims = claims.try_into().expect("a batch fits");
                Drawn::signed(self.somebody(), Call::claim_many { claims })
            }
        }
    }

    /// Mostly sensible, now and then nothing or what nobody has.
    fn amount(&mut self) -> Planck {
        match self.draws.below(12) {
            0 => 0,
            1 => 10_000_000 * UNIT,
            2 => Planck::from(1 + self.draws.below(1_000)),
            _ => Planck::from(1 + self.draws.below(200)) * UNIT,
        }
    }

    /// A delegation of any run; of those that `fits` if there are any.
    fn delegation(
        &mut self,
        fits: impl Fn(&Delegation) -> bool,
    ) -> Option<(DelegationName, Delegation)> {
        self.pick(Delegations::<Runtime>::iter().filter(|(_, delegation)| fits(delegation)))
    }

    fn undelegate(&mut self) -> Drawn {
        let found = self.delegation(|delegation| delegation.shares > 0);
        let stranger = self.somebody();
        let ((run, pool, who), delegation) =
            found.unwrap_or(((0, 0, stranger), Default::default()));
        let shares = match self.draws.below(6) {
            0 => delegation.shares + 1,
            1 => 0,
            2 | 3 => delegation.shares,
            _ => delegation.shares / u128::from(2 + self.draws.below(8)),
        };
        Drawn::signed(who, Call::undelegate { run, pool, shares })
    }

    /// Of the money that left pools, mostly what left them first.
    fn withdraw_unbonded(&mut self) -> Drawn {
        if self.draws.one_in(2) {
            let found = self.delegation(|delegation| !delegation.unbonding.is_empty());
            if let Some(((run, pool, who), _)) = found {
                return Drawn::signed(who, Call::withdraw_unbonded { run, pool });
            }
        }
        let own = Unbondings::<Runtime>::iter().filter(|(_, unbonding)| unbonding.own > 0);
        let (run, pool) = self.pick(own.map(|((run, pool, _), _)| (run, pool))).unwrap_or_default();
        let cold = Pools::<Runtime>::get(run, pool).map(|pool| pool.cold);
        Drawn::signed(self.mostly(cold), Call::withdraw_unbonded { run, pool })
    }

    /// Of a pool whose nominators are owed something, mostly.
    fn compound(&mut self) -> Drawn {
        let any = self.draws.one_in(4);
        let is_owed = |run: RunId, id: PoolId| {
            any || Claims::<Runtime>::contains_key(run, Gauntlet::pool_account(run, id))
        };
        let found = Pools::<Runtime>::iter_keys().filter(|(run, id)| is_owed(*run, *id));
        let (run, pool) = self.pick(found).unwrap_or_default();
        Drawn::signed(self.somebody(), Call::compound { run, pool })
    }

    fn withdraw_bond(&mut self, scene: &Scene) -> Drawn {
        let any = self.draws.one_in(4);
        let is_due = |run: RunId, due: Window| any || run != scene.run || due <= scene.window();
        let found = Departures::<Runtime>::iter().filter(|(run, _, gone)| is_due(*run, gone.due));
        let name: Option<(RunId, (Uid, Window))> = self.pick(found.map(|(run, key, _)| (run, key)));
        let (run, (uid, registered_window)) = name.unwrap_or_default();
        Drawn::signed(self.somebody(), Call::withdraw_bond { run, uid, registered_window })
    }

    /// Somebody whom a run owes something, mostly.
    fn claimant(&mut self, run: RunId) -> (RunId, AccountId) {
        let owed = self.pick(Claims::<Runtime>::iter_key_prefix(run));
        (run, self.mostly(owed))
    }
}
