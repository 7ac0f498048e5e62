//! The trainer: everything a miner, a validator or an auditor does with a model, and nothing that
//! touches the chain or a peer.
//!
//! Read the modules in the order in which they are declared, which is the order of the data:
//!
//! 1. [`config`] says how large a model is and where each of its tensors lies;
//! 2. [`init`] and [`model`] hold the parameters θ, the same bytes on every machine;
//! 3. the crate [`dataset`] gives the samples to train on;
//! 4. [`ops`], [`matmul`], [`plan`] and [`engine`] compute loss and gradient, [`optimiser`] takes a step
//!    ([`autograd`] is the same model in candle, to check and to measure against); [`device`] is the one door
//!    to whatever computes, with [`cpu`] and [`candle`] behind it;
//! 5. [`train`] is a miner's window: H steps from θ, an update ([`compress`]), the outer step
//!    ([`outer_step`]);
//! 6. [`evaluate`] is a validator's: what one update alone does to the loss;
//! 7. [`harness`] asks a finished model questions that others publish;
//! 8. [`mod@pretrain`] trains without a chain, at the rate of a [`schedule`] and under a [`guard`];
//! 9. [`checkpoint`] keeps all of it over a kill -9; [`files`] reads and writes others' models;
//! 10. [`budget`] says beforehand what all of it takes, on this machine or another.
//!
//! # Determinism
//!
//! The initial parameters, the outer step and the state root are the same on every machine: they
//! use integers and single IEEE operations only. Training is the same bit for bit on the same
//! machine, with any number of threads; between machines it may differ in the last bits, and
//! nothing depends on it: a miner's local parameters never leave it, only its update does.

mod aligned;
pub mod threads;

pub mod config;

pub mod init;
pub mod model;
pub mod outer_step;

pub mod compute;
pub mod matmul;
pub mod ops;

pub mod autograd;
pub mod engine;
pub mod plan;

pub mod learner;
pub mod optimiser;
pub mod weights;

pub mod candle;
pub mod cpu;
pub mod device;
pub mod devices;

pub mod compress;
pub mod train;

pub mod flops;
pub mod guard;
pub mod pretrain;
pub mod schedule;

pub mod evaluate;

pub mod harness;

pub mod checkpoint;
pub mod files;

pub mod budget;

pub use candle::Candle;
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, Position};
pub use compute::Compute;
pub use config::{ConfigError, ModelConfig, RopeScaling, TensorInfo, PRESETS};
pub use cpu::Cpu;
pub use device::{Device, DeviceError, Predictor};
pub use devices::DeviceKind;
pub use engine::Engine;
pub use evaluate::{loss_from_q824, loss_to_q824, EvaluationRates, Evaluator, UpdateToEvaluate};
pub use files::{ExportSettings, FileError};
pub use learner::{Learner, LearnerSettings};
pub use matmul::MatrixUnit;
pub use model::{Model, ModelError};
pub use optimiser::AdamWSettings;
pub use plan::{Plan, Precision};
pub use pretrain::{
    pretrain, PretrainEnd, PretrainError, PretrainEvent, PretrainSettings, Pretrainer,
};
pub use schedule::{Schedule, Shape};
pub use threads::{Threads, ThreadsError};
pub use train::{
    rate_from_ppb, warm_up, LossSummary, StepReport, TrainError, Trainer, TrainerSettings,
};
