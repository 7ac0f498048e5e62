//! Names the types that a node is put together from: the client and its database, the pool and the chain's rules.

use runtime::{apis::RuntimeApi, opaque::Block};
use sc_consensus::LongestChain;
use sc_executor::WasmExecutor;
use sc_transaction_pool::TransactionPoolHandle;

/// The chain's database, executor and runtime behind one handle.
pub(crate) type Client =
    sc_service::TFullClient<Block, RuntimeApi, WasmExecutor<sp_io::SubstrateHostFunctions>>;
/// The database below a [`Client`].
pub(crate) type Backend = sc_service::TFullBackend<Block>;
/// The rule that the longest chain is the best.
pub(crate) type SelectChain = LongestChain<Backend, Block>;
/// The extrinsics that wait for a block.
pub(crate) type Pool = TransactionPoolHandle<Block, Client>;
