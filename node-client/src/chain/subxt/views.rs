//! Asks the runtime itself, by the pallet's view functions, for what its constants decide.
//!
//! The answers are decoded here: subxt 0.51 takes the runtime's bytes for the view function's own.

use codec::Decode;
use subxt::{
    client::{ClientAtBlock, OnlineClientAtBlockImpl},
    error::{BackendError, ViewFunctionError},
    view_functions::Payload,
    PolkadotConfig,
};

use crate::chain::views::{answer, question};

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// The node does not say anything.
    Node(BackendError),
    /// The runtime has no such view function, or another one: the reason.
    Runtime(String),
}

impl From<ViewFunctionError> for NoAnswer {
    fn from(error: ViewFunctionError) -> Self {
        match error {
            ViewFunctionError::CannotCallApi(error) => Self::Node(error),
            other => Self::Runtime(other.to_string()),
        }
    }
}

/// What the view function answers that `view` names, to arguments of these bytes.
pub(super) async fn ask<T: Decode>(
    at: &ClientAtBlock<PolkadotConfig, OnlineClientAtBlockImpl<PolkadotConfig>>,
    view: impl Payload,
    arguments: &[u8],
) -> Result<T, NoAnswer> {
    let views = at.view_functions();
    // The types of arguments and answer are those of this client's metadata.
    views.validate(&view)?;
    let pallet = at.metadata_ref().pallet_by_name(view.pallet_name());
    let found = pallet.and_then(|pallet| pallet.view_function_by_name(view.function_name()));
    let found = found.ok_or_else(|| NoAnswer::Runtime("there is no such view".to_owned()))?;
    let question = question(found.query_id(), arguments);
    let returned = views.call_raw(Some(&question)).await?;
    answer(&returned).map_err(NoAnswer::Runtime)
}
