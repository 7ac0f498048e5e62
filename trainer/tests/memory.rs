//! Trainers and evaluators allocate what the budget says: the engine's regions and the arrays to the
//! byte, the rest (names, shapes, gemm's packing where it is used) no more than named.
//!
//! In a binary of its own, because the allocator counts for the whole process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;

use dataset::{SampleSource, Tokens};
use protocol::aggregate::OuterRule;
use trainer::budget::{CpuCosts, ModelCounts};
use trainer::guard::GuardSettings;
use trainer::{
    AdamWSettings, Cpu, EvaluationRates, Evaluator, Model, ModelConfig, MuonSettings, Precision,
    PretrainSettings, Pretrainer, RateSchedule, Shape, Threads, Trainer, TrainerSettings,
    UpdateToEvaluate,
};

struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

fn change(bytes: i64) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        change(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        change(layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        change(-(layout.size() as i64));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        change(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct OneSample(Vec<u8>);

impl SampleSource for OneSample {
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

fn check(preset: &str, batch: usize, micro_batch: usize, is_muon: bool, pool: &Threads) {
    let config = ModelConfig::preset(preset).unwrap();
    let samples = OneSample((0..=255).cycle().take(config.seq_len + 1).collect());
    let ids = vec![(0..batch as u64).collect::<Vec<_>>()];
    let threads = pool.count();
    let planned = CpuCosts::of_trainer(&config, micro_batch, threads).unwrap();
    let planned = planned.with_muon(is_muon, &config, threads).unwrap();
    let exact = (planned.engine + planned.arrays) as i64;

    let before = LIVE.load(Ordering::Relaxed);
    let muon = is_muon.then(MuonSettings::default);
    let settings =
        TrainerSettings { batch_size: batch, micro_batch, muon, ..TrainerSettings::default() };
    let model = Model::init(&config, 1).unwrap();
    let mut trainer = Trainer::new(model, settings, &Cpu::new(pool.clone())).unwrap();
    let held = LIVE.load(Ordering::Relaxed) - before;
    assert_eq!(trainer.learner().allocated_bytes(), planned.engine);

    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    let mut go_on = |_: &_| ControlFlow::Continue(());
    trainer.train_window(&samples, &ids, &|_| 1e-3, &mut go_on).unwrap();
    let packing = PEAK.load(Ordering::Relaxed) - before - held;

    let shapes = held - exact;
    println!(
        "{preset}, {micro_batch} of {batch} samples, {threads} threads: {exact} planned, \
         {shapes} of names and shapes, {packing} of packing; {} at most",
        planned.rest_max
    );
    assert!((0..planned.rest_max as i64).contains(&shapes), "{preset}");
    let rest = shapes + packing;
    assert!(rest <= planned.rest_max as i64, "{preset}: {rest} beside {exact}");

    // The update needs no more than a window and its own bytes.
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    let keep = 64;
    let update = trainer.make_update(keep, 950_000).unwrap();
    let updating = PEAK.load(Ordering::Relaxed) - before - held;
    let counts = ModelCounts::new(&config, keep).unwrap();
    let allowed = planned.rest_max + 2 * counts.payload_bytes_max;
    println!("  {updating} of an update of {} bytes", update.len());
    assert!(updating <= allowed as i64, "{preset}: {updating}");
}

/// That what `make` makes holds the planned bytes, and names and shapes beside.
fn holds<T>(name: &str, planned: &CpuCosts, make: impl FnOnce() -> T) {
    let before = LIVE.load(Ordering::Relaxed);
    let made = make();
    let held = LIVE.load(Ordering::Relaxed) - before;
    let beside = held - (planned.engine + planned.arrays) as i64;
    println!("{name}: {held} held, {beside} beside what is planned");
    assert!((0..planned.rest_max as i64).contains(&beside), "{name}");
    drop(made);
}

fn check_others(preset: &str, samples: usize, is_muon: bool, pool: &Threads) {
    let config = ModelConfig::preset(preset).unwrap();
    let threads = pool.count();
    for precision in [Precision::F32, Precision::Bf16] {
        let planned = CpuCosts::of_pretrainer(&config, samples, precision, threads).unwrap();
        let planned = planned.with_muon(is_muon, &config, threads).unwrap();
        let settings = PretrainSettings {
            steps: 10,
            batch_size: 4,
            micro_batch: samples,
            precision,
            schedule: RateSchedule {
                peak_rate: 1e-3,
                floor: 1.0,
                warm_up_steps: 0,
                shape: Shape::Flat,
            },
            adamw: AdamWSettings::default(),
            muon: is_muon.then(MuonSettings::default),
            clip_norm: 1.0,
            seed: 1,
            guard: GuardSettings::default(),
        };
        holds("a pretrainer", &planned, || {
            let model = Model::init(&config, 1).unwrap();
            Pretrainer::new(model, settings, 64, &[0; 32], &Cpu::new(pool.clone())).unwrap()
        });
    }
    let planned = CpuCosts::of_evaluator(&config, samples, threads).unwrap();
    holds("an evaluator", &planned, || {
        Evaluator::new(&config, &Cpu::new(pool.clone()), samples).unwrap()
    });
}

/// What happened to the bytes that are held while `work` ran: the most of them beyond those of before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let made = work();
    (made, PEAK.load(Ordering::Relaxed) - before)
}

/// θ is shared, not copied: by a trainer over a window, by an outer step of who has it alone, and by an evaluation in place.
fn check_sharing(preset: &str, pool: &Threads) {
    let config = ModelConfig::preset(preset).unwrap();
    let samples = OneSample((0..=255).cycle().take(config.seq_len + 1).collect());
    let ids = vec![vec![0, 1]];
    let copy = config.parameter_count() as i64 * 4;
    let device = Cpu::new(pool.clone());
    let mut model = Arc::new(Model::init_on(pool, &config, 1).unwrap());
    let settings = TrainerSettings { batch_size: 2, micro_batch: 1, ..TrainerSettings::default() };
    let mut trainer = Trainer::new(model.clone(), settings, &device).unwrap();
    let mut evaluator = Evaluator::new(&config, &device, 1).unwrap();
    let root = model.state_root(pool);

    let ((), window) = peak(|| {
        trainer.set_model(model.clone()).unwrap();
        let mut go_on = |_: &_| ControlFlow::Continue(());
        trainer.train_window(&samples, &ids, &|_| 1e-3, &mut go_on).unwrap();
    });
    let update = trainer.make_update(64, 950_000).unwrap();
    trainer.release_model();
    assert!(trainer.train_window(&samples, &ids, &|_| 1e-3, &mut |_| unreachable!()).is_err());

    let rates =
        EvaluationRates { keep: 64, outer_rate_ppm: 1_000_000, evaluation_rate_ppm: 500_000 };
    let (_, evaluation) = peak(|| {
        let update = UpdateToEvaluate { uid: 1, payload: &update, own_ids: &[0] };
        let own = Arc::get_mut(&mut model).expect("nobody else has it");
        evaluator.evaluate_update_in_place(own, update, &[1], &samples, rates).unwrap()
    });
    assert_eq!(model.state_root(pool), root);
    let ((), step) = peak(|| {
        let own = Arc::get_mut(&mut model).expect("nobody else has it");
        own.apply_outer(pool, &[(1, &update)], 64, OuterRule::new(1_000_000, 1_000_000)).unwrap();
    });
    assert_ne!(model.state_root(pool), root);
    println!("{preset}: θ {copy}; window {window}, evaluation {evaluation}, outer step {step}");
    for (what, bytes) in [("window", window), ("evaluation", evaluation), ("step", step)] {
        assert!(bytes < copy / 8, "{preset}, {what}: {bytes} of {copy}");
    }
}

// One test with pools that last: the count is of the whole process, and threads that end give back
// what gemm packed into.
#[test]
fn what_is_held_is_what_is_planned() {
    let pools = [1, 2].map(|count| Threads::new(count).unwrap());
    for pool in &pools {
        for micro_batch in [1, 2, 4] {
            check("nano", 4, micro_batch, false, pool);
        }
        check("1M", 4, 2, false, pool);
        check("1M", 1, 1, false, pool);
        check("nano", 4, 2, true, pool);
        check("1M", 4, 2, true, pool);
        check_sharing("1M", pool);
        for is_muon in [false, true] {
            check_others("nano", 4, is_muon, pool);
            check_others("1M", 2, is_muon, pool);
        }
    }
}
