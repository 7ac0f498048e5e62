//! What updates have in common: of two honest miners, of one miner in two windows, and of copies that hide.
//!
//! `cargo run --release -p trainer --example overlap -- [SHAPE] [OPTIMISER] [WINDOWS] [SEED] [honest|copies]
//! [BATCH]`; shapes are `nano`, `untied` and `wide`, optimisers `muon` and `adamw`; with `honest` nobody copies. Honest
//! miners of one run train in one process, without a chain, on the default corpus, at a localnet's settings. For every chunk that could
//! prove a copy (`protocol::fault`) the share of the later one's positions that the earlier one has too is counted.
//! Rows of CSV go to the standard output; docs/study/overlap.md says what came out.

mod copies;
mod count;

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use dataset::{build, default_corpus, CorpusLimits, Dataset, SampleSource};
use protocol::aggregate::OuterRule;
use protocol::assignment::{own_samples, Permutation};
use protocol::layout::Layout;
use protocol::settings::PPM;
use protocol::update::accumulate_difference;
use trainer::evaluate::loss_from_q824;
use trainer::{Cpu, EvaluationRates, Evaluator, Model, ModelConfig, MuonSettings, Threads};
use trainer::{Trainer, TrainerSettings, UpdateToEvaluate};

use crate::copies::{Copies, Made};
use crate::count::{Places, Tables, KEEP};

/// Steps of a window.
const STEPS: u64 = 16;
/// A localnet's rates.
const RATE: f32 = 8e-3;
const MUON_RATE: f32 = 4e-3;
const ADAMW_RATE: f32 = 2e-3;
const OUTER_PPM: u32 = 2_000_000;
/// What is left of the error feedback from window to window.
const DECAY: f32 = 0.95;
const DECAY_PPM: u32 = 950_000;
/// Honest miners. One more trains on the first one's samples in another order.
const MINERS: u64 = 4;
/// Samples of an evaluation, own and random.
const EVALUATED: u64 = 48;
/// The window whose update is sent for ever after.
const LAZY_WINDOW: usize = 2;
/// Windows for which a commitment is kept: a copy of an older one cannot be proven.
const HISTORY: usize = 8;

/// What is trained how.
struct Order {
    config: ModelConfig,
    muon: Option<MuonSettings>,
    rate: f32,
    windows: u64,
    seed: u64,
    copies: bool,
    /// Samples of a step.
    batch: u64,
}

impl Order {
    fn read() -> Result<Self, Box<dyn Error>> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let argument = |at: usize, default: &'static str| {
            arguments.get(at).map_or(default, String::as_str).to_owned()
        };
        let nano = ModelConfig::preset("nano")?;
        let config = match argument(0, "nano").as_str() {
            "nano" => nano,
            // Half of the tokens never occur: the text is bytes.
            "untied" => ModelConfig { vocab: 512, tied: false, ..nano },
            // Its norms are chunks of 1024 values, of which 16 are kept.
            "wide" => ModelConfig {
                hidden: 1024,
                layers: 1,
                heads: 8,
                kv_heads: 2,
                ffn: 1024,
                seq_len: 64,
                ..nano
            },
            other => return Err(format!("no shape {other}").into()),
        };
        let (muon, rate) = match argument(1, "muon").as_str() {
            "muon" => {
                let relative_rate = MUON_RATE / RATE;
                (Some(MuonSettings { relative_rate, ..MuonSettings::default() }), RATE)
            }
            "adamw" => (None, ADAMW_RATE),
            other => return Err(format!("no optimiser {other}").into()),
        };
        let (windows, seed) = (argument(2, "24").parse()?, argument(3, "1").parse()?);
        let copies = argument(4, "") != "honest";
        let batch = argument(5, "4").parse()?;
        Ok(Self { config, muon, rate, windows, seed, copies, batch })
    }

    fn trainer(&self, model: &Model) -> Result<Trainer, Box<dyn Error>> {
        let settings = TrainerSettings {
            batch_size: self.batch as usize,
            muon: self.muon,
            ..TrainerSettings::default()
        };
        Ok(Trainer::new(model.clone(), settings, &Cpu::new(Threads::single()))?)
    }
}

/// One run.
struct Run<'a> {
    order: &'a Order,
    dataset: &'a Dataset,
    layout: Layout,
    /// The honest, and last the one with another order.
    trainers: Vec<Trainer>,
    evaluator: Evaluator,
    copies: Copies,
    tables: Tables,
    /// The updates of the last windows, the newest last.
    history: Vec<Vec<Places>>,
    /// What the first miner sent in every window.
    sent: Vec<Vec<u8>>,
}

/// The samples that a miner's window trains on, in steps of `batch`; `reversed` in the opposite order.
fn steps(permutation: &Permutation, batch: u64, miner: u64, reversed: bool) -> Vec<Vec<u64>> {
    let id = |at: u64| permutation.apply(miner * STEPS * batch + at).unwrap_or(0);
    let mut ids: Vec<u64> = (0..STEPS * batch).map(id).collect();
    if reversed {
        ids.reverse();
    }
    ids.chunks(batch as usize).map(<[u64]>::to_vec).collect()
}

impl Run<'_> {
    fn window(&mut self, window: u64) -> Result<(), Box<dyn Error>> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&window.to_le_bytes());
        seed[8..16].copy_from_slice(&self.order.seed.to_le_bytes());
        let count = self.dataset.train().sample_count();
        let permutation = own_samples(&seed, count).ok_or("no samples")?;
        let mut updates = Vec::new();
        let mut dense = Vec::new();
        for (miner, trainer) in (0u64..).zip(&mut self.trainers) {
            let Order { rate, batch, .. } = *self.order;
            let steps = steps(&permutation, batch, miner % MINERS, miner == MINERS);
            trainer.train_window(self.dataset.train(), &steps, &|_| rate, &mut |_| {
                ControlFlow::Continue(())
            })?;
            if miner == 0 && self.order.copies {
                dense = trainer.feedback().to_vec();
                let (theta, local) = (trainer.model().clone(), trainer.local_model()?);
                accumulate_difference(&mut dense, theta.parameters(), local.parameters(), DECAY);
            }
            updates.push(trainer.make_update(KEEP, DECAY_PPM)?);
        }
        let model = self.trainers[0].model().clone();
        self.compare(&updates)?;
        if self.order.copies {
            let copies = self.copies.of(&model, &dense, &updates)?;
            for Made { name, bytes } in &copies {
                let original = Places::of(&updates[0], &self.layout)?;
                self.tables.count(name, &original, &Places::of(bytes, &self.layout)?);
            }
            self.measure(&permutation, &model, &updates, &copies)?;
        }
        self.sent.push(updates[0].clone());
        let accepted: Vec<(u16, &[u8])> = (0u16..)
            .zip(&updates)
            .take(MINERS as usize)
            .map(|(uid, bytes)| (uid, bytes.as_slice()))
            .collect();
        for trainer in &mut self.trainers {
            trainer.apply_outer(&accepted, KEEP, OuterRule::new(OUTER_PPM, PPM))?;
        }
        let loss = self.evaluator.held_out_loss(self.trainers[0].model(), self.dataset, 128)?;
        eprintln!("window {window}: held-out loss {loss:.3}");
        Ok(())
    }

    /// Counts what honest updates have in common, in this window and with earlier ones.
    fn compare(&mut self, updates: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
        let places: Result<Vec<Places>, _> =
            updates.iter().map(|bytes| Places::of(bytes, &self.layout)).collect();
        let mut places = places?;
        if let Some(shadow) = places.pop() {
            self.tables.count("same samples, other order", &places[0], &shadow);
        }
        for (at, first) in places.iter().enumerate() {
            for second in &places[at + 1..] {
                self.tables.count("two honest miners, one window", first, second);
            }
        }
        for (age, earlier) in self.history.iter().rev().enumerate() {
            for (at, now) in places.iter().enumerate() {
                for (other, before) in earlier.iter().enumerate() {
                    let name = match (at == other, age) {
                        (true, 0) => "one miner, the next window",
                        (true, _) => "one miner, two to eight windows later",
                        (false, _) => "two honest miners, two windows",
                    };
                    self.tables.count(name, before, now);
                }
            }
        }
        self.history.push(places);
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        Ok(())
    }

    /// Notes what each kind gains on the first miner's samples and on random ones, beside the honest update itself.
    fn measure(
        &mut self,
        permutation: &Permutation,
        model: &Model,
        updates: &[Vec<u8>],
        copies: &[Made],
    ) -> Result<(), Box<dyn Error>> {
        let batch = self.order.batch;
        let own = |miner: u64| -> Vec<u64> {
            steps(permutation, batch, miner, false)
                .concat()
                .into_iter()
                .take(EVALUATED as usize)
                .collect()
        };
        // Nobody trains on these.
        let far = 64 * STEPS * batch;
        let random: Vec<u64> =
            (0..EVALUATED).map(|at| permutation.apply(far + at).unwrap_or(0)).collect();
        let rates =
            EvaluationRates { keep: KEEP, outer_rate_ppm: OUTER_PPM, evaluation_rate_ppm: 300_000 };
        let samples = self.dataset.train();
        let mut gain = |bytes: &[u8], own_ids: &[u64]| -> Result<[f64; 2], Box<dyn Error>> {
            let update = UpdateToEvaluate { uid: 0, payload: bytes, own_ids };
            let found = self.evaluator.evaluate_update(model, update, &random, samples, rates)?;
            let part =
                |before: u32, after: u32| 1.0 - loss_from_q824(after) / loss_from_q824(before);
            Ok([
                part(found.own_before, found.own_after),
                part(found.random_before, found.random_after),
            ])
        };
        // Where the first miner's update is the copied one, its own samples are the copy's too.
        let first = gain(&updates[0], &own(0))?;
        self.tables.gain("honest", first);
        self.tables.gain("same samples, other order", gain(&updates[MINERS as usize], &own(0))?);
        if let Some(last) = self.sent.last() {
            self.tables.gain("the last window's update", gain(last, &own(0))?);
        }
        if let Some(old) = self.sent.get(LAZY_WINDOW).filter(|_| self.sent.len() > LAZY_WINDOW + 1)
        {
            self.tables.gain("one update for ever", gain(old, &own(0))?);
        }
        for Made { name, bytes } in copies {
            self.tables.gain(name, gain(bytes, &own(0))?);
            let as_stranger = format!("{name}, by another uid");
            self.tables.gain(&as_stranger, gain(bytes, &own(1))?);
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let order = Order::read()?;
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let documents = default_corpus(&lock, &CorpusLimits::default())?;
    let folder = std::env::temp_dir().join(format!("trainer-overlap-{}", std::process::id()));
    let dataset = build(documents, order.config.seq_len, &folder)?;
    let model = Model::init(&order.config, order.seed)?;
    let mut run = Run {
        trainers: (0..=MINERS).map(|_| order.trainer(&model)).collect::<Result<_, _>>()?,
        evaluator: Evaluator::new(&order.config, &Cpu::new(Threads::single()), 16)?,
        copies: Copies::new(order.seed),
        tables: Tables::new(order.config.arena().canonical_tensors()),
        layout: order.config.layout(),
        history: Vec::new(),
        sent: Vec::new(),
        order: &order,
        dataset: &dataset,
    };
    let played = (0..order.windows).try_for_each(|window| run.window(window));
    std::fs::remove_dir_all(&folder)?;
    played?;
    run.tables.print();
    Ok(())
}
