//! Asks the runtime itself, by the pallet's view functions, for what its constants decide.
//!
//! The answers are decoded here: subxt 0.51 takes the runtime's bytes for the view function's own.

use codec::{Decode, Encode};
use protocol::layout::Layout;
use subxt::{error::ViewFunctionError, view_functions::Payload};

use super::{
    super::views::{answer, question},
    api::{self, runtime_types::bounded_collections::bounded_vec::BoundedVec},
    transport, undecodable, AtBlock, ChainError, RunCost,
};

/// What creating a run with this layout costs.
///
/// # Errors
/// The node does not answer; its runtime has no such view function, or another one.
pub(super) async fn run_cost(at: &AtBlock, layout: &Layout) -> Result<RunCost, ChainError> {
    let view = api::view_functions().gauntlet().run_cost(BoundedVec(layout.0.clone()));
    ask(at, "what a run costs", view, &layout.0.encode()).await
}

/// What the view function answers that `view` names, to arguments of these bytes.
async fn ask<T: Decode>(
    at: &AtBlock,
    what: &'static str,
    view: impl Payload,
    arguments: &[u8],
) -> Result<T, ChainError> {
    let views = at.view_functions();
    // The types of arguments and answer are those of this client's metadata.
    views.validate(&view).map_err(view_error(what))?;
    let pallet = at.metadata_ref().pallet_by_name(view.pallet_name());
    let found = pallet.and_then(|pallet| pallet.view_function_by_name(view.function_name()));
    let found = found.ok_or_else(|| undecodable(what)("there is no such view".to_owned()))?;
    let question = question(found.query_id(), arguments);
    let returned = views.call_raw(Some(&question)).await.map_err(view_error(what))?;
    answer(&returned).map_err(undecodable(what))
}

/// Tells a node that does not answer from one of another version.
fn view_error(what: &'static str) -> impl Fn(ViewFunctionError) -> ChainError {
    move |error| match error {
        ViewFunctionError::CannotCallApi(error) => transport(error),
        other => undecodable(what)(other.to_string()),
    }
}
