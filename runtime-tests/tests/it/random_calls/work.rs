//! Draws the work of a window: updates, attestations, scores.

use pallet_gauntlet::{
    account_bytes, AttestationCommitments, Attestations, Bitmap, Call, Commitments, Miners,
    RevealedChunk, RevealedChunks, Reveals, ScoreCommitments, ScoreReveals, Validators, Windows,
};
use protocol::{
    accept::bitmap_of,
    commitment::{
        attestation_commitment_hash, commitment_hash, score_commitment_hash, AttestationOpening,
    },
    settings::SCORE_VERSION,
    window::{Phase, ScorePhase},
    RunId, Uid, ValidatorIndex, Window,
};
use runtime::{AccountId, Runtime};

use super::{Drawn, Scene, Script};
use crate::{
    draws::Draws,
    evidence::measured,
    network::{genesis_hash, Model},
    payload::MinerPayload,
};

/// The slot of a miner that hardly ever works, so that it can be evicted.
const LAZY: Uid = 3;
/// Miners that validators say something of.
const SCORED: Uid = 10;

/// The calls of a window's work.
#[derive(Clone, Copy)]
enum Work {
    CommitUpdate,
    RevealUpdate,
    CommitAttestation,
    RevealAttestation,
    CommitScores,
    RevealScores,
}

impl Work {
    const ALL: [Work; 6] = [
        Work::CommitUpdate,
        Work::RevealUpdate,
        Work::CommitAttestation,
        Work::RevealAttestation,
        Work::CommitScores,
        Work::RevealScores,
    ];

    fn is_of_scores(self) -> bool {
        matches!(self, Work::CommitScores | Work::RevealScores)
    }
}

impl Script {
    /// Any call of this file.
    pub(super) fn any_work(&mut self, scene: &Scene) -> Drawn {
        let work = self.pick(Work::ALL).expect("there is work");
        self.work(scene, work)
    }

    /// What somebody would do in this phase.
    pub(super) fn fitting_work(&mut self, scene: &Scene) -> Drawn {
        let Some(moment) = scene.moment else {
            return self.any_work(scene);
        };
        let of_update = match moment.phase {
            Phase::Commit => Some(Work::CommitUpdate),
            Phase::Reveal => Some(Work::RevealUpdate),
            Phase::AttestCommit => Some(Work::CommitAttestation),
            Phase::AttestReveal => Some(Work::RevealAttestation),
            Phase::Apply => None,
        };
        let of_scores = match moment.score_phase {
            ScorePhase::Commit => Some(Work::CommitScores),
            ScorePhase::Reveal => Some(Work::RevealScores),
            ScorePhase::Settle => None,
        };
        match self.pick(of_update.into_iter().chain(of_scores)) {
            Some(work) => self.work(scene, work),
            None => self.any_work(scene),
        }
    }

    fn work(&mut self, scene: &Scene, work: Work) -> Drawn {
        let now = scene.window();
        let window = match self.draws.below(40) {
            0 => now + 1,
            1 => now.saturating_sub(1),
            _ if work.is_of_scores() => now.saturating_sub(1),
            _ => now,
        };
        let run = scene.run;
        match work {
            Work::CommitUpdate => self.commit_update(run, window),
            Work::RevealUpdate => self.reveal_update(scene, window),
            Work::CommitAttestation => self.commit_attestation(run, window),
            Work::RevealAttestation => self.reveal_attestation(run, window),
            Work::CommitScores => self.commit_scores(run, window),
            Work::RevealScores => self.reveal_scores(run, window),
        }
    }

    /// A miner that may still have this to do, mostly, with its hot key.
    fn worker(&mut self, run: RunId, is_done: impl Fn(Uid) -> bool) -> (Uid, AccountId) {
        let any = self.draws.one_in(8);
        let miners = Miners::<Runtime>::iter_prefix(run).map(|(uid, miner)| (uid, miner.hot));
        let found = self.pick(miners.filter(|(uid, _)| any || (*uid != LAZY && !is_done(*uid))));
        found.unwrap_or((0, self.somebody()))
    }

    /// A validator that may still have this to do, mostly, with its hot key.
    fn judge(
        &mut self,
        run: RunId,
        is_done: impl Fn(ValidatorIndex) -> bool,
    ) -> (ValidatorIndex, AccountId) {
        let any = self.draws.one_in(8);
        let judges = Validators::<Runtime>::iter_prefix(run);
        let judges = judges.map(|(index, validator)| (index, validator.hot));
        let found = self.pick(judges.filter(|(index, _)| any || !is_done(*index)));
        found.unwrap_or((0, self.somebody()))
    }

    /// The payload of a slot in a window: always the same one, in every other window its neighbour's too.
    fn payload(&self, run: RunId, window: Window, uid: Uid) -> &MinerPayload {
        let miner = if window.is_multiple_of(2) { uid / 2 } else { uid };
        let number = u64::from(miner) * 5 + window * 3 + u64::from(run);
        &self.payloads[(number % self.payloads.len() as u64) as usize]
    }

    fn commit_update(&mut self, run: RunId, window: Window) -> Drawn {
        let is_done = |uid| Commitments::<Runtime>::contains_key((run, window, uid));
        let (uid, hot) = self.worker(run, is_done);
        let opening = self.payload(run, window, uid).opening();
        let hash = commitment_hash(&genesis_hash(), run, window, &account_bytes(&hot), &opening);
        Drawn::signed(hot, Call::commit_update { run, window, hash })
    }

    fn reveal_update(&mut self, scene: &Scene, window: Window) -> Drawn {
        let run = scene.run;
        let is_done = |uid| Reveals::<Runtime>::contains_key((run, window, uid));
        let (uid, hot) = self.worker(run, is_done);
        let seed = Windows::<Runtime>::get(run, window).and_then(|record| record.challenge_seed);
        let mistake = self.draws.below(40);
        let payload = self.payload(run, window, uid);
        let mut opening = payload.opening();
        let count = scene.settings.incentive.challenge_chunks;
        let mut shown = payload.shown(&seed.unwrap_or_default(), (run, window, uid), count);
        match mistake {
            0 => opening.salt = [1; 32],
            1 => shown.clear(),
            2 | 3 => shown.iter_mut().for_each(|chunk| chunk.chunk[3] ^= 1),
            4 => shown.iter_mut().for_each(|chunk| chunk.proof.clear()),
            _ => {}
        }
        let chunks = shown.into_iter().map(|chunk| RevealedChunk {
            index: chunk.index,
            chunk: chunk.chunk.try_into().expect("a chunk fits"),
            proof: chunk.proof.try_into().expect("a proof fits"),
        });
        let chunks = RevealedChunks::truncate_from(chunks.collect());
        Drawn::signed(hot, Call::reveal_update { run, window, opening, chunks })
    }

    fn commit_attestation(&mut self, run: RunId, window: Window) -> Drawn {
        let is_done = |index| AttestationCommitments::<Runtime>::contains_key((run, window, index));
        let (index, hot) = self.judge(run, is_done);
        let (genesis, key) = (genesis_hash(), account_bytes(&hot));
        let opening = attested(index, window);
        let hash = attestation_commitment_hash(&genesis, run, window, &key, &opening);
        Drawn::signed(hot, Call::commit_attestation { run, window, hash })
    }

    fn reveal_attestation(&mut self, run: RunId, window: Window) -> Drawn {
        let is_done = |index| Attestations::<Runtime>::contains_key((run, window, index));
        let (index, hot) = self.judge(run, is_done);
        let AttestationOpening { bitmap, state_root, salt } = attested(index, window);
        let bitmap = Bitmap::truncate_from(bitmap);
        let salt = if self.draws.one_in(40) { [3; 32] } else { salt };
        Drawn::signed(hot, Call::reveal_attestation { run, window, bitmap, state_root, salt })
    }

    fn commit_scores(&mut self, run: RunId, window: Window) -> Drawn {
        let is_done = |index| ScoreCommitments::<Runtime>::contains_key((run, window, index));
        let (index, hot) = self.judge(run, is_done);
        let (evaluations, salt) = measured(index.into(), &hot, window, SCORED);
        let (genesis, key) = (genesis_hash(), account_bytes(&hot));
        let version = SCORE_VERSION;
        let hash = score_commitment_hash(&genesis, run, window, &key, &evaluations, version, &salt);
        // Now and then by a program that measures in another way.
        let version = if self.draws.one_in(40) { version + 1 } else { version };
        Drawn::signed(hot, Call::commit_scores { run, window, hash, version })
    }

    fn reveal_scores(&mut self, run: RunId, window: Window) -> Drawn {
        let is_done = |index| ScoreReveals::<Runtime>::contains_key((run, window, index));
        let (index, hot) = self.judge(run, is_done);
        let (evaluations, salt) = measured(index.into(), &hot, window, SCORED);
        let evaluations = evaluations.try_into().expect("evaluations fit");
        let salt = if self.draws.one_in(40) { [2; 32] } else { salt };
        let version = SCORE_VERSION;
        let call = Call::reveal_scores { run, window, evaluations, salt, version };
        Drawn::signed(hot, call)
    }
}

/// What a validator attests of a window: always the same, mostly all of the miners and the state that there is.
fn attested(index: ValidatorIndex, window: Window) -> AttestationOpening {
    let mut draws = Draws::after(index.into(), window << 8);
    let uids: Vec<Uid> = (0..SCORED).filter(|_| !draws.one_in(12)).collect();
    let state_root = if draws.one_in(12) { [9; 32] } else { Model::genesis().root() };
    AttestationOpening { bitmap: bitmap_of(&uids), state_root, salt: [index as u8; 32] }
}
