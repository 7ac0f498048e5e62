//! A kernel with its data: run in every order of lanes, under sanitizers, and with planted bugs.
//!
//! A case is buffers and launches. Launches are put into it by the engine's own typed functions, so that the order of
//! their arguments is tested too:
//!
//! ```ignore
//! let mut case = Case::new();
//! let x = case.input("x", &values);
//! let y = case.output("y", &vec![0_u16; values.len()]);
//! case.launch(|gpu| rows::swiglu(gpu, Stream::Compute, x, y, ffn))?;
//! let outcome = agree_in_all_orders(&case)?;
//! assert_eq!(outcome.values::<u16>("y"), expected);
//! ```

use crate::compile::{told, Program, Sanitizer};
use crate::error::EmulatorError;
use crate::library::{Counts, Kernels};
use crate::settings::{Copies, Order, Settings};
use bytemuck::Pod;
use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::cell::RefCell;
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use trainer::cuda::{Address, Argument, Event, Gpu, GpuError, Kernel, Launch, Product, Stream};

/// Buffers of a case lie so far apart in the addresses that its launches are given.
const APART: u64 = 1 << 40;

/// Bytes around a buffer that must stay what they are.
const GUARD: usize = 256;

/// Memory that a case's launches read and write.
#[derive(Clone, Debug)]
struct Buffer {
    name: String,
    bytes: Vec<u8>,
    /// Whether launches may change it.
    changes: bool,
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug)]
enum Parameter {
    /// So many bytes into a buffer.
    At(usize, u64),
    /// A number, or no address.
    Bits(u64),
}

#[derive(Clone, Debug)]
struct Start {
    kernel: &'static str,
    threads: u32,
    grid: [u32; 3],
    shared: u32,
    parameters: Vec<Parameter>,
}

/// Buffers, and launches of kernels of one source with the same constants.
#[derive(Clone, Default, Debug)]
pub struct Case {
    text: Option<String>,
    program: Option<Program>,
    buffers: Vec<Buffer>,
    starts: Vec<Start>,
}

impl Case {
    /// Without buffers and launches.
    pub fn new() -> Self {
        Self::default()
    }

    /// For kernels of a source that is not among the engine's.
    pub fn with_source(text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::default() }
    }

    /// Memory that launches read and must not change. Its address is for launches of this case.
    pub fn input<T: Pod>(&mut self, name: &str, values: &[T]) -> Address {
        self.add(name, bytemuck::cast_slice(values).to_vec(), false)
    }

    /// Memory that launches may change, and what is in it before.
    pub fn output<T: Pod>(&mut self, name: &str, before: &[T]) -> Address {
        self.add(name, bytemuck::cast_slice(before).to_vec(), true)
    }

    /// Memory of so many bytes that launches may change and nobody has written: floats in it are NaN.
    pub fn fresh(&mut self, name: &str, bytes: usize) -> Address {
        self.add(name, vec![0xff; bytes], true)
    }

    fn add(&mut self, name: &str, bytes: Vec<u8>, changes: bool) -> Address {
        self.buffers.push(Buffer { name: name.to_owned(), bytes, changes });
        Address(APART * self.buffers.len() as u64)
    }

    /// Adds the launches that `start` makes.
    pub fn launch(
        &mut self,
        start: impl FnOnce(&dyn Gpu) -> Result<(), GpuError>,
    ) -> Result<(), EmulatorError> {
        let recorder = Recorder { case: RefCell::new(std::mem::take(self)) };
        let result = start(&recorder);
        *self = recorder.case.into_inner();
        result.map_err(|error| EmulatorError::Case(error.to_string()))
    }

    fn start(&mut self, launch: &Launch<'_>) -> Result<(), String> {
        let kernel: &Kernel = launch.kernel;
        let program = match &self.text {
            Some(text) => Program::new(kernel.file, text).with_constants(kernel.defines),
            None => Program::of(kernel).map_err(|error| error.to_string())?,
        };
        match &self.program {
            Some(known) if *known != program => {
                return Err(format!(
                    "{} is of another source or has other constants than the case's",
                    kernel.name
                ));
            }
            _ => self.program = Some(program),
        }
        if launch.shared > kernel.shared_max {
            let (name, shared, most) = (kernel.name, launch.shared, kernel.shared_max);
            return Err(format!(
                "{name}: {shared} bytes of shared memory, and at most {most} are planned"
            ));
        }
        let parameters = launch
            .arguments
            .iter()
            .map(|argument| self.parameter(*argument))
            .collect::<Result<_, _>>()?;
        let Launch { grid, shared, .. } = *launch;
        self.starts.push(Start {
            kernel: kernel.name,
            threads: kernel.threads,
            grid,
            shared,
            parameters,
        });
        Ok(())
    }

    fn parameter(&self, argument: Argument) -> Result<Parameter, String> {
        Ok(match argument {
            Argument::Address(Address(0)) => Parameter::Bits(0),
            Argument::Address(Address(at)) => {
                let index = usize::try_from(at / APART).unwrap_or(usize::MAX).wrapping_sub(1);
                let buffer = self
                    .buffers
                    .get(index)
                    .ok_or_else(|| format!("the address {at:#x} is of no buffer"))?;
                let offset = at % APART;
                if offset > buffer.bytes.len() as u64 {
                    return Err(format!("{offset} bytes into {} is outside of it", buffer.name));
                }
                Parameter::At(index, offset)
            }
            Argument::U32(value) => Parameter::Bits(u64::from(value)),
            Argument::U64(value) => Parameter::Bits(value),
            Argument::F32(value) => Parameter::Bits(u64::from(value.to_bits())),
        })
    }

    fn program(&self) -> Result<&Program, EmulatorError> {
        self.program.as_ref().ok_or_else(|| EmulatorError::Case("it starts no kernel".to_owned()))
    }

    /// Runs it in this process.
    pub fn run(&self, order: Order, copies: Copies) -> Result<Outcome, EmulatorError> {
        let settings = Settings { order, copies };
        let program = self.program()?;
        let memory: Vec<Memory> =
            self.buffers.iter().map(|buffer| Memory::of(&buffer.bytes)).collect();
        let mut counts = Counts::default();
        for start in &self.starts {
            let function = Kernels::of(program, start.kernel, &settings)?;
            let mut cells: Vec<u64> = start
                .parameters
                .iter()
                .map(|parameter| match *parameter {
                    Parameter::At(index, offset) => memory[index].address() + offset,
                    Parameter::Bits(bits) => bits,
                })
                .collect();
            // SAFETY: the cells are what the kernel's typed function gave, its addresses ours; that the kernel
            // stays inside of them is what is tested, with guards here and with ASan.
            let done = unsafe {
                function.run(start.grid, [start.threads, 1, 1], start.shared, &mut cells)
            }?;
            counts.matrix_loads += done.matrix_loads;
            counts.conflicts += done.conflicts;
        }
        for (memory, buffer) in memory.iter().zip(&self.buffers) {
            if let Some(at) = memory.spoilt() {
                let (name, bytes) = (&buffer.name, buffer.bytes.len());
                let reason = format!("byte {at} of {name}, which has {bytes}, was written");
                return Err(EmulatorError::Wrote { settings, reason });
            }
        }
        self.outcome(
            memory.iter().map(|memory| memory.bytes().to_vec()).collect(),
            counts,
            settings,
        )
    }

    fn outcome(
        &self,
        after: Vec<Vec<u8>>,
        counts: Counts,
        settings: Settings,
    ) -> Result<Outcome, EmulatorError> {
        for (buffer, after) in self.buffers.iter().zip(&after) {
            if !buffer.changes && buffer.bytes != *after {
                let reason = format!("{}, which is only to be read, was written", buffer.name);
                return Err(EmulatorError::Wrote { settings, reason });
            }
        }
        let names = self.buffers.iter().map(|buffer| buffer.name.clone());
        Ok(Outcome { buffers: names.zip(after).collect(), counts })
    }

    /// As `runner.cpp` reads it: numbers of 8 bytes and bytes, nothing between.
    fn to_bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let number = |file: &mut Vec<u8>, value: u64| file.extend_from_slice(&value.to_le_bytes());
        number(&mut file, self.buffers.len() as u64);
        for buffer in &self.buffers {
            number(&mut file, buffer.bytes.len() as u64);
            file.extend_from_slice(&buffer.bytes);
        }
        number(&mut file, self.starts.len() as u64);
        for start in &self.starts {
            number(&mut file, start.kernel.len() as u64);
            file.extend_from_slice(start.kernel.as_bytes());
            for value in start.grid.iter().chain([&start.threads, &start.shared]) {
                number(&mut file, u64::from(*value));
            }
            number(&mut file, start.parameters.len() as u64);
            for parameter in &start.parameters {
                let (buffer, value) = match *parameter {
                    Parameter::At(index, offset) => (index as u64, offset),
                    Parameter::Bits(bits) => (u64::MAX, bits),
                };
                number(&mut file, buffer);
                number(&mut file, value);
            }
        }
        file
    }

    /// Runs it in a process of its own by a compiled runner.
    fn run_apart(&self, runner: &Path, settings: Settings) -> Result<Outcome, EmulatorError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let named = |what: &str| {
            std::env::temp_dir().join(format!("gauntlet-{what}-{}-{number}", std::process::id()))
        };
        let (case, answer) = (named("case"), named("answer"));
        std::fs::write(&case, self.to_bytes())?;
        let mut command = Command::new(runner);
        command.arg(&case).arg(&answer).arg(settings.order.number().to_string());
        command.arg(u8::from(settings.copies == Copies::AtOnce).to_string());
        command.env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0");
        command.env("UBSAN_OPTIONS", "print_stacktrace=1");
        command.env("TSAN_OPTIONS", "exitcode=66:report_signal_unsafe=0");
        // SAFETY: only a system call. TSan's memory does not find its place where addresses are too random.
        unsafe {
            command.pre_exec(|| {
                #[cfg(target_os = "linux")]
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                Ok(())
            });
        }
        let output = command.output();
        let after = std::fs::read(&answer);
        std::fs::remove_file(&case)?;
        if after.is_ok() {
            std::fs::remove_file(&answer)?;
        }
        let output = output?;
        if !output.status.success() {
            let text = told(&output);
            if output.status.code() == Some(3) {
                let (kernel, reason) = text.trim().split_once(": ").unwrap_or(("?", text.trim()));
                let (kernel, reason) = (kernel.to_owned(), reason.to_owned());
                return Err(EmulatorError::Launch { kernel, settings, reason });
            }
            let how = match output.status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => output.status.to_string(),
            };
            return Err(EmulatorError::Report(format!("{settings}: {how}\n{text}")));
        }
        let mut rest = after?;
        let tail = rest.split_off(rest.len().saturating_sub(16));
        let mut after = Vec::new();
        for buffer in &self.buffers {
            if rest.len() < buffer.bytes.len() {
                return Err(EmulatorError::Report("the runner's answer is too short".to_owned()));
            }
            let next = rest.split_off(buffer.bytes.len());
            after.push(std::mem::replace(&mut rest, next));
        }
        let count = |at: usize| {
            tail.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        self.outcome(after, Counts { matrix_loads: count(0), conflicts: count(8) }, settings)
    }
}

/// What a case's buffers hold after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    buffers: Vec<(String, Vec<u8>)>,
    /// What its launches did.
    pub counts: Counts,
}

impl Outcome {
    /// A buffer's bytes; of a buffer that the case does not have, none.
    pub fn bytes(&self, name: &str) -> &[u8] {
        self.buffers.iter().find(|(known, _)| known == name).map_or(&[], |(_, bytes)| bytes)
    }

    /// A buffer's values.
    pub fn values<T: Pod>(&self, name: &str) -> Vec<T> {
        self.bytes(name)
            .chunks_exact(size_of::<T>().max(1))
            .map(bytemuck::pod_read_unaligned)
            .collect()
    }

    /// Where it differs from another of the same case.
    fn difference(&self, other: &Self) -> Option<String> {
        for ((name, ours), (_, theirs)) in self.buffers.iter().zip(&other.buffers) {
            let count = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
            if let Some(first) = ours.iter().zip(theirs).position(|(a, b)| a != b) {
                return Some(format!(
                    "{name}: {count} of {} bytes, the first at {first}",
                    ours.len()
                ));
            }
        }
        None
    }
}

/// All the ways a kernel is run.
fn all_settings() -> impl Iterator<Item = Settings> {
    let orders = [
        Order::Forwards,
        Order::Backwards,
        Order::Random(1),
        Order::Random(2),
        Order::Ahead(1),
        Order::Ahead(2),
    ];
    orders
        .into_iter()
        .flat_map(|order| [Copies::Late, Copies::AtOnce].map(|copies| Settings { order, copies }))
}

/// Runs a case in six orders of lanes and both ways of copying: the outcome, if it is always the same to the bit.
pub fn agree_in_all_orders(case: &Case) -> Result<Outcome, EmulatorError> {
    agree(|settings| case.run(settings.order, settings.copies))
}

fn agree(
    run: impl Fn(Settings) -> Result<Outcome, EmulatorError>,
) -> Result<Outcome, EmulatorError> {
    let mut all = all_settings();
    let first = all.next().unwrap_or_default();
    let outcome = run(first)?;
    for settings in all {
        if let Some(difference) = outcome.difference(&run(settings)?) {
            return Err(EmulatorError::Differ(format!(
                "not the same with {first} and {settings}: {difference}"
            )));
        }
    }
    Ok(outcome)
}

/// Runs a case with a sanitizer in the two orders and ways of copying that differ most.
pub fn sanitised(case: &Case, sanitizer: Sanitizer) -> Result<(), EmulatorError> {
    watched(case, case.program()?, sanitizer)
}

fn watched(case: &Case, program: &Program, sanitizer: Sanitizer) -> Result<(), EmulatorError> {
    let runner = program.runner(Some(sanitizer))?;
    case.run_apart(&runner, Settings { order: Order::Forwards, copies: Copies::Late })?;
    case.run_apart(&runner, Settings { order: Order::Ahead(1), copies: Copies::AtOnce })?;
    Ok(())
}

/// A way in which a mistake shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// A launch ends with an error, or the program does.
    Fails(String),
    /// The result depends on the order of lanes or on when copies happen.
    Orders(String),
    /// It wrote what it must not.
    Wrote(String),
    /// The result is always the same, and another than without the bug.
    Wrong(String),
    /// Matrices are read with more conflicts than without the bug.
    Conflicts {
        /// With the bug.
        found: u64,
        /// Without.
        expected: u64,
    },
    /// A sanitizer's report.
    Report(Sanitizer, String),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fails(how) => write!(f, "fails: {how}"),
            Self::Orders(how) => write!(f, "depends on the order: {how}"),
            Self::Wrote(what) => write!(f, "writes elsewhere: {what}"),
            Self::Wrong(what) => write!(f, "wrong: {what}"),
            Self::Conflicts { found, expected } => {
                write!(f, "{found} bank conflicts instead of {expected}")
            }
            Self::Report(Sanitizer::Address, text) => write!(f, "ASan or UBSan: {text}"),
            Self::Report(Sanitizer::Thread, text) => write!(f, "TSan: {text}"),
        }
    }
}

/// How a planted bug was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The bug's name in the source.
    pub bug: String,
    /// The first way that showed it.
    pub way: Way,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.bug, self.way)
    }
}

/// Plants a bug and says how a case's run shows it: by itself in any order, against the right outcome, by
/// conflicts, or by a sanitizer; none if nothing does. All runs are in processes of their own.
pub fn finds(case: &Case, bug: &str) -> Result<Option<Finding>, EmulatorError> {
    let program = case.program()?;
    if !program.has_bug(bug) {
        return Err(EmulatorError::Case(format!("{}.cu has no {bug}", program.file)));
    }
    let right = agree_in_all_orders(case)?;
    let planted = program.clone().with_bug(bug);
    let found = |way: Way| Ok(Some(Finding { bug: bug.to_owned(), way }));
    let runner = planted.runner(None)?;
    match agree(|settings| case.run_apart(&runner, settings)) {
        Ok(outcome) => {
            if let Some(difference) = right.difference(&outcome) {
                return found(Way::Wrong(difference));
            }
            let (conflicts, expected) = (outcome.counts.conflicts, right.counts.conflicts);
            if conflicts > expected {
                return found(Way::Conflicts { found: conflicts, expected });
            }
        }
        Err(error @ (EmulatorError::Compile { .. } | EmulatorError::Files(_))) => {
            return Err(error)
        }
        Err(EmulatorError::Differ(how)) => return found(Way::Orders(how)),
        Err(error @ EmulatorError::Wrote { .. }) => return found(Way::Wrote(error.to_string())),
        Err(error) => return found(Way::Fails(error.to_string())),
    }
    for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
        match watched(case, &planted, sanitizer) {
            Ok(()) => {}
            Err(error @ (EmulatorError::Compile { .. } | EmulatorError::Files(_))) => {
                return Err(error)
            }
            Err(error) => return found(Way::Report(sanitizer, summary(&error.to_string()))),
        }
    }
    Ok(None)
}

/// The lines of a sanitizer's report that say what and where.
fn summary(report: &str) -> String {
    let mut lines = report
        .lines()
        .filter(|line| line.contains("SUMMARY: ") || line.contains("runtime error: "));
    lines.next().unwrap_or(report).trim().to_owned()
}

/// A buffer while a case runs: at an address like a GPU's, with guards around it.
struct Memory {
    start: *mut u8,
    length: usize,
    layout: Layout,
}

impl Memory {
    fn of(bytes: &[u8]) -> Self {
        let layout =
            Layout::from_size_align(bytes.len() + 2 * GUARD, GUARD).unwrap_or(Layout::new::<u8>());
        // SAFETY: the layout is of more than no byte; all of it is written here.
        unsafe {
            let start = alloc(layout);
            if start.is_null() || layout.size() < bytes.len() + 2 * GUARD {
                handle_alloc_error(layout);
            }
            start.write_bytes(0xff, layout.size());
            start.add(GUARD).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Self { start, length: bytes.len(), layout }
        }
    }

    fn address(&self) -> u64 {
        // SAFETY: inside of the allocation.
        (unsafe { self.start.add(GUARD) }) as usize as u64
    }

    fn all(&self) -> &[u8] {
        // SAFETY: all of it was written when it was made, and no kernel runs now.
        unsafe { std::slice::from_raw_parts(self.start, self.layout.size()) }
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[GUARD..GUARD + self.length]
    }

    /// The byte, counted from the buffer's start, that was written though it is outside.
    fn spoilt(&self) -> Option<i64> {
        let guards = self
            .all()
            .iter()
            .enumerate()
            .filter(|(at, _)| !(GUARD..GUARD + self.length).contains(at));
        let at = guards.into_iter().find(|(_, byte)| **byte != 0xff).map(|(at, _)| at)?;
        i64::try_from(at).ok().map(|at| at - GUARD as i64)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// Takes launches down for a case; it does nothing else of what a GPU does.
struct Recorder {
    case: RefCell<Case>,
}

fn not_here<T>(call: &str) -> Result<T, GpuError> {
    Err(GpuError::Failed { call: call.to_owned(), reason: "a case has only launches".to_owned() })
}

impl Gpu for Recorder {
    fn name(&self) -> String {
        "a case".to_owned()
    }

    fn memory(&self) -> Result<(u64, u64), GpuError> {
        not_here("memory")
    }

    fn allocate(&self, _: u64) -> Result<Address, GpuError> {
        not_here("allocate")
    }

    fn allocate_pinned(&self, _: u64) -> Result<Address, GpuError> {
        not_here("allocate_pinned")
    }

    fn launch(&self, _: Stream, launch: Launch<'_>) -> Result<(), GpuError> {
        let started = self.case.borrow_mut().start(&launch);
        started.map_err(|reason| GpuError::Failed { call: launch.kernel.name.to_owned(), reason })
    }

    fn product(&self, _: Stream, _: &Product) -> Result<(), GpuError> {
        not_here("product")
    }

    fn clear(&self, _: Stream, _: Address, _: u64) -> Result<(), GpuError> {
        not_here("clear")
    }

    fn copy(&self, _: Stream, _: Address, _: Address, _: u64) -> Result<(), GpuError> {
        not_here("copy")
    }

    fn upload(&self, _: Stream, _: Address, _: &[u8]) -> Result<(), GpuError> {
        not_here("upload")
    }

    fn download(&self, _: Stream, _: Address, _: &mut [u8]) -> Result<(), GpuError> {
        not_here("download")
    }

    fn call(&self, _: Stream, _: Box<dyn FnOnce() + Send>) -> Result<(), GpuError> {
        not_here("call")
    }

    fn record(&self, _: Stream) -> Result<Event, GpuError> {
        not_here("record")
    }

    fn wait(&self, _: Stream, _: Event) -> Result<(), GpuError> {
        not_here("wait")
    }

    fn synchronise(&self, _: Stream) -> Result<(), GpuError> {
        not_here("synchronise")
    }
}
