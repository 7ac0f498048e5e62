//! Names what a processor computes with: some threads, and the unit that multiplies matrices on each.

pub(crate) mod aligned;
mod team;
pub mod threads;

pub mod matmul;
pub mod ops;

use self::matmul::MatrixUnit;
use self::threads::Threads;

/// Threads and their matrix unit. Cloning shares the threads.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The threads that compute at once.
    pub threads: Threads,
    /// What multiplies matrices on each of them.
    pub unit: MatrixUnit,
}

impl Compute {
    /// Takes these threads with the machine's best matrix unit.
    pub fn new(threads: Threads) -> Self {
        Self { threads, unit: MatrixUnit::best() }
    }

    /// Takes another matrix unit than the machine's best; one that the machine lacks changes nothing.
    pub fn with_unit(self, unit: MatrixUnit) -> Self {
        match unit.available() {
            true => Self { unit, ..self },
            false => self,
        }
    }
}

impl From<Threads> for Compute {
    fn from(threads: Threads) -> Self {
        Self::new(threads)
    }
}
