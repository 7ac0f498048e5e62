//! Audits one settlement: from the revealed evaluations to standings and pay, against the chain's events.

use std::collections::{BTreeMap, BTreeSet};

use node_client::chain::{GauntletEvent, MinerInfo, ValidatorInfo, WindowInfo};
use protocol::{
    accept::bitmap_of,
    books::{
        bonds_after, scoring_seed, settlement_input, takes_part, Facts, MinerRow, ValidatorRow,
    },
    commitment::score_commitment_hash,
    consensus::{pay, settle, Outcome, Standing},
    emission::{payable, split_emission, Pot, Pots},
    fixed::Q32,
    strikes,
    window::ScorePhase,
    BlockNumber, Hash, Planck, Uid, ValidatorIndex, Window,
};

use super::{
    replay::{Replay, Tracked, Value},
    window::voters,
};
use crate::error::{Attempt as _, Result};

/// What the chain's events say of a miner in one settlement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Scored {
    own: Option<Q32>,
    random: Option<Q32>,
    value: Q32,
    share: Q32,
    paid: Planck,
}

/// What a window was given, in planck.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Given {
    /// Of the chain's schedule.
    minted: Planck,
    /// Of the run's sponsors.
    funded: Planck,
}

/// What the chain's events say of one settlement.
#[derive(Default)]
struct OnChain {
    miners: BTreeMap<Uid, (BlockNumber, Scored)>,
    validators: BTreeMap<u16, (Q32, Planck)>,
    /// What schedule and sponsors gave.
    given: Option<Given>,
    /// What was credited, and what was carried after it.
    totals: Option<(Pots, Pots)>,
    void: bool,
    block: Option<BlockNumber>,
}

impl Replay {
    /// Recomputes the settlement of `window`. Settlements are audited in order: each starts from the standings that the
    /// one before left.
    pub(super) async fn settlement(&mut self, window: Window) -> Result<()> {
        let on_chain = self.on_chain(window);
        let schedule = &self.info.settings.schedule;
        let due = schedule
            .score_phase_end_block(window, ScorePhase::Reveal)
            .context("the window's end")?;
        // Settlements begin before the transactions of a block.
        let before = self.hash(due.saturating_sub(1))?;
        let record =
            self.chain.window(self.run, window, Some(before)).await?.with_context(|| {
                format!("the chain had no window {window} at block {}", due - 1)
            })?;
        let miners = self.chain.miners(self.run, Some(before)).await?;
        let mut miners: Vec<MinerInfo> = miners
            .into_iter()
            .filter(|miner| takes_part(miner.registered_window, window))
            .collect();
        miners.sort_by_key(|miner| miner.uid);
        let validators = self.chain.validators(self.run, Some(before)).await?;
        let validators: Vec<ValidatorInfo> = validators
            .into_iter()
            .filter(|validator| takes_part(validator.registered_window, window))
            .collect();
        let version = record.settings.incentive.score_version;
        let miner_rows = self.miner_rows(window, &miners, before).await?;
        let validator_rows = self.validator_rows(window, &validators, version, before).await?;
        let (permits, attestations) = self.attested(window, before).await?;
        let reveals = self.chain.reveals(self.run, window, Some(before)).await?;
        let revealed: Vec<Uid> = reveals.iter().map(|reveal| reveal.uid).collect();
        let faults = self.chain.proven_faults(self.run, window, Some(before)).await?;
        let convicted: Vec<Uid> = faults.iter().map(|fault| fault.uid).collect();
        let next = self.chain.window(self.run, window + 1, Some(before)).await?;
        let facts = Facts {
            state_root: record.state_root,
            voters: &voters(&permits, &attestations),
            revealed: &revealed,
            unavailable: &record.unavailable,
            convicted: &bitmap_of(&convicted),
            excused: record.excused,
            scoring_seed: scoring_seed(next.map(|next| next.scoring_seed), record.challenge_seed),
        };
        let incentive = &record.settings.incentive;
        let input = settlement_input(window, miner_rows, validator_rows, facts, incentive);

        let split = self.receive(window, &on_chain, &record)?;
        let carried = std::mem::take(&mut self.carried);
        self.carried = carried.checked_add(&split).context("the carries do not fit")?;
        let has_final_root = record.state_root.is_some();
        let struck = self.struck(window, &validators, before).await?;
        let computed = settle(&input, incentive).and_then(|mut outcome| {
            strikes::refuse_pay(&mut outcome.validators, &struck);
            let emission = &record.settings.emission;
            Ok((outcome, payable(emission, &split, &carried, has_final_root)?))
        });
        let (outcome, pots) = match computed {
            Ok(computed) => computed,
            Err(error) => {
                if !on_chain.void {
                    self.differ(
                        window,
                        None,
                        format!("settled on chain, void in the replay: {error}"),
                    );
                }
                return Ok(());
            }
        };
        if on_chain.void {
            self.differ(window, None, "void on chain, settled in the replay");
            return Ok(());
        }
        self.compare_pay(window, &on_chain, &outcome, &pots)?;
        self.move_standings(&on_chain, &outcome, &miners);
        self.bonds = bonds_after(window, &outcome.validators).collect();
        self.compare_standings(window, &on_chain, &miners).await
    }

    /// What the window was given, split by its settings: no more of the schedule than its budget. How much of the budget
    /// the schedule's source had, and the sponsors', is the chain's word.
    fn receive(&mut self, window: Window, on_chain: &OnChain, record: &WindowInfo) -> Result<Pots> {
        let given = on_chain.given.unwrap_or_default();
        if given.minted > record.budget {
            let (minted, budget) = (given.minted, record.budget);
            self.differ(window, None, format!("minted {minted}, of a budget of {budget}"));
        }
        self.minted += given.minted;
        self.released += given.funded;
        Ok(split_emission(&record.settings.emission, given.minted + given.funded)?)
    }

    /// What the events say.
    fn on_chain(&self, of: Window) -> OnChain {
        let mut found = OnChain::default();
        for (block, event) in self.events() {
            match event {
                GauntletEvent::MinerScored {
                    run,
                    window,
                    uid,
                    own,
                    random,
                    standing_value,
                    share,
                    paid,
                } if *run == self.run && *window == of => {
                    let scored = Scored {
                        own: *own,
                        random: *random,
                        value: *standing_value,
                        share: *share,
                        paid: *paid,
                    };
                    found.miners.insert(*uid, (block, scored));
                }
                GauntletEvent::ValidatorPaid { run, window, index, agreement, paid }
                    if *run == self.run && *window == of =>
                {
                    found.validators.insert(*index, (*agreement, *paid));
                }
                GauntletEvent::WindowSettled { run, window, minted, funded, paid, carried }
                    if *run == self.run && *window == of =>
                {
                    found.given = Some(Given { minted: *minted, funded: *funded });
                    found.totals = Some((*paid, *carried));
                    found.block = Some(block);
                }
                GauntletEvent::WindowVoid { run, window, minted, funded, .. }
                    if *run == self.run && *window == of =>
                {
                    found.given = Some(Given { minted: *minted, funded: *funded });
                    found.void = true;
                }
                _ => {}
            }
        }
        found
    }

    async fn miner_rows(
        &self,
        window: Window,
        miners: &[MinerInfo],
        at: Hash,
    ) -> Result<Vec<MinerRow>> {
        let reveals = self.chain.reveals(self.run, window, Some(at)).await?;
        let commitments = self.chain.commitments(self.run, window, Some(at)).await?;
        let rows = miners.iter().map(|miner| MinerRow {
            uid: miner.uid,
            registered_window: miner.registered_window,
            standing: self.standing(miner),
            committed: commitments.iter().any(|commitment| commitment.uid == miner.uid),
            revealed: reveals.iter().any(|reveal| reveal.uid == miner.uid),
        });
        Ok(rows.collect())
    }

    async fn validator_rows(
        &mut self,
        window: Window,
        validators: &[ValidatorInfo],
        version: u32,
        at: Hash,
    ) -> Result<Vec<ValidatorRow>> {
        let reveals = self.chain.score_reveals(self.run, window, Some(at)).await?;
        let commitments = self.chain.score_commitments(self.run, window, Some(at)).await?;
        let mut found = Vec::with_capacity(validators.len());
        for validator in validators {
            let index = validator.index;
            let reveal = reveals.iter().find(|reveal| reveal.index == index);
            if let Some(reveal) = reveal {
                let hash = score_commitment_hash(
                    &self.genesis,
                    self.run,
                    window,
                    &validator.hot,
                    &reveal.evaluations,
                    version,
                    &reveal.salt,
                );
                let committed = commitments.iter().find(|commitment| commitment.index == index);
                if committed.is_none_or(|committed| committed.hash != hash) {
                    self.differ(
                        window,
                        None,
                        format!("validator {index} revealed other scores than it had committed to"),
                    );
                }
            }
            found.push(ValidatorRow {
                index,
                registered_window: validator.registered_window,
                evaluations: reveal.map(|reveal| reveal.evaluations.clone()),
                bonds: self.bonds.get(&index).cloned(),
            });
        }
        Ok(found)
    }

    /// The validators, by index, that committed to scores in one of the last windows and withheld them.
    async fn struck(
        &self,
        window: Window,
        validators: &[ValidatorInfo],
        at: Hash,
    ) -> Result<Vec<ValidatorIndex>> {
        let mut withheld = BTreeSet::new();
        for judged in strikes::judged_windows(window, 0) {
            let commitments = self.chain.score_commitments(self.run, judged, Some(at)).await?;
            let reveals = self.chain.score_reveals(self.run, judged, Some(at)).await?;
            let is_revealed = |index| reveals.iter().any(|reveal| reveal.index == index);
            let record = self.chain.window(self.run, judged, Some(at)).await?;
            let is_excused = record.is_some_and(|record| record.excused);
            withheld.extend(
                commitments
                    .iter()
                    .filter(|row| strikes::is_withheld(true, is_revealed(row.index), is_excused))
                    .map(|row| (judged, row.index)),
            );
        }
        let is_struck = |validator: &&ValidatorInfo| {
            strikes::is_struck(window, validator.registered_window, |judged| {
                withheld.contains(&(judged, validator.index))
            })
        };
        Ok(validators.iter().filter(is_struck).map(|validator| validator.index).collect())
    }

    fn compare_pay(
        &mut self,
        window: Window,
        on_chain: &OnChain,
        outcome: &Outcome,
        pots: &Pots,
    ) -> Result<()> {
        let shares: Vec<Q32> = outcome.miners.iter().map(|miner| miner.share).collect();
        let (amounts, _) = pay(pots.miners, &shares)?;
        let mut miners_paid = 0;
        for (miner, paid) in outcome.miners.iter().zip(amounts) {
            let replayed = Scored {
                own: miner.own,
                random: miner.random,
                value: miner.value,
                share: miner.share,
                paid,
            };
            miners_paid += paid;
            match on_chain.miners.get(&miner.uid) {
                Some((_, scored)) => {
                    self.compare((window, Some(miner.uid)), "rating and pay", *scored, replayed);
                }
                None => self.differ(window, Some(miner.uid), "scored in the replay, not on chain"),
            }
        }
        for uid in on_chain.miners.keys() {
            if !outcome.miners.iter().any(|miner| miner.uid == *uid) {
                self.differ(window, Some(*uid), "scored on chain, not in the replay");
            }
        }
        let shares: Vec<Q32> = outcome.validators.iter().map(|validator| validator.share).collect();
        let (amounts, _) = pay(pots.validators, &shares)?;
        let mut validators_paid = 0;
        for (validator, paid) in outcome.validators.iter().zip(amounts) {
            validators_paid += paid;
            let replayed = Some((validator.agreement, paid));
            let found = on_chain.validators.get(&validator.index).copied();
            let what = format!("agreement and pay of validator {}", validator.index);
            self.compare((window, None), &what, found, replayed);
        }
        let paid = Pots { owner: pots.owner, miners: miners_paid, validators: validators_paid };
        for pot in Pot::ALL {
            // What a window pays is a part of what is carried.
            *self.carried.of_mut(pot) -= paid.of(pot);
        }
        let totals = Some((paid, self.carried));
        self.compare((window, None), "paid and carried, by group", on_chain.totals, totals);
        Ok(())
    }

    fn move_standings(&mut self, on_chain: &OnChain, outcome: &Outcome, miners: &[MinerInfo]) {
        for (miner, info) in outcome.miners.iter().zip(miners) {
            let block = on_chain.miners.get(&miner.uid).map(|(block, _)| *block);
            let block = block.or(on_chain.block).unwrap_or_default();
            let fresh = || Tracked {
                registered_window: info.registered_window,
                standing: Standing::default(),
                values: Vec::new(),
            };
            let tracked = self.miners.entry(miner.uid).or_insert_with(fresh);
            if tracked.registered_window != info.registered_window {
                *tracked = fresh();
            }
            tracked.standing = miner.standing.clone();
            let is_scored = miner.standing.scored_windows > 0;
            tracked.values.push(Value { from: block, value: miner.value, is_scored });
        }
    }

    /// The standings that the chain stored are those of the replay.
    async fn compare_standings(
        &mut self,
        window: Window,
        on_chain: &OnChain,
        miners: &[MinerInfo],
    ) -> Result<()> {
        let Some(block) = on_chain.block else {
            return Ok(());
        };
        let stored = self.chain.miners(self.run, Some(self.hash(block)?)).await?;
        for miner in miners {
            let is_same = |other: &&MinerInfo| {
                other.uid == miner.uid && other.registered_window == miner.registered_window
            };
            if let Some(stored) = stored.iter().find(is_same) {
                let replayed = self.standing(miner);
                let stored = stored.standing.clone();
                self.compare((window, Some(miner.uid)), "standing", stored, replayed);
            }
        }
        Ok(())
    }
}
