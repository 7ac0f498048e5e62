//! Checks that an update is in proportion to the model, so that a validator may attest it.

use crate::{
    aggregate::TensorUpdate,
    layout::Layout,
    update::{Payload, UpdateError},
};

/// The most that an update's norm may be, in norms of the model. No training gets beyond it, and the median of the
/// norms bounds nothing where few updates are accepted.
pub const NORM_FACTOR_MAX: f64 = 4.0;

/// Why an update may not be attested.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ValidityError {
    /// The payload has no such tensor of the layout, by number.
    #[error("tensor {0} is missing")]
    Tensor(u32),
    /// The payload does not decode.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The update's norm is out of proportion to the model's.
    #[error("its norm is {norm}, the model's is {model_norm}")]
    Norm {
        /// The norm of the update's values.
        norm: f64,
        /// The norm of the model's parameters.
        model_norm: f64,
    },
}

/// Refuses an update unless `norm ≤ 4 · model norm` ([`NORM_FACTOR_MAX`]); a norm that is not a number is refused too.
///
/// `norm = sqrt(Σ over tensors of norm_t²)` with [`TensorUpdate::norm`]; the model's is that of all `parameters`, in
/// the layout's order, in f64.
///
/// # Errors
/// The update has not all tensors, does not decode or is too large.
pub fn check_norm(
    payload: &Payload<'_>,
    layout: &Layout,
    parameters: impl IntoIterator<Item = f32>,
) -> Result<(), ValidityError> {
    let mut squares = 0.0;
    for tensor in 0..layout.0.len() as u32 {
        let part = TensorUpdate::new(payload, layout, tensor);
        squares += part.ok_or(ValidityError::Tensor(tensor))?.norm()?.powi(2);
    }
    let norm = f64::sqrt(squares);
    let values = parameters.into_iter().map(|value| f64::from(value).powi(2));
    let model_norm = values.sum::<f64>().sqrt();
    if norm <= NORM_FACTOR_MAX * model_norm {
        return Ok(());
    }
    Err(ValidityError::Norm { norm, model_norm })
}
