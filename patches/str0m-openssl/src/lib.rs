//! Refuses WebRTC, in the place of its OpenSSL back end.
//!
//! The SDK's network library always compiles its WebRTC transport, which browsers use to reach a node, and with it a copy of
//! OpenSSL. No participant of ours is a browser. With this crate in the place of the back end every handshake fails with an
//! error that says why; the node, which knows, does not listen for any.

mod refusal;

mod srtp;

use std::time::Instant;

use hmac::{Hmac, Mac};
use refusal::refusal;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use srtp::NoSrtp;
use str0m_proto::{
    crypto::{
        dtls::{DtlsCert, DtlsInstance, DtlsProvider},
        CryptoError, CryptoProvider, DtlsVersion, Sha256Provider,
    },
    Sha1HmacProvider,
};

/// The back end that has hashes and no sessions.
pub fn default_provider() -> CryptoProvider {
    CryptoProvider {
        srtp_provider: &NoSrtp,
        sha1_hmac_provider: &Hashes,
        sha256_provider: &Hashes,
        dtls_provider: &NoDtls,
    }
}

#[derive(Debug)]
struct Hashes;

impl Sha1HmacProvider for Hashes {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else {
            unreachable!("a key of HMAC may have any length");
        };
        payloads.iter().for_each(|payload| mac.update(payload));
        mac.finalize().into_bytes().into()
    }
}

impl Sha256Provider for Hashes {
    fn sha256(&self, data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }
}

#[derive(Debug)]
struct NoDtls;

impl DtlsProvider for NoDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        None
    }

    fn new_dtls(
        &self,
        _cert: &DtlsCert,
        _now: Instant,
        _dtls_version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        Err(refusal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_refused_with_the_reason() {
        let provider = default_provider().dtls_provider;
        assert!(provider.generate_certificate().is_none());
        let certificate = DtlsCert { certificate: Vec::new(), private_key: Vec::new() };
        let refused = provider.new_dtls(&certificate, Instant::now(), DtlsVersion::Dtls12, None);
        assert_eq!(
            refused.map(drop).map_err(|error| error.to_string()),
            Err(refusal::REASON.to_owned())
        );
    }

    /// Case 2 of RFC 2202 and the one-block message of FIPS 180-4.
    #[test]
    fn hashes_are_the_published_ones() {
        let mac = Hashes.sha1_hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(mac[..4], [0xef, 0xfc, 0xdf, 0x6a]);
        assert_eq!(Hashes.sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
