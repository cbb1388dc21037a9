//! The decryption of a token (RFC 7516, RFC 7518, sections 4 and 5). The error of a failed decryption does not say which step
//! failed, so that an attacker learns nothing from it. Knows keys and algorithms; must not know what the text means.

use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA512};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{self, AesBlockCipher, AesKek, KeyWrap};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
};

use super::compact::Encrypted;
use super::key::Key;
use super::{Invalid, OTHER_ALGORITHM};

const FAILED: Invalid = "it cannot be decrypted with the key";

impl Encrypted<'_> {
    /// The text, if the token is encrypted for this key.
    pub(super) fn decrypted(&self, key: &Key) -> Result<Vec<u8>, Invalid> {
        let key = self.content_key(key)?;
        match &*self.encryption {
            "A128GCM" => self.gcm(&AES_128_GCM, &key),
            "A256GCM" => self.gcm(&AES_256_GCM, &key),
            "A128CBC-HS256" => self.cbc(&AES_128, HMAC_SHA256, &key),
            "A256CBC-HS512" => self.cbc(&AES_256, HMAC_SHA512, &key),
            _ => Err("its encryption is none of A128GCM, A256GCM, A128CBC-HS256 and A256CBC-HS512"),
        }
    }

    /// The key that the text is encrypted with, which is ours or is encrypted with ours.
    fn content_key(&self, key: &Key) -> Result<Vec<u8>, Invalid> {
        match (key, &*self.algorithm) {
            (Key::Secret(secret), "dir") if self.key.is_empty() => Ok(secret.clone()),
            (Key::Secret(secret), "A128KW") => self.unwrapped(&key_wrap::AES_128, secret),
            (Key::Secret(secret), "A256KW") => self.unwrapped(&key_wrap::AES_256, secret),
            (Key::Rsa { private: Some(key), .. }, "RSA-OAEP") => {
                self.opened(&OAEP_SHA1_MGF1SHA1, key)
            }
            (Key::Rsa { private: Some(key), .. }, "RSA-OAEP-256") => {
                self.opened(&OAEP_SHA256_MGF1SHA256, key)
            }
            (Key::Secret(_) | Key::Rsa { .. } | Key::Other(_), _) => Err(OTHER_ALGORITHM),
        }
    }

    fn unwrapped(
        &self,
        cipher: &'static AesBlockCipher,
        secret: &[u8],
    ) -> Result<Vec<u8>, Invalid> {
        let kek = AesKek::new(cipher, secret)
            .map_err(|_| "the key has another length than its algorithm")?;
        let mut room = vec![0; self.key.len()];
        let key = kek.unwrap(&self.key, &mut room).map_err(|_| FAILED)?;
        Ok(key.to_owned())
    }

    fn opened(
        &self,
        algorithm: &'static OaepAlgorithm,
        key: &OaepPrivateDecryptingKey,
    ) -> Result<Vec<u8>, Invalid> {
        let mut room = vec![0; key.min_output_size()];
        let key = key.decrypt(algorithm, &self.key, &mut room, None).map_err(|_| FAILED)?;
        Ok(key.to_owned())
    }

    fn gcm(&self, algorithm: &'static aead::Algorithm, key: &[u8]) -> Result<Vec<u8>, Invalid> {
        let key = UnboundKey::new(algorithm, key).map_err(|_| FAILED)?;
        let nonce = Nonce::try_assume_unique_for_key(&self.nonce).map_err(|_| FAILED)?;
        let (header, mut text) = (Aad::from(self.header), vec![0; self.text.len()]);
        LessSafeKey::new(key)
            .open_separate_gather(nonce, header, &self.text, &self.tag, &mut text)
            .map_err(|_| FAILED)?;
        Ok(text)
    }

    /// RFC 7518, section 5.2.2: half of the key is for the tag, which is half of a MAC, and half for the text.
    fn cbc(
        &self,
        algorithm: &'static cipher::Algorithm,
        mac: hmac::Algorithm,
        key: &[u8],
    ) -> Result<Vec<u8>, Invalid> {
        let half = mac.tag_len() / 2;
        let (for_tag, for_text) =
            key.split_at_checked(half).filter(|(_, rest)| rest.len() == half).ok_or(FAILED)?;
        let mut computed = hmac::Context::with_key(&hmac::Key::new(mac, for_tag));
        for part in [self.header.as_bytes(), &self.nonce, &self.text] {
            computed.update(part);
        }
        computed.update(&(self.header.len() as u64 * 8).to_be_bytes());
        verify_slices_are_equal(&computed.sign().as_ref()[..half], &self.tag)
            .map_err(|_| FAILED)?;
        let nonce = FixedLength::try_from(&*self.nonce).map_err(|_| FAILED)?;
        let key = UnboundCipherKey::new(algorithm, for_text).map_err(|_| FAILED)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| FAILED)?;
        let mut text = self.text.clone();
        let text = key.decrypt(&mut text, DecryptionContext::Iv128(nonce)).map_err(|_| FAILED)?;
        Ok(text.to_owned())
    }
}
