//! SparseLoCo at the size of large models: encode and outer step on synthetic tensors, and what
//! memory does beside it.
//!
//! ```text
//! cargo run --release -p trainer --example sparseloco_speed -- \
//!     [--parameters N] [--threads N] [--peers N] [--keep K] [--senders-min PPM] [--portable]
//!     [--folder DIR] [--json]
//! ```
//!
//! The tensors have 4 Mi values and are made 16 at a time out of 256 MiB of Laplace noise, each
//! time from elsewhere in it, so that only these parts of θ, of the local parameters and of the
//! error feedback are in memory, as with parameters that are streamed from a file or a GPU. Times
//! are of the encoder and of the outer step alone, the making of values is left out. The updates of the peers go to files
//! in DIR (default: the folder for temporary files) and are read through a memory map. A copy
//! between arrays of the same size says what the memory can do. "Processor time" leaves out what
//! other processes took of the cores.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Instant;

use memmap2::Mmap;
use protocol::aggregate::{outer_step, OuterRule, TensorUpdate};
use protocol::layout::Layout;
use protocol::settings::PPM;
use protocol::update::{Payload, UpdateWriter};
use protocol::variant::Variant;
use trainer::compress::{TensorPart, UpdateStream};
use trainer::outer_step::aggregate_tensor;
use trainer::Threads;

/// Values of a tensor; the last one is shorter.
const TENSOR: usize = 4 << 20;
/// Tensors that are in memory at once, 256 MiB an array: more than a core's own caches hold.
const RING: usize = 16;
/// Values of the noise that the tensors are cut from.
const NOISE: usize = RING * TENSOR + (1 << 16);
const DECAY: f32 = 0.95;
const RATE_PPM: u32 = 800_000;

struct Options {
    parameters: u64,
    threads: usize,
    peers: usize,
    keep: u16,
    senders_min_ppm: u32,
    portable: bool,
    folder: PathBuf,
    json: bool,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        parameters: 256 << 20,
        threads: 1,
        peers: 20,
        keep: 64,
        senders_min_ppm: PPM,
        portable: false,
        folder: std::env::temp_dir(),
        json: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--portable" => options.portable = true,
            "--json" => options.json = true,
            _ => {
                let value = arguments.next().ok_or(format!("{name} needs a value"))?;
                match name.as_str() {
                    "--parameters" => options.parameters = value.parse()?,
                    "--threads" => options.threads = value.parse()?,
                    "--peers" => options.peers = value.parse()?,
                    "--keep" => options.keep = value.parse()?,
                    "--senders-min" => options.senders_min_ppm = value.parse()?,
                    "--folder" => options.folder = value.into(),
                    _ => return Err(format!("unknown option {name}").into()),
                }
            }
        }
    }
    if options.parameters == 0 || options.peers == 0 {
        return Err("at least one parameter and one peer".into());
    }
    Ok(options)
}

fn layout(parameters: u64) -> Layout {
    let full = parameters / TENSOR as u64;
    let mut lens = vec![TENSOR as u64; full as usize];
    lens.extend(Some(parameters % TENSOR as u64).filter(|rest| *rest > 0));
    Layout(lens)
}

/// Laplace noise of the size of pseudo-gradients.
fn noise() -> Vec<f32> {
    let mut state = 1u64;
    let mut unit = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 + 1e-8
    };
    let mut laplace = || -unit().ln() * if unit() < 0.5 { -1e-3 } else { 1e-3 };
    (0..NOISE).map(|_| laplace()).collect()
}

/// Tensor `slot` of the ring, of `len` values, as `peer` has it in lap `lap`.
fn cut(noise: &[f32], slot: usize, lap: usize, peer: usize, len: usize) -> &[f32] {
    let turn = (lap * 7919 + peer * 10_477) % (1 << 16);
    &noise[slot % RING * TENSOR + turn..][..len]
}

/// The update of one peer in a file, and what it took.
struct Encoded {
    time: Time,
    path: PathBuf,
}

fn encode(
    options: &Options,
    layout: &Layout,
    noise: &[f32],
    peer: usize,
    threads: &Threads,
    variant: Variant,
) -> Result<Encoded, Box<dyn Error>> {
    let name = format!("sparseloco-speed-{}-{peer}", std::process::id());
    let path = options.folder.join(name);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let sink = BufWriter::with_capacity(1 << 20, file);
    let mut stream =
        UpdateStream::with_variant(threads, sink, layout, options.keep, DECAY, variant)?;
    let mut ring = vec![0.0f32; RING * TENSOR];
    let mut time = Time::default();
    for (lap, lens) in layout.0.chunks(RING).enumerate() {
        // The error feedback before the window is smaller than a window's difference.
        for (feedback, value) in ring.iter_mut().zip(&noise[peer..]) {
            *feedback = 0.25 * value;
        }
        let tensors = ring.chunks_mut(TENSOR).zip(lens).enumerate();
        let parts = tensors.map(|(slot, (feedback, len))| TensorPart {
            feedback: &mut feedback[..*len as usize],
            start: cut(noise, slot, lap, peer, *len as usize),
            local: cut(noise, slot + RING / 2, lap, peer + 1, *len as usize),
        });
        time.add(|| stream.encode(parts))?;
    }
    time.add(|| stream.finish())?;
    Ok(Encoded { time, path })
}

/// Seconds to read all updates strictly, and of the outer step on all tensors.
fn aggregate(
    options: &Options,
    layout: &Layout,
    noise: &[f32],
    bytes: &[Mmap],
    threads: &Threads,
) -> Result<(Time, Time), Box<dyn Error>> {
    let mut parse = Time::default();
    let parse_all = || {
        threads
            .map(bytes.len(), |peer| Payload::parse(&bytes[peer], layout, options.keep))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    let payloads = parse.add(parse_all)?;

    let mut ring = noise[..RING * TENSOR].to_vec();
    let mut step = Time::default();
    let rule = OuterRule::new(RATE_PPM, options.senders_min_ppm);
    for (tensor, len) in layout.0.iter().enumerate() {
        let theta = &mut ring[tensor % RING * TENSOR..][..*len as usize];
        let updates = payloads
            .iter()
            .map(|payload| TensorUpdate::new(payload, layout, tensor as u32))
            .collect::<Option<Vec<_>>>()
            .ok_or("a payload of another layout")?;
        step.add(|| aggregate_tensor(threads, theta, &updates, rule))?;
    }
    Ok((parse, step))
}

/// What it takes to copy `pieces` pieces of θ, spread over the threads: as many bytes read and
/// written as the outer step of a model reads and writes parameters. Each piece is elsewhere in
/// memory than the ones before, as those of a model are.
fn copy(threads: &Threads, pieces: usize) -> Time {
    let from = vec![1.0f32; RING * TENSOR];
    let mut into = vec![0.0f32; RING * TENSOR];
    let mut time = Time::default();
    for _ in 0..pieces.div_ceil(RING) {
        let parts = RING * 64;
        let slots: Vec<_> = into.chunks_mut(TENSOR / 64).map(std::sync::Mutex::new).collect();
        time.add(|| {
            threads.for_each(parts, |part| {
                if let Ok(mut into) = slots[part].lock() {
                    let from = &from[part * (TENSOR / 64)..];
                    let len = into.len();
                    into.copy_from_slice(&from[..len]);
                }
            });
        });
    }
    time
}

/// Seconds that the processor has spent on this process's threads. Unlike the time on the wall it
/// does not count what other processes took.
fn processor_seconds() -> Option<f64> {
    let mut nanoseconds = 0u64;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let statistics = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += statistics.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

/// How long something took: on the wall, and on the processor over all threads.
#[derive(Clone, Copy, Default)]
struct Time {
    wall: f64,
    processor: f64,
}

impl Time {
    /// Adds what `work` takes.
    fn add<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (begin, processor) = (Instant::now(), processor_seconds());
        let result = work();
        self.wall += begin.elapsed().as_secs_f64();
        if let (Some(before), Some(after)) = (processor, processor_seconds()) {
            self.processor += after - before;
        }
        result
    }
}

/// The most memory that this process has had, in bytes, pages of mapped files included.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(field("VmHWM:")? * 1024)
}

/// Whether the streamed outer step of a small model is protocol's plain one.
fn check(noise: &[f32], rule: OuterRule) -> Result<(), Box<dyn Error>> {
    let layout = Layout(vec![300_000, 5000, 1]);
    let mut updates = Vec::new();
    for peer in 0..3usize {
        let mut stream = UpdateStream::new(
            &Threads::new(2)?,
            std::io::Cursor::new(Vec::new()),
            &layout,
            64,
            DECAY,
        )?;
        let mut feedback = vec![0.0f32; 300_000];
        for len in &layout.0 {
            let len = *len as usize;
            let (start, local) = (&noise[peer..][..len], &noise[100 + peer * 3..][..len]);
            stream.encode([TensorPart { feedback: &mut feedback[..len], start, local }])?;
        }
        updates.push(stream.finish()?.into_inner());
    }
    let payloads = updates
        .iter()
        .map(|bytes| Payload::parse(bytes, &layout, 64))
        .collect::<Result<Vec<_>, _>>()?;
    let tensors = || layout.0.iter().map(|len| noise[..*len as usize].to_vec());
    let (mut plain, mut streamed): (Vec<_>, Vec<_>) = (tensors().collect(), tensors().collect());
    let mut views: Vec<&mut [f32]> = plain.iter_mut().map(Vec::as_mut_slice).collect();
    let with_uids: Vec<_> = (0u16..).zip(payloads.iter().cloned()).collect();
    outer_step(&mut views, &layout, &with_uids, rule)?;
    for (tensor, theta) in (0u32..).zip(&mut streamed) {
        let updates: Vec<_> = payloads
            .iter()
            .filter_map(|payload| TensorUpdate::new(payload, &layout, tensor))
            .collect();
        aggregate_tensor(&Threads::new(2)?, theta, &updates, rule)?;
    }
    if plain != streamed {
        return Err("the streamed outer step differs from the plain one".into());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let threads = Threads::new(options.threads)?;
    let variant = match options.portable {
        true => Variant::PORTABLE,
        false => Variant::best(),
    };
    let noise = noise();
    check(&noise, OuterRule::new(RATE_PPM, options.senders_min_ppm))?;
    let layout = layout(options.parameters);
    // A writer that is dropped at once refuses a layout or `keep` that cannot be.
    drop(UpdateWriter::new(std::io::Cursor::new(Vec::new()), &layout, options.keep)?);

    // The updates of all peers: the first is timed, as are all that follow, and the median counts.
    let encoded = (0..options.peers)
        .map(|peer| encode(&options, &layout, &noise, peer, &threads, variant))
        .collect::<Result<Vec<_>, _>>()?;
    let mut walls: Vec<f64> = encoded.iter().map(|encoded| encoded.time.wall).collect();
    walls.sort_by(f64::total_cmp);
    let mut cores: Vec<f64> = encoded.iter().map(|encoded| encoded.time.processor).collect();
    cores.sort_by(f64::total_cmp);
    let middle = encoded.len() / 2;
    let bytes = encoded
        .iter()
        // SAFETY: the files are this process's own.
        .map(|encoded| unsafe { Mmap::map(&File::open(&encoded.path)?) })
        .collect::<Result<Vec<_>, _>>()?;
    let (parse, step) = aggregate(&options, &layout, &noise, &bytes, &threads)?;
    let peak = peak_memory().unwrap_or(0) as f64 / 1e6;
    let pieces = layout.0.len().min(4 * RING);
    let copy = copy(&threads, pieces);
    for encoded in &encoded {
        std::fs::remove_file(&encoded.path)?;
    }

    let parameters = options.parameters as f64;
    let size = bytes[0].len() as f64;
    let update_bytes: f64 = bytes.iter().map(|bytes| bytes.len() as f64).sum();
    // The parameters are read and written, the updates are read.
    let moved = (8.0 * parameters + update_bytes) / 1e9;
    let copied = (pieces.div_ceil(RING) * RING * TENSOR * 8) as f64 / 1e9;
    let kept = parameters * f64::from(options.keep) / 4096.0;
    let rows = [
        ("encode, G parameters/s of processor time, median", parameters / cores[middle] / 1e9),
        ("encode, G parameters/s, median", parameters / walls[middle] / 1e9),
        ("encode, G parameters/s, best", parameters / walls[0] / 1e9),
        ("bytes an update", size),
        ("bits a value", size * 8.0 / kept),
        ("times smaller than f32", 4.0 * parameters / size),
        ("read strictly, GB/s", update_bytes / parse.wall / 1e9),
        ("outer step, G parameters/s", parameters / step.wall / 1e9),
        ("outer step, GB/s", moved / step.wall),
        ("outer step, GB/s of processor time", moved / step.processor),
        ("memcpy, GB/s", copied / copy.wall),
        ("memcpy, GB/s of processor time", copied / copy.processor),
        (
            "outer step's share of memcpy, processor time",
            moved / step.processor / (copied / copy.processor),
        ),
        ("peak memory with mapped files, MB", peak),
    ];
    let head = format!(
        "{} parameters, {} threads, {} peers, k {}, c {} ppm, {}",
        options.parameters,
        options.threads,
        options.peers,
        options.keep,
        options.senders_min_ppm,
        variant.name()
    );
    if options.json {
        let fields: Vec<String> =
            rows.iter().map(|(name, value)| format!("\"{name}\": {value:.4}")).collect();
        println!("{{\"run\": \"{head}\", {}}}", fields.join(", "));
    } else {
        println!("{head}");
        for (name, value) in rows {
            println!("{name:<52} {value:>14.3}");
        }
    }
    Ok(())
}
