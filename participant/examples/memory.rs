//! Measures what the process of a replica, a miner or a validator holds, against what is planned: `memory ROLE PRESET
//! TOKENS FOLDER`, with ROLE one of `update`, `replica`, `validator`, `miner`; `plan` says what is planned for any preset.
//!
//! TOKENS are those of a sample; FOLDER keeps states, checkpoints and the update that `update` makes and the others
//! read, which is to be called first. Each does a window's work with the very parts that the process has, without chain
//! and peers: it serves θ from a store, trains and saves, or measures, and takes the outer step. The peak is Linux's
//! `VmHWM`.

use std::{fs, io, ops::ControlFlow, path::Path, sync::Arc};

use dataset::{SampleSource, Tokens};
use node_client::store::Store;
use participant::{memory, replica};
use protocol::{
    aggregate::OuterRule,
    settings::{InnerOptimiser, PPM},
};
use trainer::{
    budget::CpuCosts, compress::TensorPart, compress::UpdateStream, Checkpoints, Cpu, Device,
    EvaluationRates, Evaluator, Model, ModelConfig, Position, Threads, Trainer, TrainerSettings,
    UpdateToEvaluate,
};

type Failure = Box<dyn std::error::Error>;

/// k of the updates.
const KEEP: u16 = 64;

/// Samples that a validator measures at once.
const MEASURED: usize = 8;

/// Samples of which every token is the same.
struct Same(Vec<u8>);

impl SampleSource for Same {
    fn sample_len(&self) -> usize {
        self.0.len() - 1
    }

    fn sample_count(&self) -> u64 {
        64
    }

    fn sample(&self, _: u64) -> Option<Tokens<'_>> {
        Some(Tokens::U8(&self.0))
    }
}

struct Bench<'a> {
    config: ModelConfig,
    folder: &'a Path,
    device: Cpu,
    samples: Same,
}

impl Bench<'_> {
    fn model(&self) -> Result<Model, Failure> {
        Ok(Model::init_on(self.device.threads(), &self.config, 1)?)
    }

    fn update(&self) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join("update"))
    }

    /// Makes an update of noise, tensor by tensor.
    fn make_update(&self) -> Result<(), Failure> {
        let arena = self.config.arena();
        let sink = io::BufWriter::new(fs::File::create(self.folder.join("update"))?);
        let layout = self.config.layout();
        let mut stream = UpdateStream::new(self.device.threads(), sink, &layout, KEEP, 1.0)?;
        for &place in &arena.canonical {
            let len = arena.tensors[place].range.len();
            let (mut feedback, start) = (vec![0.0; len], vec![0.0; len]);
            let noise = |index: u32| index.wrapping_mul(0x9E37_79B9) as i32 as f32 * 1e-14;
            let local: Vec<f32> = (0..len as u32).map(noise).collect();
            let feedback = &mut feedback[..];
            stream.encode([TensorPart { feedback, start: &start, local: &local }])?;
        }
        stream.finish()?;
        Ok(())
    }

    /// What a replica does in a window: it serves θ and takes the outer step.
    fn step(&self, store: &Store, mut model: Model, update: &[u8]) -> Result<Model, Failure> {
        let rule = OuterRule::new(700_000, PPM);
        let manifest = replica::step(&mut model, &self.device, &[(1, update)], KEEP, rule)?;
        let served = replica::Served(Arc::new(model));
        store.put_content(manifest.root(), &served)?;
        Ok(Arc::into_inner(served.0).ok_or("somebody else has θ")?)
    }

    fn replica(&self) -> Result<u64, Failure> {
        let (store, update) = (self.store()?, self.update()?);
        let planned = CpuCosts::default()
            .and_parameters("parameters", &self.config, 1)?
            .and_replica(&self.config, update.len() as u64)?;
        let model = self.step(&store, self.model()?, &update)?;
        self.step(&store, model, &update)?;
        Ok(planned.bytes()?)
    }

    fn validator(&self) -> Result<u64, Failure> {
        let (store, update) = (self.store()?, self.update()?);
        let threads = self.device.threads().count();
        let planned =
            CpuCosts::of_validator(&self.config, MEASURED, threads, KEEP, update.len() as u64)?;
        let mut evaluator = Evaluator::new(&self.config, &self.device, MEASURED)?;
        let model = self.step(&store, self.model()?, &update)?;
        let mut measured = model.clone();
        let ids: Vec<u64> = (0..MEASURED as u64).collect();
        let rates =
            EvaluationRates { keep: KEEP, outer_rate_ppm: PPM, evaluation_rate_ppm: 500_000 };
        let one = UpdateToEvaluate { uid: 1, payload: &update, own_ids: &ids };
        evaluator.evaluate_update_in_place(&mut measured, one, &ids, &self.samples, rates)?;
        self.step(&store, model, &update)?;
        Ok(planned.bytes()?)
    }

    fn miner(&self) -> Result<u64, Failure> {
        let (store, update) = (self.store()?, self.update()?);
        let threads = self.device.threads().count();
        let planned = memory::miner(&self.config, InnerOptimiser::AdamW, 1, threads)?.bytes()?;
        let settings = TrainerSettings { batch_size: 1, ..TrainerSettings::default() };
        let model = Arc::new(self.step(&store, self.model()?, &update)?);
        let mut trainer = Trainer::new(model.clone(), settings, &self.device)?;
        let mut go_on = |_: &_| ControlFlow::Continue(());
        trainer.train_window(&self.samples, &[vec![0], vec![1]], &|_| 1e-4, &mut go_on)?;
        let own = trainer.make_update(KEEP, PPM)?;
        let checkpoints = Checkpoints::open(&self.folder.join("checkpoints"))?;
        let checkpoints = checkpoints.on(self.device.threads().clone());
        trainer.save_and_release(&checkpoints, &Position::default())?;
        let model = Arc::into_inner(model).ok_or("the trainer has θ")?;
        self.step(&store, model, &own)?;
        Ok(planned)
    }

    /// What is planned for each role, on a processor and beside cards.
    fn plan(&self) -> Result<(), Failure> {
        let (config, threads) = (&self.config, self.device.threads().count());
        let replica = CpuCosts::default().and_parameters("parameters", config, 1)?;
        let adamw = InnerOptimiser::AdamW;
        for (role, costs) in [
            ("replica", replica.and_replica(config, 0)?),
            ("validator", CpuCosts::of_validator(config, MEASURED, threads, KEEP, 0)?),
            ("miner", memory::miner(config, adamw, 1, threads)?),
            ("validator beside cards", CpuCosts::of_validator_beside_cards(config, KEEP)?),
            (
                "miner beside cards",
                CpuCosts::of_trainer_beside_cards(config, 0)?.and_replica(config, 0)?,
            ),
        ] {
            println!("{role}: {}", costs.bytes()?);
        }
        Ok(())
    }

    fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(self.folder.join("store"), 1 << 40)?)
    }
}

/// The most bytes of memory that this process ever had, by Linux.
fn peak() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 =
        line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmHWM")?.trim().parse()?;
    Ok(kib * 1024)
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, preset, tokens, folder] = &args[..] else {
        return Err("usage: memory plan|update|replica|validator|miner PRESET TOKENS FOLDER".into());
    };
    let seq_len = tokens.parse()?;
    let threads = std::thread::available_parallelism()?.get();
    let bench = Bench {
        config: ModelConfig { seq_len, ..ModelConfig::preset(preset)? },
        folder: Path::new(folder),
        device: Cpu::new(Threads::new(threads)?),
        samples: Same(vec![7; seq_len + 1]),
    };
    if role == "plan" {
        return bench.plan();
    }
    fs::create_dir_all(folder)?;
    let planned = match &role[..] {
        "update" => return bench.make_update(),
        "replica" => bench.replica()?,
        "validator" => bench.validator()?,
        "miner" => bench.miner()?,
        _ => return Err("no such role".into()),
    };
    let (theta, peak) = (bench.config.parameter_count() * 4, peak()?);
    let copies = |bytes: u64| bytes as f64 / theta as f64;
    println!(
        "{role} {preset}, {tokens} tokens, {threads} threads: planned {planned} ({:.2} θ), peak {peak} ({:.2} θ), {:+.1} %",
        copies(planned),
        copies(peak),
        (peak as f64 / planned as f64 - 1.0) * 100.0
    );
    Ok(())
}
