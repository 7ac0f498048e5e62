//! Adds the RPC methods beyond those that every node of this kind serves.

use std::sync::Arc;

use jsonrpsee::{core::RegisterMethodError, RpcModule};
use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
use substrate_frame_rpc_system::{System, SystemApiServer};

use crate::client::{Client, Pool};

/// The methods for account nonces, dry runs and fees.
pub(crate) fn extensions(
    client: Arc<Client>,
    pool: Arc<Pool>,
) -> Result<RpcModule<()>, RegisterMethodError> {
    let mut module = RpcModule::new(());
    module.merge(System::new(client.clone(), pool).into_rpc())?;
    module.merge(TransactionPayment::new(client).into_rpc())?;
    Ok(module)
}
