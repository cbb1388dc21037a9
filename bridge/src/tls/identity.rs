//! Our own certificate with its chain and key, read from files. Must not know who is shown it.

use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use x509_parser::der_parser::ber::BerObjectContent;
use x509_parser::der_parser::parse_der;

use super::certificate::{Age, date, facts, now};
use super::password::{is_locked, unlock};
use super::{Files, Provider, Sources, Unusable, broken, certificates, read, rustls_text};

const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";

/// The shortest RSA key that is accepted, in bits: a shorter one can be broken.
const LEAST_RSA: usize = 2048;

/// Reads certificate and key, and checks that they belong together. A certificate that is not valid now
/// is used, with a warning: that is better than none, and each client decides whether it accepts it.
pub(super) fn load(
    files: &Files,
    sources: Sources,
    provider: &Provider,
    warnings: &mut Vec<String>,
) -> Result<SingleCertAndKey, Unusable> {
    let path = &files.certificate;
    let text = read(CERTIFICATE, path, sources)?;
    let chain = certificates(CERTIFICATE, path, &text)?;
    let ours = facts(&chain[0])
        .ok_or_else(|| Unusable::wrong(CERTIFICATE, path, "is damaged: not X.509"))?;
    let key = load_key(files, sources, text)?;
    let key_path = files.key.as_ref().unwrap_or(path);
    let length = rsa_length(&key);
    let signer = provider.key_provider.load_private_key(key).map_err(|error| {
        let problem = match length {
            Some(bits @ ..LEAST_RSA) => {
                format!("is too short: an RSA key of {bits} bits, and {LEAST_RSA} are the least")
            }
            _ => format!("is unusable: {}", rustls_text(&error)),
        };
        Unusable::wrong(KEY, key_path, problem)
    })?;
    // rustls would compare them too, but cannot read an X.509 v1 certificate, which old
    // installations have and clients accept.
    if signer.public_key().is_some_and(|public| *public != *ours.public_key) {
        let problem = format!("does not match certificate {}", path.display());
        return Err(Unusable::wrong(KEY, key_path, problem));
    }
    let path = path.display();
    match ours.validity.at(now()) {
        Age::Valid => {}
        Age::Expired => {
            let date = date(ours.validity.until);
            warnings.push(format!("certificate {path} has expired: it was valid until {date}"));
        }
        Age::NotYetValid => {
            let date = date(ours.validity.from);
            warnings.push(format!("certificate {path} is not valid before {date}"));
        }
    }
    Ok(SingleCertAndKey::from(CertifiedKey::new(chain, signer)))
}

/// How many bits an RSA key has: as many as its modulus (RFC 8017, A.1.2). In PKCS#8 the RSA key stands within
/// an octet string (RFC 5958, section 2). `None`: it is another kind of key.
fn rsa_length(key: &PrivateKeyDer<'_>) -> Option<usize> {
    let (_, outer) = parse_der(key.secret_der()).ok()?;
    let (_, inner) = match key {
        PrivateKeyDer::Pkcs8(_) => parse_der(outer.as_sequence().ok()?.get(2)?.as_slice().ok()?),
        _ => parse_der(key.secret_der()),
    }
    .ok()?;
    let BerObjectContent::Integer(modulus) = inner.as_sequence().ok()?.get(1)?.content else {
        return None;
    };
    let first = modulus.iter().position(|byte| *byte != 0)?;
    Some((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize)
}

/// The first key of the key file or, if there is none, of the certificate file, whose content is `text`.
fn load_key(
    files: &Files,
    sources: Sources,
    text: Vec<u8>,
) -> Result<PrivateKeyDer<'static>, Unusable> {
    let (path, text) = match &files.key {
        Some(path) => (path, read(KEY, path, sources)?),
        None => (&files.certificate, text),
    };
    let role = if files.key.is_some() { KEY } else { CERTIFICATE };
    PrivateKeyDer::from_pem_slice(&text).or_else(|error| {
        if is_locked(&text) {
            let password = files.password.as_ref();
            return unlock(&text, password, sources, role, path);
        }
        let problem = match error {
            PemError::NoItemsFound if files.key.is_none() => {
                "has no private key in it, and no --key is given".into()
            }
            PemError::NoItemsFound => "has no private key in it".into(),
            error => broken(&error),
        };
        Err(Unusable::wrong(role, path, problem))
    })
}
