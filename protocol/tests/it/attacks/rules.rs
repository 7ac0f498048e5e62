//! A4, A6, A7, A10, A12, A13 and A14: what the rules decide when somebody does not train, names another state, sends
//! something huge, guesses the draw, is cut off, or says again what was said before.

use protocol::{
    accept::{
        accepted_set, attestation_worth, bitmap_of, final_root, is_proven_unavailable,
        AttestationInput, Candidate,
    },
    aggregate::{lower_median, outer_step, OuterRule, TensorUpdate},
    assignment::own_samples,
    commitment::{
        attestation_commitment_hash, commitment_hash, score_commitment_hash, AttestationOpening,
        Opening,
    },
    consensus::{Evaluation, MinerInput},
    consent::peer_consent,
    fault::verdict_commitment_hash,
    fixed::Q32,
    layout::Layout,
    merkle::blake2_256,
    seed::{mix_salt, window_seed},
    settings::{Settings, PPM},
    update::{Encoder, Payload},
    validity::check_norm,
    Hash, Uid,
};

use super::{
    below,
    tally::{tell, Rate},
};
use crate::{
    consensus::{evaluation, miner, settle, validator},
    incentive::{Random, Story, COIN, HONEST},
};

const ROOT: Hash = [1; 32];
const FAKED: Hash = [2; 32];

fn hash(random: &mut Random) -> Hash {
    blake2_256(&[&random.uniform().to_bits().to_le_bytes()])
}

/// Who gains as much as anybody and trained on nothing that was assigned to it, beside as many who did: closed out is
/// who is paid less than a tenth of the mean honest one.
#[test]
fn a4_who_does_not_train_on_its_samples_is_closed_out() {
    let kinds = [[HONEST; 16].as_slice(), &[COIN; 16]].concat();
    let mut rates = Vec::new();
    for windows in [20, 60, 120] {
        let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
        for seed in 0..20 {
            let mut story = Story::new(&kinds, 0.1, seed);
            story.run(windows);
            let paid = story.run(20);
            let least = paid[..16].iter().sum::<f64>() / 160.0;
            paid[..16].iter().for_each(|paid| blamed.note(*paid < least));
            paid[16..].iter().for_each(|paid| noticed.note(*paid < least));
        }
        tell(&format!("A4 samples not trained on, after {windows} windows"), noticed, blamed);
        assert!(blamed.none(), "{blamed}");
        rates.push(noticed.found);
    }
    assert!(rates[0] < rates[2] && rates[2] > 20 * 16 * 3 / 4, "{rates:?}");
}

/// Validators whose stakes are random, of which the first name another state, one that they did not compute.
#[test]
fn a6_no_minority_makes_a_state_and_who_names_another_is_paid_for_nothing() {
    let incentive = Settings::example().incentive;
    let mut random = Random(6);
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let (mut blocked, mut taken) = (Rate::default(), Rate::default());
    let all = bitmap_of(&[0, 1]);
    for trial in 0..3_000 {
        let stakes: Vec<u64> = (0..12).map(|_| 1 + below(&mut random, 1_000) as u64).collect();
        let fakers = trial % 12;
        let total: u128 = stakes.iter().map(|stake| u128::from(*stake)).sum();
        let faked: u128 = stakes[..fakers].iter().map(|stake| u128::from(*stake)).sum();
        let rows: Vec<AttestationInput<'_>> = stakes
            .iter()
            .enumerate()
            .map(|(at, stake)| AttestationInput {
                stake: *stake,
                state_root: if at < fakers { FAKED } else { ROOT },
                bitmap: &all,
            })
            .collect();
        let root = final_root(&rows, total);
        if faked * 3 > total {
            blocked.note(root.is_none());
            taken.note(root == Some(FAKED));
            assert_ne!(root, Some(ROOT));
            continue;
        }
        // One miner began at the true state, one says that it began at another.
        let candidate = |uid: Uid, base_state_root| Candidate {
            uid,
            base_state_root,
            value: Q32::ONE,
            on_probation: false,
            is_scored: true,
            registered_window: 0,
        };
        let candidates = [candidate(0, ROOT), candidate(1, FAKED)];
        let accepted = accepted_set(9, &candidates, &rows, total, root, &incentive);
        noticed.note(!accepted.contains(&1));
        blamed.note(!accepted.contains(&0));
        for row in &rows {
            let worth = attestation_worth(&row.state_root, row.bitmap, root, &[]);
            let rate = if row.state_root == FAKED { &mut noticed } else { &mut blamed };
            rate.note(worth == Q32::ZERO);
        }
    }
    println!(
        "A6 with more than a third of the stake: no state at all {blocked}, the faked one {taken}"
    );
    tell("A6 a faked state, by less than a third of the stake", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

const KEEP: u16 = 64;

fn layout() -> Layout {
    Layout(vec![2 * 4096, 4096 + 500, 700])
}

fn tensors(random: &mut Random, size: f32) -> Vec<Vec<f32>> {
    let lens = layout().0;
    let values = |len: &u64| (0..*len).map(|_| size * random.normal() as f32).collect();
    lens.iter().map(values).collect()
}

fn encode(mut tensors: Vec<Vec<f32>>) -> Vec<u8> {
    let mut slices: Vec<&mut [f32]> = tensors.iter_mut().map(Vec::as_mut_slice).collect();
    Encoder::new().encode(&mut slices, &layout(), KEEP).unwrap()
}

fn parse(bytes: &[u8]) -> Payload<'_> {
    Payload::parse(bytes, &layout(), KEEP).unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// How far an outer step moves each tensor, in the largest norm of an honest update of it.
fn moved(theta: &[Vec<f32>], payloads: &[(Uid, Payload<'_>)], honest: usize) -> Vec<f64> {
    let mut stepped = theta.to_vec();
    let mut slices: Vec<&mut [f32]> = stepped.iter_mut().map(Vec::as_mut_slice).collect();
    outer_step(&mut slices, &layout(), payloads, OuterRule::new(PPM, PPM)).unwrap();
    let of = |tensor: usize| {
        let norms: Vec<f64> = payloads
            .iter()
            .map(|(_, payload)| TensorUpdate::new(payload, &layout(), tensor as u32).unwrap())
            .map(|update| update.norm().unwrap())
            .collect();
        let pairs = theta[tensor].iter().zip(&stepped[tensor]);
        let step = norm(pairs.map(|(before, after)| f64::from(*after) - f64::from(*before)));
        let largest = norms[..honest].iter().copied().fold(0.0, f64::max);
        assert!(lower_median(&norms) <= largest);
        step / largest
    };
    (0..theta.len()).map(of).collect()
}

/// One update, a thousand to a million times as large as the others, with half of the accepted set at the most: beyond
/// four norms of the model no validator attests it; what is attested moves a tensor by no more than the largest honest
/// update would alone.
#[test]
fn a7_a_huge_update_moves_no_more_than_an_honest_one_alone() {
    let mut random = Random(7);
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let mut most = 0.0f64;
    for trial in 0..60 {
        let accepted = [2, 3, 5, 8, 20][trial % 5];
        let attackers = (accepted / 2).max(1).min(1 + trial % 4);
        let theta = tensors(&mut random, 1.0);
        let parameters = || theta.iter().flatten().copied();
        let honest: Vec<Vec<u8>> =
            (attackers..accepted).map(|_| encode(tensors(&mut random, 0.01))).collect();
        let huge = |random: &mut Random, size| encode(tensors(random, size));
        for bytes in &honest {
            blamed.note(check_norm(&parse(bytes), &layout(), parameters()).is_err());
        }
        let beyond = huge(&mut random, [100.0, 1e4, 1e9][trial % 3]);
        noticed.note(check_norm(&parse(&beyond), &layout(), parameters()).is_err());
        // As large as is attested, and, were validators to look away, as large as the format has.
        for size in [10.0, 1e9] {
            let mut all = honest.clone();
            all.extend((0..attackers).map(|_| huge(&mut random, size)));
            let payloads: Vec<(Uid, Payload<'_>)> =
                (0..).zip(&all).map(|(uid, bytes)| (uid, parse(bytes))).collect();
            let largest = moved(&theta, &payloads, honest.len()).into_iter().fold(0.0, f64::max);
            most = most.max(largest);
        }
    }
    println!("A7 the step is at most {most:.2} of the largest honest update's norm");
    tell("A7 an update beyond four norms of the model", noticed, blamed);
    assert!(noticed.all() && blamed.none());
    assert!(most <= 1.0 + 1e-5, "{most}");
}

/// Who knows the chain's randomness and all salts but one, and trains on the samples that its best guess gives it.
#[test]
fn a10_a_guess_of_the_draw_hits_by_chance() {
    let mut random = Random(10);
    let (per_uid, count, uid) = (64u64, 100_000, 5u64);
    let mut hits = Rate::default();
    for window in 0..500 {
        let (randomness, others) = (hash(&mut random), hash(&mut random));
        let seed = |salt: Hash| {
            window_seed(&randomness, 0, window + 1, &mix_salt(&others, window, 3, &salt))
        };
        let own = |seed: Hash| -> Vec<u64> {
            let drawn = own_samples(&seed, count).unwrap();
            (0..per_uid).map(|at| drawn.apply(uid * per_uid + at).unwrap()).collect()
        };
        let (guessed, real) = (own(seed(hash(&mut random))), own(seed(hash(&mut random))));
        real.iter().for_each(|sample| hits.note(guessed.contains(sample)));
    }
    let chance = hits.of as f64 * per_uid as f64 / count as f64;
    println!("A10 samples foreseen by who lacks one salt: {hits}, by chance {chance:.1}");
    assert!((hits.found as f64) < 2.0 * chance, "{hits}");
}

/// Validators that reach no peer attest the state alone, which convicts nobody; and even if they name one miner and speak
/// against the others, less than two thirds convict nobody.
#[test]
fn a12_validators_that_are_cut_off_convict_nobody() {
    let mut random = Random(12);
    let all = bitmap_of(&[0, 1, 2, 9]);
    // No payload, and that of uid 9 alone.
    let (none, one): (&[u8], &[u8]) = (&[], &[0, 2]);
    let (mut silent, mut loud, mut majority) = (Rate::default(), Rate::default(), Rate::default());
    for trial in 0..3_000 {
        let stakes: Vec<u64> = (0..8).map(|_| 1 + below(&mut random, 1_000) as u64).collect();
        let cut = trial % 9;
        let total: u128 = stakes.iter().map(|stake| u128::from(*stake)).sum();
        let lost: u128 = stakes[..cut].iter().map(|stake| u128::from(*stake)).sum();
        let rows = |said: &'static [u8]| -> Vec<AttestationInput<'_>> {
            let row = |at: usize| AttestationInput {
                stake: stakes[at],
                state_root: ROOT,
                bitmap: if at < cut { said } else { &all },
            };
            (0..8).map(row).collect()
        };
        for uid in 0..3 {
            silent.note(is_proven_unavailable(&rows(none), total, uid));
            let rate = if lost * 3 < total * 2 { &mut loud } else { &mut majority };
            rate.note(is_proven_unavailable(&rows(one), total, uid));
        }
    }
    println!("A12 convicted where who is cut off had nothing: {silent}; where less than two thirds had one payload alone: {loud}");
    println!("A12 convicted where two thirds and more say so: {majority}");
    assert!(silent.none() && loud.none() && majority.all());
}

/// A validator that says of each window what another one measured in the last, and one that says what another one
/// measures in this one, which that one would have to tell it: beside five that measure with an error of 5 %, over
/// truths that drift by 15 %.
#[test]
fn a13_who_repeats_another_s_last_scores_earns_little() {
    const MINERS: usize = 8;
    let rules = Settings::example().incentive;
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    let (mut of_last, mut of_this) = (Vec::new(), Vec::new());
    for seed in 0..10 {
        let mut random = Random(100 + seed);
        let mut inputs: Vec<MinerInput> = (0..MINERS as Uid).map(miner).collect();
        let mut last: Vec<Evaluation> =
            (0..MINERS as Uid).map(|uid| evaluation(uid, 0.03, 0.02)).collect();
        let mut paid = [0.0; 7];
        for _ in 0..100 {
            let truth: Vec<f64> = (0..MINERS).map(|_| 1.0 + 0.15 * random.normal()).collect();
            let mut measure = || -> Vec<Evaluation> {
                let blur = |truth: &f64| (truth * (1.0 + 0.05 * random.normal())).max(0.05);
                let blurred: Vec<f64> = truth.iter().map(blur).collect();
                (0..).zip(blurred).map(|(uid, by)| evaluation(uid, 0.03 * by, 0.02 * by)).collect()
            };
            let measured: Vec<Vec<Evaluation>> = (0..5).map(|_| measure()).collect();
            let twin = measured[0].clone();
            let mut validators: Vec<_> =
                (0..).zip(measured).map(|(index, said)| validator(index, 100, said)).collect();
            validators.push(validator(5, 100, std::mem::replace(&mut last, twin.clone())));
            validators.push(validator(6, 100, twin));
            let outcome = settle(&inputs, &validators, &rules).unwrap();
            for (sum, found) in paid.iter_mut().zip(&outcome.validators) {
                *sum += found.share.to_f64();
            }
            for (input, miner) in inputs.iter_mut().zip(&outcome.miners) {
                input.standing = miner.standing.clone();
            }
        }
        let honest = paid[..5].iter().sum::<f64>() / 5.0;
        noticed.note(paid[5] < 0.5 * honest);
        paid[..5].iter().for_each(|paid| blamed.note(*paid < 0.5 * honest));
        of_last.push(paid[5] / honest);
        of_this.push(paid[6] / honest);
    }
    let mean = |parts: &[f64]| parts.iter().sum::<f64>() / parts.len() as f64;
    println!("A13 who repeats the last window's has {:.2} of an honest one's pay", mean(&of_last));
    println!("A13 who is told this window's has {:.2}: not noticed", mean(&of_this));
    tell("A13 another's last scores", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}

/// Every hash that is signed or committed to, said again on another chain, in another run or window, or by another key.
#[test]
fn a14_nothing_that_was_said_can_be_said_again_elsewhere() {
    let mut random = Random(14);
    let (mut noticed, mut blamed) = (Rate::default(), Rate::default());
    for trial in 0..200u32 {
        let [genesis, hot, root, salt] = std::array::from_fn(|_| hash(&mut random));
        let update = Opening {
            payload_root: root,
            chunk_count: 3,
            byte_len: 300,
            base_state_root: root,
            salt,
        };
        let attestation = AttestationOpening { bitmap: vec![7], state_root: root, salt };
        let measured = evaluation(0, 0.03, 0.02);
        let said = |(genesis, run, window, hot): (Hash, u32, u64, Hash)| {
            [
                commitment_hash(&genesis, run, window, &hot, &update),
                attestation_commitment_hash(&genesis, run, window, &hot, &attestation),
                score_commitment_hash(
                    &genesis,
                    run,
                    window,
                    &hot,
                    std::slice::from_ref(&measured),
                    1,
                    &salt,
                ),
                verdict_commitment_hash(&genesis, run, window, 0, &hot, &measured, &salt),
                // Of no window: it names a peer for as long as the key is registered.
                peer_consent(&genesis, run, &hot),
            ]
        };
        let (run, window) = (trial, u64::from(trial) * 3);
        let here = said((genesis, run, window, hot));
        let elsewhere = [
            (hash(&mut random), run, window, hot),
            (genesis, run + 1, window, hot),
            (genesis, run, window + 1, hot),
            (genesis, run, window, hash(&mut random)),
        ];
        for (at, place) in elsewhere.into_iter().enumerate() {
            for (kind, other) in said(place).into_iter().enumerate() {
                if (at, kind) != (2, 4) {
                    noticed.note(!here.contains(&other));
                }
            }
        }
        blamed.note(here != said((genesis, run, window, hot)));
    }
    tell("A14 what was said, said again elsewhere", noticed, blamed);
    assert!(noticed.all() && blamed.none());
}
