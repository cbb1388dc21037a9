//! Whether a token is genuine (RFC 7515, RFC 7518, section 3). The kind of the key decides which algorithms are accepted, and not
//! the token: who could choose the algorithm could forge tokens. Knows keys and algorithms; must not know what the payload means.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::compact::Signed;
use super::key::{Key, Public};
use super::{Invalid, OTHER_ALGORITHM};

impl Signed<'_> {
    /// The payload, if the key made the signature.
    pub(super) fn verified(&self, key: &Key) -> Result<&[u8], Invalid> {
        let (message, signature) = (self.message.as_bytes(), &*self.signature);
        let is_genuine = match key {
            Key::Secret(secret) => {
                let secret = hmac::Key::new(mac(&self.algorithm)?, secret);
                hmac::verify(&secret, message, signature)
            }
            Key::Rsa { public, .. } | Key::Other(public) => {
                let algorithm = of_public_key(public, &self.algorithm)?;
                UnparsedPublicKey::new(algorithm, &public.der).verify(message, signature)
            }
        };
        is_genuine.map(|()| &*self.payload).map_err(|_| "its signature is not the key's")
    }
}

fn mac(name: &str) -> Result<hmac::Algorithm, Invalid> {
    Ok(match name {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return Err(OTHER_ALGORITHM),
    })
}

fn of_public_key(key: &Public, name: &str) -> Result<&'static dyn VerificationAlgorithm, Invalid> {
    use super::key::Curve::{Ed25519, P256, P384, P521};
    Ok(match (key.curve, name) {
        (None, "RS256") => &RSA_PKCS1_2048_8192_SHA256,
        (None, "RS384") => &RSA_PKCS1_2048_8192_SHA384,
        (None, "RS512") => &RSA_PKCS1_2048_8192_SHA512,
        (None, "PS256") => &RSA_PSS_2048_8192_SHA256,
        (None, "PS384") => &RSA_PSS_2048_8192_SHA384,
        (None, "PS512") => &RSA_PSS_2048_8192_SHA512,
        (Some(P256), "ES256") => &ECDSA_P256_SHA256_FIXED,
        (Some(P384), "ES384") => &ECDSA_P384_SHA384_FIXED,
        (Some(P521), "ES512") => &ECDSA_P521_SHA512_FIXED,
        (Some(Ed25519), "EdDSA" | "Ed25519") => &ED25519,
        _ => return Err(OTHER_ALGORITHM),
    })
}
