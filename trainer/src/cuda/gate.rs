//! The gate of the kernels: each is compiled for each architecture that is supported, and must keep to what an SM has.
//!
//! It needs NVRTC and no GPU: a spilled register or a tile that is too large for one card is found
//! before any card is met.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;

use super::compiler::{faults, Architecture, Compiled, Resources, Unit};
use super::cubins::Cubins;
use super::gpu::GpuError;
use super::kernel::Kernel;
use super::kernels;

/// A kernel on an architecture.
#[derive(Debug)]
pub struct Gated {
    /// Which.
    pub kernel: &'static Kernel,
    /// What it was compiled for.
    pub architecture: Architecture,
    /// What it takes, or why it does not compile.
    pub outcome: Result<Resources, GpuError>,
    /// What is wrong with it, a sentence a fault.
    pub faults: Vec<String>,
}

/// Compiles all kernels for the architectures, on so many threads, and says what each takes, in the order of the kernels.
pub fn gate(cubins: &Cubins, architectures: &[Architecture], threads: usize) -> Vec<Gated> {
    let units = Unit::all();
    let jobs: Vec<(Unit, Architecture)> = units
        .iter()
        .flat_map(|unit| architectures.iter().map(|architecture| (*unit, *architecture)))
        .collect();
    let compiled =
        each(&jobs, threads, |(unit, architecture)| cubins.compiled(unit, *architecture));
    let compiled = |kernel: &Kernel, architecture: Architecture| {
        let unit = Unit::of(kernel);
        jobs.iter().position(|job| *job == (unit, architecture)).and_then(|at| compiled.get(at))
    };
    let mut gated = Vec::new();
    for kernel in kernels::all() {
        for &architecture in architectures {
            gated.push(outcome(kernel, architecture, compiled(kernel, architecture)));
        }
    }
    gated
}

fn outcome(
    kernel: &'static Kernel,
    architecture: Architecture,
    compiled: Option<&Result<Compiled, GpuError>>,
) -> Gated {
    let not_there = || GpuError::Compile {
        kernel: kernel.name.to_owned(),
        log: format!("{} has no kernel of this name", Unit::of(kernel)),
    };
    let outcome = match compiled {
        Some(Ok(compiled)) => compiled.resources(kernel.name).ok_or_else(not_there),
        Some(Err(error)) => Err(error.clone()),
        None => Err(not_there()),
    };
    let faults = match &outcome {
        Ok(resources) => faults(kernel, resources, architecture),
        Err(error) => vec![error.to_string()],
    };
    Gated { kernel, architecture, outcome, faults }
}

/// Does something for each job, on so many threads; the results are in the order of the jobs.
pub(super) fn each<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(at) else { break };
                let result = work(job);
                done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((at, result));
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        let jobs: Vec<usize> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            assert_eq!(
                each(&jobs, threads, |job| job * 2),
                (0..200).step_by(2).collect::<Vec<_>>()
            );
        }
        assert_eq!(each(&[0; 0], 2, |job| *job), [0; 0]);
    }

    #[test]
    fn a_kernel_that_is_not_compiled_has_a_fault() {
        let Some(kernel) = kernels::all().next() else { return };
        let sm_80 = Architecture::of(80);
        let empty = Ok(Compiled { cubin: Vec::new(), log: String::new() });
        for compiled in [None, Some(&empty)] {
            let gated = outcome(kernel, sm_80, compiled);
            assert_eq!(gated.faults.len(), 1);
            assert!(gated.faults[0].contains(kernel.name), "{}", gated.faults[0]);
        }
    }
}
