//! Handles the calls of a window's work: commit and reveal an update, attest, commit and reveal scores.

use frame_support::ensure;
use protocol::{
    books::{permit_of, takes_part},
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, Opening,
    },
    layout::Layout,
    merkle,
    seed::mix_salt,
    update::decode_chunk,
    window::{phase_at, Moment, Phase, ScorePhase},
    Hash, RunId, Uid, ValidatorIndex, Window,
};
use sp_runtime::{traits::Zero, DispatchResult};

use crate::{
    account_bytes, lifecycle::is_paused_in, Attestation, AttestationCommitments, Attestations,
    Bitmap, CommitCounts, Commitment, Commitments, Config, Error, Evaluations, Event, Layouts,
    MinerOf, MinerUids, Miners, Pallet, PayloadOwners, Permits, Reveal, RevealedChunks, Reveals,
    RunOf, Runs, ScoreCommitments, ScoreReveal, ScoreReveals, ValidatorIndices, Validators,
    Windows,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_commit_update(
        hot: T::AccountId,
        run_id: RunId,
        window: Window,
        hash: Hash,
    ) -> DispatchResult {
        Self::ensure_phase(run_id, window, Phase::Commit)?;
        let (uid, mut miner) = Self::active_miner(run_id, &hot, window)?;
        let key = (run_id, window, uid);
        ensure!(!Commitments::<T>::contains_key(key), Error::<T>::AlreadyCommitted);
        let order = CommitCounts::<T>::get(run_id, window);
        CommitCounts::<T>::insert(run_id, window, order.saturating_add(1));
        Commitments::<T>::insert(key, Commitment { hash, block: Self::now(), order });
        miner.committed_window = Some(window);
        Miners::<T>::insert(run_id, uid, miner);
        Self::deposit_event(Event::UpdateCommitted { run: run_id, window, uid, hash });
        Ok(())
    }

    pub(crate) fn do_reveal_update(
        hot: T::AccountId,
        run_id: RunId,
        window: Window,
        opening: Opening,
        chunks: RevealedChunks,
    ) -> DispatchResult {
        let run = Self::ensure_phase(run_id, window, Phase::Reveal)?;
        let (uid, _) = Self::active_miner(run_id, &hot, window)?;
        let key = (run_id, window, uid);
        let commitment = Commitments::<T>::get(key).ok_or(Error::<T>::NotCommitted)?;
        ensure!(!Reveals::<T>::contains_key(key), Error::<T>::AlreadyRevealed);
        let hash =
            commitment_hash(&Self::genesis_hash(), run_id, window, &account_bytes(&hot), &opening);
        ensure!(hash == commitment.hash, Error::<T>::OpeningMismatch);
        ensure!(opening.chunk_count == run.chunk_count, Error::<T>::ChunkCountWrong);
        ensure!(
            opening.byte_len > 0 && opening.byte_len <= run.payload_bytes_max,
            Error::<T>::ByteLenOutOfRange
        );
        Self::ensure_chunks_shown(&run, key, &opening, &chunks)?;
        Self::own_payload(key, opening.payload_root, commitment.order)?;

        let event = Event::UpdateRevealed {
            run: run_id,
            window,
            uid,
            payload_root: opening.payload_root,
            byte_len: opening.byte_len,
        };
        let reveal = Reveal { opening, committed_block: commitment.block, order: commitment.order };
        Reveals::<T>::insert(key, reveal);
        Self::deposit_event(event);
        Ok(())
    }

    /// Checks that the chunks are those that the chain drew, belong to the payload and decode.
    fn ensure_chunks_shown(
        run: &RunOf<T>,
        (run_id, window, uid): (RunId, Window, Uid),
        opening: &Opening,
        chunks: &RevealedChunks,
    ) -> Result<(), Error<T>> {
        let record = Windows::<T>::get(run_id, window).ok_or(Error::<T>::WindowNotOpen)?;
        let seed = record.challenge_seed.ok_or(Error::<T>::ChallengeNotDrawn)?;
        let settings = Self::current_settings(run_id, run)?;
        let count = settings.incentive.challenge_chunks;
        let asked = challenged_chunks(&seed, run_id, window, uid, run.chunk_count, count);
        let shown = chunks.iter().map(|chunk| chunk.index);
        ensure!(shown.eq(asked), Error::<T>::ChunksNotChallenged);
        let layout = Layout(Layouts::<T>::get(run_id).ok_or(Error::<T>::Internal)?.into_inner());
        for chunk in chunks {
            let belongs = merkle::verify(
                &opening.payload_root,
                run.chunk_count,
                chunk.index,
                &chunk.chunk,
                &chunk.proof,
            );
            ensure!(belongs, Error::<T>::ProofInvalid);
            let len = layout.chunk_len(chunk.index).ok_or(Error::<T>::Internal)?;
            decode_chunk(&chunk.chunk, len, settings.training.keep)
                .map_err(|_| Error::<T>::ChunkMalformed)?;
        }
        Ok(())
    }

    /// Makes `uid` the owner of a payload, if nobody committed to it before; the reveal of a miner
    /// that committed later is removed.
    fn own_payload(
        (run_id, window, uid): (RunId, Window, Uid),
        root: Hash,
        order: u32,
    ) -> Result<(), Error<T>> {
        if let Some(other) = PayloadOwners::<T>::get((run_id, window, root)) {
            let other_reveal =
                Reveals::<T>::get((run_id, window, other)).ok_or(Error::<T>::Internal)?;
            ensure!(order < other_reveal.order, Error::<T>::CopiedPayload);
            Reveals::<T>::remove((run_id, window, other));
            Self::deposit_event(Event::CopyRefused {
                run: run_id,
                window,
                uid: other,
                original: uid,
            });
        }
        PayloadOwners::<T>::insert((run_id, window, root), uid);
        Ok(())
    }

    pub(crate) fn do_commit_attestation(
        hot: T::AccountId,
        run_id: RunId,
        window: Window,
        hash: Hash,
    ) -> DispatchResult {
        Self::ensure_phase(run_id, window, Phase::AttestCommit)?;
        let index = Self::permitted_validator(run_id, &hot, window)?;
        let key = (run_id, window, index);
        ensure!(!AttestationCommitments::<T>::contains_key(key), Error::<T>::AlreadyCommitted);
        AttestationCommitments::<T>::insert(key, hash);
        Self::deposit_event(Event::AttestationCommitted { run: run_id, window, index, hash });
        Ok(())
    }

    pub(crate) fn do_reveal_attestation(
        hot: T::AccountId,
        run_id: RunId,
        window: Window,
        bitmap: Bitmap,
        state_root: Hash,
        salt: Hash,
    ) -> DispatchResult {
        let run = Self::ensure_phase(run_id, window, Phase::AttestReveal)?;
        let index = Self::permitted_validator(run_id, &hot, window)?;
        let key = (run_id, window, index);
        let committed = AttestationCommitments::<T>::get(key).ok_or(Error::<T>::NotCommitted)?;
        ensure!(!Attestations::<T>::contains_key(key), Error::<T>::AlreadyRevealed);
        let opening = AttestationOpening { bitmap: bitmap.to_vec(), state_root, salt };
        let hot_key = account_bytes(&hot);
        let genesis = Self::genesis_hash();
        let hash = attestation_commitment_hash(&genesis, run_id, window, &hot_key, &opening);
        ensure!(hash == committed, Error::<T>::OpeningMismatch);
        let settings = Self::current_settings(run_id, &run)?;
        let bytes_max = usize::from(settings.incentive.uid_max).div_ceil(8);
        ensure!(bitmap.len() <= bytes_max, Error::<T>::BitmapTooLong);
        Validators::<T>::mutate(run_id, index, |validator| {
            if let Some(validator) = validator {
                validator.attested_window = Some(window);
            }
        });
        Attestations::<T>::insert(key, Attestation { bitmap, state_root });
        Self::deposit_event(Event::Attested { run: run_id, window, index, state_root });
        Ok(())
    }

    pub(crate) fn do_commit_scores(
        hot: T::AccountId,
        run_id: RunId,
        window: Window,
        hash: Hash,
        version: u32,
    ) -> DispatchResult {
        Self::ensure_score_phase(run_id, window, ScorePhase::Commit)?;
        let index = Self::permitted_validator(run_id, &hot, window)?;
        let key = (run_id, window, index);
        ensure!(!ScoreCommitments::<T>::contains_key(key), Error::<T>::AlreadyCommitted);
        Self::ensure_score_version(run_id, window, version)?;
        ScoreCommitments::<T>::insert(key, hash);
        Self::deposit_event(Event::ScoresCommitted { run: run_id, window, index, hash });
        Ok(())
    }

    pub(crate) fn do_reveal_scores(
        hot: T::AccountId,
        run_id: RunId,
        window: Window,
        evaluations: Evaluations,
        salt: Hash,
        version: u32,
    ) -> DispatchResult {
        let mut run = Self::ensure_score_phase(run_id, window, ScorePhase::Reveal)?;
        let index = Self::permitted_validator(run_id, &hot, window)?;
        let key = (run_id, window, index);
        let committed = ScoreCommitments::<T>::get(key).ok_or(Error::<T>::NotCommitted)?;
        ensure!(!ScoreReveals::<T>::contains_key(key), Error::<T>::AlreadyRevealed);
        Self::ensure_score_version(run_id, window, version)?;
        let hash = score_commitment_hash(
            &Self::genesis_hash(),
            run_id,
            window,
            &account_bytes(&hot),
            &evaluations,
            version,
            &salt,
        );
        ensure!(hash == committed, Error::<T>::OpeningMismatch);
        run.salt_mix = mix_salt(&run.salt_mix, window, index, &salt);
        Runs::<T>::insert(run_id, run);
        let count = evaluations.len() as u32;
        ScoreReveals::<T>::insert(key, ScoreReveal { evaluations, salt });
        Self::deposit_event(Event::ScoresRevealed { run: run_id, window, index, count });
        Ok(())
    }

    /// Scores of a window are measured in the way that was in force in it.
    fn ensure_score_version(run: RunId, window: Window, version: u32) -> Result<(), Error<T>> {
        let settings = Self::settings_of(run, window).ok_or(Error::<T>::Internal)?;
        ensure!(version == settings.incentive.score_version, Error::<T>::ScoreVersionWrong);
        Ok(())
    }

    /// The run, if `window` is the current one and in `phase`.
    fn ensure_phase(run_id: RunId, window: Window, phase: Phase) -> Result<RunOf<T>, Error<T>> {
        let (run, moment) = Self::open_run(run_id)?;
        ensure!(moment.window == window, Error::<T>::WrongWindow);
        // A pool asks before the window's first block has opened it.
        ensure!(!is_paused_in(&run, window), Error::<T>::RunPaused);
        ensure!(run.has_window(window), Error::<T>::RunClosing);
        ensure!(moment.phase == phase, Error::<T>::WrongPhase);
        Ok(run)
    }

    /// The run, if `window` is the one before the current one and its scores are in `phase`.
    fn ensure_score_phase(
        run_id: RunId,
        window: Window,
        phase: ScorePhase,
    ) -> Result<RunOf<T>, Error<T>> {
        let (run, moment) = Self::open_run(run_id)?;
        ensure!(moment.window.checked_sub(1) == Some(window), Error::<T>::WrongWindow);
        ensure!(Self::is_opened(&run, window), Error::<T>::WindowNotOpen);
        ensure!(moment.score_phase == phase, Error::<T>::WrongPhase);
        Ok(run)
    }

    fn open_run(run_id: RunId) -> Result<(RunOf<T>, Moment), Error<T>> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let moment = phase_at(&run.schedule, Self::now()).ok_or(Error::<T>::RunNotStarted)?;
        Ok((run, moment))
    }

    /// The miner with this hot key, if it takes part in `window`.
    fn active_miner(
        run_id: RunId,
        hot: &T::AccountId,
        window: Window,
    ) -> Result<(Uid, MinerOf<T>), Error<T>> {
        let uid = MinerUids::<T>::get(run_id, hot).ok_or(Error::<T>::MinerUnknown)?;
        let miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::Internal)?;
        // A key that is to replace another one leads to the slot, too.
        let is_active = takes_part(miner.registered_window, window) && miner.hot == *hot;
        ensure!(is_active, Error::<T>::NotYetActive);
        ensure!(miner.last_window.is_none_or(|last| window <= last), Error::<T>::LeavingAlready);
        Ok((uid, miner))
    }

    /// The slot of the validator with this hot key, if it has a permit for `window`.
    fn permitted_validator(
        run_id: RunId,
        hot: &T::AccountId,
        window: Window,
    ) -> Result<ValidatorIndex, Error<T>> {
        let index = ValidatorIndices::<T>::get(run_id, hot).ok_or(Error::<T>::ValidatorUnknown)?;
        let validator = Validators::<T>::get(run_id, index).ok_or(Error::<T>::Internal)?;
        let is_active = takes_part(validator.registered_window, window) && validator.hot == *hot;
        ensure!(is_active, Error::<T>::NotYetActive);
        let permit = permit_of(&Permits::<T>::get(run_id, window), index);
        ensure!(permit.is_some(), Error::<T>::NoPermit);
        Ok(index)
    }

    /// The hash of block 0, which `frame_system` keeps for ever.
    pub(crate) fn genesis_hash() -> Hash {
        frame_system::Pallet::<T>::block_hash(
            frame_system::pallet_prelude::BlockNumberFor::<T>::zero(),
        )
        .into()
    }
}
