//! Samples of training and evaluation.

use protocol::{
    assignment::assigned_sample,
    samples::{own_evaluation, random_evaluation, training_steps, SamplesError},
    settings::Settings,
};

#[test]
fn steps_are_the_protocols_assignment() {
    let settings = Settings::example();
    let seed = [7; 32];
    let steps = training_steps(&seed, 3, &settings).unwrap();
    assert_eq!(steps.len(), 4);
    let position = 2 * 8 + 5;
    let per_uid = settings.samples_per_miner();
    let expected = assigned_sample(&seed, 3, position, per_uid, 1_000_000).unwrap();
    assert_eq!(steps[2][5], expected);
}

#[test]
fn evaluations_on_own_samples_are_on_samples_that_were_trained_on() {
    let settings = Settings::example();
    let trained: Vec<u64> = training_steps(&[1; 32], 5, &settings).unwrap().concat();
    let ids = own_evaluation(&[1; 32], &[2; 32], 5, &settings).unwrap();
    assert_eq!(ids.len(), 16);
    assert!(ids.iter().all(|id| trained.contains(id)));
    assert!(random_evaluation(&[2; 32], &settings).unwrap().len() == 16);
}

#[test]
fn a_data_set_without_room_for_a_miner_is_an_error() {
    let mut settings = Settings::example();
    settings.training.sample_count = 10;
    assert_eq!(training_steps(&[1; 32], 5, &settings), Err(SamplesError::TooSmall));
    settings.training.sample_count = 0;
    assert_eq!(training_steps(&[1; 32], 5, &settings), Err(SamplesError::Empty));
    assert_eq!(random_evaluation(&[1; 32], &settings), Err(SamplesError::Empty));
}
