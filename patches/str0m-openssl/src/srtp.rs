//! The encryption of media, which is asked for by type and never used: its keys come out of a handshake, and there is none.

use str0m_proto::crypto::{
    AeadAes128GcmCipher, AeadAes256GcmCipher, Aes128CmSha1_80Cipher, CryptoError, SrtpProvider,
    SupportedAeadAes128Gcm, SupportedAeadAes256Gcm, SupportedAes128CmSha1_80,
};

use crate::refusal::refusal;

/// Stands for the provider, its factories and their ciphers.
#[derive(Debug)]
pub(crate) struct NoSrtp;

impl SrtpProvider for NoSrtp {
    fn aes_128_cm_sha1_80(&self) -> &'static dyn SupportedAes128CmSha1_80 {
        &Self
    }

    fn aead_aes_128_gcm(&self) -> &'static dyn SupportedAeadAes128Gcm {
        &Self
    }

    fn aead_aes_256_gcm(&self) -> &'static dyn SupportedAeadAes256Gcm {
        &Self
    }

    fn srtp_aes_128_ecb_round(&self, _key: &[u8], _input: &[u8], _output: &mut [u8]) {
        unreachable!("no handshake, no key");
    }

    fn srtp_aes_256_ecb_round(&self, _key: &[u8], _input: &[u8], _output: &mut [u8]) {
        unreachable!("no handshake, no key");
    }
}

impl SupportedAes128CmSha1_80 for NoSrtp {
    fn create_cipher(&self, _key: [u8; 16], _encrypt: bool) -> Box<dyn Aes128CmSha1_80Cipher> {
        Box::new(Self)
    }
}

impl SupportedAeadAes128Gcm for NoSrtp {
    fn create_cipher(&self, _key: [u8; 16], _encrypt: bool) -> Box<dyn AeadAes128GcmCipher> {
        Box::new(Self)
    }
}

impl SupportedAeadAes256Gcm for NoSrtp {
    fn create_cipher(&self, _key: [u8; 32], _encrypt: bool) -> Box<dyn AeadAes256GcmCipher> {
        Box::new(Self)
    }
}

impl Aes128CmSha1_80Cipher for NoSrtp {
    fn encrypt(
        &mut self,
        _iv: &[u8; 16],
        _input: &[u8],
        _output: &mut [u8],
    ) -> Result<(), CryptoError> {
        Err(refusal())
    }

    fn decrypt(
        &mut self,
        _iv: &[u8; 16],
        _input: &[u8],
        _output: &mut [u8],
    ) -> Result<(), CryptoError> {
        Err(refusal())
    }
}

impl AeadAes128GcmCipher for NoSrtp {
    fn encrypt(
        &mut self,
        _iv: &[u8; 12],
        _aad: &[u8],
        _input: &[u8],
        _output: &mut [u8],
    ) -> Result<(), CryptoError> {
        Err(refusal())
    }

    fn decrypt(
        &mut self,
        _iv: &[u8; 12],
        _aads: &[&[u8]],
        _input: &[u8],
        _output: &mut [u8],
    ) -> Result<usize, CryptoError> {
        Err(refusal())
    }
}

impl AeadAes256GcmCipher for NoSrtp {
    fn encrypt(
        &mut self,
        _iv: &[u8; 12],
        _aad: &[u8],
        _input: &[u8],
        _output: &mut [u8],
    ) -> Result<(), CryptoError> {
        Err(refusal())
    }

    fn decrypt(
        &mut self,
        _iv: &[u8; 12],
        _aads: &[&[u8]],
        _input: &[u8],
        _output: &mut [u8],
    ) -> Result<usize, CryptoError> {
        Err(refusal())
    }
}
