//! Miners that come, leave, make room and are removed; mirrors the pallet's `registration` and `changes`.

use libp2p::identity::ed25519;
use protocol::{
    consensus::Standing,
    consent::{peer_consent, peer_key, Role},
    entry::{entry_price, is_idle, victim, EntryPrice, Holder},
    fixed::Q32,
    limits::HISTORY_WINDOWS,
    window::{phase_at, Moment},
    AccountBytes, BlockNumber, Planck, RunId, Uid, Window,
};

use super::{
    super::{GauntletEvent, MinerInfo},
    departures::Departure,
    refusal::{ensure, Refusal},
    run::Run,
    state::{first_window, State},
};
use crate::keys::{self, HotKeyProof};

/// Windows after its last one in which a miner's slot becomes free.
pub(super) const LEAVE_AFTER: Window = 2;

/// Money that goes back to a cold key.
type Bond = (AccountBytes, Planck);

impl Run {
    /// What joining costs in a block.
    pub(super) fn entry_price(&self, block: BlockNumber) -> Planck {
        entry_price(self.registry.last_price, block, &self.info.settings.entry)
    }

    /// Takes the lowest free slot, or that of the miner that has to make room.
    fn take_slot(
        &mut self,
        window: Window,
        events: &mut Vec<GauntletEvent>,
    ) -> Result<(Uid, Option<Bond>), Refusal> {
        let uids = 0..self.info.settings.incentive.uid_max;
        if let Some(uid) = uids.into_iter().find(|uid| !self.miners.contains_key(uid)) {
            return Ok((uid, None));
        }
        let holders = self.miners.values().map(|miner| Holder {
            uid: miner.uid,
            value: miner.value,
            registered_window: miner.registered_window,
            is_leaving: miner.last_window.is_some(),
        });
        let victim = victim(holders, window, &self.info.settings.entry)
            .and_then(|uid| self.miners.remove(&uid))
            .ok_or(Refusal::gauntlet("NoFreeSlot"))?;
        let (uid, value) = (victim.uid, victim.value);
        events.push(GauntletEvent::MinerDisplaced { run: self.id, uid, value });
        let returned = self.depart(victim, window, events);
        Ok((uid, returned))
    }

    /// Keeps the bond of a miner that was removed and whose last window is `last`, until it is due; returns it if the miner
    /// has taken part in nothing.
    fn depart(
        &mut self,
        miner: MinerInfo,
        last: Window,
        events: &mut Vec<GauntletEvent>,
    ) -> Option<Bond> {
        let MinerInfo { uid, hot, cold, bond, registered_window, .. } = miner;
        let run = self.id;
        self.announcements.remove(&hot);
        let has_begun = self.windows.contains_key(&last) && registered_window <= last;
        let wait = u64::from(self.info.settings.staking.unbonding_windows);
        let due = has_begun.then_some(last + wait);
        events.push(GauntletEvent::MinerLeft { run, uid, registered_window, due });
        let Some(due) = due else {
            events.push(GauntletEvent::BondReturned { run, uid, cold, amount: bond });
            return Some((cold, bond));
        };
        let departure = Departure { hot, cold, bond, last, due };
        self.registry.departures.insert((uid, registered_window), departure);
        None
    }

    /// Makes the changes whose window has begun.
    pub(super) fn make_changes(&mut self, number: BlockNumber, events: &mut Vec<GauntletEvent>) {
        let Some(moment) = phase_at(&self.info.settings.schedule, number) else {
            return;
        };
        let later = self.registry.leaving.split_off(&(moment.window + 1));
        let due = std::mem::replace(&mut self.registry.leaving, later);
        for uid in due.into_values().flatten() {
            let last = self.miners.get(&uid).and_then(|miner| miner.last_window);
            let Some(last) = last else {
                continue;
            };
            if last < self.next_settlement {
                if let Some(miner) = self.miners.remove(&uid) {
                    // It had begun, so that its bond waits.
                    self.depart(miner, last, events);
                }
            } else if last + LEAVE_AFTER <= moment.window {
                self.registry.leaving.entry(moment.window + 1).or_default().push(uid);
            }
        }
    }
}

impl State {
    /// Checks that `hot` agrees to work in `role` for `cold`.
    pub(super) fn ensure_consent(
        &self,
        run: RunId,
        role: Role,
        cold: &AccountBytes,
        hot: &AccountBytes,
        proof: &HotKeyProof,
    ) -> Result<(), Refusal> {
        let consents = keys::is_consent_of(hot, proof, &self.genesis, run, role, cold);
        ensure(consents, "HotKeyProofInvalid")
    }

    /// Checks that the key of a peer agrees to be announced as the peer of `hot`.
    pub(super) fn ensure_peer(
        &self,
        run: RunId,
        hot: &AccountBytes,
        peer_id: &[u8],
        proof: &[u8; 64],
    ) -> Result<(), Refusal> {
        let message = peer_consent(&self.genesis, run, hot);
        let key = peer_key(peer_id).and_then(|key| ed25519::PublicKey::try_from_bytes(&key).ok());
        ensure(key.is_some_and(|key| key.verify(&message, proof)), "PeerProofInvalid")
    }

    pub(super) fn register_miner(
        &mut self,
        cold: AccountBytes,
        run_id: RunId,
        hot: AccountBytes,
        max_price: Planck,
    ) -> Result<(), Refusal> {
        let number = self.number;
        let mut events = Vec::new();
        let (run, moment) = self.run_at(run_id)?;
        ensure(!run.takes_part(&hot), "HotKeyTaken")?;
        let mut waiting = run.registry.departures.values();
        let is_cooling =
            waiting.any(|gone| [gone.hot, gone.cold].iter().any(|key| *key == hot || *key == cold));
        ensure(!is_cooling, "CoolingOff")?;
        let (uid, returned) = run.take_slot(window_of(moment), &mut events)?;
        let price = run.entry_price(number);
        ensure(price <= max_price, "PriceTooHigh")?;
        let entry = &run.info.settings.entry;
        run.registry.last_price = Some(EntryPrice::after_join(price, number, entry));
        let bond = run.info.settings.incentive.miner_bond;
        let miner = MinerInfo {
            uid,
            hot,
            cold,
            bond,
            registered_window: first_window(moment),
            committed_window: None,
            last_window: None,
            standing: Standing::default(),
            value: Q32::ZERO,
            share: Q32::ZERO,
        };
        run.miners.insert(uid, miner);
        self.release_bond(returned)?;
        // The price is burned.
        self.hold(cold, price)?;
        self.hold(cold, bond)?;
        events.push(GauntletEvent::MinerRegistered { run: run_id, uid, hot, cold, price });
        self.events.append(&mut events);
        Ok(())
    }

    pub(super) fn leave_miner(
        &mut self,
        signer: AccountBytes,
        run_id: RunId,
        uid: Uid,
    ) -> Result<(), Refusal> {
        let (run, moment) = self.run_at(run_id)?;
        let miner = run.miners.get_mut(&uid).ok_or(Refusal::gauntlet("MinerUnknown"))?;
        ensure(miner.cold == signer, "NotColdKey")?;
        ensure(miner.last_window.is_none(), "LeavingAlready")?;
        let begun =
            moment.map(|moment| moment.window).filter(|now| miner.registered_window <= *now);
        if let Some(window) = begun {
            miner.last_window = Some(window);
            run.registry.leaving.entry(window + LEAVE_AFTER).or_default().push(uid);
            self.events.push(GauntletEvent::MinerLeaving { run: run_id, uid, last_window: window });
            return Ok(());
        }
        self.remove(run_id, uid, window_of(moment), Vec::new())
    }

    /// Removes a miner after the given events.
    fn remove(
        &mut self,
        run_id: RunId,
        uid: Uid,
        last: Window,
        mut events: Vec<GauntletEvent>,
    ) -> Result<(), Refusal> {
        let (run, _) = self.run_at(run_id)?;
        let miner = run.miners.remove(&uid).ok_or(Refusal::gauntlet("MinerUnknown"))?;
        let returned = run.depart(miner, last, &mut events);
        self.events.append(&mut events);
        self.release_bond(returned)
    }

    fn release_bond(&mut self, bond: Option<Bond>) -> Result<(), Refusal> {
        bond.map_or(Ok(()), |(cold, amount)| self.release(cold, amount))
    }

    pub(super) fn evict(&mut self, run_id: RunId, uid: Uid) -> Result<(), Refusal> {
        let (run, moment) = self.run_at(run_id)?;
        let miner = run.miners.get(&uid).ok_or(Refusal::gauntlet("MinerUnknown"))?;
        let window = window_of(moment);
        let entry = &run.info.settings.entry;
        ensure(is_idle(miner.committed_window, miner.registered_window, window, entry), "NotIdle")?;
        let first = window.saturating_sub(u64::from(entry.idle_windows).min(HISTORY_WINDOWS));
        let is_undisturbed = |window| run.windows.contains_key(&window) && !run.is_excused(window);
        ensure((first..window).all(is_undisturbed), "NotIdle")?;
        let evicted = GauntletEvent::MinerEvicted { run: run_id, uid };
        self.remove(run_id, uid, window, vec![evicted])
    }

    pub(super) fn withdraw_bond(
        &mut self,
        run_id: RunId,
        uid: Uid,
        registered_window: Window,
    ) -> Result<(), Refusal> {
        let key = (uid, registered_window);
        let no_bond = Refusal::gauntlet("NoBond");
        let (run, moment) = self.run_at(run_id).map_err(|_| no_bond)?;
        let departure = run.registry.departures.get(&key).ok_or(no_bond)?;
        ensure(departure.due <= window_of(moment), "BondNotDue")?;
        let Departure { cold, bond, .. } = departure.clone();
        run.registry.departures.remove(&key);
        self.events.push(GauntletEvent::BondReturned { run: run_id, uid, cold, amount: bond });
        self.release(cold, bond)
    }
}

/// The current window; 0 before the run's first block.
fn window_of(moment: Option<Moment>) -> Window {
    moment.map_or(0, |moment| moment.window)
}
