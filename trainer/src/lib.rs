//! The trainer: everything a miner, a validator or an auditor does with a model, and nothing that
//! touches the chain or a peer.
//!
//! Read the modules in the order in which they are declared, which is the order of the data:
//!
//! 1. [`compute`] has threads, memory and the matrix products of this machine;
//! 2. [`mod@model`] says how large a model is and where its tensors lie ([`config`]), holds the
//!    parameters θ, the same bytes on every machine ([`init`]), and takes the outer step;
//! 3. the crate [`dataset`] gives the samples to train on;
//! 4. [`engine`] computes loss and gradient in the memory that [`plan`] lays out, [`optimiser`] takes a
//!    step (AdamW on every tensor, or Muon on the layers' matrices and AdamW on the rest), and
//!    [`device`] is the one door to whatever computes: [`cpu`], or [`mod@candle`], the same model by
//!    candle's [`autograd`], to check and to measure against;
//! 5. [`training`] has a miner's window ([`train`]: H steps from θ and an update, by [`compress`]), a
//!    validator's measure of what one update does to the loss ([`evaluate`]), training without a chain
//!    ([`mod@pretrain`], at the rate of a [`schedule`] and under a [`guard`]), and [`checkpoint`], which keeps
//!    all of it over a kill -9;
//! 6. [`harness`] asks a finished model questions that others publish;
//! 7. [`files`] reads and writes others' models;
//! 8. [`budget`] says beforehand what all of it takes, on this machine or another.
//!
//! # Determinism
//!
//! The initial parameters, the outer step and the state root are the same on every machine: they
//! use integers and single IEEE operations only. Training is the same bit for bit on the same
//! machine, with any number of threads; between machines it may differ in the last bits, and
//! nothing depends on it: a miner's local parameters never leave it, only its update does.

pub mod compute;

pub mod model;

pub mod engine;

pub mod cuda;

pub mod training;

pub mod harness;

pub mod files;

pub mod budget;

pub use compute::{matmul, ops, threads};
pub use engine::{autograd, candle, cpu, device, devices, learner, optimiser, plan, weights};
pub use model::{config, flops, init, outer_step};
pub use training::{ahead, checkpoint, compress, evaluate, guard, pretrain, schedule, train};

pub use ahead::OwnPart;
pub use candle::Candle;
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, Position};
pub use compute::Compute;
pub use config::{ConfigError, ModelConfig, RopeScaling, TensorInfo, PRESETS};
pub use cpu::Cpu;
pub use device::{Device, DeviceError, OwnMemory, Predictor};
pub use devices::DeviceKind;
pub use engine::Engine;
pub use evaluate::{loss_from_q824, loss_to_q824, EvaluationRates, Evaluator, UpdateToEvaluate};
pub use files::{ExportSettings, FileError};
pub use learner::{Learner, LearnerSettings};
pub use matmul::MatrixUnit;
pub use model::{ArrivingModel, Model, ModelError};
pub use optimiser::{AdamWSettings, MuonSettings, Optimiser};
pub use plan::{Plan, Precision};
pub use pretrain::{
    pretrain, PretrainEnd, PretrainError, PretrainEvent, PretrainSettings, Pretrainer,
};
pub use schedule::{RateSchedule, Shape};
pub use threads::{Threads, ThreadsError};
pub use train::{
    rate_from_ppb, warm_up, LossSummary, StepReport, TrainError, Trainer, TrainerSettings,
};
