//! What `gauntlet doctor --cuda` expects of a card is what the emulator computes, and covers every kernel.

use std::cell::RefCell;
use std::collections::BTreeSet;

use cuda_emulator::gpu::{Behaviour, Emulated};
use trainer::cuda::check::{self, Output};
use trainer::cuda::kernels;
use trainer::cuda::{Address, Event, Gpu, GpuError, Launch, Product, Stream};

/// An emulated GPU that notes which kernels are started.
struct Watched {
    gpu: Emulated,
    started: RefCell<BTreeSet<String>>,
}

impl Gpu for Watched {
    fn name(&self) -> String {
        self.gpu.name()
    }

    fn memory(&self) -> Result<(u64, u64), GpuError> {
        self.gpu.memory()
    }

    fn allocate(&self, bytes: u64) -> Result<Address, GpuError> {
        self.gpu.allocate(bytes)
    }

    fn allocate_pinned(&self, bytes: u64) -> Result<Address, GpuError> {
        self.gpu.allocate_pinned(bytes)
    }

    fn launch(&self, stream: Stream, launch: Launch<'_>) -> Result<(), GpuError> {
        self.started.borrow_mut().insert(check::full_name(launch.kernel));
        self.gpu.launch(stream, launch)
    }

    fn product(&self, stream: Stream, product: &Product) -> Result<(), GpuError> {
        self.gpu.product(stream, product)
    }

    fn clear(&self, stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError> {
        self.gpu.clear(stream, to, bytes)
    }

    fn copy(&self, stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError> {
        self.gpu.copy(stream, to, from, bytes)
    }

    fn upload(&self, stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError> {
        self.gpu.upload(stream, to, from)
    }

    fn download(&self, stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError> {
        self.gpu.download(stream, from, into)
    }

    fn call(&self, stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        self.gpu.call(stream, call)
    }

    fn record(&self, stream: Stream) -> Result<Event, GpuError> {
        self.gpu.record(stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<(), GpuError> {
        self.gpu.wait(stream, event)
    }

    fn synchronise(&self, stream: Stream) -> Result<(), GpuError> {
        self.gpu.synchronise(stream)
    }
}

fn run() -> (Vec<Output>, BTreeSet<String>) {
    let gpu = Emulated::new(Behaviour::default());
    let watched = Watched { gpu, started: RefCell::default() };
    let results = check::run(&watched).unwrap_or_else(|error| panic!("{error}"));
    let outputs = results
        .into_iter()
        .flat_map(|(name, outputs)| outputs.unwrap_or_else(|error| panic!("{name}: {error}")));
    (outputs.collect(), watched.started.take())
}

#[test]
fn every_kernel_is_checked_and_what_is_expected_is_what_the_emulator_computes() {
    let (outputs, started) = run();
    let all: BTreeSet<String> = kernels::all().map(check::full_name).collect();
    let missing: Vec<&String> = all.difference(&started).collect();
    assert!(missing.is_empty(), "in no check of trainer/src/cuda/check.rs: {missing:?}");

    let findings = check::compare(&outputs);
    let apart: Vec<_> = findings.iter().filter(|finding| finding.distance != 0.0).collect();
    assert!(
        apart.is_empty(),
        "`cargo run --release -p cuda-emulator --example expected` writes the file anew: {apart:?}"
    );
    assert_eq!(findings.len(), outputs.len());
    // It is a part of the program.
    assert!(check::to_bytes(&outputs).len() < 1 << 20);
    // What a check computes is something: no result is all zeros or not a number.
    for output in &outputs {
        assert!(output.bytes.iter().any(|byte| *byte != 0), "{}", output.name);
    }
}
