//! The RPC methods beyond those that every node of this kind serves.

use std::sync::Arc;

use jsonrpsee::{core::RegisterMethodError, RpcModule};
use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
use runtime::opaque::Block;
use sc_transaction_pool::TransactionPoolHandle;
use substrate_frame_rpc_system::{System, SystemApiServer};

use crate::client::Client;

/// Account nonces, dry runs and fees.
pub(crate) fn extensions(
    client: Arc<Client>,
    pool: Arc<TransactionPoolHandle<Block, Client>>,
) -> Result<RpcModule<()>, RegisterMethodError> {
    let mut module = RpcModule::new(());
    module.merge(System::new(client.clone(), pool).into_rpc())?;
    module.merge(TransactionPayment::new(client).into_rpc())?;
    Ok(module)
}
