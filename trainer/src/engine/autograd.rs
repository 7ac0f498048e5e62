//! Computes the same model in candle, with its autograd: the network behind [`crate::engine::candle`], and
//! the yardstick of `gauntlet bench train --engine candle`.
//!
//! Written as a user of candle would: a tensor for each weight, separate products for q, k, v, gate
//! and up, whole masked matrices of scores, AdamW as in candle-nn. candle's fused operations (norm,
//! softmax, rotary positions) have no backward pass and would silently drop gradients, so only plain
//! tensor operations are used. It is several times slower than [`crate::engine`].

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var, D};

use crate::engine::learner::Kept;
use crate::engine::optimiser::AdamWSettings;
use crate::model::config::ModelConfig;
use crate::model::Model;
use dataset::SampleSource;

/// A model's parameters as candle's variables.
pub struct Autograd {
    config: ModelConfig,
    vars: BTreeMap<String, Var>,
    /// (1, 1, seq_len, head_dim / 2) each.
    cos: Tensor,
    sin: Tensor,
    /// Two averages for each variable.
    averages: BTreeMap<String, (Tensor, Tensor)>,
    steps: i32,
}

impl Autograd {
    /// A copy of a model.
    pub fn new(model: &Model) -> Result<Self> {
        let mut autograd = Self::zeros(model.config())?;
        for (index, info) in model.tensors().iter().enumerate() {
            autograd.set(Kept::Parameters, &info.name, model.tensor(index))?;
        }
        Ok(autograd)
    }

    /// A model whose parameters are all 0, to be overwritten.
    pub fn zeros(config: &ModelConfig) -> Result<Self> {
        let mut vars = BTreeMap::new();
        let mut averages = BTreeMap::new();
        for info in config.tensors() {
            let zeros = Tensor::zeros(info.shape.as_slice(), DType::F32, &Device::Cpu)?;
            vars.insert(info.name.clone(), Var::from_tensor(&zeros)?);
            averages.insert(info.name, (zeros.clone(), zeros));
        }
        let config = config.clone();
        let frequencies = config.rotary_frequencies();
        let (seq_len, half) = (config.seq_len, frequencies.len());
        let table = |f: fn(f64) -> f64| {
            let angle = |index: usize| (index / half) as f64 * frequencies[index % half];
            let values = (0..seq_len * half).map(|index| f(angle(index)) as f32);
            Tensor::from_vec(values.collect(), (1, 1, seq_len, half), &Device::Cpu)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)?, config, vars, averages, steps: 0 })
    }

    /// The gradient of the tensor of this name, flat.
    ///
    /// # Errors
    /// There is none: candle has lost it on the way.
    pub fn gradient(&self, store: &GradStore, name: &str) -> Result<Vec<f32>> {
        let gradient = self.vars.get(name).and_then(|var| store.get(var.as_tensor()));
        match gradient {
            Some(gradient) => gradient.flatten_all()?.to_vec1(),
            None => candle_core::bail!("no gradient of {name}"),
        }
    }

    /// The gradients of all tensors, by name.
    ///
    /// # Errors
    /// candle has lost one on the way.
    pub fn gradients(&self, store: &GradStore) -> Result<BTreeMap<String, Tensor>> {
        let mut gradients = BTreeMap::new();
        for (name, var) in &self.vars {
            let Some(gradient) = store.get(var.as_tensor()) else {
                candle_core::bail!("no gradient of {name}");
            };
            gradients.insert(name.clone(), gradient.clone());
        }
        Ok(gradients)
    }

    /// The values of one tensor of what is kept, flat.
    ///
    /// # Errors
    /// There is no tensor of this name.
    pub fn get(&self, kept: Kept, name: &str) -> Result<Vec<f32>> {
        let found = match kept {
            Kept::Parameters => self.vars.get(name).map(|var| var.as_tensor()),
            Kept::Mean => self.averages.get(name).map(|(mean, _)| mean),
            Kept::Square => self.averages.get(name).map(|(_, square)| square),
        };
        match found {
            Some(tensor) => tensor.flatten_all()?.to_vec1(),
            None => candle_core::bail!("no tensor {name}"),
        }
    }

    /// Replaces one tensor of what is kept.
    ///
    /// # Errors
    /// There is no tensor of this name, or it has another length.
    pub fn set(&mut self, kept: Kept, name: &str, values: &[f32]) -> Result<()> {
        let (Some(var), Some((mean, square))) = (self.vars.get(name), self.averages.get_mut(name))
        else {
            candle_core::bail!("no tensor {name}");
        };
        let tensor = Tensor::from_slice(values, var.shape(), &Device::Cpu)?;
        match kept {
            Kept::Parameters => var.set(&tensor)?,
            Kept::Mean => *mean = tensor,
            Kept::Square => *square = tensor,
        }
        Ok(())
    }

    /// Steps of AdamW so far.
    pub fn steps(&self) -> u64 {
        u64::from(self.steps.unsigned_abs())
    }

    /// Says how many steps the averages stand for.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = i32::try_from(steps).unwrap_or(i32::MAX - 1);
    }

    /// Starts the optimiser afresh.
    pub fn reset(&mut self) -> Result<()> {
        self.steps = 0;
        for (mean, square) in self.averages.values_mut() {
            (*mean, *square) = (mean.zeros_like()?, square.zeros_like()?);
        }
        Ok(())
    }

    /// A step of AdamW, as candle-nn takes it.
    pub fn step(&mut self, store: &GradStore, settings: &AdamWSettings, rate: f64) -> Result<()> {
        let gradients = self.gradients(store)?;
        self.step_against(&gradients, 1.0, settings, rate)
    }

    /// [`Autograd::step`] against `scale` times gradients that have been taken.
    pub fn step_against(
        &mut self,
        gradients: &BTreeMap<String, Tensor>,
        scale: f64,
        settings: &AdamWSettings,
        rate: f64,
    ) -> Result<()> {
        self.steps += 1;
        let (beta1, beta2) = (f64::from(settings.beta1), f64::from(settings.beta2));
        let mean_scale = 1.0 / (1.0 - beta1.powi(self.steps));
        let square_scale = 1.0 / (1.0 - beta2.powi(self.steps));
        for (name, var) in &self.vars {
            let (Some(gradient), Some((mean, square))) =
                (gradients.get(name), self.averages.get_mut(name))
            else {
                candle_core::bail!("no gradient of {name}");
            };
            let gradient = &(gradient * scale)?;
            let is_lookup = name == "model.embed_tokens.weight" && !self.config.tied;
            let decay = match var.rank() {
                1 => 0.0,
                _ if is_lookup => 0.0,
                _ => f64::from(settings.decay),
            };
            *mean = ((&*mean * beta1)? + (gradient * (1.0 - beta1))?)?.detach();
            *square = ((&*square * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?.detach();
            let kept = (var.as_tensor() * (1.0 - rate * decay))?;
            let root = ((&*square * square_scale)?.sqrt()? + f64::from(settings.epsilon))?;
            let change = ((&*mean * mean_scale)? / root)?;
            var.set(&(kept - (change * rate)?)?.detach())?;
        }
        Ok(())
    }

    fn var(&self, name: &str) -> Result<&Tensor> {
        match self.vars.get(&format!("{name}.weight")) {
            Some(var) => Ok(var.as_tensor()),
            None => candle_core::bail!("no tensor {name}"),
        }
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + f64::from(self.config.norm_epsilon))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(self.var(name)?)
    }

    /// x (rows, inputs) · Wᵀ.
    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        x.matmul(&self.var(name)?.t()?)
    }

    /// (batch, heads, seq, dim), pairs i and i + dim / 2.
    fn rope(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.config.head_dim() / 2;
        let low = x.narrow(D::Minus1, 0, half)?;
        let high = x.narrow(D::Minus1, half, half)?;
        let turned_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(&self.sin)?)?;
        let turned_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[turned_low, turned_high], D::Minus1)
    }

    fn softmax(x: &Tensor) -> Result<Tensor> {
        let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
        shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
    }

    /// The sum of the losses of all tokens of the samples `ids`. Scores between documents are
    /// masked where the source names the token that ends one.
    ///
    /// # Errors
    /// There is no such sample, or candle refuses.
    pub fn loss(&self, samples: &dyn SampleSource, ids: &[u64]) -> Result<Tensor> {
        let mut targets = Vec::new();
        for id in ids {
            let Some(sample) = samples.sample(*id) else {
                candle_core::bail!("no sample {id}");
            };
            targets.extend(sample.iter().skip(1));
        }
        let rows = ids.len() * self.config.seq_len;
        let targets = Tensor::from_vec(targets, (rows, 1), &Device::Cpu)?;
        let logits = self.logits(samples, ids)?;
        let max = logits.max_keepdim(D::Minus1)?.detach();
        let shifted = logits.broadcast_sub(&max)?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        (log_sum - shifted.gather(&targets, 1)?)?.sum_all()?.to_dtype(DType::F32)
    }

    /// The logits (tokens, vocab) of the samples `ids`, masked as in [`Autograd::loss`].
    ///
    /// # Errors
    /// There is no such sample, or candle refuses.
    pub fn logits(&self, samples: &dyn SampleSource, ids: &[u64]) -> Result<Tensor> {
        let c = &self.config;
        let (batch, seq_len, dim) = (ids.len(), c.seq_len, c.head_dim());
        let rows = batch * seq_len;
        let mut inputs = Vec::new();
        for id in ids {
            let Some(sample) = samples.sample(*id) else {
                candle_core::bail!("no sample {id}");
            };
            inputs.extend(sample.iter().take(seq_len));
        }
        let mask = self.mask(&inputs, samples.end_of_document())?;
        let inputs = Tensor::from_vec(inputs, rows, &Device::Cpu)?;
        let mut x = self.var("model.embed_tokens")?.index_select(&inputs, 0)?;
        for layer in 0..c.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&x, &name("input_layernorm"))?;
            let split = |part: &str, heads: usize| -> Result<Tensor> {
                let y = self.linear(&normed, &name(part))?;
                y.reshape((batch, seq_len, heads, dim))?.transpose(1, 2)?.contiguous()
            };
            let repeat = |y: Tensor| -> Result<Tensor> {
                let group = c.heads / c.kv_heads;
                let y = y.unsqueeze(2)?.broadcast_as((batch, c.kv_heads, group, seq_len, dim))?;
                y.contiguous()?.reshape((batch, c.heads, seq_len, dim))
            };
            let q = self.rope(&split("self_attn.q_proj", c.heads)?)?;
            let k = repeat(self.rope(&split("self_attn.k_proj", c.kv_heads)?)?)?;
            let v = repeat(split("self_attn.v_proj", c.kv_heads)?)?;
            let scores = (q.matmul(&k.t()?.contiguous()?)? / (dim as f64).sqrt())?;
            let probabilities = Self::softmax(&scores.broadcast_add(&mask)?)?;
            let attended = probabilities.matmul(&v)?.transpose(1, 2)?.contiguous()?;
            let attended = attended.reshape((rows, c.hidden))?;
            x = (x + self.linear(&attended, &name("self_attn.o_proj"))?)?;

            let normed = self.norm(&x, &name("post_attention_layernorm"))?;
            let gate = self.linear(&normed, &name("mlp.gate_proj"))?;
            let gate = (&gate / (gate.neg()?.exp()? + 1.0)?)?;
            let h = (gate * self.linear(&normed, &name("mlp.up_proj"))?)?;
            x = (x + self.linear(&h, &name("mlp.down_proj"))?)?;
        }
        let normed = self.norm(&x, "model.norm")?;
        let head = if c.tied { "model.embed_tokens" } else { "lm_head" };
        self.linear(&normed, head)
    }

    /// 0 where a token sees another one, else −∞: (samples, 1, seq_len, seq_len), or one for all.
    fn mask(&self, inputs: &[u32], end_of_document: Option<u32>) -> Result<Tensor> {
        let seq_len = self.config.seq_len;
        let samples = match end_of_document {
            Some(_) => inputs.len() / seq_len,
            None => 1,
        };
        let mut mask = vec![f32::NEG_INFINITY; samples * seq_len * seq_len];
        let rows = mask.chunks_exact_mut(seq_len);
        let mut first = 0;
        for ((row, seen), input) in rows.enumerate().zip(inputs) {
            let position = row % seq_len;
            if position == 0 {
                first = 0;
            }
            seen[first..=position].fill(0.0);
            if Some(*input) == end_of_document {
                first = position + 1;
            }
        }
        Tensor::from_vec(mask, (samples, 1, seq_len, seq_len), &Device::Cpu)
    }
}
