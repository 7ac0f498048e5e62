//! NCCL's binding against a library that stands in for it, and without one.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, CStr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cuda_emulator::{Behaviour, Emulated};
use libloading::Library;
use tempfile::TempDir;
use trainer::cuda::nccl::{self, Functions, Nccl};
use trainer::cuda::{Address, Collective, Gpu, GpuError, Stream};

use super::{pass_all_on, pass_on, put, take, values};

/// What the streams' handles are to be.
const HANDLES: u64 = 0x5100;

/// An emulated GPU with handles of streams. Who asks for one uses it at once, so that what is on it has to have run.
struct WithStreams(Emulated);

impl Gpu for WithStreams {
    pass_all_on!();

    fn raw_stream(&self, stream: Stream) -> Option<u64> {
        self.0.synchronise(stream).ok()?;
        Some(HANDLES + stream as u64)
    }
}

/// The stand-in, compiled.
struct StandIn {
    folder: TempDir,
    library: Library,
}

impl StandIn {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("stand_in.cpp");
        std::fs::write(&source, include_str!("stand_in.cpp")).unwrap();
        let file = folder.path().join(nccl::FILE);
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]);
        let output = compiler.arg(&source).arg("-o").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // SAFETY: it does nothing as it loads.
        let library = unsafe { Library::new(&file) }.unwrap();
        Self { folder, library }
    }

    fn open(&self) -> Arc<Functions> {
        // A folder without the library is passed over.
        let nowhere = self.folder.path().join("nowhere");
        Functions::open(&[nowhere, self.folder.path().to_owned()]).unwrap()
    }

    /// How often each call was made.
    fn calls(&self) -> BTreeMap<String, usize> {
        // SAFETY: as it is defined in stand_in.cpp.
        let text = unsafe {
            let calls: libloading::Symbol<'_, unsafe extern "C" fn() -> *const c_char> =
                self.library.get(b"stand_in_calls").unwrap();
            CStr::from_ptr(calls()).to_str().unwrap().to_owned()
        };
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            *counts.entry(line.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Lets the next operation of a rank fail.
    fn refuse(&self, rank: c_int) {
        self.tell(b"stand_in_refuse", rank);
    }

    /// Calls one of stand_in.cpp's own functions.
    fn tell(&self, function: &[u8], rank: c_int) {
        // SAFETY: as above.
        unsafe {
            let function: libloading::Symbol<'_, unsafe extern "C" fn(c_int)> =
                self.library.get(function).unwrap();
            function(rank);
        }
    }
}

fn ranks<T: Send>(
    functions: &Arc<Functions>,
    world: usize,
    run: impl Fn(&Nccl, &WithStreams) -> Result<T, GpuError> + Sync,
) -> Vec<Result<T, GpuError>> {
    run_on(nccl::join(functions.clone(), world).unwrap(), run)
}

fn run_on<T: Send>(
    ends: Vec<Nccl>,
    run: impl Fn(&Nccl, &WithStreams) -> Result<T, GpuError> + Sync,
) -> Vec<Result<T, GpuError>> {
    thread::scope(|scope| {
        let run = &run;
        let start = |end: Nccl| {
            scope.spawn(move || run(&end, &WithStreams(Emulated::new(Behaviour::default()))))
        };
        let threads: Vec<_> = ends.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_library_that_is_missing_is_named_with_what_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = |folder: &Path| Functions::open(&[folder.to_owned()]).err().unwrap();
    let expected = GpuError::Missing {
        library: "libnccl.so.2".to_owned(),
        cure: "pip install nvidia-nccl-cu13".to_owned(),
    };
    // On a machine that has NCCL, the loader finds it.
    if Functions::open(&[]).is_err() {
        assert_eq!(missing(folder.path()), expected);
        // One that is broken is named, too.
        std::fs::write(folder.path().join(nccl::FILE), b"nothing").unwrap();
        let text = missing(folder.path()).to_string();
        assert!(text.contains("nvidia-nccl-cu13; what is there: "), "{text}");
    }
}

#[test]
fn every_call_has_the_arguments_that_the_header_declares() {
    let stand_in = StandIn::new();
    let functions = stand_in.open();
    assert_eq!(functions.version().unwrap(), 22809);
    for world in [1, 2, 4] {
        let results = ranks(&functions, world, |end, gpu| {
            let (rank, stream) = (end.rank(), Stream::Exchange);
            let part = put(gpu, Stream::Exchange, &values(rank, 6))?;
            let whole = gpu.allocate(world as u64 * 24)?;
            end.gather(gpu, stream, part, whole, 24)?;
            let gathered = take(gpu, stream, whole, world * 6)?;

            // All but the last are active.
            let scratch = gpu.allocate(24)?;
            end.reduce_scatter(gpu, stream, whole, part, scratch, 6, world.max(2) - 1)?;
            let sum = take(gpu, stream, part, 6)?;

            let to = gpu.allocate(24)?;
            let own = put(gpu, Stream::Inward, &values(10 + rank, 6))?;
            end.broadcast(gpu, Stream::Inward, world - 1, own, to, 24)?;
            let sent = take(gpu, Stream::Inward, to, 6)?;
            assert_eq!(end.share(vec![rank as f64])?.len(), world);
            end.barrier()?;
            assert!(gpu.0.guards_are_whole());
            Ok((gathered, sum, sent))
        });
        let whole: Vec<f32> = (0..world).flat_map(|rank| values(rank, 6)).collect();
        for (rank, result) in results.into_iter().enumerate() {
            let (gathered, sum, sent) = result.unwrap();
            assert_eq!(gathered, whole);
            let active = world.max(2) - 1;
            let expected = values(rank, 6).into_iter().enumerate().map(|(index, own)| {
                let more = (0..active).fold(0.0, |sum, _| sum + whole[rank * 6 + index]);
                own + more
            });
            assert_eq!(sum, expected.collect::<Vec<f32>>());
            assert_eq!(sent, values(10 + world - 1, 6));
        }
    }
    let calls = stand_in.calls();
    let exchange = HANDLES + Stream::Exchange as u64;
    let inward = HANDLES + Stream::Inward as u64;
    for world in [1, 2, 4] {
        for rank in 0..world {
            // Bytes as ncclUint8, values as ncclFloat32, sums as ncclSum.
            assert_eq!(calls.get(&format!("init {rank} of {world}")), Some(&1));
            let worlds = [1, 2, 4].iter().filter(|world| **world > rank).count();
            let gather = format!("gather {rank} count 24 type 1 stream {exchange:x}");
            assert_eq!(calls.get(&gather), Some(&worlds), "{calls:?}");
            let reduce = format!("reduce {rank} count 6 type 7 op 0 stream {exchange:x}");
            assert_eq!(calls.get(&reduce), Some(&worlds), "{calls:?}");
            let root = world - 1;
            let sent = format!("broadcast {rank} count 24 type 1 root {root} stream {inward:x}");
            assert_eq!(calls.get(&sent), Some(&1), "{calls:?}");
            // In good order, each once.
            for end in ["finalize", "destroy"] {
                assert_eq!(calls.get(&format!("{end} {rank}")), Some(&worlds), "{calls:?}");
            }
        }
    }
    assert!(calls.keys().all(|call| !call.starts_with("abort")));
}

#[test]
fn a_rank_that_fails_lets_the_others_go() {
    let stand_in = StandIn::new();
    let functions = stand_in.open();
    // NCCL refuses one rank's call, while the others wait inside of it.
    let results = ranks(&functions, 3, |end, gpu| {
        let part = put(gpu, Stream::Exchange, &values(end.rank(), 4))?;
        let whole = gpu.allocate(48)?;
        end.gather(gpu, Stream::Exchange, part, whole, 16)?;
        if end.rank() == 1 {
            stand_in.refuse(1);
        }
        end.barrier()?;
        end.gather(gpu, Stream::Exchange, part, whole, 16)
    });
    let refused =
        GpuError::Failed { call: "ncclAllGather".to_owned(), reason: "internal error".to_owned() };
    assert_eq!(results[1], Err(refused));
    assert!(results.iter().all(Result::is_err), "{results:?}");
    let calls = stand_in.calls();
    for rank in 0..3 {
        assert_eq!(calls.get(&format!("abort {rank}")), Some(&1), "{calls:?}");
    }
    assert!(calls.keys().all(|call| !call.starts_with("finalize")));

    // One fails elsewhere, while the others wait for it on the host.
    let results = ranks(&functions, 3, |end, gpu| {
        let part = put(gpu, Stream::Exchange, &values(end.rank(), 4))?;
        let whole = gpu.allocate(48)?;
        end.gather(gpu, Stream::Exchange, part, whole, 16)?;
        if end.rank() == 2 {
            let error = GpuError::Failed { call: "a launch".to_owned(), reason: "no".to_owned() };
            end.abort(&error);
            return Err(error);
        }
        end.gather(gpu, Stream::Exchange, part, whole, 16)
    });
    for result in &results[..2] {
        let told = GpuError::Rank { rank: 2, reason: "a launch: no".to_owned() };
        assert_eq!(*result, Err(told));
    }
}

/// A small operation, the first of which makes the communicators.
fn gather(end: &Nccl, gpu: &WithStreams) -> Result<(), GpuError> {
    let part = put(gpu, Stream::Exchange, &values(end.rank(), 4))?;
    let whole = gpu.allocate(48)?;
    end.gather(gpu, Stream::Exchange, part, whole, 16)
}

#[test]
fn a_rank_that_cannot_join_lets_the_others_go_at_once() {
    let stand_in = StandIn::new();
    stand_in.tell(b"stand_in_refuse_init", 1);
    // The patience of a machine that is never that slow: what ends the waits is the rank's error.
    let ends = nccl::join_within(stand_in.open(), 3, Duration::from_secs(86_400)).unwrap();
    let results = run_on(ends, gather);
    let call = "ncclCommInitRankConfig".to_owned();
    assert_eq!(results[1], Err(GpuError::Failed { call, reason: "internal error".to_owned() }));
    assert!(results.iter().all(Result::is_err), "{results:?}");
    // Each communicator that there was has been ended, and none in good order.
    let calls = stand_in.calls();
    assert_eq!(calls.get("abort 1"), None, "{calls:?}");
    assert!(calls.keys().all(|call| !call.starts_with("finalize")), "{calls:?}");
}

#[test]
fn ranks_that_never_all_join_are_given_up_with_a_reason() {
    let stand_in = StandIn::new();
    stand_in.tell(b"stand_in_stray", 2);
    let ends = nccl::join_within(stand_in.open(), 3, Duration::from_millis(20)).unwrap();
    let results = run_on(ends, gather);
    let said: Vec<String> =
        results.into_iter().map(|result| result.unwrap_err().to_string()).collect();
    let reason = "ncclCommInitRankConfig: not all 3 ranks came within 0.02 s";
    assert!(said.iter().any(|said| said.starts_with(reason)), "{said:?}");
    let calls = stand_in.calls();
    for rank in 0..3 {
        let init = format!("init {rank} of 3");
        assert_eq!(calls.get(&format!("abort {rank}")), calls.get(&init), "{calls:?}");
    }
}

#[test]
fn a_gpu_without_the_drivers_streams_is_refused() {
    let stand_in = StandIn::new();
    let ends = nccl::join(stand_in.open(), 1).unwrap();
    let gpu = Emulated::new(Behaviour::default());
    let refused = ends[0].gather(&gpu, Stream::Exchange, Address(0), Address(0), 0);
    assert!(matches!(&refused, Err(GpuError::Failed { call, .. }) if call == "ncclAllGather"));
}
