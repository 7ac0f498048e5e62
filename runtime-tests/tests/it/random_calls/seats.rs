//! Draws who comes and goes, with which keys, and how to reach them.

use pallet_gauntlet::{Call, ColdOffers, MinerOf, Miners, ValidatorOf, Validators};
use protocol::{entry::Seat, Planck, RunId, Uid, ValidatorIndex};
use runtime::{AccountId, Runtime, UNIT};
use sp_core::Pair;

use super::{Drawn, Scene, Script};
use crate::network::{
    consent, miner_key, peer, register_miner, register_validator, validator_key, STAKE,
};

/// Hot keys of miners and of validators that seats are taken with.
const MINER_KEYS: u64 = 10;
const VALIDATOR_KEYS: u64 = 7;

impl Script {
    /// One of the calls of this file.
    pub(super) fn of_seats(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        match self.draws.below(40) {
            0..=5 => self.register_miner(run),
            // Seldom, as the keys of who left wait for their bond.
            7 if self.draws.one_in(2) => {
                let (uid, cold) = self.miner_and_cold(run);
                Drawn::signed(cold, Call::leave_miner { run, uid })
            }
            8 | 9 => {
                let uid = self.miner(run).map_or(0, |(uid, _)| uid);
                Drawn::signed(self.somebody(), Call::evict { run, uid })
            }
            10..=14 => self.register_validator(run),
            15 if self.draws.one_in(3) => {
                let (index, cold) = self.validator_and_cold(run);
                let who = if self.draws.one_in(4) { self.somebody() } else { cold };
                Drawn::signed(who, Call::deregister_validator { run, index })
            }
            16..=20 => self.announce(run),
            _ => self.of_keys(run),
        }
    }

    pub(super) fn miner(&mut self, run: RunId) -> Option<(Uid, MinerOf<Runtime>)> {
        self.pick(Miners::<Runtime>::iter_prefix(run))
    }

    pub(super) fn validator(
        &mut self,
        run: RunId,
    ) -> Option<(ValidatorIndex, ValidatorOf<Runtime>)> {
        self.pick(Validators::<Runtime>::iter_prefix(run))
    }

    /// A miner with its cold key, now and then with another one.
    fn miner_and_cold(&mut self, run: RunId) -> (Uid, AccountId) {
        let found = self.miner(run);
        let uid = found.as_ref().map_or(0, |(uid, _)| *uid);
        (uid, self.mostly(found.map(|(_, miner)| miner.cold)))
    }

    /// A validator with its cold key, now and then with another one.
    pub(super) fn validator_and_cold(&mut self, run: RunId) -> (ValidatorIndex, AccountId) {
        let found = self.validator(run);
        let index = found.as_ref().map_or(0, |(index, _)| *index);
        (index, self.mostly(found.map(|(_, validator)| validator.cold)))
    }

    fn register_miner(&mut self, run: RunId) -> Drawn {
        let hot = miner_key(self.draws.below(MINER_KEYS) as u8);
        let cold = self.somebody();
        // Now and then the consent is to work for somebody else.
        let consented = self.mostly(Some(cold.clone()));
        let call = register_miner(&hot, run, &consented);
        Drawn::signed(cold, call)
    }

    fn register_validator(&mut self, run: RunId) -> Drawn {
        let hot = validator_key(self.draws.below(VALIDATOR_KEYS) as u8);
        let cold = self.somebody();
        let stake = match self.draws.below(8) {
            0 => UNIT,
            _ => STAKE / 2 + Planck::from(self.draws.below(1_000)) * UNIT,
        };
        let call = register_validator(&hot, run, &cold, stake);
        Drawn::signed(cold, call)
    }

    /// Says how a hot key is reached; now and then the peer agreed to be somebody else's.
    fn announce(&mut self, run: RunId) -> Drawn {
        let hot = if self.draws.one_in(2) {
            self.miner(run).map(|(_, miner)| miner.hot)
        } else {
            self.validator(run).map(|(_, validator)| validator.hot)
        };
        let hot = self.mostly(hot);
        let owner = self.mostly(Some(hot.clone()));
        let (peer_id, proof) = peer(self.draws.below(8) as u8, run, &owner);
        let peer_id = peer_id.try_into().expect("a peer id fits");
        Drawn::signed(hot, Call::announce { run, peer_id, addresses: Default::default(), proof })
    }

    /// Another hot key for a seat, or another cold one.
    fn of_keys(&mut self, run: RunId) -> Drawn {
        let (seat, cold) = if self.draws.one_in(2) {
            let (uid, cold) = self.miner_and_cold(run);
            (Seat::Miner(uid), cold)
        } else {
            let (index, cold) = self.validator_and_cold(run);
            (Seat::Validator(index), cold)
        };
        match self.draws.below(12) {
            0..=3 => {
                let hot = match seat {
                    Seat::Miner(_) => miner_key(self.draws.below(MINER_KEYS) as u8),
                    Seat::Validator(_) => validator_key(self.draws.below(VALIDATOR_KEYS) as u8),
                };
                let proof = consent(&hot, run, seat.role(), &cold).into();
                let hot = hot.public().into();
                Drawn::signed(cold, Call::rotate_hot_key { run, seat, hot, proof })
            }
            4 | 5 => {
                let to = self.somebody();
                Drawn::signed(cold, Call::offer_cold { run, seat, to })
            }
            6..=10 => {
                let offer = self.pick(ColdOffers::<Runtime>::iter_prefix(run));
                let (seat, offered) = match offer {
                    Some((seat, offer)) => (seat, Some(offer.to)),
                    None => (seat, None),
                };
                Drawn::signed(self.mostly(offered), Call::accept_cold { run, seat })
            }
            _ => {
                let seat = self.pick(ColdOffers::<Runtime>::iter_key_prefix(run)).unwrap_or(seat);
                let cold = match seat {
                    Seat::Miner(uid) => Miners::<Runtime>::get(run, uid).map(|miner| miner.cold),
                    Seat::Validator(index) => {
                        Validators::<Runtime>::get(run, index).map(|validator| validator.cold)
                    }
                };
                Drawn::signed(self.mostly(cold), Call::cancel_cold { run, seat })
            }
        }
    }
}
