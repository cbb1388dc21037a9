//! TLS on the public port: from files to an [`Acceptor`], and from an accepted connection to a
//! `Stream`, plain or encrypted. TLS to targets is `connector`'s.
//!
//! - `file` reads files,
//! - `identity` finds the certificate and its key in them,
//! - `password` decrypts the key where it is encrypted,
//! - `ciphers` says which versions and cipher suites are offered,
//! - `authorities` decides which client certificates are good,
//! - `certificate` reads the contents of one,
//! - `accept` looks at a client's first byte and does the handshake; `hello` says whether its first message is whole,
//! - `records` leaves TLS records that are not whole in the kernel's buffer,
//! - `failure` says why a handshake has failed,
//! - `connector` is TLS to targets, where we are the TLS client.
//!
//! Knows nothing of HTTP but one refusal, for plain clients where only TLS is served.

mod accept;
mod authorities;
mod certificate;
mod ciphers;
mod connector;
mod failure;
mod file;
mod hello;
mod identity;
mod password;
mod records;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ServerConfig};
use tokio_rustls::rustls::{self, ConfigBuilder, WantsVerifier};

pub(crate) use accept::{Accepted, First, first, shake_hands};
#[cfg(any(test, fuzzing))]
pub(crate) use authorities::ClientVerifier;
#[cfg(any(test, fuzzing))]
pub(crate) use certificate::common_name;
pub use ciphers::{MinVersion, NoCipher, Offer};
pub use connector::Connector;
pub(crate) use connector::TargetFailure;
pub(crate) use failure::Failure;
pub use file::{Sources, whole};
#[cfg(any(test, fuzzing))]
pub(crate) use hello::{Hello, hello};
pub use password::KeyPassword;
pub(crate) use records::Records;
#[cfg(any(test, fuzzing))]
pub(crate) use records::whole as whole_records;

/// The files of our certificate, its key, and the authorities for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate and its chain in PEM, ours first.
    pub certificate: PathBuf,
    /// Its key in PEM; `None`: in the same file.
    pub key: Option<PathBuf>,
    /// The password of the key, where the key is encrypted.
    pub password: Option<KeyPassword>,
    /// The authorities of which a client needs a certificate; `None`: clients are asked for none.
    pub clients: Option<Authorities>,
}

impl Files {
    /// The paths of all of them.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let authorities = match &self.clients {
            Some(Authorities::File(path)) => Some(path),
            Some(Authorities::System) | None => None,
        };
        let password = match &self.password {
            Some(KeyPassword::File(path)) => Some(path),
            Some(KeyPassword::Text(_)) | None => None,
        };
        [Some(&self.certificate), self.key.as_ref(), password, authorities].into_iter().flatten()
    }
}

/// Who may have signed a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system trusts.
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// Whether TLS clients are served.
#[derive(Debug, Clone)]
pub enum Tls {
    /// No, for this reason.
    Off(String),
    /// Yes.
    On(Acceptor),
}

/// What a TLS handshake needs.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("cannot read {role} {}", path.display())]
    Unreadable {
        /// What it should have.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{role} {} {problem}", path.display())]
    Wrong {
        /// What it should have.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system has no authorities.
    #[error("cannot find the system's certificate authorities: {0}")]
    NoSystemAuthorities(String),
}

impl Unusable {
    fn wrong(role: &'static str, path: &Path, problem: impl Into<String>) -> Self {
        Self::Wrong { role, path: path.to_owned(), problem: problem.into() }
    }

    /// What the file should have, and its path, if the reason is that it does not exist.
    pub fn missing(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Unreadable { role, path, source } if source.kind() == io::ErrorKind::NotFound => {
                Some((role, path))
            }
            _ => None,
        }
    }
}

impl Acceptor {
    /// Reads the files, if they are of a kind that `sources` allows, for TLS as it is offered. Also returns warnings:
    /// about what works, but should be mended.
    pub fn load(
        files: &Files,
        sources: Sources,
        offer: &Offer,
    ) -> Result<(Self, Vec<String>), Unusable> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: offer.suites(),
            ..aws_lc_rs::default_provider()
        });
        let mut warnings = Vec::new();
        let identity = identity::load(files, sources, &provider, &mut warnings)?;
        let clients = files.clients.as_ref().map(|authorities| {
            authorities::ClientVerifier::load(authorities, sources, &provider, &mut warnings)
        });
        let builder = builder(provider, offer);
        let mut config = match clients.transpose()? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
        }
        .with_cert_resolver(Arc::new(identity));
        if files.clients.is_some() {
            // A TLS session that is resumed would outlive the client's certificate, which is not checked again then.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.ignore_client_order = offer.is_ordered();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((Self { config: Arc::new(config) }, warnings))
    }
}

fn builder(provider: Provider, offer: &Offer) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&offer.versions())
        .expect("an offer has cipher suites for each of its versions")
}

/// What some editors put in front of a text to say that it is UTF-8. PEM does not allow it, and in a
/// file that was joined from others it may stand before each part.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// How long a PEM file may be, in bytes: a bundle of all authorities that browsers trust has a quarter of that.
const LONGEST: u64 = 1024 * 1024;

/// The whole of a PEM file, without byte order marks.
fn read(role: &'static str, path: &Path, sources: Sources) -> Result<Vec<u8>, Unusable> {
    let unreadable = |source| Unusable::Unreadable { role, path: path.to_owned(), source };
    let text = without(BYTE_ORDER_MARK, file::whole(path, sources, LONGEST).map_err(unreadable)?);
    if !contains(&text, "-----BEGIN ") {
        return Err(Unusable::wrong(role, path, "is not a PEM file"));
    }
    Ok(text)
}

fn without(part: &[u8], mut text: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(found) = text[at..].windows(part.len()).position(|window| window == part) {
        at += found;
        text.drain(at..at + part.len());
    }
    text
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// The certificates of a PEM file, at least one.
fn certificates(
    role: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, Unusable> {
    use rustls::pki_types::pem::PemObject;
    let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Unusable::wrong(role, path, broken(&error)))?;
    if certificates.is_empty() {
        return Err(Unusable::wrong(role, path, "has no certificate in it"));
    }
    Ok(certificates)
}

fn broken(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "is cut off: an END line is missing".into(),
        Error::Base64Decode(_) => "is damaged: not base64".into(),
        error => format!("is damaged: {error}"),
    }
}

/// An error of rustls in words for a user, without the names of Rust's types.
fn rustls_text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::General(text) => text.clone(),
        error => error.to_string(),
    }
}

type Provider = Arc<CryptoProvider>;
