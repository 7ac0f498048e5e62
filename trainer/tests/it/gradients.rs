//! The hand-written backward pass against candle's autograd: every tensor's gradient.
//!
//! candle's fused operations have no backward pass and would silently drop gradients; only its
//! plain tensor operations are used here, and a missing gradient is a failure.

use candle_core::{DType, Device, Tensor, Var, D};
use std::collections::BTreeMap;
use trainer::{Engine, Model, ModelConfig, SampleSource, Threads};

use crate::samples::MemorySamples;

/// Relative L2 distance per tensor. Both sides compute in f32; sums over some hundred terms in
/// different orders differ by about 1e-6.
const TOLERANCE: f64 = 1e-5;

fn config(heads: usize, kv_heads: usize, seq_len: usize, tied: bool) -> ModelConfig {
    ModelConfig {
        vocab: 256,
        hidden: 48,
        layers: 2,
        heads,
        kv_heads,
        ffn: 80,
        seq_len,
        rope_theta: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-5,
        tied,
    }
}

/// A model whose norms are not 1 and whose scores are not all alike, so that nothing cancels.
fn model(config: &ModelConfig) -> Model {
    let mut model = Model::init(config, 11).unwrap();
    for (index, value) in model.parameters_mut().iter_mut().enumerate() {
        *value = *value * 1.5 + 0.02 * (index as f32 * 0.37).sin();
    }
    model
}

struct Oracle {
    config: ModelConfig,
    vars: BTreeMap<String, Var>,
}

impl Oracle {
    fn new(model: &Model) -> Self {
        let vars = model.tensors().iter().enumerate().map(|(index, info)| {
            let values = model.tensor(index).to_vec();
            let tensor = Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu).unwrap();
            (info.name.clone(), Var::from_tensor(&tensor).unwrap())
        });
        Self {
            config: model.config().clone(),
            vars: vars.collect(),
        }
    }

    fn var(&self, name: &str) -> &Tensor {
        self.vars[&format!("{name}.weight")].as_tensor()
    }

    fn norm(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + f64::from(self.config.norm_epsilon))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(self.var(name))
    }

    /// x (rows, inputs) · Wᵀ.
    fn linear(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        x.matmul(&self.var(name).t()?)
    }

    /// (batch, heads, seq, dim), pairs i and i + dim / 2.
    fn rope(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (seq_len, half) = (self.config.seq_len, self.config.head_dim() / 2);
        let angles: Vec<f64> = (0..seq_len * half)
            .map(|index| {
                let exponent = -((index % half) as f64) / half as f64;
                (index / half) as f64 * f64::from(self.config.rope_theta).powf(exponent)
            })
            .collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle) as f32).collect();
            Tensor::from_vec(values, (1, 1, seq_len, half), &Device::Cpu)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let low = x.narrow(D::Minus1, 0, half)?;
        let high = x.narrow(D::Minus1, half, half)?;
        let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
        let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
        Tensor::cat(&[turned_low, turned_high], D::Minus1)
    }

    fn softmax(x: &Tensor) -> candle_core::Result<Tensor> {
        let shifted = x
            .broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?
            .exp()?;
        shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
    }

    /// The sum of the losses.
    fn loss(&self, samples: &dyn SampleSource, ids: &[u64]) -> candle_core::Result<Tensor> {
        let c = &self.config;
        let (batch, seq_len, dim) = (ids.len(), c.seq_len, c.head_dim());
        let rows = batch * seq_len;
        let mut inputs = Vec::new();
        let mut targets = Vec::new();
        for id in ids {
            let sample = samples.sample(*id).unwrap();
            inputs.extend(sample.iter().take(seq_len));
            targets.extend(sample.iter().skip(1));
        }
        let inputs = Tensor::from_vec(inputs, rows, &Device::Cpu)?;
        let targets = Tensor::from_vec(targets, (rows, 1), &Device::Cpu)?;
        let mask: Vec<f32> = (0..seq_len * seq_len)
            .map(|i| {
                if i % seq_len > i / seq_len {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, 1, seq_len, seq_len), &Device::Cpu)?;

        let mut x = self.var("model.embed_tokens").index_select(&inputs, 0)?;
        for layer in 0..c.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&x, &name("input_layernorm"))?;
            let split = |part: &str, heads: usize| -> candle_core::Result<Tensor> {
                let y = self.linear(&normed, &name(part))?;
                y.reshape((batch, seq_len, heads, dim))?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let repeat = |y: Tensor| -> candle_core::Result<Tensor> {
                let group = c.heads / c.kv_heads;
                let y = y
                    .unsqueeze(2)?
                    .broadcast_as((batch, c.kv_heads, group, seq_len, dim))?;
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
        let head = if c.tied {
            "model.embed_tokens"
        } else {
            "lm_head"
        };
        let logits = self.linear(&normed, head)?;
        let max = logits.max_keepdim(D::Minus1)?.detach();
        let shifted = logits.broadcast_sub(&max)?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        (log_sum - shifted.gather(&targets, 1)?)?
            .sum_all()?
            .to_dtype(DType::F32)
    }
}

/// Compares loss and all gradients; `micro` cuts the batch to test accumulation.
fn check(config: ModelConfig, micro: usize, threads: usize) {
    let samples = MemorySamples::words(config.seq_len, 16, 5);
    let ids = [3, 7, 0, 12];
    let model = model(&config);
    let scale = 1.0 / (ids.len() * config.seq_len) as f32;

    let oracle = Oracle::new(&model);
    let expected_loss = oracle.loss(&samples, &ids).unwrap();
    let store = expected_loss.backward().unwrap();
    let expected_loss = f64::from(expected_loss.to_scalar::<f32>().unwrap());

    let mut engine = Engine::new(&config, micro, true, Threads::new(threads).unwrap()).unwrap();
    assert_eq!(engine.allocated_bytes(), engine.plan().bytes());
    let mut gradient = vec![f32::NAN; model.parameters().len()];
    let mut loss = 0.0;
    for (index, ids) in ids.chunks(micro).enumerate() {
        loss += engine
            .loss_and_gradient(
                model.parameters(),
                &mut gradient,
                &samples,
                ids,
                scale,
                index > 0,
            )
            .unwrap();
    }
    assert!(
        (loss / expected_loss - 1.0).abs() < 1e-5,
        "loss {loss}, expected {expected_loss}"
    );

    let views = model.arena().views(&gradient);
    for (info, found) in model.tensors().iter().zip(views) {
        let expected = store.get(oracle.vars[&info.name].as_tensor());
        let expected =
            expected.unwrap_or_else(|| panic!("candle has no gradient of {}", info.name));
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (mut distance, mut length) = (0.0f64, 0.0f64);
        for (found, expected) in found.iter().zip(&expected) {
            let expected = f64::from(*expected) * f64::from(scale);
            distance += (f64::from(*found) - expected).powi(2);
            length += expected.powi(2);
        }
        assert!(length > 0.0, "{} has no gradient", info.name);
        let relative = (distance / length).sqrt();
        println!("{:50} {relative:.2e}", info.name);
        assert!(
            relative < TOLERANCE,
            "{}: relative distance {relative:e}",
            info.name
        );
    }
}

#[test]
fn gradients_equal_autograd_when_tied() {
    check(config(4, 4, 32, true), 4, 1);
}

#[test]
fn gradients_equal_autograd_when_untied() {
    check(config(4, 4, 32, false), 4, 1);
}

#[test]
fn gradients_equal_autograd_with_grouped_heads() {
    check(config(6, 2, 32, true), 4, 2);
}

#[test]
fn gradients_equal_autograd_over_several_blocks_of_attention() {
    // 150 rows: two whole blocks of 64 and a part of one.
    check(config(4, 2, 150, false), 4, 2);
}

#[test]
fn gradients_add_up_over_micro_batches() {
    check(config(4, 2, 32, false), 2, 1);
    check(config(4, 2, 32, true), 1, 2);
}
