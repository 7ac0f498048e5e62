//! Compiles kernels by NVRTC, which needs neither a GPU nor a driver nor a header of CUDA's.
//!
//! The result is a cubin, machine code for one architecture; PTX, which a driver would compile again, is
//! never loaded. No fast mathematics: what has to have the CPU's bits has them.

use std::ffi::{c_char, c_int, CStr, CString};
use std::fmt;
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use super::found::{self, Library};
use super::gpu::GpuError;
use super::kernel::Kernel;
use super::kernels;

/// The name under which sources include the prelude.
const PRELUDE_NAME: &CStr = c"prelude.cuh";

/// An architecture as compilers name it, without `sm_`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Architecture {
    /// Compute capability: 10 · major + minor.
    pub capability: u32,
    /// With what this architecture has alone (`sm_90a`).
    pub own: bool,
}

impl Architecture {
    /// Those that every kernel must compile for: A100, RTX 4090 and L40S, H100 and H200, B200, RTX 5090.
    pub const CHECKED: [Self; 5] =
        [Self::of(80), Self::of(89), Self::of(90), Self::of(100), Self::of(120)];

    /// The architecture of cards of a compute capability, 10 · major + minor.
    pub const fn of(capability: u32) -> Self {
        Self { capability, own: capability == 90 }
    }

    /// Bytes of shared memory that one block may have (CUDA C++ programming guide, "Technical
    /// Specifications per Compute Capability").
    pub fn shared_max(self) -> u32 {
        let kib = match self.capability {
            80 | 87 => 163,
            90 | 100 | 101 | 103 | 110 => 227,
            _ => 99,
        };
        kib << 10
    }

    /// Registers of an SM, which the blocks on it share; of 32 bits.
    pub const REGISTERS: u32 = 65_536;
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.capability, if self.own { "a" } else { "" })
    }
}

/// What is compiled at once: a source with the constants that are fixed in it. It has all kernels of the file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Unit {
    /// The source's file name without `.cu`.
    pub file: &'static str,
    /// Constants.
    pub defines: &'static [(&'static str, u32)],
}

impl Unit {
    /// What a kernel is compiled in.
    pub fn of(kernel: &Kernel) -> Self {
        Self { file: kernel.file, defines: kernel.defines }
    }

    /// What all kernels are compiled in, in their order.
    pub fn all() -> Vec<Self> {
        let mut units: Vec<Self> = Vec::new();
        for unit in kernels::all().map(Self::of) {
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
        units
    }

    /// The source's text.
    ///
    /// # Errors
    /// There is no such source.
    pub fn source(&self) -> Result<&'static str, GpuError> {
        kernels::source(self.file).ok_or_else(|| GpuError::Compile {
            kernel: self.to_string(),
            log: "there is no such source".to_owned(),
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.cu", self.file)?;
        self.defines.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// What the compiler gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiled {
    /// Machine code.
    pub cubin: Vec<u8>,
    /// What the compiler says, with what each kernel takes.
    pub log: String,
}

impl Compiled {
    /// What a kernel of it takes; `None` where the log does not say.
    pub fn resources(&self, kernel: &str) -> Option<Resources> {
        resources(&self.log, kernel)
    }
}

/// What a kernel takes of an SM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// Registers a thread, of 32 bits.
    pub registers: u32,
    /// Bytes of shared memory a block, without what a launch adds.
    pub shared: u32,
    /// Bytes of stack a thread: arrays that are not in registers.
    pub stack: u32,
    /// Bytes of spilled registers a thread that are stored.
    pub spill_stores: u32,
    /// Bytes of spilled registers a thread that are loaded.
    pub spill_loads: u32,
}

/// What is wrong with a kernel on an architecture: one sentence a fault, none where it keeps the rules of the house.
pub fn faults(kernel: &Kernel, resources: &Resources, architecture: Architecture) -> Vec<String> {
    let mut faults = Vec::new();
    let spilled = resources.spill_stores + resources.spill_loads;
    if spilled > 0 {
        faults.push(format!("{spilled} bytes of registers are spilled"));
    }
    if resources.stack > 0 {
        faults.push(format!("{} bytes of stack", resources.stack));
    }
    // A warp gets its registers in pieces of 256, which are 8 a thread.
    let a_thread = resources.registers.next_multiple_of(8);
    let registers = u64::from(a_thread) * u64::from(kernel.threads) * u64::from(kernel.blocks);
    if registers > Architecture::REGISTERS.into() {
        faults.push(format!(
            "{} blocks of {} threads take {registers} registers of {}",
            kernel.blocks,
            kernel.threads,
            Architecture::REGISTERS
        ));
    }
    let shared = resources.shared + kernel.shared_max;
    if shared > architecture.shared_max() {
        let most = architecture.shared_max();
        faults.push(format!("{shared} bytes of shared memory, and a block may have {most}"));
    }
    faults
}

/// Which NVRTC is on this machine: major and minor version.
///
/// # Errors
/// There is none.
pub fn version() -> Result<(i32, i32), GpuError> {
    found::need(Library::Nvrtc)?;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the library is there, and both are places for a number.
    succeeded("nvrtcVersion", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    Ok((major, minor))
}

/// The options that NVRTC is called with.
pub fn options(unit: &Unit, architecture: Architecture) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        "--ptxas-options=-v".to_owned(),
    ];
    options.extend(unit.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    options
}

/// Compiles a unit; a second or so.
///
/// # Errors
/// NVRTC is not there, or refuses the source: with its log.
pub fn compile(unit: &Unit, architecture: Architecture) -> Result<Compiled, GpuError> {
    compile_text(&unit.to_string(), unit.source()?, &options(unit, architecture))
}

/// Compiles any source that includes nothing but the prelude.
///
/// # Errors
/// As [`compile`].
pub fn compile_text(name: &str, source: &str, options: &[String]) -> Result<Compiled, GpuError> {
    found::need(Library::Nvrtc)?;
    let text = |text: &str| {
        let reason = "a byte of zero in what is compiled".to_owned();
        CString::new(text).map_err(|_| GpuError::Failed { call: name.to_owned(), reason })
    };
    let (source, name_text, prelude) = (text(source)?, text(name)?, text(kernels::PRELUDE)?);
    let options = options.iter().map(|option| text(option)).collect::<Result<Vec<_>, _>>()?;
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();

    let mut program = Program(ptr::null_mut());
    let (headers, names) = ([prelude.as_ptr()], [PRELUDE_NAME.as_ptr()]);
    // SAFETY: all texts end with zero and live until the program is dropped.
    succeeded("nvrtcCreateProgram", unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            source.as_ptr(),
            name_text.as_ptr(),
            1,
            headers.as_ptr(),
            names.as_ptr(),
        )
    })?;
    // SAFETY: as above.
    let outcome =
        unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
    let log = String::from_utf8_lossy(&program.log()?).trim_end_matches('\0').to_owned();
    match outcome {
        nvrtcResult::NVRTC_SUCCESS => Ok(Compiled { cubin: program.cubin()?, log }),
        nvrtcResult::NVRTC_ERROR_COMPILATION => {
            Err(GpuError::Compile { kernel: name.to_owned(), log })
        }
        other => Err(GpuError::Failed {
            call: format!("nvrtcCompileProgram of {name}"),
            reason: format!("{other:?} {log}"),
        }),
    }
}

/// A program of NVRTC's, which is destroyed with this.
struct Program(nvrtcProgram);

impl Program {
    fn log(&self) -> Result<Vec<u8>, GpuError> {
        // SAFETY: the program is one, and the buffer has the size that is asked for.
        unsafe {
            let mut size = 0;
            succeeded("nvrtcGetProgramLogSize", sys::nvrtcGetProgramLogSize(self.0, &mut size))?;
            let mut log = vec![0u8; size];
            succeeded(
                "nvrtcGetProgramLog",
                sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()),
            )?;
            Ok(log)
        }
    }

    fn cubin(&self) -> Result<Vec<u8>, GpuError> {
        // SAFETY: as in `log`.
        unsafe {
            let mut size = 0;
            succeeded("nvrtcGetCUBINSize", sys::nvrtcGetCUBINSize(self.0, &mut size))?;
            let mut cubin = vec![0u8; size];
            succeeded("nvrtcGetCUBIN", sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()))?;
            Ok(cubin)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was made and is destroyed once.
            let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
        }
    }
}

fn succeeded(call: &str, result: nvrtcResult) -> Result<(), GpuError> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(GpuError::Failed { call: call.to_owned(), reason: format!("{other:?}") }),
    }
}

/// Reads what a kernel takes out of the log of ptxas, which says for each function, in this order:
///
/// ```text
/// ptxas info    : Function properties for attend
/// ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 182 registers, used 1 barriers, 1024 bytes smem
/// ```
///
/// where the last line has numbers with units, and what there is none of is not said.
fn resources(log: &str, kernel: &str) -> Option<Resources> {
    let heads = ["Function properties for ", "Compiling entry function '"];
    let mut lines = log.lines().skip_while(|line| {
        let name = heads.iter().find_map(|head| line.split_once(head)).map(|(_, rest)| {
            rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()
        });
        name.flatten() != Some(kernel)
    });
    lines.next()?;
    let mut found = Resources::default();
    let (mut stack_said, mut used_said) = (false, false);
    // Until the next kernel begins.
    for line in lines.take_while(|line| !line.contains("Compiling entry function")) {
        if line.contains("bytes stack frame") {
            found.stack = before(line, " bytes stack frame")?;
            found.spill_stores = before(line, " bytes spill stores")?;
            found.spill_loads = before(line, " bytes spill loads")?;
            stack_said = true;
        } else if line.contains(" registers") {
            found.registers = before(line, " registers")?;
            found.shared = before(line, " bytes smem").unwrap_or(0);
            used_said = true;
        }
        if stack_said && used_said {
            return Some(found);
        }
    }
    None
}

/// The number that stands before `unit`.
fn before(line: &str, unit: &str) -> Option<u32> {
    let (head, _) = line.split_once(unit)?;
    head.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'attend_dots' for 'sm_90a'
ptxas info    : Function properties for attend_dots
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
ptxas info    : Compile time = 5.000 ms
ptxas info    : Compiling entry function 'attend' for 'sm_90a'
ptxas info    : Function properties for attend
    8 bytes stack frame, 88 bytes spill stores, 112 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem
";

    fn kernel(threads: u32, blocks: u32, shared_max: u32) -> Kernel {
        Kernel { name: "attend", file: "attention", defines: &[], threads, blocks, shared_max }
    }

    #[test]
    fn the_log_says_what_each_kernel_takes() {
        let dots = Resources { registers: 32, ..Resources::default() };
        assert_eq!(resources(LOG, "attend_dots"), Some(dots));
        let attend = Resources {
            registers: 255,
            shared: 1_024,
            stack: 8,
            spill_stores: 88,
            spill_loads: 112,
        };
        assert_eq!(resources(LOG, "attend"), Some(attend));
        assert_eq!(resources(LOG, "attend_back"), None);
        assert_eq!(resources("", "attend"), None);
    }

    #[test]
    fn each_fault_is_found_and_named() {
        let sm_80 = Architecture::of(80);
        let attend = resources(LOG, "attend").unwrap();
        let found = faults(&kernel(256, 1, 0), &attend, sm_80);
        assert_eq!(found, ["200 bytes of registers are spilled", "8 bytes of stack"]);

        let clean = Resources { registers: 249, shared: 1_024, ..Resources::default() };
        assert_eq!(faults(&kernel(256, 1, 0), &clean, sm_80), [""; 0]);
        let many = faults(&kernel(257, 1, 0), &clean, sm_80);
        assert_eq!(many, ["1 blocks of 257 threads take 65792 registers of 65536"]);
        // 98 KiB and one of its own are 99: as much as an RTX 4090 gives.
        let sm_89 = Architecture::of(89);
        assert_eq!(faults(&kernel(32, 1, 98 << 10), &clean, sm_89), [""; 0]);
        assert_eq!(faults(&kernel(32, 1, (98 << 10) + 1), &clean, sm_89).len(), 1);
        assert_eq!(faults(&kernel(32, 1, 162 << 10), &clean, sm_80), [""; 0]);
    }

    #[test]
    fn architectures_have_their_compilers_names() {
        let names = Architecture::CHECKED.map(|architecture| architecture.to_string());
        assert_eq!(names, ["sm_80", "sm_89", "sm_90a", "sm_100", "sm_120"]);
        assert_eq!(Architecture::of(86).to_string(), "sm_86");
    }
}
