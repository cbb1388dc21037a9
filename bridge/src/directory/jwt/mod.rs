//! JSON Web Tokens, which contain their target, signed or encrypted with a key of ours (K5).
//!
//! - `key` is the key, as its file has it,
//! - `compact` takes a token apart, `signature` says whether it is genuine, `decryption` opens an encrypted one,
//! - `claims` is what a token says, and until when it is valid.
//!
//! The cryptography is aws-lc-rs's. `read` says what a token means, without I/O; the rest of this file knows the key's file, the
//! clock and the threads. Must not know which client has sent a token.

mod claims;
mod compact;
mod decryption;
mod key;
mod signature;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Found;
use super::failure::{NoDestination, SourceError};
use crate::error_text::error_text;
use crate::regular;
use claims::Claims;
use compact::Parts;
pub(crate) use key::Key;

/// How many tokens are checked at a time: each takes processor time, and reads a file.
const AT_ONCE: usize = 16;

/// The longest key file, bytes.
const KEY_MAX: u64 = 64 * 1024;

/// Why a token is not accepted.
pub(crate) type Invalid = &'static str;

const OTHER_ALGORITHM: Invalid = "its algorithm is none that the key is for";

/// The file of the key that tokens are made with.
#[derive(Debug)]
pub(super) struct Jwt {
    file: Arc<KeyFile>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct KeyFile {
    path: PathBuf,
    /// What the file had in it when it was last read, and the key made of that.
    last: Mutex<Option<(Vec<u8>, Arc<Key>)>>,
}

impl Jwt {
    pub(super) fn new(path: PathBuf) -> Self {
        let file = KeyFile { path, last: Mutex::default() };
        Self { file: file.into(), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Fails if the file has no key that can be used.
    pub(super) async fn prepare(&self) -> Result<(), SourceError> {
        let file = Arc::clone(&self.file);
        let key = spawn_blocking(move || file.key().map(drop));
        key.await.unwrap_or(Err(SourceError::Failed))
    }

    pub(super) async fn look_up(&self, token: &str) -> Result<Found, NoDestination> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (file, token) = (Arc::clone(&self.file), token.to_owned());
        let search = spawn_blocking(move || {
            // Held until the file system answers, whether the client still waits or not.
            let _permit = permit;
            let key = file.key()?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let claims = read(&token, &key, now).map_err(NoDestination::InvalidToken)?;
            let expires = claims.left.and_then(|left| Instant::now().checked_add(left));
            Ok(Found { endpoint: claims.endpoint, expires })
        });
        search.await.unwrap_or(Err(SourceError::Failed.into()))
    }
}

impl KeyFile {
    /// The key as the file has it now.
    fn key(&self) -> Result<Arc<Key>, SourceError> {
        let failed = |why: String| SourceError::Key(self.path.clone(), why);
        let text = contents(&self.path).map_err(|error| failed(error_text(&error)))?;
        if text.len() as u64 > KEY_MAX {
            return Err(failed("it is longer than 64 KiB".into()));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = last.as_ref().filter(|(before, _)| *before == text) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(Key::read(&text).map_err(|why| failed(why.into()))?);
        *last = Some((text, Arc::clone(&key)));
        Ok(key)
    }
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    regular::open(path)?.take(KEY_MAX + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The claims of a token, if this key made it and it is valid at `now`, which is the time since the beginning of 1970.
pub(crate) fn read(token: &str, key: &Key, now: Duration) -> Result<Claims, Invalid> {
    match compact::parts(token)? {
        Parts::Signed(signed) => claims::read(signed.verified(key)?, now),
        Parts::Encrypted(encrypted) => {
            let text = encrypted.decrypted(key)?;
            let inner = std::str::from_utf8(&text).map_err(|_| "it has no text in it")?;
            match compact::parts(inner) {
                Ok(Parts::Signed(signed)) => claims::read(signed.verified(key)?, now),
                Ok(Parts::Encrypted(_)) => Err("it is encrypted more than once"),
                // Anybody can encrypt for the public key of a pair; with a secret only who knows it can.
                Err(_) if key.is_secret() => claims::read(&text, now),
                Err(_) => Err("it is encrypted with a public key, and not signed"),
            }
        }
    }
}
