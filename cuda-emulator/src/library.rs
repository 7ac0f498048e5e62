//! A compiled source's kernels, called in this process.
//!
//! A launch happens on the calling thread, whole, before [`Function::run`] returns; several threads may launch at once.

use crate::compile::Program;
use crate::error::EmulatorError;
use crate::settings::{Copies, Settings};
use libloading::Library;
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use trainer::cuda::Kernel;

/// Three numbers as C++ has them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3([u32; 3]);

type Emulated = unsafe extern "C" fn(Dim3, Dim3, u32, *mut *mut c_void);

/// A source's compiled library and what of it is called.
struct Loaded {
    library: Library,
    set_order: unsafe extern "C" fn(c_int),
    set_eager: unsafe extern "C" fn(c_int),
    launch: unsafe extern "C" fn(Emulated, *const u32, *const u32, u32, *mut *mut c_void) -> c_int,
    error: unsafe extern "C" fn() -> *const c_char,
    conflicts: unsafe extern "C" fn() -> u64,
    matrix_loads: unsafe extern "C" fn() -> u64,
}

/// Compiled sources, each loaded once in a process.
pub struct Kernels;

impl Kernels {
    /// One of the engine's kernels, compiled if it must be.
    pub fn open(kernel: &Kernel, settings: &Settings) -> Result<Function, EmulatorError> {
        Self::of(&Program::of(kernel)?, kernel.name, settings)
    }

    /// The kernel called `name` of a program.
    pub fn of(
        program: &Program,
        name: &str,
        settings: &Settings,
    ) -> Result<Function, EmulatorError> {
        static LOADED: OnceLock<Mutex<HashMap<PathBuf, Arc<Loaded>>>> = OnceLock::new();
        static PATHS: OnceLock<Mutex<HashMap<Program, PathBuf>>> = OnceLock::new();
        let paths = PATHS.get_or_init(Mutex::default);
        let known = paths.lock().unwrap_or_else(PoisonError::into_inner).get(program).cloned();
        let path = match known {
            Some(path) => path,
            None => {
                let path = program.library()?;
                paths
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(program.clone(), path.clone());
                path
            }
        };
        let failed = |error: libloading::Error| EmulatorError::Load {
            file: program.file.clone(),
            reason: error.to_string(),
        };
        let mut loaded =
            LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let library = match loaded.get(&path) {
            Some(library) => Arc::clone(library),
            None => {
                // SAFETY: we compiled it of our sources; it does nothing as it loads.
                let library = Arc::new(unsafe { Loaded::open(&path) }.map_err(failed)?);
                loaded.insert(path, Arc::clone(&library));
                library
            }
        };
        // SAFETY: EXPORT gives a function of this name this type.
        let kernel =
            *unsafe { library.library.get::<Emulated>(format!("emulate_{name}").as_bytes()) }
                .map_err(failed)?;
        Ok(Function { name: name.to_owned(), kernel, library, settings: *settings })
    }
}

impl Loaded {
    /// # Safety
    /// The library must be of emulate.cpp.
    unsafe fn open(path: &PathBuf) -> Result<Self, libloading::Error> {
        // SAFETY: the caller's; the types are those of emulate.cpp.
        unsafe {
            let library = Library::new(path)?;
            Ok(Self {
                set_order: *library.get(b"emu_set_order")?,
                set_eager: *library.get(b"emu_set_eager")?,
                launch: *library.get(b"emu_launch")?,
                error: *library.get(b"emu_error")?,
                conflicts: *library.get(b"emu_conflicts")?,
                matrix_loads: *library.get(b"emu_matrix_loads")?,
                library,
            })
        }
    }
}

/// A kernel that can be run.
#[derive(Clone)]
pub struct Function {
    name: String,
    kernel: Emulated,
    library: Arc<Loaded>,
    settings: Settings,
}

/// What a launch did besides its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// How often a matrix's eight rows were read by `load_matrix_x4`.
    pub matrix_loads: u64,
    /// Reads more than those because rows lie in the same banks of shared memory.
    pub conflicts: u64,
}

impl Function {
    /// The same kernel, run otherwise.
    #[must_use]
    pub fn with(&self, settings: Settings) -> Self {
        Self { settings, ..self.clone() }
    }

    /// Runs all of the kernel: `grid` blocks of `block` lanes with `shared` bytes of dynamic shared memory. Each of
    /// `arguments` is one parameter in the first bytes of a cell.
    ///
    /// # Safety
    /// The cells must be the kernel's parameters in number and kind, and its pointers must be to memory that it may read and
    /// write as it does.
    pub unsafe fn run(
        &self,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        arguments: &mut [u64],
    ) -> Result<Counts, EmulatorError> {
        let mut pointers: Vec<*mut c_void> =
            arguments.iter_mut().map(|cell| std::ptr::from_mut(cell).cast()).collect();
        let library = &self.library;
        // SAFETY: the caller's, for the kernel; the settings and the error are this thread's.
        unsafe {
            (library.set_order)(self.settings.order.number());
            (library.set_eager)(c_int::from(self.settings.copies == Copies::AtOnce));
            let failed = (library.launch)(
                self.kernel,
                grid.as_ptr(),
                block.as_ptr(),
                shared,
                pointers.as_mut_ptr(),
            );
            if failed != 0 {
                let text = (library.error)();
                let reason = if text.is_null() {
                    "?".into()
                } else {
                    CStr::from_ptr(text).to_string_lossy()
                };
                return Err(EmulatorError::Launch {
                    kernel: self.name.clone(),
                    settings: self.settings,
                    reason: reason.into_owned(),
                });
            }
            Ok(Counts { matrix_loads: (library.matrix_loads)(), conflicts: (library.conflicts)() })
        }
    }
}
