//! One arm with one seed: all peers in one process, on one thread.

use std::error::Error;

use dataset::{Dataset, SampleSource};
use protocol::aggregate::median_norm_factors;
use protocol::assignment::{own_samples, Permutation};
use trainer::{AdamWSettings, Compute, Cpu, Engine, Evaluator, Model, ModelConfig};
use trainer::{MuonSettings, Optimiser, Threads};

use crate::arms::{
    Adversaries, Arm, Churn, Inner, Joining, Method, OuterSchedule, Overlap, Rates, Size,
};
use crate::codec::{Codec, Sent};

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
/// Steps from one sample of the average of the parameters to the next, and its weight.
const AVERAGE_STEPS: usize = 15;
const AVERAGE_RATE: f32 = 0.1;
/// Points of a curve.
const POINTS: usize = 12;

/// The model of the study: LLaMA with bytes as tokens, of 115,008 or 1,010,112 parameters.
pub(crate) fn config(size: Size) -> Result<ModelConfig, Box<dyn Error>> {
    let nano = ModelConfig { kv_heads: 1, seq_len: SEQ_LEN, ..ModelConfig::preset("nano")? };
    let config = match size {
        Size::Small | Size::Brief | Size::Long => {
            ModelConfig { hidden: 64, heads: 2, ffn: 192, ..nano }
        }
        Size::Large | Size::LargeShort => {
            ModelConfig { hidden: 96, heads: 3, ffn: 256, layers: 10, ..nano }
        }
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
    /// Seconds of the processor that the run took.
    pub(crate) seconds: f64,
}

struct Peer {
    local: Vec<f32>,
    optimiser: Optimiser,
    error: Vec<f32>,
    /// Whether it has taken an empty place and this is its first round.
    joins: bool,
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
    /// Updates that are under way while a round trains, by peer; nothing without overlap.
    under_way: Vec<Sent>,
    /// θ with what arrives in a round, where it arrives within rounds.
    arrived: Vec<f32>,
    gradient: Vec<f32>,
    /// Parameters before a step.
    before: Vec<f32>,
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
    let config = config(arm.size)?;
    let model = Model::init(&config, seed)?;
    let count = model.parameters().len();
    let peer = || Peer {
        local: vec![0.0; count],
        optimiser: optimiser(arm, &model),
        error: vec![0.0; count],
        joins: false,
    };
    let peers = arm.size.peers();
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
        peers: (0..peers).map(|_| peer()).collect(),
        under_way: Vec::new(),
        arrived: vec![0.0; count],
        model,
        gradient: vec![0.0; count],
        before: vec![0.0; count],
        momentum: vec![0.0; count],
        tokens: 0,
        tokens_max: (steps * peers * BATCH * SEQ_LEN) as u64,
        samples: 0,
        bytes: 0,
        updates: 0,
        random: seed,
    };
    run.all()
}

impl Run<'_> {
    fn all(&mut self) -> Result<Outcome, Box<dyn Error>> {
        let start = processor_seconds();
        let mut curve = vec![(0, self.loss(CURVE_SAMPLES)?)];
        let mut empty = vec![false; self.peers.len()];
        let mut average = self.model.parameters().to_vec();
        let average_tokens = (AVERAGE_STEPS * self.peers.len() * BATCH * SEQ_LEN) as u64;
        while self.tokens < self.tokens_max {
            match self.arm.method {
                Method::DataParallel => self.data_parallel_step()?,
                Method::DeMo => self.demo_step()?,
                Method::DiLoCo | Method::SparseLoCo => self.round(&mut empty)?,
            }
            if self.tokens.is_multiple_of(average_tokens) {
                for (average, theta) in average.iter_mut().zip(self.model.parameters()) {
                    *average += AVERAGE_RATE * (theta - *average);
                }
            }
            let point = curve.len() as u64 * self.tokens_max / POINTS as u64;
            if self.tokens >= point {
                curve.push((self.tokens, self.loss(CURVE_SAMPLES)?));
            }
        }
        self.land(Vec::new());
        for _ in 0..self.arm.flushes {
            self.flush()?;
        }
        if self.arm.averaged {
            self.model.parameters_mut().copy_from_slice(&average);
        }
        let peers = self.peers.len() as u64;
        Ok(Outcome {
            loss: self.loss(RESULT_SAMPLES)?,
            curve,
            bytes_per_peer: self.bytes / peers,
            updates_per_peer: self.updates as f64 / peers as f64,
            seconds: processor_seconds() - start,
        })
    }

    fn loss(&mut self, samples: usize) -> Result<f64, Box<dyn Error>> {
        Ok(self.evaluator.held_out_loss(&self.model, self.dataset, samples)?)
    }

    /// AdamW's rate: warm-up over a twentieth of the tokens, then a cosine.
    fn rate(&self, tokens: u64) -> f32 {
        let done = tokens as f64 / self.tokens_max as f64;
        let factor = if done < 0.05 {
            done / 0.05
        } else {
            let turn = ((done - 0.05) / 0.95).min(1.0) * std::f64::consts::PI;
            let floor = f64::from(self.arm.floor);
            floor + (1.0 - floor) / 2.0 * (1.0 + turn.cos())
        };
        self.arm.rates.rest * factor as f32
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
        let peers = self.peers.len();
        for peer in 0..peers {
            self.gradient(None, Self::SCALE / peers as f32, peer > 0)?;
        }
        let rate = self.rate(self.tokens);
        // Its parameters lie with the first peer for the time of the step.
        self.peers[0].local.copy_from_slice(self.model.parameters());
        self.step(0, rate);
        self.model.parameters_mut().copy_from_slice(&self.peers[0].local);
        self.bytes += (peers * 4 * self.gradient.len()) as u64;
        self.updates += peers as u64;
        Ok(())
    }

    fn demo_step(&mut self) -> Result<(), Box<dyn Error>> {
        let mut updates = Vec::with_capacity(self.peers.len());
        for peer in 0..self.peers.len() {
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
    fn round(&mut self, empty: &mut [bool]) -> Result<(), Box<dyn Error>> {
        let (start, peers) = (self.tokens, self.peers.len());
        let mut updates = Vec::with_capacity(peers);
        let mut dense = vec![0.0f32; self.gradient.len()];
        let present: Vec<usize> = (0..peers).filter(|peer| !empty[*peer]).collect();
        self.arrive();
        for peer in present {
            self.local_steps(peer, start)?;
            let accepted = self.arm.churn != Churn::Late || self.draw(4) > 0;
            if self.arm.method == Method::DiLoCo {
                let local = &self.peers[peer].local;
                let parameters = self.model.parameters().iter().zip(local);
                for (sum, (theta, local)) in dense.iter_mut().zip(parameters) {
                    *sum += (theta - local) / peers as f32;
                }
                self.bytes += 4 * dense.len() as u64;
                self.updates += 1;
                continue;
            }
            let Peer { local, error, .. } = &mut self.peers[peer];
            let arrives = matches!(self.arm.overlap, Overlap::Arriving(_));
            let theta = if arrives { self.arrived.as_slice() } else { self.model.parameters() };
            let left = if self.arm.ahead { 0.0 } else { self.arm.decay };
            protocol::update::accumulate_difference(error, theta, local, left);
            if self.arm.overlap == Overlap::Eager {
                for (place, part) in self.own_part(peer) {
                    self.peers[peer].error[place] -= part;
                }
            }
            let error = &mut self.peers[peer].error;
            let honest = peer + self.arm.adversaries.count() < peers;
            let sent = match self.arm.adversaries {
                Adversaries::Apart(_) if !honest => self.codec.send_apart(error, start)?,
                Adversaries::Opposite(_) if !honest => self.codec.send(error)?.opposite(),
                _ => self.codec.send(error)?,
            };
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
            match self.arm.overlap {
                Overlap::None => self.outer_step(&updates, self.outer_rate(start)),
                Overlap::OneRound | Overlap::Eager => self.land(updates),
                Overlap::Arriving(_) => {
                    self.model.parameters_mut().copy_from_slice(&self.arrived);
                    self.under_way = updates;
                }
            }
        }
        if let Churn::Leave(joining) = self.arm.churn {
            self.leave_and_join(empty, joining);
        }
        Ok(())
    }

    /// Works out where the updates that are under way bring θ in this round.
    fn arrive(&mut self) {
        if !matches!(self.arm.overlap, Overlap::Arriving(_)) {
            return;
        }
        self.arrived.copy_from_slice(self.model.parameters());
        if self.under_way.is_empty() {
            return;
        }
        let under_way = std::mem::take(&mut self.under_way);
        let (delta, rate) = (self.combine(&under_way), self.outer_rate(self.tokens));
        self.under_way = under_way;
        for (theta, delta) in self.arrived.iter_mut().zip(&delta) {
            *theta -= rate * delta;
        }
    }

    /// Moves a peer's local parameters to where the updates that arrive bring them.
    fn move_on(&mut self, peer: usize) {
        let own = self.own_part(peer);
        let local = &mut self.peers[peer].local;
        for ((local, new), old) in local.iter_mut().zip(&self.arrived).zip(self.model.parameters())
        {
            *local += new - old;
        }
        for (place, part) in own {
            local[place] += part;
        }
    }

    /// Applies the updates that were under way, and sends `next` off.
    fn land(&mut self, next: Vec<Sent>) {
        let landed = std::mem::replace(&mut self.under_way, next);
        if !landed.is_empty() {
            self.outer_step(&landed, self.outer_rate(self.tokens));
        }
    }

    /// What a peer takes off θ, by place, before its local steps: its own part of the outer step that is under way.
    fn own_part(&self, peer: usize) -> Vec<(usize, f32)> {
        if matches!(self.arm.overlap, Overlap::None | Overlap::OneRound) {
            return Vec::new();
        }
        let own =
            self.under_way.get(peer).into_iter().flat_map(|sent| sent.tensors.iter().flatten());
        let part = self.arm.rates.outer / self.peers.len() as f32;
        own.map(|(place, value)| (*place as usize, part * value)).collect()
    }

    /// A round without training: each peer sends of what it has kept back.
    fn flush(&mut self) -> Result<(), Box<dyn Error>> {
        let send = |peer: &mut Peer| self.codec.send(&mut peer.error);
        let updates = self.peers.iter_mut().map(send).collect::<Result<Vec<Sent>, _>>()?;
        self.outer_step(&updates, self.arm.rates.outer);
        Ok(())
    }

    fn outer_step(&mut self, updates: &[Sent], rate: f32) {
        let delta = self.combine(updates);
        for (theta, delta) in self.model.parameters_mut().iter_mut().zip(&delta) {
            *theta -= rate * delta;
        }
    }

    /// H steps of one peer from θ.
    fn local_steps(&mut self, peer: usize, start: u64) -> Result<(), Box<dyn Error>> {
        let step_tokens = (self.peers.len() * BATCH * SEQ_LEN) as u64;
        self.peers[peer].local.copy_from_slice(self.model.parameters());
        for (place, part) in self.own_part(peer) {
            self.peers[peer].local[place] -= part;
        }
        if self.arm.ahead {
            let Peer { local, error, .. } = &mut self.peers[peer];
            for (local, error) in local.iter_mut().zip(error.iter()) {
                *local -= self.arm.decay * error;
            }
        }
        let joining = match self.arm.churn {
            Churn::Leave(joining) if self.peers[peer].joins => Some(joining),
            _ => None,
        };
        self.peers[peer].joins = false;
        let steps = match joining {
            Some(Joining::FewSteps) => self.arm.steps / 3,
            _ => self.arm.steps,
        };
        for step in 1..=steps as u64 {
            self.gradient(Some(peer), Self::SCALE, false)?;
            let rate = self.rate(start + step * step_tokens);
            let part = match joining {
                Some(Joining::WarmUp) => step as f32 / steps as f32,
                _ => 1.0,
            };
            self.step(peer, rate * part);
            if self.arm.overlap == Overlap::Arriving(step as usize) {
                self.move_on(peer);
            }
        }
        Ok(())
    }

    /// A step of a peer's optimiser against the gradient, AdamW's rate being `rate`.
    fn step(&mut self, peer: usize, rate: f32) {
        let Peer { local, optimiser, .. } = &mut self.peers[peer];
        let norm = optimiser.gradient_norm(&self.gradient);
        let clip = (CLIP_NORM / norm.max(CLIP_NORM)) as f32;
        let Rates { matrices, rest, .. } = self.arm.rates;
        if self.arm.inner == Inner::Muon || matrices == rest {
            optimiser.step(local, &self.gradient, rate, clip);
            return;
        }
        // All that AdamW does to a parameter is proportional to the rate.
        self.before.copy_from_slice(local);
        optimiser.step(local, &self.gradient, rate, clip);
        let arena = self.model.arena();
        for (tensor, placed) in arena.tensors.iter().enumerate() {
            if arena.is_layer_matrix(tensor) {
                let before = &self.before[placed.range.clone()];
                for (after, before) in local[placed.range.clone()].iter_mut().zip(before) {
                    *after = before + matrices / rest * (*after - before);
                }
            }
        }
    }

    /// The outer rate of a round that starts after so many tokens.
    fn outer_rate(&self, tokens: u64) -> f32 {
        let done = tokens as f32 / self.tokens_max as f32;
        self.arm.rates.outer
            * match self.arm.outer_schedule {
                OuterSchedule::Flat => 1.0,
                OuterSchedule::WarmUp => (done / 0.1).clamp(0.05, 1.0),
                OuterSchedule::Decay => 1.0 - 1.5 * (done - 0.5).max(0.0),
            }
    }

    fn nesterov(&mut self, delta: &[f32]) {
        let rate = self.arm.rates.outer;
        let momentum = self.momentum.iter_mut().zip(delta);
        for (theta, (momentum, delta)) in self.model.parameters_mut().iter_mut().zip(momentum) {
            *momentum = MOMENTUM * *momentum + delta;
            *theta -= rate * (delta + MOMENTUM * *momentum);
        }
    }

    /// Who leaves now, and who takes an empty place.
    fn leave_and_join(&mut self, empty: &mut [bool], joining: Joining) {
        let stayed = empty.iter().position(|empty| !*empty).unwrap_or(0);
        for (peer, empty) in empty.iter_mut().enumerate() {
            if *empty {
                *empty = false;
                self.peers[peer].optimiser = optimiser(self.arm, &self.model);
                self.peers[peer].error.fill(0.0);
                self.peers[peer].joins = true;
                if joining == Joining::State {
                    self.take_averages(stayed, peer);
                }
            } else {
                *empty = self.draw(4) == 0;
            }
        }
        if empty.iter().all(|empty| *empty) {
            empty[0] = false;
        }
    }

    /// Gives a peer the averages of another.
    fn take_averages(&mut self, from: usize, to: usize) {
        if let Ok([from, to]) = self.peers.get_disjoint_mut([from, to]) {
            to.optimiser.copy_from(&from.optimiser);
        }
    }

    /// The clipped mean of the updates, by either rule.
    fn combine(&mut self, updates: &[Sent]) -> Vec<f32> {
        let mut sums = vec![0.0f32; self.gradient.len()];
        let mut senders = vec![0.0f32; self.gradient.len()];
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
                    senders[*place as usize] += 1.0;
                }
            }
        }
        let least = (self.arm.senders_min * updates.len() as f32).max(f32::MIN_POSITIVE);
        for (sum, senders) in sums.iter_mut().zip(&senders) {
            *sum /= senders.max(least);
        }
        self.bytes += updates.iter().map(|sent| sent.bytes).sum::<u64>();
        self.updates += updates.len() as u64;
        sums
    }
}

/// Seconds that this thread has had a processor; 0 where the system does not say.
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: Option<f64> = times.split(' ').next().and_then(|time| time.parse().ok());
    nanoseconds.unwrap_or_default() / 1e9
}

/// A fresh one.
fn optimiser(arm: &Arm, model: &Model) -> Optimiser {
    let relative_rate = arm.rates.matrices / arm.rates.rest;
    let muon = match arm.inner {
        Inner::AdamW => None,
        Inner::Muon => {
            let momentum = arm.momentum;
            Some(MuonSettings { momentum, relative_rate, ..MuonSettings::default() })
        }
    };
    let compute = Compute::new(Threads::single());
    Optimiser::new(AdamWSettings::default(), muon, model.arena(), &compute)
}
