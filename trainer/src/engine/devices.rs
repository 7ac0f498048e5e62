//! Opens a device by its name: the one place that lists them.

use std::sync::Arc;

use crate::compute::matmul::MatrixUnit;
use crate::compute::threads::Threads;
use crate::compute::Compute;
use crate::cuda::{Cards, Chosen, Cuda};
use crate::engine::candle::Candle;
use crate::engine::cpu::Cpu;
use crate::engine::device::{Device, DeviceError};

/// The devices that this program has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeviceKind {
    /// Our engine on this machine's best matrix unit.
    #[default]
    Cpu,
    /// Our engine on the vector unit, as on a processor without AMX.
    Vector,
    /// Our engine with the products of the gemm crate, as on a processor that is not x86-64.
    Portable,
    /// The same model with candle's autograd, to check ours.
    Candle,
    /// NVIDIA's GPUs.
    Cuda(Chosen),
}

/// Opens a device on a host with these threads.
///
/// # Errors
/// This machine has no such device.
pub fn open(kind: DeviceKind, threads: Threads) -> Result<Arc<dyn Device>, DeviceError> {
    let unit = match kind {
        DeviceKind::Candle => return Ok(Arc::new(Candle::new(threads))),
        DeviceKind::Cuda(chosen) => {
            let cards = Cards::find(chosen).map_err(|error| DeviceError::Refused {
                device: "cuda",
                reason: error.to_string(),
            })?;
            return Ok(Arc::new(Cuda::fitting(Arc::new(cards), threads)));
        }
        DeviceKind::Cpu => MatrixUnit::best(),
        DeviceKind::Vector => MatrixUnit::Vector,
        DeviceKind::Portable => MatrixUnit::Portable,
    };
    if !unit.available() {
        let reason = "this machine has no such unit".to_owned();
        return Err(DeviceError::Refused { device: "cpu", reason });
    }
    Ok(Arc::new(Cpu::new(Compute::new(threads).with_unit(unit))))
}
