//! A GPU that fails in the middle of a window: an error that says so, θ as it was, nobody left waiting, and
//! another learner that works.

use std::ops::ControlFlow;

use trainer::cuda::device::CudaSettings;
use trainer::engine::BatchError;
use trainer::learner::Learner;
use trainer::{StepReport, TrainError, Trainer, TrainerSettings};

use crate::emulators::{Emulators, Fault};
use crate::models::{learner_settings, model, samples, small};

fn go_on(_: &StepReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn settings() -> TrainerSettings {
    TrainerSettings { batch_size: 4, micro_batch: 1, ..TrainerSettings::default() }
}

#[test]
fn a_lost_gpu_ends_the_window_and_not_the_model() {
    let (config, steps) = (small(), vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9, 10, 11]]);
    let source = samples(&config);
    let expected = {
        let device = Emulators::new(1).device(CudaSettings::default());
        let mut trainer = Trainer::new(model(&config), settings(), &device).unwrap();
        trainer.train_window(&source, &steps, &|_| 1e-3, &mut go_on).unwrap();
        trainer.make_update(64, 950_000).unwrap()
    };
    for world in [1, 2, 4] {
        // After the parameters are there: in the first step and in later ones, forward and backward.
        for after in [100, 150, 300, 400] {
            let rank = world - 1;
            let emulators = Emulators::new(world).failing(Fault { rank, after });
            let device = emulators.device(CudaSettings::default());
            let mut trainer = Trainer::new(model(&config), settings(), &device).unwrap();
            let root = trainer.state_root();
            let lost = trainer.train_window(&source, &steps, &|_| 1e-3, &mut go_on);
            let Err(TrainError::Batch(BatchError::Device(reason))) = &lost else {
                panic!("{world} GPUs, {after}: {lost:?}");
            };
            assert!(reason.contains("fell off the bus"), "{reason}");
            assert_eq!(trainer.state_root(), root);
            assert!(matches!(trainer.make_update(64, 0), Err(TrainError::NotTrained)));

            // The card is back: another trainer of the same θ goes on as if nothing had been.
            emulators.repair();
            let mut trainer = Trainer::new(trainer.model().clone(), settings(), &device).unwrap();
            trainer.train_window(&source, &steps, &|_| 1e-3, &mut go_on).unwrap();
            assert_eq!(trainer.make_update(64, 950_000).unwrap(), expected, "{world} GPUs");
        }
    }
}

#[test]
fn a_learner_whose_gpu_is_lost_says_so_at_every_call() {
    let config = small();
    let device =
        Emulators::new(2).failing(Fault { rank: 1, after: 120 }).device(CudaSettings::default());
    let mut learner = device.cuda_learner(&config, &learner_settings(1, false)).unwrap();
    learner.load(&mut &model(&config)).unwrap();
    for _ in 0..3 {
        let failed = learner.gradient(&samples(&config), &[0, 1]);
        assert!(matches!(failed, Err(BatchError::Device(_))), "{failed:?}");
        assert!(learner.step(1e-3, 1.0).is_err());
    }
}

#[test]
fn what_is_wrong_with_a_batch_is_no_failure_of_the_gpus() {
    let config = small();
    for world in [1, 2] {
        let device = Emulators::new(world).device(CudaSettings::default());
        let mut learner = device.cuda_learner(&config, &learner_settings(1, false)).unwrap();
        learner.load(&mut &model(&config)).unwrap();
        let source = samples(&config);
        assert_eq!(learner.gradient(&source, &[0, 64]).unwrap_err(), BatchError::NoSample(64));
        assert!(matches!(learner.gradient(&source, &[]), Err(BatchError::Samples { .. })));
        let longer = crate::samples::MemorySamples::words(config.seq_len + 1, 8, 1);
        let refused = learner.gradient(&longer, &[0, 1]);
        assert!(matches!(refused, Err(BatchError::SampleLen { .. })), "{refused:?}");
        // And it goes on.
        assert!(learner.gradient(&source, &[0, 1]).unwrap().loss.is_finite());
    }
}
