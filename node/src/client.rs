//! Names the type of the handle through which everything in the node reads and writes the chain.

use runtime::{apis::RuntimeApi, opaque::Block};
use sc_executor::WasmExecutor;

/// The chain's database, executor and runtime behind one handle.
pub(crate) type Client =
    sc_service::TFullClient<Block, RuntimeApi, WasmExecutor<sp_io::SubstrateHostFunctions>>;
