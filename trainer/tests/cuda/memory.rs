//! What is allocated is what was planned, in one piece, before the first step; and nothing is written beyond it.

use trainer::budget::Recompute;
use trainer::cuda::device::CudaSettings;
use trainer::cuda::fit;
use trainer::cuda::layout::Layout;
use trainer::cuda::plan::{Plan, Work};
use trainer::learner::Learner;
use trainer::{Device, ModelConfig};

use crate::emulators::Emulators;
use crate::models::{config, learn, learner_settings, model, samples, small};

fn planned(config: &ModelConfig, world: usize, work: Work) -> Plan {
    Plan::new(config, &Layout::new(config, world), work)
}

#[test]
fn a_learner_allocates_its_plan_in_one_piece() {
    for (world, muon, offload, recompute) in [
        (1, false, false, Recompute::None),
        (1, true, true, Recompute::Full),
        (2, true, false, Recompute::NormSwiglu),
        (4, false, true, Recompute::Full),
    ] {
        let config = config((128, 2, 1), 72, world == 4);
        let cuda = CudaSettings { recompute, offload };
        let emulators = Emulators::new(world);
        let trained = learn(&emulators.device(cuda), &config, &learner_settings(2, muon), 2);
        assert_eq!(trained.losses.len(), 2);
        let work = Work { samples: 2, training: true, recompute, muon, offload, changes: false };
        let plan = planned(&config, world, work);
        assert_eq!(emulators.allocated(), vec![vec![plan.bytes()]; world]);
        let pinned = if offload { vec![plan.pinned] } else { Vec::new() };
        assert_eq!(emulators.pinned(), vec![pinned; world]);
        // Guard bytes around all that is allocated are looked at when a GPU is dropped.
        assert_eq!(emulators.damaged(), 0);
    }
}

#[test]
fn a_learner_says_what_it_allocates() {
    let config = small();
    let device = Emulators::new(1).device(CudaSettings::default());
    let mut learner = device.cuda_learner(&config, &learner_settings(2, false)).unwrap();
    let recompute = CudaSettings::default().recompute;
    let work =
        Work { samples: 2, training: true, recompute, muon: false, offload: false, changes: false };
    assert_eq!(learner.allocated_bytes(), planned(&config, 1, work).bytes());
    learner.load(&mut &model(&config)).unwrap();
}

#[test]
fn a_predictor_has_no_room_for_a_backward_pass() {
    let config = small();
    let emulators = Emulators::new(1);
    let device = emulators.device(CudaSettings::default());
    let mut predictor = device.predictor(&config, 2, false).unwrap();
    predictor.loss(&mut &model(&config), &samples(&config), &[0, 1]).unwrap();
    drop(predictor);
    let predicting = emulators.allocated()[0][0];
    device.cuda_learner(&config, &learner_settings(2, false)).unwrap();
    let training = emulators.allocated()[0][1];
    assert!(2 * predicting < training, "{predicting} of {training}");
    assert_eq!(emulators.damaged(), 0);
}

#[test]
fn gpus_without_enough_memory_refuse_and_say_how_much_is_wanted() {
    let config = small();
    let device = Emulators::new(2).with_memory(100_000).device(CudaSettings::default());
    let refused = device.cuda_learner(&config, &learner_settings(2, false)).err().unwrap();
    assert!(refused.to_string().contains("bytes are wanted"), "{refused}");
    assert!(refused.to_string().contains("nothing that is known would fit"), "{refused}");
}

#[test]
fn a_device_says_what_fits_it_before_it_allocates() {
    let config = small();
    let device = |bytes| Emulators::new(1).with_memory(bytes).device(CudaSettings::default());
    let own = device(1 << 36).training_fit(&config, 4, false).unwrap().unwrap();
    assert_eq!(own.samples, 4);
    let least = device(own.card + fit::beside(1));
    assert_eq!(least.training_fit(&config, 4, false).unwrap(), Some(own));
    let less = device(own.card + fit::beside(1) - 1).training_fit(&config, 4, false).unwrap();
    assert_eq!(less.unwrap().samples, 2);
    let error = device(1 << 20).training_fit(&config, 4, false).unwrap_err().to_string();
    assert!(error.contains("one sample of a training takes"), "{error}");

    let emulators = Emulators::new(2);
    let predicting = emulators.device(CudaSettings::default());
    let own = predicting.prediction_fit(&config, 2, true).unwrap().unwrap();
    drop(predicting.predictor(&config, 2, true).unwrap());
    assert_eq!(emulators.allocated(), vec![vec![own.card]; 2]);
    let error = device(1 << 20).prediction_fit(&config, 2, true).unwrap_err().to_string();
    assert!(error.contains("an evaluation of 2 samples takes"), "{error}");
}
