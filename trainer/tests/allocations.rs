//! A training step allocates nothing: all buffers are there when the trainer has been made.
//!
//! In a binary of its own, because the allocator counts for the whole process. Left out of the
//! count is what gemm packs matrices into on the portable unit, which it takes and gives back in every
//! product: zeroed bytes without alignment, which nothing else asks for, and (once a thread) with a cache
//! line's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dataset::{SampleSource, Tokens};
use trainer::plan::{BAND_ROWS, LOGITS};
use trainer::{
    Compute, Cpu, Engine, MatrixUnit, Model, ModelConfig, MuonSettings, Precision, StepReport,
    Threads, Trainer, TrainerSettings,
};

/// Alignment that only gemm's buffer of a thread asks for.
const GEMM_ALIGN: usize = 128;

struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn count(layout: &Layout) {
    if layout.align() < GEMM_ALIGN && ON.load(Ordering::Relaxed) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 1 {
            count(&layout);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(&layout);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Repeated {
    tokens: Vec<u8>,
    sample_len: usize,
}

impl SampleSource for Repeated {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        self.tokens.get(id as usize..id as usize + self.sample_len + 1).map(Tokens::U8)
    }

    fn end_of_document(&self) -> Option<u32> {
        Some(10)
    }
}

/// Allocations of four steps after the first one, on samples of several documents each.
fn allocations(config: &ModelConfig, compute: Compute, precision: Precision) -> usize {
    let samples =
        Repeated { tokens: (0..=127).cycle().take(1024).collect(), sample_len: config.seq_len };
    let mut engine = Engine::with_precision(config, 2, true, compute, precision).unwrap();
    let model = Model::init(config, 1).unwrap();
    let mut gradient = vec![0.0; model.parameters().len()];
    let mut run = |ids: &[u64]| {
        let batch = engine.batch_gradient(model.parameters(), &mut gradient, &samples, ids);
        assert!(batch.unwrap().is_finite());
    };
    run(&[0, 1, 2, 3]);
    COUNT.store(0, Ordering::Relaxed);
    ON.store(true, Ordering::Relaxed);
    for step in 1..5 {
        run(&[step, step + 1, step + 2, step + 3]);
    }
    ON.store(false, Ordering::Relaxed);
    COUNT.load(Ordering::Relaxed)
}

/// The same of whole steps of a trainer, with the optimiser.
fn allocations_of_a_trainer(
    config: &ModelConfig,
    compute: Compute,
    muon: Option<MuonSettings>,
) -> usize {
    let samples =
        Repeated { tokens: (0..=255).cycle().take(512).collect(), sample_len: config.seq_len };
    let settings =
        TrainerSettings { batch_size: 4, micro_batch: 2, muon, ..TrainerSettings::default() };
    let model = Model::init(config, 1).unwrap();
    let mut trainer = Trainer::new(model, settings, &Cpu::new(compute)).unwrap();
    let ids: Vec<Vec<u64>> = (0..5).map(|i| vec![i, i + 1, i + 2, i + 3]).collect();
    COUNT.store(0, Ordering::Relaxed);
    let mut after_first = |report: &StepReport| {
        if report.step == 0 {
            ON.store(true, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    };
    let summary = trainer.train_window(&samples, &ids, &|_| 1e-3, &mut after_first);
    ON.store(false, Ordering::Relaxed);
    assert_eq!(summary.unwrap().steps, 5);
    COUNT.load(Ordering::Relaxed)
}

/// One test, because the allocator counts for all that run at once.
#[test]
fn steps_after_the_first_do_not_allocate() {
    let nano = ModelConfig::preset("nano").unwrap();
    // Two samples are more than the rows whose logits are held at once.
    let several_chunks = ModelConfig { vocab: LOGITS / BAND_ROWS, seq_len: 160, ..nano.clone() };
    for unit in MatrixUnit::ALL {
        for count in [1, 2] {
            let compute = || Compute::new(Threads::new(count).unwrap()).with_unit(unit);
            let counts = [
                allocations_of_a_trainer(&nano, compute(), None),
                allocations_of_a_trainer(&nano, compute(), Some(MuonSettings::default())),
                allocations(&nano, compute(), Precision::Bf16),
                allocations(&several_chunks, compute(), Precision::F32),
            ];
            println!("{unit:?} on {count} threads: {counts:?}");
            assert_eq!(counts, [0; 4], "{unit:?} on {count} threads");
        }
    }
}
