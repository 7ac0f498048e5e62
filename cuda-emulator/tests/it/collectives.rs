//! What joins ranks: over the process's memory on emulated GPUs, and NCCL's binding against a library that stands in
//! for it.

use std::sync::mpsc;
use std::sync::Barrier;
use std::thread;

use cuda_emulator::{Behaviour, Emulated, Fault};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::cuda::memory::{self, Memory};
use trainer::cuda::{Address, Collective, Gpu, GpuError, Stream};

mod nccl;

const WORLDS: [usize; 4] = [1, 2, 4, 8];

/// Runs each rank on a thread of its own, with its GPU; the results in the order of the ranks.
fn ranks<T: Send>(
    world: usize,
    seed: u64,
    run: impl Fn(Memory, &Emulated) -> Result<T, GpuError> + Sync,
) -> Vec<Result<T, GpuError>> {
    let behaviour = |rank| Behaviour { seed: seed * 97 + rank as u64, ..Behaviour::default() };
    let gpus = (0..world).map(|rank| Emulated::new(behaviour(rank)));
    with_gpus(gpus.collect(), run)
}

fn with_gpus<T: Send>(
    gpus: Vec<Emulated>,
    run: impl Fn(Memory, &Emulated) -> Result<T, GpuError> + Sync,
) -> Vec<Result<T, GpuError>> {
    thread::scope(|scope| {
        let run = &run;
        let start = |(gpu, end): (Emulated, Memory)| scope.spawn(move || run(end, &gpu));
        let ends = memory::join(gpus.len());
        let threads: Vec<_> = gpus.into_iter().zip(ends).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn all<T>(results: Vec<Result<T, GpuError>>) -> Vec<T> {
    results.into_iter().map(Result::unwrap).collect()
}

/// Device memory with these values.
fn put(gpu: &dyn Gpu, stream: Stream, values: &[f32]) -> Result<Address, GpuError> {
    let at = gpu.allocate(values.len() as u64 * 4)?;
    gpu.upload(stream, at, bytemuck::cast_slice(values))?;
    Ok(at)
}

fn take(gpu: &dyn Gpu, stream: Stream, at: Address, len: usize) -> Result<Vec<f32>, GpuError> {
    let mut values = vec![0.0; len];
    gpu.download(stream, at, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// A rank's values, whose sum depends on the order in which they are added.
fn values(rank: usize, len: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(rank as u64);
    let value = |_| (random.gen::<f32>() - 0.5) * 10.0_f32.powi(random.gen_range(-4..4));
    (0..len).map(value).collect()
}

#[test]
fn gathered_parts_lie_in_the_order_of_the_ranks() {
    for world in WORLDS {
        for seed in 0..5 {
            let results = ranks(world, seed, |end, gpu| {
                let part = put(gpu, Stream::Exchange, &values(end.rank(), 33))?;
                let whole = gpu.allocate(world as u64 * 33 * 4)?;
                end.gather(gpu, Stream::Exchange, part, whole, 33 * 4)?;
                // In place: the part lies in the whole already.
                let own = whole.plus(end.rank() as u64 * 33 * 4);
                end.gather(gpu, Stream::Exchange, own, whole, 33 * 4)?;
                take(gpu, Stream::Exchange, whole, world * 33)
            });
            let expected: Vec<f32> = (0..world).flat_map(|rank| values(rank, 33)).collect();
            assert!(all(results).iter().all(|whole| *whole == expected));
        }
    }
}

#[test]
fn sums_are_taken_in_the_order_of_the_ranks_that_are_active() {
    for world in WORLDS {
        for active in [0, 1, world.div_ceil(2), world] {
            let results = ranks(world, active as u64, |end, gpu| {
                let whole = put(gpu, Stream::Exchange, &values(end.rank(), world * 40))?;
                let part = put(gpu, Stream::Exchange, &values(100 + end.rank(), 40))?;
                let scratch = gpu.allocate(160)?;
                let stream = Stream::Exchange;
                end.reduce_scatter(gpu, stream, whole, part, scratch, 40, active)?;
                let own = take(gpu, stream, part, 40)?;
                // Nothing to rely on.
                assert!(take(gpu, stream, scratch, 40)?.iter().all(|value| value.is_nan()));
                assert!(gpu.guards_are_whole());
                Ok(own)
            });
            for (rank, part) in all(results).into_iter().enumerate() {
                let mut expected = values(100 + rank, 40);
                for other in 0..active {
                    let more = &values(other, world * 40)[rank * 40..];
                    expected.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                }
                assert_eq!(part, expected, "{rank} of {world}, {active} active");
            }
        }
    }
}

#[test]
fn every_rank_has_what_the_root_sends() {
    for world in WORLDS {
        for root in [0, world / 2, world - 1] {
            let results = ranks(world, root as u64, |end, gpu| {
                let from = put(gpu, Stream::Exchange, &values(end.rank(), 9))?;
                let to = gpu.allocate(36)?;
                end.broadcast(gpu, Stream::Exchange, root, from, to, 36)?;
                end.broadcast(gpu, Stream::Exchange, root, from, from, 36)?;
                let (to, same) =
                    (take(gpu, Stream::Exchange, to, 9)?, take(gpu, Stream::Exchange, from, 9)?);
                Ok([to, same])
            });
            let expected = values(root, 9);
            for taken in all(results) {
                assert_eq!(taken, [expected.clone(), expected.clone()]);
            }
        }
    }
}

#[test]
fn host_values_are_shared_in_the_order_of_the_ranks() {
    for world in WORLDS {
        let results = ranks(world, 0, |end, _| {
            assert_eq!(end.world(), world);
            end.barrier()?;
            let own = vec![end.rank() as f64 / 3.0; end.rank()];
            let shared = end.share(own)?;
            end.barrier()?;
            Ok((shared, end.share(Vec::new())?))
        });
        let expected: Vec<Vec<f64>> =
            (0..world).map(|rank| vec![rank as f64 / 3.0; rank]).collect();
        for (shared, nothing) in all(results) {
            assert_eq!(shared, expected);
            assert_eq!(nothing, vec![Vec::<f64>::new(); world]);
        }
    }
}

/// A program of random operations on random streams, the same on all ranks, whose results are the same in any order in
/// which the streams run.
fn random_program(end: &Memory, gpu: &Emulated, seed: u64) -> Result<Vec<f32>, GpuError> {
    const LEN: u64 = 16;
    let (world, rank) = (end.world() as u64, end.rank());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let whole = put(gpu, Stream::Compute, &values(rank, (LEN * world) as usize))?;
    let part = put(gpu, Stream::Compute, &values(50 + rank, LEN as usize))?;
    let scratch = gpu.allocate(LEN * 4)?;
    let mut before = gpu.record(Stream::Compute)?;
    for _ in 0..12 {
        // The next operation follows the last one, on whatever stream it is; others wait for nothing.
        let stream = Stream::ALL[random.gen_range(0..4)];
        gpu.wait(stream, before)?;
        match random.gen_range(0..6) {
            0 => end.gather(gpu, stream, part, whole, LEN * 4)?,
            1 => {
                let active = random.gen_range(0..=end.world());
                end.reduce_scatter(gpu, stream, whole, part, scratch, LEN, active)?;
            }
            2 => {
                let root = random.gen_range(0..end.world());
                end.broadcast(gpu, stream, root, whole, whole, LEN * 4)?;
            }
            3 => {
                // Whoever waits on the host has work on its streams for which others wait.
                let shared = end.share(vec![rank as f64])?;
                assert_eq!(shared.len() as u64, world);
            }
            4 => end.barrier()?,
            // What one rank alone waits for.
            _ if random.gen_range(0..end.world()) == rank => gpu.synchronise(stream)?,
            _ => {}
        }
        before = gpu.record(stream)?;
    }
    gpu.wait(Stream::Outward, before)?;
    let mut values = take(gpu, Stream::Outward, part, LEN as usize)?;
    values.extend(take(gpu, Stream::Outward, whole, (LEN * world) as usize)?);
    Ok(values)
}

#[test]
fn any_order_of_streams_gives_the_same_and_nobody_waits_for_ever() {
    for world in WORLDS {
        for program in 0..20 {
            let run = |seed| -> Vec<Vec<u32>> {
                let results =
                    all(ranks(world, seed, |end, gpu| random_program(&end, gpu, program)));
                let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
                results.into_iter().map(bits).collect()
            };
            let expected = run(0);
            for seed in 1..4 {
                assert_eq!(run(seed), expected, "{world} ranks, program {program}");
            }
        }
    }
}

#[test]
fn a_missing_event_shows() {
    let run = |seed, waits| {
        let results = all(ranks(2, seed, |end, gpu| {
            let part = put(gpu, Stream::Compute, &values(end.rank(), 4))?;
            let whole = gpu.allocate(32)?;
            gpu.clear(Stream::Exchange, whole, 32)?;
            if waits {
                let there = gpu.record(Stream::Compute)?;
                gpu.wait(Stream::Exchange, there)?;
            }
            end.gather(gpu, Stream::Exchange, part, whole, 16)?;
            take(gpu, Stream::Exchange, whole, 8)
        }));
        results.concat()
    };
    let expected: Vec<f32> = [0, 1, 0, 1].iter().flat_map(|rank| values(*rank, 4)).collect();
    assert!((0..20).all(|seed| run(seed, true) == expected));
    assert!((0..20).any(|seed| run(seed, false) != expected));
}

/// What the ranks that are left do, until it fails or has no end.
type Waiting = fn(&Memory, &Emulated, [Address; 3]) -> Result<(), GpuError>;

/// Each operation, as the last thing that is waited for.
const OPERATIONS: [(&str, Waiting); 5] = [
    ("gather", |end, gpu, [part, whole, _]| {
        end.gather(gpu, Stream::Exchange, part, whole, 16)?;
        gpu.synchronise(Stream::Exchange)
    }),
    ("reduce_scatter", |end, gpu, [part, whole, scratch]| {
        end.reduce_scatter(gpu, Stream::Exchange, whole, part, scratch, 4, end.world())?;
        gpu.synchronise(Stream::Exchange)
    }),
    ("broadcast", |end, gpu, [part, whole, _]| {
        end.broadcast(gpu, Stream::Exchange, end.world() - 1, part, whole, 16)?;
        gpu.synchronise(Stream::Exchange)
    }),
    ("share", |end, _, _| end.share(vec![1.0]).map(drop)),
    ("barrier", |end, _, _| end.barrier()),
];

fn memory_of(gpu: &Emulated, world: usize) -> Result<[Address; 3], GpuError> {
    let part = put(gpu, Stream::Exchange, &[0.0; 4])?;
    let whole = put(gpu, Stream::Exchange, &vec![0.0; 4 * world])?;
    Ok([part, whole, gpu.allocate(16)?])
}

/// How the last rank goes, while the others are at each operation in turn; what they are told.
fn others_are_told(
    reason: &str,
    go: impl Fn(Memory, &Emulated, Waiting, [Address; 3]) -> Result<(), GpuError> + Sync,
) {
    for world in [2, 4, 8] {
        for (name, operation) in OPERATIONS {
            let results = ranks(world, 3, |end, gpu| {
                let places = memory_of(gpu, world)?;
                // All do it once together.
                operation(&end, gpu, places)?;
                if end.rank() == world - 1 {
                    return go(end, gpu, operation, places);
                }
                operation(&end, gpu, places)?;
                operation(&end, gpu, places)
            });
            for (rank, result) in results.into_iter().enumerate().take(world - 1) {
                let told = GpuError::Rank { rank: world - 1, reason: reason.to_owned() };
                assert_eq!(result, Err(told), "rank {rank} of {world} at {name}");
            }
        }
    }
}

#[test]
fn a_rank_that_aborts_ends_all_waits() {
    let error = GpuError::Failed { call: "a launch".to_owned(), reason: "no".to_owned() };
    others_are_told("a launch: no", |end, _, _, _| {
        end.abort(&error);
        Ok(())
    });
    // One operation later.
    others_are_told("a launch: no", |end, gpu, operation, places| {
        operation(&end, gpu, places)?;
        end.abort(&error);
        Ok(())
    });
}

#[test]
fn a_rank_that_ends_between_two_operations_ends_all_waits() {
    others_are_told("it has ended", |_, _, _, _| Ok(()));
    others_are_told("it has ended", |end, gpu, operation, places| operation(&end, gpu, places));
}

#[test]
fn a_rank_whose_thread_panics_ends_all_waits() {
    let results = thread::scope(|scope| {
        let threads: Vec<_> = memory::join(3)
            .into_iter()
            .map(|end| {
                scope.spawn(move || {
                    let gpu = Emulated::new(Behaviour::default());
                    let [part, whole, _] = memory_of(&gpu, 3).unwrap();
                    end.gather(&gpu, Stream::Exchange, part, whole, 16).unwrap();
                    // What it has started happens if another rank sees to it, and nothing after.
                    assert_ne!(end.rank(), 1, "on purpose");
                    let _ = gpu.synchronise(Stream::Exchange);
                    end.barrier()
                })
            })
            .collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let [Ok(first), Err(_), Ok(third)] = &results[..] else { panic!("{results:?}") };
    for result in [first, third] {
        assert!(matches!(result, Err(GpuError::Rank { rank: 1, .. })), "{result:?}");
    }
}

#[test]
fn a_gpu_that_fails_ends_all_waits() {
    for world in [2, 4] {
        for (name, operation) in &OPERATIONS[..3] {
            for fault in [Fault::Lost(4), Fault::Fails(4)] {
                let gpus = (0..world).map(|rank| {
                    let fault = if rank == 0 { fault } else { Fault::None };
                    Emulated::new(Behaviour { seed: rank, fault, ..Behaviour::default() })
                });
                let results = with_gpus(gpus.collect(), |end, gpu| {
                    let places = memory_of(gpu, end.world())?;
                    for _ in 0..8 {
                        operation(&end, gpu, places)?;
                    }
                    Ok(())
                });
                for (rank, result) in results.into_iter().enumerate() {
                    match (rank, result) {
                        (0, Err(GpuError::Failed { .. })) => {}
                        (1.., Err(GpuError::Rank { rank: 0, .. })) => {}
                        (_, result) => panic!("{fault:?} at {name}, rank {rank}: {result:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_rank_that_is_done_fails_nobody() {
    for seed in 0..20 {
        let results = ranks(4, seed, |end, gpu| {
            let [part, whole, _] = memory_of(gpu, 4)?;
            end.gather(gpu, Stream::Exchange, part, whole, 16)?;
            if end.rank() == 2 {
                // Its end and then its GPU are dropped with the last operation on the queue; the others see it done.
                drop(end);
                return Ok(());
            }
            gpu.synchronise(Stream::Exchange)
        });
        all(results);
    }
}

#[test]
fn a_rank_may_be_alone_in_waiting() {
    // The others' threads are gone, as between two commands; their GPUs are not.
    for seed in 0..20 {
        let together = Barrier::new(3);
        let (gone, goes) = mpsc::channel();
        let goes = std::sync::Mutex::new(goes);
        let results = ranks(3, seed, |end, gpu| {
            let [part, whole, _] = memory_of(gpu, 3)?;
            end.gather(gpu, Stream::Exchange, part, whole, 16)?;
            together.wait();
            if end.rank() == 0 {
                let waited = gpu.synchronise(Stream::Exchange);
                (0..2).for_each(|_| gone.send(()).unwrap());
                return waited;
            }
            goes.lock().unwrap().recv().unwrap();
            Ok(())
        });
        all(results);
    }
}

#[test]
fn ranks_that_do_different_things_are_told() {
    let results = ranks(2, 0, |end, gpu| {
        let [part, whole, _] = memory_of(gpu, 2)?;
        let bytes = if end.rank() == 0 { 16 } else { 8 };
        end.gather(gpu, Stream::Exchange, part, whole, bytes)?;
        gpu.synchronise(Stream::Exchange)
    });
    for result in results {
        let Err(GpuError::Rank { reason, .. }) = result else { panic!("{result:?}") };
        assert!(reason.contains("gathers 16 bytes") && reason.contains("gathers 8 bytes"));
    }
}

#[test]
fn an_operation_outside_of_memory_is_refused_and_told() {
    let results = ranks(2, 0, |end, gpu| {
        let [part, whole, _] = memory_of(gpu, 2)?;
        let bytes = if end.rank() == 0 { 17 } else { 16 };
        end.gather(gpu, Stream::Exchange, part, whole, bytes)?;
        gpu.synchronise(Stream::Exchange)
    });
    assert!(matches!(&results[0], Err(GpuError::Failed { .. })), "{results:?}");
    assert!(matches!(&results[1], Err(GpuError::Rank { rank: 0, .. })), "{results:?}");
}

/// A GPU that passes on only what every GPU must have, as a wrapper may that knows of no meetings.
struct Plain(Emulated);

macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $result { self.0.$name($($argument),*) })*
    };
}

/// What every wrapper of an emulated GPU passes on.
macro_rules! pass_all_on {
    () => {
        pass_on! {
            name() -> String;
            memory() -> Result<(u64, u64), GpuError>;
            allocate(bytes: u64) -> Result<Address, GpuError>;
            allocate_pinned(bytes: u64) -> Result<Address, GpuError>;
            host_reaches_memory() -> bool;
            launch(stream: Stream, launch: trainer::cuda::Launch<'_>) -> Result<(), GpuError>;
            product(stream: Stream, product: &trainer::cuda::Product) -> Result<(), GpuError>;
            clear(stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError>;
            copy(stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError>;
            upload(stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError>;
            download(stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError>;
            call(stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError>;
            record(stream: Stream) -> Result<trainer::cuda::Event, GpuError>;
            wait(stream: Stream, event: trainer::cuda::Event) -> Result<(), GpuError>;
            synchronise(stream: Stream) -> Result<(), GpuError>;
        }
    };
}
use {pass_all_on, pass_on};

impl Gpu for Plain {
    pass_all_on!();
}

#[test]
fn a_gpu_that_knows_of_no_meetings_waits_in_a_call() {
    let results = ranks(4, 1, |end, _| {
        let gpu = Plain(Emulated::new(Behaviour::default()));
        let part = put(&gpu, Stream::Exchange, &values(end.rank(), 4))?;
        let whole = gpu.allocate(64)?;
        end.gather(&gpu, Stream::Exchange, part, whole, 16)?;
        take(&gpu, Stream::Exchange, whole, 16)
    });
    let expected: Vec<f32> = (0..4).flat_map(|rank| values(rank, 4)).collect();
    assert!(all(results).iter().all(|whole| *whole == expected));
}

#[test]
fn memory_that_the_host_does_not_reach_is_refused() {
    struct Far(Emulated);
    impl Gpu for Far {
        pass_on! {
            name() -> String;
            memory() -> Result<(u64, u64), GpuError>;
            allocate(bytes: u64) -> Result<Address, GpuError>;
            allocate_pinned(bytes: u64) -> Result<Address, GpuError>;
            launch(stream: Stream, launch: trainer::cuda::Launch<'_>) -> Result<(), GpuError>;
            product(stream: Stream, product: &trainer::cuda::Product) -> Result<(), GpuError>;
            clear(stream: Stream, to: Address, bytes: u64) -> Result<(), GpuError>;
            copy(stream: Stream, to: Address, from: Address, bytes: u64) -> Result<(), GpuError>;
            upload(stream: Stream, to: Address, from: &[u8]) -> Result<(), GpuError>;
            download(stream: Stream, from: Address, into: &mut [u8]) -> Result<(), GpuError>;
            call(stream: Stream, call: Box<dyn FnOnce() + Send>) -> Result<(), GpuError>;
            record(stream: Stream) -> Result<trainer::cuda::Event, GpuError>;
            wait(stream: Stream, event: trainer::cuda::Event) -> Result<(), GpuError>;
            synchronise(stream: Stream) -> Result<(), GpuError>;
        }
    }
    let (gpu, ends) = (Far(Emulated::new(Behaviour::default())), memory::join(1));
    let refused = ends[0].gather(&gpu, Stream::Exchange, Address(0), Address(0), 0);
    assert!(matches!(&refused, Err(GpuError::Failed { .. })), "{refused:?}");
}
