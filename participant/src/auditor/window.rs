//! Audits one window: seeds, commitments, payloads, state root, accepted set, outer step.

use node_client::chain::{
    AttestationInfo, GauntletEvent, MinerInfo, PermitInfo, RevealInfo, WindowInfo,
};
use protocol::{
    accept::bitmap_contains,
    aggregate::OuterRule,
    books::{self, permits, Acceptance, Attested, Permit, Revealed, Staked, Voter},
    commitment::commitment_hash,
    fixed::Q32,
    seed::{challenge_seed, mix_salt, window_seed},
    update::Payload,
    window::Phase,
    BlockNumber, Hash, Uid, Window,
};
use trainer::Cpu;

use super::replay::Replay;
use crate::{
    error::{Attempt as _, Result},
    payloads::{archive_path, read_archived},
    replica,
};

/// One window as the replay found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowFinding {
    /// Number of the window, from 0 on.
    pub window: Window,
    /// Root of the replayed parameters; `None` once a window could not be replayed.
    pub state_root: Option<Hash>,
    /// Whether the chain has a final root for it.
    pub is_final: bool,
    /// Miners whose updates the chain accepted.
    pub accepted: Vec<Uid>,
    /// Payloads that the archive has.
    pub payloads_kept: usize,
    /// Payloads that were revealed.
    pub payloads_revealed: usize,
    /// Whether an accepted payload is missing, so that later state roots cannot be recomputed.
    pub ends_replay: bool,
    /// Whether chain and replay agree in it.
    pub agrees: bool,
}

impl Replay {
    /// Recomputes one window and takes its outer step. Windows are audited in order, after all settlements.
    pub(super) async fn window(&mut self, window: Window) -> Result<WindowFinding> {
        let schedule = &self.info.settings.schedule;
        let accept_block =
            schedule.phase_end_block(window, Phase::AttestReveal).context("the window's end")?;
        let accepted_at = self.hash(accept_block)?;
        let record =
            self.chain.window(self.run, window, Some(accepted_at)).await?.with_context(|| {
                format!("the chain had no window {window} at block {accept_block}")
            })?;
        let reveals = self.chain.reveals(self.run, window, Some(accepted_at)).await?;
        let miners = self.chain.miners(self.run, Some(self.hash(accept_block - 1)?)).await?;

        self.seeds(window, &record).await?;
        self.commitments(window, &reveals, &miners, accepted_at).await?;
        self.acceptance(window, &record, &reveals, &miners, accept_block).await?;
        let root = self.state.as_ref().map(|(_, root)| *root);
        if let (Some(on_chain), Some(replayed)) = (record.state_root, root) {
            let hex = |root: Hash| format!("0x{}", hex::encode(root));
            self.compare((window, None), "state root", hex(on_chain), hex(replayed));
        }
        let kept = self.payloads(window, &record, &reveals).await?;
        Ok(WindowFinding {
            window,
            state_root: root,
            is_final: record.state_root.is_some(),
            accepted: record.accepted,
            payloads_kept: kept,
            payloads_revealed: reveals.len(),
            ends_replay: false,
            agrees: true,
        })
    }

    /// What the block before the window and the salts before it drew, the challenge's seed from the block behind the
    /// last one of the commitments, and the next window's from that block and the salts before it, if training
    /// overlaps with the exchange.
    async fn seeds(&mut self, window: Window, record: &WindowInfo) -> Result<()> {
        let schedule = &self.info.settings.schedule;
        let start = schedule.window_start(window).context("the window's start")?;
        let challenge = schedule.challenge_block(window).context("the window's end")?;
        self.mix_salts(start).await?;
        let drawn = window_seed(&self.hash(start - 1)?, self.run, window, &self.salt_mix);
        let scoring = hex::encode(record.scoring_seed);
        self.compare((window, None), "scoring seed", scoring, hex::encode(drawn));
        let seed = self.early_seed(window, start, &record.seed).await?.unwrap_or(drawn);
        self.compare((window, None), "seed", hex::encode(record.seed), hex::encode(seed));
        let randomness = self.hash(challenge - 1)?;
        let challenge_seed = challenge_seed(&seed, &randomness);
        self.compare((window, None), "challenge seed", record.challenge_seed, Some(challenge_seed));
        self.mix_salts(challenge).await?;
        let next = window_seed(&randomness, self.run, window + 1, &self.salt_mix);
        let next = record.settings.training.overlap.then_some(next);
        // What was excused later has one that does not count; what was excused before has none.
        if !record.excused || record.next_seed.is_some() {
            self.compare((window, None), "next seed", record.next_seed, next);
        }
        Ok(())
    }

    /// The seed that the window before fixed for `window`, which opened in block `start` with `seed`. If it was
    /// excused in that very block, it was so before the opening, for a disturbance, or after it, as the run was
    /// paused.
    async fn early_seed(
        &self,
        window: Window,
        start: BlockNumber,
        seed: &Hash,
    ) -> Result<Option<Hash>> {
        let Some(before) = window.checked_sub(1) else { return Ok(None) };
        let (first, then) = (self.hash(start - 1)?, self.hash(start)?);
        let record = self.chain.window(self.run, before, Some(first)).await?;
        let record = record.context("the window before has no record when one opens")?;
        let Some(early) = record.next_seed.filter(|_| !record.excused) else { return Ok(None) };
        let record = self.chain.window(self.run, before, Some(then)).await?;
        let is_excused = record.is_some_and(|record| record.excused);
        Ok(Some(early).filter(|early| !is_excused || early == seed))
    }

    /// Mixes the salts that were revealed before block `before`.
    async fn mix_salts(&mut self, before: BlockNumber) -> Result<()> {
        while self.mixed_to < before as usize {
            let block = &self.blocks[self.mixed_to];
            let revealed: Vec<(Window, u16)> = block
                .events
                .iter()
                .filter_map(|event| match event {
                    GauntletEvent::ScoresRevealed { run, window, index, .. }
                        if *run == self.run =>
                    {
                        Some((*window, *index))
                    }
                    _ => None,
                })
                .collect();
            for (window, index) in revealed {
                let reveals = self.chain.score_reveals(self.run, window, Some(block.hash)).await?;
                let reveal = reveals.iter().find(|reveal| reveal.index == index);
                let salt = reveal.context("an event without its scores")?.salt;
                self.salt_mix = mix_salt(&self.salt_mix, window, index, &salt);
            }
            self.mixed_to += 1;
        }
        Ok(())
    }

    async fn commitments(
        &mut self,
        window: Window,
        reveals: &[RevealInfo],
        miners: &[MinerInfo],
        at: Hash,
    ) -> Result<()> {
        let commitments = self.chain.commitments(self.run, window, Some(at)).await?;
        for reveal in reveals {
            let Some(miner) = miners.iter().find(|miner| miner.uid == reveal.uid) else {
                self.differ(window, Some(reveal.uid), "revealed by nobody");
                continue;
            };
            let hash =
                commitment_hash(&self.genesis, self.run, window, &miner.hot, &reveal.opening);
            let committed = commitments.iter().find(|commitment| commitment.uid == reveal.uid);
            if committed.is_none_or(|committed| committed.hash != hash) {
                self.differ(window, Some(reveal.uid), "the opening is not what was committed to");
            }
        }
        Ok(())
    }

    /// Recomputes the final root and the accepted set from attestations and replayed standings.
    async fn acceptance(
        &mut self,
        window: Window,
        record: &WindowInfo,
        reveals: &[RevealInfo],
        miners: &[MinerInfo],
        block: BlockNumber,
    ) -> Result<()> {
        let incentive = record.settings.incentive.clone();
        self.permits(window).await?;
        let (permits, rows) = self.attested(window, self.hash(block)?).await?;
        let voters = voters(&permits, &rows);
        let revealed: Vec<Revealed> = reveals
            .iter()
            .filter_map(|reveal| {
                let miner = miners.iter().find(|miner| miner.uid == reveal.uid)?;
                let (value, is_scored) = self.value(miner, block);
                Some(Revealed {
                    uid: reveal.uid,
                    base_state_root: reveal.opening.base_state_root,
                    value,
                    is_scored,
                    registered_window: miner.registered_window,
                })
            })
            .collect();
        let genesis = &self.info.settings.training.genesis_state_root;
        let Acceptance { state_root: root, accepted, unavailable, is_silent } =
            books::accept(window, &voters, &revealed, &incentive, genesis);
        let hex = |root: &Option<Hash>| root.map(hex::encode);
        self.compare((window, None), "final state root", hex(&record.state_root), hex(&root));
        self.compare((window, None), "accepted set", record.accepted.clone(), accepted);
        let on_chain: Vec<Uid> = revealed
            .iter()
            .map(|row| row.uid)
            .filter(|uid| bitmap_contains(&record.unavailable, *uid))
            .collect();
        self.compare((window, None), "proven unavailable", on_chain, unavailable);
        if is_silent {
            self.compare((window, None), "excused", record.excused, true);
        }
        Ok(())
    }

    /// The permits follow from the stakes before the window's first block, whose hooks drew them up.
    async fn permits(&mut self, window: Window) -> Result<()> {
        let schedule = &self.info.settings.schedule;
        let start = schedule.window_start(window).context("the window's start")?;
        let validators = self.chain.validators(self.run, Some(self.hash(start - 1)?)).await?;
        let staked: Vec<Staked> = validators
            .iter()
            .map(|validator| Staked {
                index: validator.index,
                stake: validator.stake,
                registered_window: validator.registered_window,
            })
            .collect();
        let at = self.hash(start)?;
        let record = self.chain.window(self.run, window, Some(at)).await?;
        let record = record.context("the window has no record in its first block")?;
        let replayed = permits(window, &staked, record.settings.incentive.permits_max);
        let found = self.chain.permits(self.run, window, Some(at)).await?;
        let found: Vec<Permit> = found.iter().map(|row| (row.index, row.stake)).collect();
        self.compare((window, None), "permits", found, replayed);
        Ok(())
    }

    /// A window's permits, and what their holders attested.
    pub(super) async fn attested(
        &self,
        window: Window,
        at: Hash,
    ) -> Result<(Vec<PermitInfo>, Vec<AttestationInfo>)> {
        let permits = self.chain.permits(self.run, window, Some(at)).await?;
        let attestations = self.chain.attestations(self.run, window, Some(at)).await?;
        Ok((permits, attestations))
    }

    /// The standing as one number that was in force before block `block`, as replayed, and whether it was ever scored.
    fn value(&self, miner: &MinerInfo, block: BlockNumber) -> (Q32, bool) {
        let tracked = self.miners.get(&miner.uid);
        let values = tracked.map(|tracked| tracked.values.iter().rev()).into_iter().flatten();
        let mut before = values.skip_while(|value| value.from >= block);
        before.next().map_or((Q32::ZERO, false), |value| (value.value, value.is_scored))
    }

    /// Checks each payload that was kept, and applies the accepted ones. Returns how many are right.
    async fn payloads(
        &mut self,
        window: Window,
        record: &WindowInfo,
        reveals: &[RevealInfo],
    ) -> Result<usize> {
        let training = record.settings.training.clone();
        let layout = self.info.layout.clone();
        let mut right: Vec<(Uid, Vec<u8>)> = Vec::new();
        for reveal in reveals {
            let path = archive_path(&self.archive, window, reveal.uid);
            let root = &reveal.opening.payload_root;
            let is_accepted = record.accepted.contains(&reveal.uid);
            let bytes = match read_archived(&self.archive, window, reveal.uid, root) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // Nobody kept a payload that nobody could fetch.
                    if is_accepted {
                        let what = format!("its accepted payload {}: {error}", path.display());
                        self.differ(window, Some(reveal.uid), what);
                    }
                    continue;
                }
            };
            match check_payload(&bytes, reveal, &layout, training.keep) {
                Ok(()) => right.push((reveal.uid, bytes)),
                Err(what) => {
                    let what = format!("payload {}: {what}", path.display());
                    self.differ(window, Some(reveal.uid), what);
                }
            }
        }
        let accepted: Vec<(Uid, &[u8])> = right
            .iter()
            .filter(|(uid, _)| record.accepted.contains(uid))
            .map(|(uid, bytes)| (*uid, &bytes[..]))
            .collect();
        let Some((mut model, _)) = self.state.take() else {
            return Ok(right.len());
        };
        if accepted.len() == record.accepted.len() {
            let rule = OuterRule::of_window(&training.outer, window);
            let cpu = Cpu::new(self.threads.clone());
            let manifest = replica::step(&mut model, &cpu, &accepted, training.keep, rule)?;
            self.state = Some((model, manifest.root()));
        }
        Ok(right.len())
    }
}

/// The permits and attestations as the rules read them.
pub(super) fn voters<'a>(permits: &[PermitInfo], rows: &'a [AttestationInfo]) -> Vec<Voter<'a>> {
    let voter = |permit: &PermitInfo| {
        let row = rows.iter().find(|row| row.index == permit.index);
        let attestation =
            row.map(|row| Attested { state_root: row.state_root, bitmap: &row.bitmap });
        Voter { index: permit.index, stake: permit.stake, attestation }
    };
    permits.iter().map(voter).collect()
}

/// Whether `bytes` are what the miner opened.
fn check_payload(
    bytes: &[u8],
    reveal: &RevealInfo,
    layout: &protocol::layout::Layout,
    keep: u16,
) -> Result<(), String> {
    let payload = Payload::parse(bytes, layout, keep).map_err(|error| error.to_string())?;
    let opening = &reveal.opening;
    if bytes.len() as u64 != opening.byte_len {
        return Err(format!("{} bytes, the chain says {}", bytes.len(), opening.byte_len));
    }
    let root = payload.root();
    if root != opening.payload_root {
        return Err(format!(
            "its root is {}, the chain says {}",
            hex::encode(root),
            hex::encode(opening.payload_root)
        ));
    }
    Ok(())
}
