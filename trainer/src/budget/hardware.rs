//! Machines: what GPUs there are, with their makers' numbers, and what a CPU can do.
//!
//! Memory is what the driver shows, less nothing; peak and bandwidth are the data sheets' (dense
//! bf16 with f32 accumulation). docs/PLANNING.md names the sheets. `sustained` is the part of the
//! peak that large products reach: measured on an H200 (769 to 798 TFLOP/s of 989 at 8192³), and
//! assumed for the others.

use serde::Serialize;

use super::error::BudgetError;
use super::quantity::in_range;

/// A kind of GPU.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Gpu {
    /// As it is written on the command line.
    pub name: &'static str,
    /// Bytes of its memory.
    pub memory: u64,
    /// Dense bf16 with f32 accumulation, FLOP/s.
    pub peak: f64,
    /// Part of the peak that large matrix products reach.
    pub sustained: f64,
    /// Bytes a second of its memory.
    pub bandwidth: f64,
    /// Bytes a second to the other GPUs of its host, each way.
    pub link: f64,
    /// Bytes a second to its host's memory, each way.
    pub host_link: f64,
    /// Multiprocessors, over which the tiles of a product are spread.
    pub multiprocessors: u64,
}

const MIB: u64 = 1 << 20;

/// A row of the table: name, MiB, peak and sustained TFLOP/s, GB/s of memory, link and host link,
/// multiprocessors.
const fn gpu(
    name: &'static str,
    mib: u64,
    (peak, sustained): (f64, f64),
    (bandwidth, link, host_link): (f64, f64, f64),
    multiprocessors: u64,
) -> Gpu {
    Gpu {
        name,
        memory: mib * MIB,
        peak: peak * 1e12,
        sustained,
        bandwidth: bandwidth * 1e9,
        link: link * 1e9,
        host_link: host_link * 1e9,
        multiprocessors,
    }
}

/// The GPUs that are known.
pub const GPUS: [Gpu; 8] = [
    gpu("H200", 143_771, (989.4, 0.78), (4800.0, 450.0, 50.0), 132),
    gpu("H100-80", 81_559, (989.4, 0.75), (3350.0, 450.0, 50.0), 132),
    gpu("B200", 183_359, (2250.0, 0.75), (7672.0, 900.0, 50.0), 148),
    gpu("A100-80", 81_920, (312.0, 0.80), (2039.0, 300.0, 25.0), 108),
    gpu("A100-40", 40_960, (312.0, 0.80), (1555.0, 300.0, 25.0), 108),
    gpu("RTX-4090", 24_564, (165.2, 0.90), (1008.0, 12.0, 25.0), 128),
    gpu("RTX-5090", 32_607, (209.5, 0.90), (1792.0, 24.0, 50.0), 170),
    gpu("L40S", 46_068, (362.05, 0.65), (864.0, 20.0, 25.0), 142),
];

/// GPUs that share a host and its fast links.
pub const GPUS_PER_HOST: u64 = 8;

/// Bytes a second of a GPU to those of other hosts: one 400 Gb/s adapter each.
pub const NETWORK: f64 = 50e9;

/// The most GPUs of one peer.
const GPUS_MAX: u64 = 1 << 14;

/// What a CPU does in a second.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CpuRates {
    /// Threads that compute.
    pub threads: u64,
    /// f32 matrix products on all threads, FLOP/s.
    pub products: f64,
    /// Reading and writing memory on all threads, bytes a second.
    pub bandwidth: f64,
    /// Compression of an update on all threads, parameters a second.
    pub encode: f64,
    /// Decoding and adding updates on all threads, kept values a second.
    pub decode: f64,
    /// BLAKE3 over parameters on all threads, bytes a second.
    pub hash: f64,
    /// Whether these have been measured on the machine.
    pub measured: bool,
}

impl CpuRates {
    /// Unmeasured: what one core of a Sapphire Rapids server was seen to do, times the threads;
    /// bandwidth saturates.
    pub fn assumed(threads: u64) -> Self {
        let count = threads as f64;
        Self {
            threads,
            products: 60e9 * count,
            bandwidth: (7e9 * count).min(200e9),
            encode: 0.6e9 * count,
            decode: 100e6 * count,
            hash: (2e9 * count).min(100e9),
            measured: false,
        }
    }
}

/// What computes.
#[derive(Clone, PartialEq, Debug)]
pub enum Devices {
    /// The CPU engine.
    Cpu(CpuRates),
    /// So many GPUs of one kind.
    Gpus {
        /// The kind.
        kind: Gpu,
        /// How many.
        count: u64,
    },
}

impl Devices {
    /// Devices between which a batch is divided.
    pub fn count(&self) -> u64 {
        match self {
            Self::Cpu(_) => 1,
            Self::Gpus { count, .. } => *count,
        }
    }

    /// Hosts: of up to [`GPUS_PER_HOST`] GPUs.
    pub fn hosts(&self) -> u64 {
        self.count().div_ceil(GPUS_PER_HOST)
    }

    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu(rates) => format!("CPU, {} threads", rates.threads),
            Self::Gpus { kind, count } => format!("{count}x{}", kind.name),
        }
    }
}

/// The machine (or the hosts) of one peer.
#[derive(Clone, PartialEq, Debug)]
pub struct Machine {
    /// What computes.
    pub devices: Devices,
    /// Bytes of memory of each host that may be used.
    pub host_memory: u64,
    /// Cores of each host, for what is not done on a GPU.
    pub host_threads: u64,
    /// Bytes of disk, where that is known.
    pub disk: Option<u64>,
    /// Bits a second to the world.
    pub up: f64,
    /// Bits a second from the world.
    pub down: f64,
}

impl Machine {
    pub(super) fn check(&self) -> Result<(), BudgetError> {
        if let Devices::Cpu(rates) = &self.devices {
            in_range("threads", rates.threads, 4_096)?;
        }
        in_range("GPUs", self.devices.count(), GPUS_MAX)?;
        in_range("host threads", self.host_threads, 4_096)?;
        in_range("host memory", self.host_memory, 1 << 62)?;
        let rates = [("bits a second up", self.up), ("bits a second down", self.down)];
        for (name, rate) in rates {
            in_range(name, rate as u64, 1 << 62)?;
        }
        Ok(())
    }
}

/// Bytes of memory that a host of such GPUs usually has: 2 TB with eight of a data centre's, 64 GB
/// for each of a gamer's.
pub fn usual_host_memory(devices: &Devices) -> u64 {
    let each = match devices {
        Devices::Gpus { kind, .. } if kind.name.starts_with("RTX") => 64_000_000_000,
        _ => 250_000_000_000,
    };
    each * devices.count().min(GPUS_PER_HOST)
}

/// A kind of GPU by its name, whatever the case; `H100` and `A100` are those of 80 GB.
pub fn gpu_named(name: &str) -> Option<Gpu> {
    let plain = |text: &str| text.replace(['-', ' ', '_'], "").to_ascii_uppercase();
    let wanted = match plain(name).as_str() {
        "H100" => "H10080".to_owned(),
        "A100" => "A10080".to_owned(),
        "4090" => "RTX4090".to_owned(),
        "5090" => "RTX5090".to_owned(),
        other => other.to_owned(),
    };
    GPUS.into_iter().find(|gpu| plain(gpu.name) == wanted)
}

/// GPUs from `8xH200` or `H200`.
pub fn parse_gpus(text: &str) -> Result<Devices, BudgetError> {
    let (count, name) = match text.split_once(['x', 'X', '*']) {
        Some((count, name)) if count.chars().all(|c| c.is_ascii_digit()) => (count, name),
        _ => ("1", text),
    };
    let count = count.parse().ok().filter(|count| (1..=GPUS_MAX).contains(count));
    match (count, gpu_named(name)) {
        (Some(count), Some(kind)) => Ok(Devices::Gpus { kind, count }),
        _ => Err(BudgetError::Text {
            text: text.to_owned(),
            expected: "GPUs like 8xH200; there are H200, H100-80, B200, A100-80, A100-40, \
                       RTX-4090, RTX-5090 and L40S",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_a_count_and_a_name() {
        let parsed = |text: &str| parse_gpus(text).map(|devices| devices.name());
        assert_eq!(parsed("8xH200"), Ok("8xH200".to_owned()));
        assert_eq!(parsed("rtx 4090"), Ok("1xRTX-4090".to_owned()));
        assert_eq!(parsed("2xH100"), Ok("2xH100-80".to_owned()));
        for wrong in ["", "8x", "xH200", "0xH200", "99999xH200", "8xH300"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        for gpu in GPUS {
            assert_eq!(gpu_named(gpu.name), Some(gpu));
        }
    }
}
