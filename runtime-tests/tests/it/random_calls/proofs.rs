//! Draws accusations and what follows from them: proofs, requests for chunks, disputes, verdicts, slashes.

use pallet_gauntlet::{
    account_bytes, Benches, Call, CommitmentName, CopyProof, DataChallenge, Departures,
    EvaluationDisputes, EvaluationName, Juror, Miners, OpenChallenges, Reveals, ScoreReveals,
    UnappliedSlashes, Validators,
};
use protocol::{
    fault::verdict_commitment_hash, limits::DISPUTE_WINDOWS, BlockNumber, Hash, RunId, Uid,
    ValidatorIndex, Window,
};
use runtime::{AccountId, Runtime, System};

use super::{shown, Drawn, Scene, Script, WHOLE};
use crate::{
    evidence::{registered_window, verdict},
    network::genesis_hash,
    payload::copied_places,
};

/// A juror of the runtime.
type Seated = Juror<AccountId>;

/// Chunks of every payload.
const CHUNKS: u64 = 3;

impl Script {
    /// One of the calls of this file.
    pub(super) fn of_proofs(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        match self.draws.below(20) {
            0 | 1 => self.report_copy(run),
            2 | 3 => self.report_malformed(run),
            4..=6 => {
                let (commitment, _) = self.revealed(run);
                // Past the layout now and then.
                let index = self.draws.below(CHUNKS + 1) as u32;
                Drawn::signed(self.accuser(run), Call::challenge_data { run, commitment, index })
            }
            7 | 8 => self.answer_data(run),
            9 | 10 => {
                let (commitment, index) = self.challenged(run, |deadline, now| deadline < now);
                Drawn::signed(self.somebody(), Call::time_out { run, commitment, index })
            }
            19 if self.draws.one_in(2) => {
                let slash = self.pick(UnappliedSlashes::<Runtime>::iter_key_prefix(run));
                self.governed(Call::cancel_slash { run, slash: slash.unwrap_or(0) })
            }
            _ => self.of_disputes(scene),
        }
    }

    /// What one of the run's disputes waits for, mostly; a dispute if there is none.
    fn of_disputes(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        let opened = EvaluationDisputes::<Runtime>::iter_prefix_values((run,));
        let ages: Vec<Window> =
            opened.map(|dispute| scene.window().saturating_sub(dispute.opened)).collect();
        // Votes first, as most of a bench has to vote before anything is decided.
        let voting: Vec<Window> = ages.iter().copied().filter(|age| matches!(age, 1 | 2)).collect();
        let age = self.pick(voting).filter(|_| !self.draws.one_in(4)).or_else(|| self.pick(ages));
        let step = match age {
            // It waits for the next window.
            Some(0) => self.draws.below(4),
            Some(_) if self.draws.one_in(4) => self.draws.below(4),
            age => age.unwrap_or(0),
        };
        match step {
            0 => {
                let evaluation = self.scored(run);
                Drawn::signed(self.accuser(run), Call::dispute_evaluation { run, evaluation })
            }
            1 => self.commit_verdict(scene),
            2 => self.reveal_verdict(scene),
            _ => {
                let evaluation = self.disputed(scene, |_, _, age| age >= DISPUTE_WINDOWS);
                Drawn::signed(self.somebody(), Call::close_dispute { run, evaluation })
            }
        }
    }

    /// Somebody, or a hot key, whose report pays its cold key.
    fn accuser(&mut self, run: RunId) -> AccountId {
        let hot = match self.draws.below(4) {
            0 => self.miner(run).map(|(_, miner)| miner.hot),
            1 => self.validator(run).map(|(_, validator)| validator.hot),
            _ => None,
        };
        hot.unwrap_or_else(|| self.somebody())
    }

    /// Two reveals of one payload if there are some, now and then any two.
    fn report_copy(&mut self, run: RunId) -> Drawn {
        let (first, root) = self.revealed(run);
        let any = self.draws.one_in(6);
        let others = reveals(run).filter(|(name, other)| any || (*name != first && *other == root));
        let second = self.pick(others).map_or(first, |(name, _)| name);
        let mut places = copied_places(run, first.window.max(second.window));
        if self.draws.one_in(10) {
            places.reverse();
        }
        let payload = &self.payloads[self.payload_of(&root)];
        let chunk = |index| shown(payload.chunk(index));
        let chunks = places.into_iter().map(|index| [chunk(index), chunk(index)]).collect();
        let chunks = CopyProof::truncate_from(chunks);
        let call = Call::report_copy { run, commitments: [first, second], chunks };
        Drawn::signed(self.accuser(run), call)
    }

    /// Mostly of the first chunk of a payload that has a bad one.
    fn report_malformed(&mut self, run: RunId) -> Drawn {
        let flawed =
            reveals(run).filter(|(_, root)| self.payload_of(root) >= WHOLE).collect::<Vec<_>>();
        let flawed = self.pick(flawed).filter(|_| !self.draws.one_in(4));
        let (commitment, root) = flawed.unwrap_or_else(|| self.revealed(run));
        let index = if self.draws.one_in(4) { 1 } else { 0 };
        let chunk = Box::new(shown(self.payloads[self.payload_of(&root)].chunk(index)));
        let call = Call::report_malformed { run, commitment, index, chunk };
        Drawn::signed(self.accuser(run), call)
    }

    /// The answer to a request that is open, mostly by its miner, mostly right.
    fn answer_data(&mut self, run: RunId) -> Drawn {
        let (commitment, asked) = self.challenged(run, |deadline, now| now <= deadline);
        let CommitmentName { window, uid, registered_window } = commitment;
        let root = Reveals::<Runtime>::get((run, window, uid)).map(|row| row.opening.payload_root);
        let index = if self.draws.one_in(8) { 0 } else { asked };
        let payload = self.payload_of(&root.unwrap_or_default());
        let mut chunk = shown(self.payloads[payload].chunk(index));
        if self.draws.one_in(8) {
            chunk.proof = Default::default();
        }
        let hot = Miners::<Runtime>::get(run, uid).map(|miner| miner.hot);
        let gone = Departures::<Runtime>::get(run, (uid, registered_window)).map(|gone| gone.cold);
        let chunk = Box::new(chunk);
        let call = Call::answer_data { run, commitment, index: asked, chunk };
        Drawn::signed(self.mostly(gone.or(hot)), call)
    }

    /// A commitment that is revealed, with its payload's root; now and then one that there is not.
    fn revealed(&mut self, run: RunId) -> (CommitmentName, Hash) {
        let nothing = CommitmentName { window: 0, uid: 0, registered_window: 0 };
        let (mut name, root) = self.pick(reveals(run)).unwrap_or((nothing, [0; 32]));
        match self.draws.below(40) {
            0 => name.window += 9,
            1 => name.uid += 1,
            2 => name.registered_window += 1,
            _ => {}
        }
        (name, root)
    }

    /// The place of a payload among those that miners have.
    fn payload_of(&self, root: &Hash) -> usize {
        let mut payloads = self.payloads.iter();
        payloads.position(|payload| payload.opening().payload_root == *root).unwrap_or(0)
    }

    /// A request for a chunk, mostly one whose deadline `fits` the block, or one that nobody made.
    fn challenged(
        &mut self,
        run: RunId,
        fits: impl Fn(BlockNumber, BlockNumber) -> bool,
    ) -> (CommitmentName, u32) {
        let any = self.draws.one_in(8);
        let now = System::block_number();
        let is_meant = |open: &DataChallenge<AccountId>| any || fits(open.deadline, now);
        let open = OpenChallenges::<Runtime>::iter_prefix((run,)).flat_map(|(key, open)| {
            let open = open.into_iter().filter(is_meant);
            open.map(move |challenge| (key, challenge.index))
        });
        let ((window, uid), index) = self.pick(open.collect::<Vec<_>>()).unwrap_or_default();
        (CommitmentName { window, uid, registered_window: registered_window(run, uid) }, index)
    }

    /// An evaluation that is revealed, now and then one that there is not.
    fn scored(&mut self, run: RunId) -> EvaluationName {
        let found = self.pick(ScoreReveals::<Runtime>::iter_key_prefix((run,)));
        let (window, index) = found.unwrap_or_default();
        (window, index, self.draws.below(11) as Uid)
    }

    /// A dispute, mostly the first that `fits` by its jurors and the windows since it was opened, or one that nobody opened.
    fn disputed(
        &mut self,
        scene: &Scene,
        fits: impl Fn(EvaluationName, &[Seated], Window) -> bool,
    ) -> EvaluationName {
        let any = self.draws.one_in(8);
        let now = scene.window();
        let found = EvaluationDisputes::<Runtime>::iter_prefix((scene.run,))
            .filter(|(name, dispute)| {
                any || fits(*name, &dispute.jury, now.saturating_sub(dispute.opened))
            })
            .map(|(name, _)| name);
        let found = if any { self.pick(found) } else { found.min() };
        found.unwrap_or_default()
    }

    fn commit_verdict(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        let may_vote = |(window, ..): EvaluationName, jury: &[Seated]| {
            jury.len() + 1 < Benches::<Runtime>::get(run, window).len()
        };
        let evaluation = self.disputed(scene, |name, jury, age| age == 1 && may_vote(name, jury));
        let any = self.draws.one_in(8);
        let ready = jurors(run, evaluation, |juror| juror.commitment.is_some());
        let judges = Validators::<Runtime>::iter_prefix(run);
        let judges = judges.map(|(index, validator)| (index, validator.hot));
        let found = self.pick(judges.filter(|(index, _)| any || !ready.contains(index)));
        let (index, hot) = found.unwrap_or((0, self.somebody()));
        let (measured, salt) = verdict(run, evaluation, index as u8);
        let (window, accused, _) = evaluation;
        let (genesis, key) = (genesis_hash(), account_bytes(&hot));
        let hash = verdict_commitment_hash(&genesis, run, window, accused, &key, &measured, &salt);
        Drawn::signed(hot, Call::commit_verdict { run, evaluation, hash })
    }

    fn reveal_verdict(&mut self, scene: &Scene) -> Drawn {
        let run = scene.run;
        let is_silent = |juror: &Seated| juror.commitment.is_some() && juror.measured.is_none();
        let evaluation =
            self.disputed(scene, |_, jury, age| age == 2 && jury.iter().any(is_silent));
        let index = self.pick(jurors(run, evaluation, is_silent)).unwrap_or(0);
        let hot = Validators::<Runtime>::get(run, index).map(|validator| validator.hot);
        let (measured, salt) = verdict(run, evaluation, index as u8);
        let salt = if self.draws.one_in(8) { [9; 32] } else { salt };
        Drawn::signed(self.mostly(hot), Call::reveal_verdict { run, evaluation, measured, salt })
    }
}

/// The commitments of a run that are revealed, and their payloads' roots.
fn reveals(run: RunId) -> impl Iterator<Item = (CommitmentName, Hash)> {
    Reveals::<Runtime>::iter_prefix((run,)).map(move |((window, uid), row)| {
        let registered_window = registered_window(run, uid);
        (CommitmentName { window, uid, registered_window }, row.opening.payload_root)
    })
}

/// The slots of those jurors of a dispute of whom something `holds`.
fn jurors(
    run: RunId,
    (window, index, uid): EvaluationName,
    holds: impl Fn(&Seated) -> bool,
) -> Vec<ValidatorIndex> {
    let dispute = EvaluationDisputes::<Runtime>::get((run, window, index, uid));
    let jury = dispute.into_iter().flat_map(|dispute| dispute.jury);
    jury.filter(holds).map(|juror| juror.index).collect()
}
