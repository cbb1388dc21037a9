//! The key that tokens are made with, as a file has it: PEM, or the text of a secret. Knows no token.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use data_encoding::{BASE64URL_NOPAD, Encoding};
use tokio_rustls::rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The shortest secret, bytes. A shorter one can be guessed from any token.
const SECRET_MIN: usize = 16;

/// A key.
pub(crate) enum Key {
    /// A secret: whoever knows it can make tokens and read them.
    Secret(Vec<u8>),
    /// Half of a pair, or both: with the private half encrypted tokens are opened.
    Rsa { public: Public, private: Option<Box<OaepPrivateDecryptingKey>> },
    /// A key pair that only signs: its public half.
    Other(Public),
}

/// The public half of a pair.
pub(crate) struct Public {
    /// None: RSA.
    pub(super) curve: Option<Curve>,
    /// As `aws-lc-rs` takes it.
    pub(super) der: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
    Ed25519,
}

impl Key {
    /// Reads what a key file has in it.
    pub(crate) fn read(text: &[u8]) -> Result<Self, &'static str> {
        let text =
            std::str::from_utf8(text).map_err(|_| "it is neither PEM nor the text of a secret")?;
        match text {
            _ if text.contains("-----BEGIN ") => pem(text),
            _ if has_other_form(text) => Err("it is neither PEM nor the text of a secret"),
            _ => secret(text),
        }
    }

    pub(super) fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

/// Whether a text is a key as JSON, XML or SSH have it. Its letters could be decoded as a secret; but if the key is public,
/// everybody may know that secret.
fn has_other_form(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[', '<'])
        || ["BEGIN ", " AAAA"].iter().any(|mark| text.contains(mark))
}

/// Whether the bytes are those of a public key, which PEM and SSH have encoded in base64.
fn is_public(bytes: &[u8]) -> bool {
    // SSH's form begins with the length of the name of the key's type.
    let is_ssh =
        |after: &[u8]| [&b"ssh-"[..], b"ecdsa-", b"sk-"].iter().any(|kind| after.starts_with(kind));
    SubjectPublicKeyInfo::from_der(bytes).is_ok()
        || parse_x509_certificate(bytes).is_ok()
        || bytes.get(4..).is_some_and(is_ssh)
}

/// The text is a JSON Web Key's `k`, base64url, as Python decodes it for upstream: other characters are skipped, plain base64 and
/// padding mean the same.
fn secret(text: &str) -> Result<Key, &'static str> {
    let is_meant = |letter: &char| letter.is_ascii_alphanumeric() || "-_+/".contains(*letter);
    let text: String = text.chars().filter(is_meant).collect();
    let secret =
        lenient().decode(text.as_bytes()).map_err(|_| "it is neither PEM nor base64url")?;
    match secret.len() {
        ..SECRET_MIN => Err("its secret is shorter than 16 bytes, written in base64url"),
        _ if is_public(&secret) => Err("its secret is a public key, which is to be PEM"),
        _ => Ok(Key::Secret(secret)),
    }
}

fn lenient() -> Encoding {
    let mut specification = BASE64URL_NOPAD.specification();
    specification.check_trailing_bits = false;
    specification.translate.from = "+/".into();
    specification.translate.to = "-_".into();
    specification.encoding().expect("plain base64 has two other letters")
}

fn pem(text: &str) -> Result<Key, &'static str> {
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|_| "its PEM cannot be read")?;
        let key = match kind {
            SectionKind::PrivateKey => private(&der),
            SectionKind::RsaPrivateKey => rsa(RsaKeyPair::from_der(&der).ok()),
            SectionKind::EcPrivateKey => ec(&der),
            SectionKind::PublicKey => public(&der),
            SectionKind::Certificate => {
                let certificate = parse_x509_certificate(&der).ok();
                certificate.and_then(|(_, certificate)| public(certificate.public_key().raw))
            }
            _ => continue,
        };
        return key.ok_or(
            "its key is none of RSA of 2048 bits and more, P-256, P-384, P-521 and Ed25519",
        );
    }
    Err("its PEM has no key that can be read without a password")
}

fn private(der: &[u8]) -> Option<Key> {
    let ed25519 = || {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let der = pair.public_key().as_ref().to_owned();
        Some(Key::Other(Public { curve: Some(Curve::Ed25519), der }))
    };
    rsa(RsaKeyPair::from_pkcs8(der).ok()).or_else(|| ec(der)).or_else(ed25519)
}

fn rsa(pair: Option<RsaKeyPair>) -> Option<Key> {
    let pair = pair?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    let public = Public { curve: None, der: public.as_ref().to_owned() };
    let private: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    let private = PrivateDecryptingKey::from_pkcs8(private.as_ref()).ok()?;
    let private = OaepPrivateDecryptingKey::new(private).ok()?;
    Some(Key::Rsa { public, private: Some(private.into()) })
}

fn ec(der: &[u8]) -> Option<Key> {
    let curves = [
        (Curve::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
        (Curve::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        (Curve::P521, &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    curves.into_iter().find_map(|(curve, algorithm)| {
        let pair = EcdsaKeyPair::from_private_key_der(algorithm, der).ok()?;
        let der = pair.public_key().as_ref().to_owned();
        Some(Key::Other(Public { curve: Some(curve), der }))
    })
}

/// The key in a `SubjectPublicKeyInfo`.
fn public(der: &[u8]) -> Option<Key> {
    let kinds: [(_, &'static dyn VerificationAlgorithm); 5] = [
        (None, &RSA_PKCS1_2048_8192_SHA256),
        (Some(Curve::P256), &ECDSA_P256_SHA256_FIXED),
        (Some(Curve::P384), &ECDSA_P384_SHA384_FIXED),
        (Some(Curve::P521), &ECDSA_P521_SHA512_FIXED),
        (Some(Curve::Ed25519), &ED25519),
    ];
    let is_of = |algorithm| ParsedPublicKey::new(algorithm, der).is_ok();
    let (curve, _) = kinds.into_iter().find(|(_, algorithm)| is_of(*algorithm))?;
    let public = Public { curve, der: der.to_owned() };
    Some(match curve {
        None => Key::Rsa { public, private: None },
        Some(_) => Key::Other(public),
    })
}

/// The kind of key alone: the rest may be secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Rsa { .. } => "Rsa",
            Self::Other(_) => "Other",
        })
    }
}
