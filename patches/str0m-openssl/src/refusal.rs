//! The error of whoever asks for a session.

use str0m_proto::crypto::CryptoError;

/// Why there is no session.
pub(crate) const REASON: &str = "this program is built without WebRTC";

pub(crate) fn refusal() -> CryptoError {
    CryptoError::Other(REASON.to_owned())
}
