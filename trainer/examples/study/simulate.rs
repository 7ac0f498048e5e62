//! One arm with one seed: eight peers in one process, on one thread.

use std::error::Error;

use dataset::{Dataset, SampleSource};
use protocol::aggregate::median_norm_factors;
use protocol::assignment::{own_samples, Permutation};
use trainer::optimiser::{AdamW, AdamWSettings};
use trainer::{Cpu, Engine, Evaluator, Model, ModelConfig, Threads};

use crate::arms::{Arm, Churn, Mean, Method};
use crate::codec::{Codec, Sent};

/// Peers of a run.
pub(crate) const PEERS: usize = 8;
/// Samples of a peer's step.
pub(crate) const BATCH: usize = 2;
/// Tokens of a sample.
pub(crate) const SEQ_LEN: usize = 64;
/// Decay of DeMo's sum of gradients, and DiLoCo's momentum.
const DEMO_DECAY: f32 = 0.999;
const MOMENTUM: f32 = 0.9;
/// Norm to which longer gradients are scaled.
const CLIP_NORM: f64 = 1.0;
/// Held-out samples of a point of the curve, and of the result.
const CURVE_SAMPLES: usize = 128;
const RESULT_SAMPLES: usize = 1024;
/// Points of a curve.
const POINTS: usize = 12;

/// The model of the study: LLaMA with bytes as tokens, 115 thousand parameters.
pub(crate) fn config() -> Result<ModelConfig, Box<dyn Error>> {
    let config = ModelConfig {
        hidden: 64,
        heads: 2,
        kv_heads: 1,
        ffn: 192,
        seq_len: SEQ_LEN,
        ..ModelConfig::preset("nano")?
    };
    config.validate()?;
    Ok(config)
}

/// What came out.
pub(crate) struct Outcome {
    /// Held-out loss in nats a byte at the end.
    pub(crate) loss: f64,
    /// Tokens trained on by all peers, and the loss there.
    pub(crate) curve: Vec<(u64, f64)>,
    /// Bytes that a peer sent on average over the whole run.
    pub(crate) bytes_per_peer: u64,
    /// Updates that a peer sent on average.
    pub(crate) updates_per_peer: f64,
}

struct Peer {
    local: Vec<f32>,
    adamw: AdamW,
    error: Vec<f32>,
}

struct Run<'a> {
    arm: &'a Arm,
    dataset: &'a Dataset,
    permutation: Permutation,
    engine: Engine,
    evaluator: Evaluator,
    model: Model,
    codec: Codec,
    peers: Vec<Peer>,
    gradient: Vec<f32>,
    momentum: Vec<f32>,
    /// Tokens of all peers so far, and in the end.
    tokens: u64,
    tokens_max: u64,
    /// Samples handed out.
    samples: u64,
    bytes: u64,
    updates: u64,
    random: u64,
}

/// Runs `arm` for `steps` steps of all peers, or as many tokens where peers come and go.
pub(crate) fn run(
    arm: &Arm,
    seed: u64,
    steps: usize,
    data: &Dataset,
) -> Result<Outcome, Box<dyn Error>> {
    let config = config()?;
    let model = Model::init(&config, seed)?;
    let count = model.parameters().len();
    let peer = || Peer {
        local: vec![0.0; count],
        adamw: AdamW::new(AdamWSettings::default(), count),
        error: vec![0.0; count],
    };
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let samples = data.train().sample_count();
    let mut run = Run {
        arm,
        dataset: data,
        permutation: own_samples(&key, samples).ok_or("no samples")?,
        engine: Engine::new(&config, BATCH, true, Threads::single())?,
        evaluator: Evaluator::new(&config, &Cpu::new(Threads::single()), 16)?,
        codec: Codec::new(model.arena(), arm.keep, arm.shape, arm.quantiser),
        model,
        peers: (0..PEERS).map(|_| peer()).collect(),
        gradient: vec![0.0; count],
        momentum: vec![0.0; count],
        tokens: 0,
        tokens_max: (steps * PEERS * BATCH * SEQ_LEN) as u64,
        samples: 0,
        bytes: 0,
        updates: 0,
        random: seed,
    };
    run.all()
}

impl Run<'_> {
    fn all(&mut self) -> Result<Outcome, Box<dyn Error>> {
        let mut curve = vec![(0, self.loss(CURVE_SAMPLES)?)];
        let mut empty = [false; PEERS];
        while self.tokens < self.tokens_max {
            match self.arm.method {
                Method::DataParallel => self.data_parallel_step()?,
                Method::DeMo => self.demo_step()?,
                Method::DiLoCo | Method::SparseLoCo => self.round(&mut empty)?,
            }
            let point = curve.len() as u64 * self.tokens_max / POINTS as u64;
            if self.tokens >= point {
                curve.push((self.tokens, self.loss(CURVE_SAMPLES)?));
            }
        }
        let peers = PEERS as u64;
        Ok(Outcome {
            loss: self.loss(RESULT_SAMPLES)?,
            curve,
            bytes_per_peer: self.bytes / peers,
            updates_per_peer: self.updates as f64 / peers as f64,
        })
    }

    fn loss(&mut self, samples: usize) -> Result<f64, Box<dyn Error>> {
        Ok(self.evaluator.held_out_loss(&self.model, self.dataset, samples)?)
    }

    /// Warm-up over a twentieth of the tokens, then a cosine down to a tenth.
    fn rate(&self, tokens: u64) -> f32 {
        let done = tokens as f64 / self.tokens_max as f64;
        let factor = if done < 0.05 {
            done / 0.05
        } else {
            let turn = ((done - 0.05) / 0.95).min(1.0) * std::f64::consts::PI;
            0.1 + 0.45 * (1.0 + turn.cos())
        };
        self.arm.inner_rate * factor as f32
    }

    /// The ids of one peer's next step.
    fn next_ids(&mut self) -> Vec<u64> {
        let count = self.dataset.train().sample_count();
        let ids = (0..BATCH as u64)
            .map(|at| (self.samples + at) % count)
            .map(|at| self.permutation.apply(at).unwrap_or(0))
            .collect();
        self.samples += BATCH as u64;
        ids
    }

    /// Loss and gradient of `parameters` on one peer's next samples.
    fn gradient(
        &mut self,
        peer: Option<usize>,
        scale: f32,
        add: bool,
    ) -> Result<(), Box<dyn Error>> {
        let ids = self.next_ids();
        let parameters = match peer {
            Some(peer) => &self.peers[peer].local,
            None => self.model.parameters(),
        };
        let samples = self.dataset.train();
        let gradient = &mut self.gradient;
        self.engine.loss_and_gradient(parameters, gradient, samples, &ids, scale, add)?;
        self.tokens += (BATCH * SEQ_LEN) as u64;
        Ok(())
    }

    /// One over the tokens of a peer's step.
    const SCALE: f32 = 1.0 / (BATCH * SEQ_LEN) as f32;

    fn data_parallel_step(&mut self) -> Result<(), Box<dyn Error>> {
        for peer in 0..PEERS {
            self.gradient(None, Self::SCALE / PEERS as f32, peer > 0)?;
        }
        let rate = self.rate(self.tokens);
        let arena = self.model.arena().clone();
        let adamw = &mut self.peers[0].adamw;
        let clip = clip(adamw, &self.gradient);
        let parameters = self.model.parameters_mut();
        let threads = Threads::single();
        adamw.step(&threads, &arena, parameters, &self.gradient, rate, clip);
        self.bytes += (PEERS * 4 * self.gradient.len()) as u64;
        self.updates += PEERS as u64;
        Ok(())
    }

    fn demo_step(&mut self) -> Result<(), Box<dyn Error>> {
        let mut updates = Vec::with_capacity(PEERS);
        for peer in 0..PEERS {
            self.gradient(None, Self::SCALE, false)?;
            let error = &mut self.peers[peer].error;
            for (error, gradient) in error.iter_mut().zip(&self.gradient) {
                *error = DEMO_DECAY * *error + gradient;
            }
            updates.push(self.codec.send(error)?);
        }
        let rate = self.rate(self.tokens);
        let delta = self.combine(&updates);
        for (theta, delta) in self.model.parameters_mut().iter_mut().zip(&delta) {
            if *delta != 0.0 {
                *theta -= rate * delta.signum();
            }
        }
        Ok(())
    }

    /// A number in 0..bound.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// H steps of each peer, then the outer step.
    fn round(&mut self, empty: &mut [bool; PEERS]) -> Result<(), Box<dyn Error>> {
        let start = self.tokens;
        let mut updates = Vec::with_capacity(PEERS);
        let mut dense = vec![0.0f32; self.gradient.len()];
        let present: Vec<usize> = (0..PEERS).filter(|peer| !empty[*peer]).collect();
        for peer in present {
            self.local_steps(peer, start)?;
            let accepted = self.arm.churn != Churn::Late || self.draw(4) > 0;
            if self.arm.method == Method::DiLoCo {
                let local = &self.peers[peer].local;
                let parameters = self.model.parameters().iter().zip(local);
                for (sum, (theta, local)) in dense.iter_mut().zip(parameters) {
                    *sum += (theta - local) / PEERS as f32;
                }
                self.bytes += 4 * dense.len() as u64;
                self.updates += 1;
                continue;
            }
            let Peer { local, error, .. } = &mut self.peers[peer];
            let theta = self.model.parameters();
            protocol::update::accumulate_difference(error, theta, local, self.arm.decay);
            let sent = self.codec.send(error)?;
            if accepted {
                updates.push(sent);
            } else {
                self.bytes += sent.bytes;
                self.updates += 1;
            }
        }
        if self.arm.method == Method::DiLoCo {
            self.nesterov(&dense);
        } else {
            let delta = self.combine(&updates);
            let rate = self.arm.outer_rate;
            for (theta, delta) in self.model.parameters_mut().iter_mut().zip(&delta) {
                *theta -= rate * delta;
            }
        }
        if self.arm.churn == Churn::Leave {
            self.leave_and_join(empty);
        }
        Ok(())
    }

    /// H AdamW steps of one peer from θ.
    fn local_steps(&mut self, peer: usize, start: u64) -> Result<(), Box<dyn Error>> {
        let arena = self.model.arena().clone();
        let step_tokens = (PEERS * BATCH * SEQ_LEN) as u64;
        self.peers[peer].local.copy_from_slice(self.model.parameters());
        for step in 1..=self.arm.steps as u64 {
            self.gradient(Some(peer), Self::SCALE, false)?;
            let rate = self.rate(start + step * step_tokens);
            let Peer { local, adamw, .. } = &mut self.peers[peer];
            let clip = clip(adamw, &self.gradient);
            adamw.step(&Threads::single(), &arena, local, &self.gradient, rate, clip);
        }
        Ok(())
    }

    fn nesterov(&mut self, delta: &[f32]) {
        let rate = self.arm.outer_rate;
        let momentum = self.momentum.iter_mut().zip(delta);
        for (theta, (momentum, delta)) in self.model.parameters_mut().iter_mut().zip(momentum) {
            *momentum = MOMENTUM * *momentum + delta;
            *theta -= rate * (delta + MOMENTUM * *momentum);
        }
    }

    /// Who leaves now, and who takes an empty place.
    fn leave_and_join(&mut self, empty: &mut [bool; PEERS]) {
        for (peer, empty) in empty.iter_mut().enumerate() {
            if *empty {
                *empty = false;
                let count = self.gradient.len();
                self.peers[peer].adamw = AdamW::new(AdamWSettings::default(), count);
                self.peers[peer].error.fill(0.0);
            } else {
                *empty = self.draw(4) == 0;
            }
        }
        if empty.iter().all(|empty| *empty) {
            empty[0] = false;
        }
    }

    /// The clipped mean of the updates, by either rule.
    fn combine(&mut self, updates: &[Sent]) -> Vec<f32> {
        let mut sums = vec![0.0f32; self.gradient.len()];
        let mut senders = vec![0u16; self.gradient.len()];
        for tensor in 0..self.model.tensors().len() {
            let norm = |sent: &Sent| {
                let squares =
                    sent.tensors[tensor].iter().map(|(_, value)| f64::from(*value).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let norms: Vec<f64> = updates.iter().map(norm).collect();
            for (sent, factor) in updates.iter().zip(median_norm_factors(&norms)) {
                for (place, value) in &sent.tensors[tensor] {
                    sums[*place as usize] += factor as f32 * value;
                    senders[*place as usize] += 1;
                }
            }
        }
        let accepted = updates.len().max(1) as f32;
        for (sum, senders) in sums.iter_mut().zip(&senders) {
            *sum /= match self.arm.mean {
                Mean::Accepted => accepted,
                Mean::Senders => f32::from((*senders).max(1)),
            };
        }
        self.bytes += updates.iter().map(|sent| sent.bytes).sum::<u64>();
        self.updates += updates.len() as u64;
        sums
    }
}

/// The factor that brings a gradient down to [`CLIP_NORM`].
fn clip(adamw: &mut AdamW, gradient: &[f32]) -> f32 {
    let norm = adamw.gradient_norm(&Threads::single(), gradient);
    (CLIP_NORM / norm.max(CLIP_NORM)) as f32
}
