//! Draws calls: mostly what a participant would do in the block's phase, and every kind of mistake.

use node_client::chain::{Call, CommitmentName, EvaluationName, HotKeyProof};
use pallet_gauntlet::{
    account_bytes, Departures, EvaluationDisputes, MinerUids, Miners, NextRunId, OpenChallenges,
    Permits, Reveals, RunSettings, Runs, ScoreReveals, ValidatorIndices, Validators, Windows,
};
use protocol::{
    accept::bitmap_of,
    commitment::{
        attestation_commitment_hash, commitment_hash, score_commitment_hash, AttestationOpening,
    },
    consent::Role,
    fault::{verdict_commitment_hash, COPY_CHUNKS},
    layout::{Layout, LAYOUT_TENSORS_MAX},
    settings::{
        ConsensusKind, InnerOptimiser, Settings, StandingKind, YumaSettings, SCORE_VERSION,
    },
    window::{phase_at, Moment, Phase, ScorePhase},
    Hash, Planck, RunId, Uid, Window,
};
use runtime::{AccountId, Runtime, System, UNIT};
use sp_core::{sr25519, Pair};

use crate::{
    draws::Draws,
    evidence::{measured, registered_window, verdict},
    network::{
        consent, endowed, evaluation, genesis_hash, layout, miner_cold, miner_hot, miner_key,
        owner, peer, settings, validator_cold, validator_hot, validator_key, Model, STAKE,
    },
    payload::{copied_places, Flaw, MinerPayload},
};

/// Miners and validators that the calls are drawn for; some of them register later.
pub(super) const MINERS: u8 = 6;
pub(super) const VALIDATORS: u8 = 6;
/// Accounts that the genesis endows.
const ENDOWED: u64 = 14;
/// Payloads without a flaw; the others follow.
const WHOLE: usize = 6;
/// The calls of a window's work.
const WORKS: u64 = 6;
/// A run that there never is.
const UNKNOWN_RUN: RunId = 99;

/// A call with its signer.
pub(super) type Signed = (AccountId, Call);

/// Run 0 is the example, run 1 is small and quick, ranks by Plackett–Luce, and its training overlaps with its exchange.
pub(super) fn run_settings(run: RunId) -> Settings {
    let mut settings = settings();
    if run == 1 {
        let schedule = &mut settings.schedule;
        schedule.start_block = 3;
        schedule.window_blocks = 6;
        (schedule.commit_end, schedule.reveal_end) = (1, 3);
        (schedule.attest_commit_end, schedule.attest_end) = (4, 5);
        (schedule.score_commit_end, schedule.score_reveal_end) = (1, 2);
        settings.incentive.uid_max = 4;
        settings.incentive.accepted_max = 2;
        settings.incentive.unscored_max = 2;
        settings.incentive.probation_windows = 1;
        settings.incentive.permits_max = 3;
        settings.incentive.evaluators_per_miner = 2;
        settings.incentive.challenge_chunks = 3;
        settings.incentive.standing = StandingKind::PlackettLuce;
        settings.incentive.claim_delay_windows = 3;
        settings.entry.idle_windows = 2;
        settings.emission.release_ppm = 100_000;
        settings.training.overlap = true;
    }
    settings
}

/// The calls of the first block: two runs and most of their participants.
pub(super) fn opening_calls() -> Vec<Signed> {
    let mut calls = Vec::new();
    for run in 0..2 {
        let (settings, layout) = (Box::new(run_settings(run)), layout());
        calls.push((owner(), Call::CreateRun { settings, layout }));
        for number in 0..MINERS - 2 {
            let cold = miner_cold(number);
            let register = register_miner(&miner_key(number), run, &cold, Planck::MAX);
            calls.push((cold, register));
        }
        for number in 0..VALIDATORS - 2 {
            let stake = STAKE + Planck::from(number) * UNIT;
            let cold = validator_cold(number);
            let register = register_validator(&validator_key(number), run, &cold, stake);
            calls.push((cold, register));
        }
    }
    calls
}

/// The call with which `cold` registers a miner.
pub(super) fn register_miner(
    hot: &sr25519::Pair,
    run: RunId,
    cold: &AccountId,
    max_price: Planck,
) -> Call {
    let proof = HotKeyProof::Sr25519(consent(hot, run, Role::Miner, cold).0);
    Call::RegisterMiner { run, hot: hot.public().0, proof, max_price }
}

/// The call with which `cold` registers a validator.
fn register_validator(hot: &sr25519::Pair, run: RunId, cold: &AccountId, stake: Planck) -> Call {
    let proof = HotKeyProof::Sr25519(consent(hot, run, Role::Validator, cold).0);
    Call::RegisterValidator { run, hot: hot.public().0, proof, stake }
}

/// Who a drawn call is for, and where its block lies in the run.
struct Scene {
    run: RunId,
    settings: Settings,
    moment: Option<Moment>,
    miner: u8,
    validator: u8,
}

impl Scene {
    /// The window of the block, and now and then another one.
    fn window(&self, draws: &mut Draws) -> Window {
        let now = self.moment.map_or(0, |moment| moment.window);
        match draws.below(40) {
            0 => now + 1,
            1 => now.saturating_sub(1),
            _ => now,
        }
    }

    /// With a validator that has a permit, if it is to attest: where less than half of the stake does, nobody is at fault or idle.
    fn attesting(mut self, work: u64) -> Self {
        let window = self.moment.filter(|_| work == 2 || work == 3).map(|moment| moment.window);
        let permits = window.map(|window| Permits::<Runtime>::get(self.run, window));
        let permits = permits.unwrap_or_default();
        let place = usize::from(self.validator).checked_rem(permits.len());
        let index = place.and_then(|place| permits.get(place)).map(|(index, _)| *index);
        let row = index.and_then(|index| Validators::<Runtime>::get(self.run, index));
        let number = row.and_then(|row| (0..VALIDATORS).find(|at| validator_hot(*at) == row.hot));
        self.validator = number.unwrap_or(self.validator);
        self
    }
}

/// Draws calls from a seed.
pub(super) struct Script {
    draws: Draws,
    payloads: Vec<MinerPayload>,
}

impl Script {
    /// The script of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let whole = (0..WHOLE as u8).map(|flavour| MinerPayload::new(flavour, Flaw::None));
        // What the chain does not ask for is revealed, and can be reported.
        let flaws = [
            Flaw::OtherBase,
            Flaw::ChunkCount,
            Flaw::ByteLen,
            Flaw::Malformed,
            Flaw::FirstMalformed,
            Flaw::FirstMalformed,
            Flaw::FirstMalformed,
        ];
        let flawed =
            (WHOLE as u8..).zip(flaws).map(|(flavour, flaw)| MinerPayload::new(flavour, flaw));
        let payloads = whole.chain(flawed).collect();
        Script { draws: Draws::after(seed, 0), payloads }
    }

    /// The next call.
    pub(super) fn draw(&mut self) -> Signed {
        let scene = self.draw_scene();
        match self.draws.below(100) {
            0..=11 => self.membership(&scene),
            12..=16 => {
                let account = account_bytes(&endowed(self.draws.below(ENDOWED) as usize));
                (miner_hot(scene.miner), Call::Claim { run: scene.run, account })
            }
            17..=18 => self.set_params(&scene),
            19 if self.draws.one_in(2) => self.fund_run(&scene),
            19 => self.transfer(),
            20 => self.create_run(),
            21..=33 => self.accusation(&scene),
            34..=43 => {
                let work = self.draws.below(WORKS);
                self.work(work, &scene)
            }
            _ => {
                let work = self.fitting_work(&scene);
                self.work(work, &scene.attesting(work))
            }
        }
    }

    fn draw_scene(&mut self) -> Scene {
        let run = match self.draws.below(40) {
            0 => UNKNOWN_RUN,
            1 => self.draws.below(u64::from(NextRunId::<Runtime>::get())) as RunId,
            2..=16 => 1,
            _ => 0,
        };
        let found = Runs::<Runtime>::get(run)
            .and_then(|record| RunSettings::<Runtime>::get(run, record.settings_version));
        let settings = found.unwrap_or_else(settings);
        let moment = phase_at(&settings.schedule, System::block_number());
        let miner = self.draws.below(MINERS.into()) as u8;
        let validator = self.draws.below(VALIDATORS.into()) as u8;
        Scene { run, settings, moment, miner, validator }
    }

    /// What somebody would do in this phase: 0 to 5, see [`Self::work`].
    fn fitting_work(&mut self, scene: &Scene) -> u64 {
        let Some(moment) = scene.moment else {
            return self.draws.below(WORKS);
        };
        let of_update = match moment.phase {
            Phase::Commit => Some(0),
            Phase::Reveal => Some(1),
            Phase::AttestCommit => Some(2),
            Phase::AttestReveal => Some(3),
            Phase::Apply => None,
        };
        let of_scores = match moment.score_phase {
            ScorePhase::Commit => Some(4),
            ScorePhase::Reveal => Some(5),
            ScorePhase::Settle => None,
        };
        let prefers_scores = self.draws.one_in(2);
        let (first, second) =
            if prefers_scores { (of_scores, of_update) } else { (of_update, of_scores) };
        first.or(second).unwrap_or_else(|| self.draws.below(WORKS))
    }

    /// One of the six calls of a window's work.
    fn work(&mut self, which: u64, scene: &Scene) -> Signed {
        let signer = match which {
            // Now and then with a key of the other role.
            _ if self.draws.one_in(40) && which < 2 => validator_hot(scene.validator),
            _ if self.draws.one_in(40) => miner_hot(scene.miner),
            0 | 1 => miner_hot(scene.miner),
            _ => validator_hot(scene.validator),
        };
        let window = scene.window(&mut self.draws);
        let call = match which {
            0 => self.commit_update(scene, &signer, window),
            1 => self.reveal_update(scene, &signer, window),
            2 => self.commit_attestation(scene, &signer, window),
            3 => self.reveal_attestation(scene, &signer, window),
            4 => self.commit_scores(scene, &signer, window.saturating_sub(1)),
            _ => self.reveal_scores(scene, &signer, window.saturating_sub(1)),
        };
        (signer, call)
    }

    /// The payload of a miner in a window: always the same one, in every other window its neighbour's too.
    fn payload(&self, scene: &Scene, window: Window) -> &MinerPayload {
        let miner = if window.is_multiple_of(2) { scene.miner / 2 } else { scene.miner };
        let number = u64::from(miner) * 5 + window * 3 + u64::from(scene.run);
        &self.payloads[(number % self.payloads.len() as u64) as usize]
    }

    fn commit_update(&mut self, scene: &Scene, hot: &AccountId, window: Window) -> Call {
        let run = scene.run;
        let opening = self.payload(scene, window).opening();
        let hash = commitment_hash(&genesis_hash(), run, window, &account_bytes(hot), &opening);
        Call::CommitUpdate { run, window, hash }
    }

    fn reveal_update(&mut self, scene: &Scene, hot: &AccountId, window: Window) -> Call {
        let run = scene.run;
        let uid = MinerUids::<Runtime>::get(run, hot).unwrap_or(Uid::MAX);
        let seed = Windows::<Runtime>::get(run, window).and_then(|record| record.challenge_seed);
        let count = scene.settings.incentive.challenge_chunks;
        let mistake = self.draws.below(60);
        let payload = self.payload(scene, window);
        let mut opening = payload.opening();
        let seed = seed.unwrap_or_default();
        let mut chunks = payload.shown(&seed, (run, window, uid), count);
        match mistake {
            0 => opening.salt = [1; 32],
            1 => chunks.truncate(1),
            2 => chunks.reverse(),
            3 | 4 => chunks.iter_mut().for_each(|chunk| chunk.chunk[3] ^= 1),
            5 => chunks.iter_mut().for_each(|chunk| chunk.proof.truncate(0)),
            6 => chunks.extend(payload.shown(&seed, (run, window, uid), 3)),
            7 => chunks.iter_mut().for_each(|chunk| chunk.chunk.resize(1_600, 0)),
            _ => {}
        }
        Call::RevealUpdate { run, window, opening, chunks }
    }

    fn commit_attestation(&mut self, scene: &Scene, hot: &AccountId, window: Window) -> Call {
        let (run, key) = (scene.run, account_bytes(hot));
        let opening = attested(scene, window);
        let hash = attestation_commitment_hash(&genesis_hash(), run, window, &key, &opening);
        Call::CommitAttestation { run, window, hash }
    }

    fn reveal_attestation(&mut self, scene: &Scene, _: &AccountId, window: Window) -> Call {
        let mut opening = attested(scene, window);
        match self.draws.below(40) {
            0 => opening.salt = [3; 32],
            1 => opening.bitmap = vec![0; 600],
            _ => {}
        }
        Call::RevealAttestation { run: scene.run, window, opening }
    }

    fn commit_scores(&mut self, scene: &Scene, hot: &AccountId, window: Window) -> Call {
        let run = scene.run;
        let (evaluations, salt) = measured(scene.validator.into(), hot, window, MINERS.into());
        let key = account_bytes(hot);
        let genesis = genesis_hash();
        let version = SCORE_VERSION;
        let hash = score_commitment_hash(&genesis, run, window, &key, &evaluations, version, &salt);
        // Now and then by a program that measures in another way.
        let version = if self.draws.one_in(40) { version + 1 } else { version };
        Call::CommitScores { run, window, hash, version }
    }

    fn reveal_scores(&mut self, scene: &Scene, hot: &AccountId, window: Window) -> Call {
        let (mut evaluations, mut salt) =
            measured(scene.validator.into(), hot, window, MINERS.into());
        match self.draws.below(40) {
            0 => salt = [2; 32],
            1 => evaluations = vec![evaluation(0, 1, 1); 257],
            _ => {}
        }
        let version = SCORE_VERSION;
        Call::RevealScores { run: scene.run, window, evaluations, salt, version }
    }

    /// A proof, a request for a chunk, a dispute, or what follows from one.
    fn accusation(&mut self, scene: &Scene) -> Signed {
        let run = scene.run;
        let signer = match self.draws.below(4) {
            0 => validator_hot(scene.validator),
            1 => miner_hot(scene.miner),
            _ => endowed(self.draws.below(ENDOWED) as usize),
        };
        // Past the layout now and then.
        let chunks = if self.draws.one_in(20) { 4 } else { 3 };
        let index = self.draws.below(chunks) as u32;
        match self.draws.below(13) {
            0 => (signer, self.report_copy(run)),
            1 => (signer, self.report_malformed(run)),
            2 | 3 => {
                let (commitment, _) = self.revealed(run);
                (signer, Call::ChallengeData { run, commitment, index })
            }
            4 | 5 => self.answer(run, signer),
            6 => {
                let (commitment, index) = self.challenged(run);
                (signer, Call::TimeOut { run, commitment, index })
            }
            7 => {
                let evaluation = self.scored(run);
                (signer, Call::DisputeEvaluation { run, evaluation })
            }
            8 | 9 => {
                let hot = validator_hot(scene.validator);
                let evaluation = self.disputed(run);
                let (measured, salt) = verdict(run, evaluation, scene.validator);
                let (window, accused, _) = evaluation;
                let key = account_bytes(&hot);
                let genesis = genesis_hash();
                let hash =
                    verdict_commitment_hash(&genesis, run, window, accused, &key, &measured, &salt);
                (hot, Call::CommitVerdict { run, evaluation, hash })
            }
            10 | 11 => {
                let evaluation = self.disputed(run);
                let validator = self.juror(run, evaluation).unwrap_or(scene.validator);
                let (measured, salt) = verdict(run, evaluation, validator);
                let salt = if self.draws.one_in(8) { [9; 32] } else { salt };
                let hot = validator_hot(validator);
                (hot, Call::RevealVerdict { run, evaluation, measured, salt })
            }
            _ => (signer, Call::CloseDispute { run, evaluation: self.disputed(run) }),
        }
    }

    /// Two reveals of one payload if there are some, now and then any two, or not with what was drawn.
    fn report_copy(&mut self, run: RunId) -> Call {
        let (first, payload) = self.revealed(run);
        let mut others = reveals(run);
        if !self.draws.one_in(6) {
            let root = self.payloads[payload].opening().payload_root;
            others.retain(|(name, found)| *name != first && *found == root);
        }
        let other = self.draws.below(others.len().max(1) as u64) as usize;
        let second = others.get(other).map_or(first, |(name, _)| *name);
        let mut places = copied_places(run, first.0.max(second.0));
        match self.draws.below(20) {
            0 => places.clear(),
            1 => places.reverse(),
            2 => places.extend([0; COPY_CHUNKS]),
            _ => {}
        }
        let chunk = |index| self.payloads[payload].chunk(index);
        let chunks = places.into_iter().map(|index| [chunk(index), chunk(index)]).collect();
        Call::ReportCopy { run, commitments: [first, second], chunks }
    }

    /// Mostly of the first chunk of a payload that has a bad one.
    fn report_malformed(&mut self, run: RunId) -> Call {
        let (mut commitment, mut payload) = self.revealed(run);
        let flawed: Vec<_> = reveals(run)
            .into_iter()
            .map(|(name, root)| (name, self.payload_of(&root)))
            .filter(|(_, payload)| *payload >= WHOLE)
            .collect();
        let any = self.draws.below(flawed.len().max(1) as u64) as usize;
        if let Some(found) = flawed.get(any).filter(|_| !self.draws.one_in(4)) {
            (commitment, payload) = *found;
        }
        let index = u32::from(self.draws.one_in(4));
        Call::ReportMalformed { run, commitment, chunk: self.payloads[payload].chunk(index) }
    }

    /// The answer to a request that is open, mostly by its miner, mostly right.
    fn answer(&mut self, run: RunId, stranger: AccountId) -> Signed {
        let (commitment, index) = self.challenged(run);
        let (window, uid, registered_window) = commitment;
        let root = Reveals::<Runtime>::get((run, window, uid)).map(|row| row.opening.payload_root);
        let payload = self.payload_of(&root.unwrap_or_default());
        let index = if self.draws.one_in(8) { 0 } else { index.min(2) };
        let mut chunk = self.payloads[payload].chunk(index);
        if self.draws.one_in(8) {
            chunk.proof.clear();
        }
        let hot = Miners::<Runtime>::get(run, uid).map(|miner| miner.hot);
        let gone = Departures::<Runtime>::get(run, (uid, registered_window)).map(|gone| gone.cold);
        let signer = gone.or(hot).filter(|_| !self.draws.one_in(8)).unwrap_or(stranger);
        (signer, Call::AnswerData { run, commitment, chunk })
    }

    /// A commitment that is revealed, and the number of its payload; now and then one that there is not.
    fn revealed(&mut self, run: RunId) -> (CommitmentName, usize) {
        let found = reveals(run);
        let place = self.draws.below(found.len().max(1) as u64) as usize;
        let (mut name, root) = found.get(place).copied().unwrap_or_default();
        match self.draws.below(40) {
            0 => name.0 += 9,
            1 => name.1 += 1,
            2 => name.2 += 1,
            _ => {}
        }
        (name, self.payload_of(&root))
    }

    fn payload_of(&self, root: &Hash) -> usize {
        let mut payloads = self.payloads.iter();
        payloads.position(|payload| payload.opening().payload_root == *root).unwrap_or(0)
    }

    /// A request for a chunk that is open, or one that nobody made.
    fn challenged(&mut self, run: RunId) -> (CommitmentName, u32) {
        let open = OpenChallenges::<Runtime>::iter_prefix((run,));
        let found: Vec<_> = open
            .flat_map(|((window, uid), open)| {
                open.into_iter().map(move |challenge| (window, uid, challenge.index))
            })
            .collect();
        let place = self.draws.below(found.len().max(1) as u64) as usize;
        let (window, uid, index) = found.get(place).copied().unwrap_or_default();
        ((window, uid, registered_window(run, uid)), index)
    }

    /// An evaluation that is revealed, now and then one that there is not.
    fn scored(&mut self, run: RunId) -> EvaluationName {
        let found: Vec<_> = ScoreReveals::<Runtime>::iter_prefix((run,)).collect();
        let place = self.draws.below(found.len().max(1) as u64) as usize;
        let (window, index) = found.get(place).map_or((0, 0), |(key, _)| *key);
        (window, index, self.draws.below(u64::from(MINERS) + 1) as Uid)
    }

    /// A dispute that is open, or one that nobody opened.
    fn disputed(&mut self, run: RunId) -> EvaluationName {
        let found: Vec<_> = EvaluationDisputes::<Runtime>::iter_key_prefix((run,)).collect();
        let place = self.draws.below(found.len().max(1) as u64) as usize;
        found.get(place).copied().unwrap_or_default()
    }

    /// A juror that has committed and not revealed, if there is one.
    fn juror(&mut self, run: RunId, (window, index, uid): EvaluationName) -> Option<u8> {
        let dispute = EvaluationDisputes::<Runtime>::get((run, window, index, uid))?;
        let seats = dispute.jury.into_iter();
        let mut seats = seats.filter(|seat| seat.commitment.is_some() && seat.measured.is_none());
        let hot = Validators::<Runtime>::get(run, seats.next()?.index)?.hot;
        (0..VALIDATORS).find(|number| validator_hot(*number) == hot)
    }

    /// Somebody comes, goes, stakes more or says how to be reached.
    fn membership(&mut self, scene: &Scene) -> Signed {
        let run = scene.run;
        let (miner, validator) = (scene.miner, scene.validator);
        let slot = self.draws.below(8) as u16;
        let own_slot = !self.draws.one_in(4);
        match self.draws.below(15) {
            12 | 13 => {
                let key = Departures::<Runtime>::iter_key_prefix(run).next();
                let (uid, registered_window) = key.unwrap_or((slot, 0));
                (owner(), Call::WithdrawBond { run, uid, registered_window })
            }
            14 => (owner(), Call::Evict { run, uid: slot }),
            0..=2 => {
                let of_validator = self.draws.one_in(8);
                let hot = if of_validator { validator_key(validator) } else { miner_key(miner) };
                let cold = miner_cold(miner);
                // A consent to work for somebody else, and less than it costs.
                let consented = if self.draws.one_in(16) { endowed(0) } else { cold.clone() };
                let max_price = if self.draws.one_in(16) { UNIT } else { Planck::MAX };
                (cold, register_miner(&hot, run, &consented, max_price))
            }
            3 => {
                let own = MinerUids::<Runtime>::get(run, miner_hot(miner));
                let uid = own.filter(|_| own_slot).unwrap_or(slot);
                (miner_cold(miner), Call::LeaveMiner { run, uid })
            }
            4..=6 => {
                let cold = validator_cold(validator);
                let stake = self.stake();
                let register = register_validator(&validator_key(validator), run, &cold, stake);
                (cold, register)
            }
            7 => {
                let own = ValidatorIndices::<Runtime>::get(run, validator_hot(validator));
                let index = own.filter(|_| own_slot).unwrap_or(slot);
                (validator_cold(validator), Call::DeregisterValidator { run, index })
            }
            8 | 9 => {
                let own = ValidatorIndices::<Runtime>::get(run, validator_hot(validator));
                let index = own.filter(|_| own_slot).unwrap_or(slot);
                let amount = if self.draws.one_in(2) { UNIT } else { self.stake() };
                (validator_cold(validator), Call::AddStake { run, index, amount })
            }
            _ => self.announce(scene),
        }
    }

    /// A stake, often a sensible one.
    fn stake(&mut self) -> Planck {
        match self.draws.below(12) {
            0 => Planck::MAX,
            1 => Planck::MAX,
            // Less than the bound, and more than anybody has.
            2 => 10_000_000 * UNIT,
            3 => UNIT,
            _ => Planck::from(100 + self.draws.below(2_000)) * UNIT,
        }
    }

    fn announce(&mut self, scene: &Scene) -> Signed {
        let of_miner = self.draws.one_in(2);
        let hot = if of_miner { miner_hot(scene.miner) } else { validator_hot(scene.validator) };
        let (mut address_len, mut address_count) = (12, self.draws.below(5));
        let (mut peer_id, mut proof) = peer(scene.miner, scene.run, &hot);
        match self.draws.below(16) {
            0 => peer_id.resize(65, 0),
            3 => peer_id.truncate(37),
            4 => proof[5] ^= 1,
            1 => (address_len, address_count) = (129, 1),
            2 => address_count = 5,
            _ => {}
        }
        let address = vec![self.draws.below(256) as u8; address_len];
        let addresses = vec![address; address_count as usize];
        (hot, Call::Announce { run: scene.run, peer_id, addresses, proof })
    }

    fn set_params(&mut self, scene: &Scene) -> Signed {
        let mut settings = scene.settings.clone();
        match self.draws.below(12) {
            0 => settings.incentive.power = 17,
            1 => settings.emission.owner_ppm += 1,
            2 => settings.training.keep += 1,
            3 => settings.schedule.window_blocks += 1,
            4 => settings.training.sample_count = 1,
            5 => settings.schedule.commit_end = 0,
            6 => settings.incentive.uid_max += 1,
            7 => settings.incentive.claim_delay_windows = self.draws.below(34) as u32,
            8 => {
                settings.incentive.power = 1 + self.draws.below(4) as u8;
                if settings.incentive.power.is_multiple_of(2) {
                    settings.incentive.consensus = ConsensusKind::Yuma(YumaSettings::UPSTREAM);
                }
            }
            // A rate of 0 is refused, as is a decay that begins in the warm-up.
            9 => {
                let rate_ppb = self.draws.below(3) as u32;
                settings.training.optimiser = InnerOptimiser::Muon { rate_ppb };
            }
            10 => {
                settings.training.outer.warm_up_windows = 2;
                settings.training.outer.decay_start = self.draws.below(4);
                settings.training.outer.decay_windows = 3;
            }
            _ => {
                let owner_ppm = self.draws.below(300_000) as u32;
                settings.emission.owner_ppm = owner_ppm;
                settings.emission.miners_ppm = 700_000 - owner_ppm;
            }
        }
        let signer = if self.draws.one_in(8) { endowed(1) } else { owner() };
        (signer, Call::SetParams { run: scene.run, settings: Box::new(settings) })
    }

    /// Somebody puts money into a run: much, little, or what is not enough.
    fn fund_run(&mut self, scene: &Scene) -> Signed {
        let sponsor = endowed(self.draws.below(ENDOWED) as usize);
        let amount = match self.draws.below(8) {
            0 => Planck::from(self.draws.below(1_000)),
            1 => 10_000_000 * UNIT,
            _ => Planck::from(1 + self.draws.below(500)) * UNIT,
        };
        let per_window = Planck::from(self.draws.below(40)) * UNIT;
        (sponsor, Call::FundRun { run: scene.run, amount, per_window })
    }

    /// A weight for one of the runs, now and then none.
    pub(super) fn draw_weight(&mut self) -> Option<(RunId, u16)> {
        let changes = self.draws.one_in(12);
        let run = self.draws.below(2) as RunId;
        let weight = self.draws.below(4) as u16 * self.draws.below(20_000) as u16;
        changes.then_some((run, weight))
    }

    fn create_run(&mut self) -> Signed {
        let mut settings = run_settings(self.draws.below(2) as RunId);
        let mut layout = layout();
        settings.schedule.start_block = System::block_number() + 1 + self.draws.below(10) as u32;
        match self.draws.below(8) {
            0 => settings.schedule.start_block = System::block_number(),
            1 => layout = Layout(Vec::new()),
            2 => layout = Layout(vec![1; LAYOUT_TENSORS_MAX as usize + 1]),
            3 => settings.schedule.reveal_end = 0,
            _ => {}
        }
        let signer = endowed(self.draws.below(ENDOWED) as usize);
        (signer, Call::CreateRun { settings: Box::new(settings), layout })
    }

    fn transfer(&mut self) -> Signed {
        let signer = endowed(self.draws.below(ENDOWED) as usize);
        let to = account_bytes(&endowed(self.draws.below(ENDOWED) as usize));
        // More than anybody has, and less than there is: the fake does not count the issuance.
        let is_too_much = self.draws.one_in(4);
        let amount = if is_too_much { 5_000_000 } else { 1 + self.draws.below(500) };
        (signer, Call::Transfer { to, amount: Planck::from(amount) * UNIT })
    }
}

/// The commitments of a run that are revealed, and their payloads' roots.
fn reveals(run: RunId) -> Vec<(CommitmentName, Hash)> {
    let name = |((window, uid), row): ((Window, Uid), pallet_gauntlet::Reveal)| {
        ((window, uid, registered_window(run, uid)), row.opening.payload_root)
    };
    Reveals::<Runtime>::iter_prefix((run,)).map(name).collect()
}

/// What a validator attests of a window: always the same, mostly all of the miners and the state that there is.
fn attested(scene: &Scene, window: Window) -> AttestationOpening {
    let mut draws = Draws::after(scene.validator.into(), window << 8);
    let uids: Vec<Uid> = (0..8).filter(|_| !draws.one_in(6)).collect();
    let bitmap = match draws.below(40) {
        0 => bitmap_of(&[100]),
        1..=4 => bitmap_of(&[0, 1]),
        _ => bitmap_of(&uids),
    };
    let others_root = draws.one_in(10);
    let state_root = if others_root { [9; 32] } else { Model::genesis().root() };
    AttestationOpening { bitmap, state_root, salt: [scene.validator; 32] }
}
