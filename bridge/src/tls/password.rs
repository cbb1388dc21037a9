//! Private keys that are encrypted ("locked") with a password, and where the password is. Knows PKCS#8's encryption
//! (RFC 5958, section 3). OpenSSL's own formats are recognized, but not decrypted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use x509_parser::pem::Pem;

use super::{Sources, Unusable, contains, file};

/// How long a password file may be, bytes.
const LONGEST: u64 = 64 * 1024;

const PASSWORD: &str = "key password";
/// The label of an encrypted key in PKCS#8 (RFC 7468, section 11).
const LOCKED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// The header of an encrypted key in OpenSSL's traditional formats.
const TRADITIONAL: &str = "Proc-Type: 4,ENCRYPTED";

/// The password of our key, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyPassword {
    /// This text.
    Text(String),
    /// The first line of this file, read whenever the key is.
    File(PathBuf),
}

/// A password is shown to nobody.
impl fmt::Debug for KeyPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl KeyPassword {
    fn bytes(&self, sources: Sources) -> Result<Vec<u8>, Unusable> {
        let path = match self {
            Self::Text(text) => return Ok(text.clone().into_bytes()),
            Self::File(path) => path,
        };
        first_line(path, sources).map_err(|source| Unusable::Unreadable {
            role: PASSWORD,
            path: path.clone(),
            source,
        })
    }
}

fn first_line(path: &Path, sources: Sources) -> io::Result<Vec<u8>> {
    let mut text = file::whole(path, sources, LONGEST)?;
    text.truncate(text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len()));
    if text.last() == Some(&b'\r') {
        text.pop();
    }
    Ok(text)
}

/// Whether a PEM text has an encrypted key in it.
pub(super) fn is_locked(text: &[u8]) -> bool {
    contains(text, LOCKED) || contains(text, TRADITIONAL)
}

/// Decrypts the first encrypted key of a PEM text. Errors name the file by `role` and `path`.
pub(super) fn unlock(
    text: &[u8],
    password: Option<&KeyPassword>,
    sources: Sources,
    role: &'static str,
    path: &Path,
) -> Result<PrivateKeyDer<'static>, Unusable> {
    let wrong = |problem: &str| Unusable::wrong(role, path, problem);
    let Some(at) = text.windows(LOCKED.len()).position(|window| window == LOCKED.as_bytes()) else {
        return Err(wrong(
            "has a key that is encrypted as OpenSSL once did it; 'openssl pkcs8 -topk8' makes it one \
             that can be used",
        ));
    };
    let password = password.ok_or_else(|| {
        wrong("has an encrypted key, and neither --key-password nor --key-password-file is given")
    })?;
    let password = password.bytes(sources)?;
    let Some(Ok(pem)) = Pem::iter_from_buffer(&text[at..]).next() else {
        return Err(wrong("is damaged: its encrypted key is cut off or not base64"));
    };
    unlocked(&pem.contents, &password).map_err(wrong)
}

/// Decrypts the key in a PKCS#8 EncryptedPrivateKeyInfo, or says why that is impossible.
fn unlocked(der: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|_| "is damaged, or its key is encrypted in a way that is not known")?;
    let key = info.decrypt(password).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(
            pkcs5::Error::NoPbes1CryptSupport
            | pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs5::Error::AlgorithmParametersInvalid { .. },
        ) => {
            "has a key that is encrypted in a way that is too old or not known; \
             'openssl pkcs8 -topk8 -v2 aes-256-cbc' makes it one that can be used"
        }
        // A wrong password may by chance seem to decrypt the key, but the result is no PKCS#8.
        _ => "has an encrypted key that this password does not unlock",
    })?;
    Ok(PrivateKeyDer::Pkcs8(key.as_bytes().to_vec().into()))
}
