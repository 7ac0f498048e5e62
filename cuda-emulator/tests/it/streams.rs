//! The emulated GPU: streams, events, memory and its limits, faults.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use cuda_emulator::{Behaviour, Copies, Emulated, Fault, Log, Order, Settings};
use trainer::cuda::gpu::{Product, ProductForm, ProductResult};
use trainer::cuda::kernels::values;
use trainer::cuda::{Address, Event, Gpu, GpuError, Stream};

fn emulated(seed: u64) -> Emulated {
    Emulated::new(Behaviour { seed, ..Behaviour::default() })
}

fn bytes(gpu: &dyn Gpu, stream: Stream, from: Address, bytes: usize) -> Vec<u8> {
    let mut into = vec![0; bytes];
    gpu.download(stream, from, &mut into).unwrap();
    into
}

fn reason(result: Result<impl std::fmt::Debug, GpuError>) -> String {
    match result {
        Err(GpuError::Failed { call, reason }) => format!("{call}: {reason}"),
        other => panic!("{other:?}"),
    }
}

/// Pieces come into two places in turn while those that came before are used: out ← 7 · out + piece.
fn double_buffered(seed: u64, waits: bool) -> f32 {
    let gpu = emulated(seed);
    let at = gpu.allocate(4096).unwrap();
    let (one, out, buffers, pieces) = (at, at.plus(256), at.plus(512), at.plus(1024));
    let number = |value: f32| half::bf16::from_f32(value).to_bits().to_ne_bytes();
    for (place, value) in [(one, 1.0), (pieces, 1.0), (pieces.plus(16), 2.0)]
        .into_iter()
        .chain([(pieces.plus(32), 3.0), (pieces.plus(48), 4.0)])
    {
        gpu.upload(Stream::Compute, place, &number(value)).unwrap();
    }
    gpu.clear(Stream::Compute, out, 4).unwrap();
    gpu.clear(Stream::Compute, buffers, 64).unwrap();
    gpu.synchronise(Stream::Compute).unwrap();
    let mut used: Vec<Event> = Vec::new();
    for piece in 0..4_u64 {
        let buffer = buffers.plus(piece % 2 * 32);
        if waits && piece >= 2 {
            gpu.wait(Stream::Exchange, used[piece as usize - 2]).unwrap();
        }
        gpu.copy(Stream::Exchange, buffer, pieces.plus(piece * 16), 2).unwrap();
        let came = gpu.record(Stream::Exchange).unwrap();
        if waits {
            gpu.wait(Stream::Compute, came).unwrap();
        }
        let product = Product {
            form: ProductForm::Nt,
            m: 1,
            n: 1,
            k: 1,
            a: (one, 1),
            b: (buffer, 1),
            d: (out, 1),
            result: ProductResult::F32,
            alpha: 1.0,
            beta: 7.0,
        };
        gpu.product(Stream::Compute, &product).unwrap();
        used.push(gpu.record(Stream::Compute).unwrap());
    }
    f32::from_ne_bytes(bytes(&gpu, Stream::Compute, out, 4).try_into().unwrap())
}

#[test]
fn events_leave_one_result_and_their_lack_shows() {
    let results = |waits| -> HashSet<u32> {
        (0..100).map(|seed| double_buffered(seed, waits).to_bits()).collect()
    };
    assert_eq!(results(true), HashSet::from([(((7 + 2) * 7 + 3) as f32 * 7.0 + 4.0).to_bits()]));
    assert!(results(false).len() > 5);
}

#[test]
fn one_seed_is_one_order() {
    let order = |seed| {
        let gpu = emulated(seed);
        let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
        for number in 0..40 {
            let calls = calls.clone();
            let call = move || calls.lock().unwrap().push(number);
            gpu.call(Stream::ALL[number % 4], Box::new(call)).unwrap();
        }
        drop(gpu);
        let calls = calls.lock().unwrap();
        assert_eq!(calls.len(), 40, "what is queued runs as the GPU is dropped");
        for stream in 0..4 {
            assert!(calls.iter().filter(|number| **number % 4 == stream).is_sorted());
        }
        calls.clone()
    };
    assert_eq!(order(3), order(3));
    assert!((0..20).map(order).collect::<HashSet<_>>().len() > 15);
}

#[test]
fn nothing_runs_before_somebody_waits_for_it() {
    for seed in 0..20 {
        let gpu = emulated(seed);
        let called = Arc::new(AtomicBool::new(false));
        let calls = called.clone();
        gpu.call(Stream::Compute, Box::new(move || calls.store(true, Ordering::Relaxed))).unwrap();
        let event = gpu.record(Stream::Compute).unwrap();
        gpu.wait(Stream::Outward, event).unwrap();
        gpu.synchronise(Stream::Inward).unwrap();
        assert!(!called.load(Ordering::Relaxed));
        // Another stream that waits for it.
        gpu.synchronise(Stream::Outward).unwrap();
        assert!(called.load(Ordering::Relaxed));
    }
}

#[test]
fn what_is_uploaded_is_what_it_was_at_the_call() {
    let gpu = emulated(1);
    let at = gpu.allocate(8).unwrap();
    let mut values = [1_u8; 8];
    gpu.upload(Stream::Inward, at, &values).unwrap();
    values.fill(2);
    assert_eq!(bytes(&gpu, Stream::Inward, at, 8), [1; 8]);
}

#[test]
fn fresh_memory_is_no_number_and_lies_as_well_as_is_promised() {
    let gpu = emulated(1);
    let (first, second) = (gpu.allocate(100).unwrap(), gpu.allocate(4).unwrap());
    assert!(bytes(&gpu, Stream::Compute, first, 100).iter().all(|byte| *byte == 0xFF));
    for at in [first, second] {
        // On 256 bytes, and no better: who counts on more finds out.
        assert_eq!(at.0 % 512, 256);
    }
    assert_eq!(gpu.allocate_pinned(5).unwrap().0 % 4096, 0);
}

#[test]
fn memory_has_an_end() {
    let gpu = Emulated::new(Behaviour { memory: 1000, ..Behaviour::default() });
    assert_eq!(gpu.memory().unwrap(), (1000, 1000));
    gpu.allocate(600).unwrap();
    // Pinned memory is the host's.
    gpu.allocate_pinned(5000).unwrap();
    assert_eq!(gpu.memory().unwrap(), (400, 1000));
    let refused = gpu.allocate(401).unwrap_err();
    assert_eq!(refused, GpuError::OutOfMemory { wanted: 401, free: 400 });
    gpu.allocate(400).unwrap();
}

#[test]
fn what_lies_outside_is_refused_by_name() {
    let gpu = emulated(1);
    let (at, pinned) = (gpu.allocate(64).unwrap(), gpu.allocate_pinned(64).unwrap());
    let stream = Stream::Compute;
    let beyond = "begin at byte 8 of an allocation of 64 bytes of device memory and go beyond it";
    assert!(reason(gpu.clear(stream, at.plus(8), 57)).contains(beyond));
    gpu.clear(stream, at.plus(8), 56).unwrap();
    assert!(reason(gpu.copy(stream, at, pinned.plus(60), 8)).contains("pinned memory"));
    assert!(reason(gpu.copy(stream, Address(64), at, 8)).contains("copy to: 8 bytes at 0x40 are"));
    assert!(reason(gpu.upload(stream, at.plus(64), &[0])).contains("are not allocated"));
    assert!(reason(gpu.download(stream, at, &mut [0; 65])).contains("download"));
    let product = Product {
        form: ProductForm::Nn,
        m: 2,
        n: 4,
        k: 2,
        a: (at, 2),
        b: (at.plus(16), 4),
        d: (at.plus(32), 4),
        result: ProductResult::F32,
        alpha: 1.0,
        beta: 0.0,
    };
    gpu.product(stream, &product).unwrap();
    let wrong = [
        (Product { m: 3, ..product }, "go beyond"),
        (Product { d: (at.plus(32), 5), ..product }, "go beyond"),
        (Product { b: (at.plus(16), 3), ..product }, "rows of b are 4 values, and 3 apart"),
        (Product { d: (at.plus(34), 4), ..product }, "d is not on a boundary"),
    ];
    for (product, why) in wrong {
        assert!(reason(gpu.product(stream, &product)).contains(why), "{product:?}");
    }
    assert!(reason(gpu.wait(stream, Event(7))).contains("no event 7"));
    // It was refused, and no harm done.
    gpu.synchronise(stream).unwrap();
}

#[test]
fn a_kernel_that_writes_outside_breaks_a_guard() {
    let log = Arc::new(Log::default());
    let gpu = Emulated::with_log(Behaviour::default(), log.clone());
    let (first, second) = (gpu.allocate(64).unwrap(), gpu.allocate(4096).unwrap());
    gpu.clear(Stream::Compute, second, 4096).unwrap();
    values::add_f32(&gpu, Stream::Compute, first, second, 16).unwrap();
    gpu.synchronise(Stream::Compute).unwrap();
    assert!(gpu.guards_are_whole());
    // One value too many. Added to a guard, 0 leaves it as it is.
    gpu.upload(Stream::Compute, second, bytemuck::cast_slice(&[1.0_f32; 17])).unwrap();
    values::add_f32(&gpu, Stream::Compute, first, second, 17).unwrap();
    gpu.synchronise(Stream::Compute).unwrap();
    assert_eq!(gpu.broken_guards(), [0]);
    drop(gpu);
    let counts = log.counts();
    assert_eq!((counts.broken_guards, counts.allocated), (1, vec![64, 4096]));
    assert_eq!(counts.launches.get("add_f32"), Some(&2));
}

#[test]
fn kernels_run_as_the_settings_say_with_equal_bits() {
    let orders = [Order::Forwards, Order::Backwards, Order::Random(5), Order::Ahead(7)];
    let results = orders.into_iter().flat_map(|order| {
        [Copies::Late, Copies::AtOnce].map(|copies| {
            let kernels = Settings { order, copies };
            let gpu = Emulated::new(Behaviour { kernels, ..Behaviour::default() });
            let (to, from) = (gpu.allocate(4000).unwrap(), gpu.allocate(4000).unwrap());
            let values: Vec<f32> = (0..1000).map(|value| value as f32 * 0.37).collect();
            gpu.upload(Stream::Compute, to, bytemuck::cast_slice(&values)).unwrap();
            gpu.upload(Stream::Compute, from, bytemuck::cast_slice(&values)).unwrap();
            values::add_f32(&gpu, Stream::Compute, to, from, 1000).unwrap();
            bytes(&gpu, Stream::Compute, to, 4000)
        })
    });
    let expected: Vec<u8> =
        (0..1000).flat_map(|value| (value as f32 * 0.37 * 2.0).to_ne_bytes()).collect();
    for result in results {
        assert_eq!(result, expected);
    }
}

#[test]
fn a_lost_gpu_fails_at_once_and_for_good() {
    let gpu = Emulated::new(Behaviour { fault: Fault::Lost(2), ..Behaviour::default() });
    let at = gpu.allocate(8).unwrap();
    gpu.clear(Stream::Compute, at, 8).unwrap();
    gpu.clear(Stream::Compute, at, 8).unwrap();
    gpu.synchronise(Stream::Compute).unwrap();
    for _ in 0..2 {
        assert!(reason(gpu.clear(Stream::Compute, at, 8)).contains("fell off the bus"));
    }
    assert!(reason(gpu.synchronise(Stream::Compute)).contains("fell off the bus"));
    assert!(reason(gpu.memory()).contains("fell off the bus"));
    assert!(reason(gpu.allocate(1)).contains("fell off the bus"));
    assert!(reason(gpu.record(Stream::Compute)).contains("fell off the bus"));
}

#[test]
fn an_operation_that_fails_is_told_to_who_waits() {
    let gpu = Emulated::new(Behaviour { fault: Fault::Fails(1), ..Behaviour::default() });
    let at = gpu.allocate(8).unwrap();
    gpu.clear(Stream::Compute, at, 8).unwrap();
    gpu.copy(Stream::Compute, at, at.plus(4), 4).unwrap();
    gpu.clear(Stream::Compute, at, 8).unwrap();
    for _ in 0..2 {
        assert!(reason(gpu.synchronise(Stream::Compute)).contains("operation 1 fails"));
    }
    assert!(reason(gpu.clear(Stream::Inward, at, 8)).contains("operation 1 fails"));
}
