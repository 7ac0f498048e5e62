//! Emulated GPUs for a device: how many, in which order their streams run, what goes wrong.

use std::sync::{Arc, Mutex};

use cuda_emulator::{Behaviour, Emulated, Log};
use trainer::cuda::{memory, GpuError};
use trainer::cuda::{Cuda, CudaSettings, Gpus, Seat};
use trainer::Threads;

/// A card that falls off the bus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) rank: usize,
    /// Operations that it still does.
    pub(crate) after: u64,
}

#[derive(Clone)]
pub(crate) struct Emulators {
    world: usize,
    behaviour: Behaviour,
    fault: Arc<Mutex<Option<Fault>>>,
    logs: Vec<Arc<Log>>,
}

impl Emulators {
    pub(crate) fn new(world: usize) -> Self {
        let logs = (0..world).map(|_| Arc::default()).collect();
        Self { world, behaviour: Behaviour::default(), fault: Arc::default(), logs }
    }

    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.behaviour.seed = seed;
        self
    }

    /// GPUs that go on where the engine lets a stream wait for another.
    pub(crate) fn forgetting_waits(mut self) -> Self {
        self.behaviour.forgets_waits = true;
        self
    }

    pub(crate) fn with_memory(mut self, bytes: u64) -> Self {
        self.behaviour.memory = bytes;
        self
    }

    pub(crate) fn failing(self, fault: Fault) -> Self {
        *self.fault.lock().unwrap() = Some(fault);
        self
    }

    pub(crate) fn repair(&self) {
        *self.fault.lock().unwrap() = None;
    }

    pub(crate) fn device(&self, settings: CudaSettings) -> Cuda {
        Cuda::new(Arc::new(self.clone()), Threads::single(), settings)
    }

    pub(crate) fn allocated(&self) -> Vec<Vec<u64>> {
        self.logs.iter().map(|log| log.counts().allocated).collect()
    }

    pub(crate) fn pinned(&self) -> Vec<Vec<u64>> {
        self.logs.iter().map(|log| log.counts().pinned).collect()
    }

    /// Allocations with broken guards, of GPUs that are dropped.
    pub(crate) fn damaged(&self) -> usize {
        self.logs.iter().map(|log| log.counts().broken_guards).sum()
    }

    pub(crate) fn launched(&self, kernel: &str) -> u64 {
        let of = |log: &Arc<Log>| log.counts().launches.get(kernel).copied().unwrap_or(0);
        self.logs.iter().map(of).sum()
    }

    pub(crate) fn uploaded(&self) -> u64 {
        self.logs.iter().map(|log| log.counts().uploaded).sum()
    }
}

impl Gpus for Emulators {
    fn name(&self) -> String {
        format!("{} emulated", self.world)
    }

    fn memory(&self) -> (usize, u64) {
        (self.world, self.behaviour.memory)
    }

    fn open(&self) -> Result<Vec<Seat>, GpuError> {
        let fault = *self.fault.lock().unwrap();
        let seats = memory::join(self.world).into_iter().zip(&self.logs).enumerate();
        let seat = |(rank, (collective, log)): (usize, (memory::Memory, &Arc<Log>))| {
            let fault = match fault {
                Some(fault) if fault.rank == rank => cuda_emulator::Fault::Lost(fault.after),
                _ => cuda_emulator::Fault::None,
            };
            let seed = self.behaviour.seed + rank as u64;
            let behaviour = Behaviour { seed, fault, ..self.behaviour };
            let gpu = Box::new(Emulated::with_log(behaviour, log.clone()));
            Seat { gpu, collective: Box::new(collective) }
        };
        Ok(seats.map(seat).collect())
    }
}
