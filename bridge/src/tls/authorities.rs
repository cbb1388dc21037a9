//! The check of client certificates. Good are those that lead to an authority of the CA file, or of the
//! system. Targets' certificates are checked with the same authorities, in `connector/verifier.rs`.
//!
//! rustls checks signatures, purposes and dates. Added here: intermediate certificates may stand in
//! the CA file, the dates of the authority itself count, and so does whether it may sign others. A
//! client's self-signed certificate is good if it stands in the CA file itself; its owner may sign other
//! certificates only if that certificate allows it. Must not know connections.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls_native_certs::ErrorKind;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::certificate::{Age, Facts, Signer, Validity, date, facts};
use super::{Authorities, Provider, Sources, Unusable, certificates, read};
use crate::error_text::error_text;

const ROLE: &str = "CA file";

/// Verifies the certificates of clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    trusted: Trusted,
    /// rustls's verifier with all anchors that may sign, whatever their dates; `None`: there are no such anchors.
    webpki: Option<Arc<dyn ClientCertVerifier>>,
    provider: Provider,
}

/// The certificates that trust begins at (anchors), and the other certificates of the same source.
#[derive(Debug, Default)]
pub(super) struct Trusted {
    pub(super) anchors: Vec<Anchor>,
    /// Certificates of the source that are no anchors: they may stand between an anchor and the certificate to check.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// The subjects of all of them. Clients are told them as a hint: one of them must have signed the client's certificate.
    subjects: Vec<DistinguishedName>,
}

#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) der: CertificateDer<'static>,
    validity: Validity,
    /// Whether certificates that it has signed are trusted. rustls does not check that: to rustls, any anchor may sign.
    may_sign: bool,
}

/// A flaw of a certificate for which rustls has no error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    #[error(
        "it is an X.509 v1 certificate, which cannot be verified; it must be issued as version 3"
    )]
    Version1,
    #[error("the certificate of its authority is not valid now")]
    AnchorDates,
    #[error("it is not for TLS clients")]
    ClientPurpose,
    #[error("it is not for TLS servers")]
    ServerPurpose,
    #[error("it is self-signed, and not in the CA file")]
    SelfSigned,
    /// The name that the target must have, and the names that the certificate has.
    #[error("it is for another name")]
    Name(String, String),
}

impl Trusted {
    pub(super) fn load(
        authorities: &Authorities,
        sources: Sources,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Unusable> {
        match authorities {
            Authorities::File(path) => {
                let found = certificates(ROLE, path, &read(ROLE, path, sources)?)?;
                let name = format!("{ROLE} {}", path.display());
                Self::of(found, &name, warnings).ok_or_else(|| no_anchor(path))
            }
            Authorities::System => {
                let found = rustls_native_certs::load_native_certs();
                let reason = found.errors.first().map_or("none found".into(), missing);
                // Warnings about the system's store are dropped: it is not ours to mend.
                Self::of(found.certs, "the system's store", &mut Vec::new())
                    .ok_or(Unusable::NoSystemAuthorities(reason))
            }
        }
    }

    /// `None`: no anchor is among them.
    fn of(
        found: Vec<CertificateDer<'static>>,
        source: &str,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let mut trusted = Self::default();
        for (index, der) in found.into_iter().enumerate() {
            let facts = facts(&der);
            // `subject` is the subject as clients compare it; `None` means that the certificate cannot be an issuer at all.
            let (Some(facts), Some(subject)) = (facts, subject(&der)) else {
                warnings.push(format!("certificate {} of {source} is damaged", index + 1));
                continue;
            };
            trusted.subjects.push(subject);
            if facts.signer == Signer::Other {
                trusted.intermediates.push(der);
            } else {
                warn_of_dates(&facts, source, warnings);
                let may_sign = facts.signer == Signer::Authority;
                trusted.anchors.push(Anchor { der, validity: facts.validity, may_sign });
            }
        }
        (!trusted.anchors.is_empty()).then_some(trusted)
    }

    /// Whether a certificate is an anchor itself: it is self-signed and stands in the CA file. It needs no authority, as
    /// the owner of the file has put it there.
    pub(super) fn has(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.anchors.iter().any(|anchor| anchor.der == *end_entity)
    }

    /// The anchors that may sign other certificates.
    pub(super) fn issuers(&self) -> impl Iterator<Item = &Anchor> {
        self.anchors.iter().filter(|anchor| anchor.may_sign)
    }
}

impl Anchor {
    pub(super) fn is_valid(&self, now: UnixTime) -> bool {
        self.validity.at(seconds(now)) == Age::Valid
    }
}

/// Checks the dates of a certificate that is [an anchor itself](Trusted::has).
pub(super) fn check_dates(facts: &Facts, now: UnixTime) -> Result<(), Error> {
    match facts.validity.at(seconds(now)) {
        Age::Expired => Err(CertificateError::Expired.into()),
        Age::NotYetValid => Err(CertificateError::NotValidYet.into()),
        Age::Valid => Ok(()),
    }
}

fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl ClientVerifier {
    pub(super) fn load(
        authorities: &Authorities,
        sources: Sources,
        provider: &Provider,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Unusable> {
        Trusted::load(authorities, sources, warnings).map(|trusted| Self::by(trusted, provider))
    }

    /// `None`: no anchor is among them.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(
        found: Vec<CertificateDer<'static>>,
        source: &str,
        provider: &Provider,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        Some(Self::by(Trusted::of(found, source, warnings)?, provider))
    }

    fn by(trusted: Trusted, provider: &Provider) -> Self {
        let webpki = verifier(trusted.issuers(), provider);
        Self { trusted, webpki, provider: Arc::clone(provider) }
    }
}

fn warn_of_dates(facts: &Facts, source: &str, warnings: &mut Vec<String>) {
    let Validity { until, .. } = facts.validity;
    if facts.validity.at(super::certificate::now()) == Age::Expired {
        let (subject, until) = (&facts.subject, date(until));
        warnings.push(format!("authority {subject} of {source} has expired: valid until {until}"));
    }
}

/// Why the system's certificates were not found.
fn missing(error: &rustls_native_certs::Error) -> String {
    match &error.kind {
        ErrorKind::Io { inner, path } => {
            format!("cannot read {}: {}", path.display(), error_text(inner))
        }
        _ => error.to_string(),
    }
}

fn no_anchor(path: &Path) -> Unusable {
    Unusable::wrong(ROLE, path, "has no self-signed certificate in it, which trust could begin at")
}

fn subject(der: &CertificateDer<'static>) -> Option<DistinguishedName> {
    let mut store = RootCertStore::empty();
    store.add(der.clone()).ok()?;
    store.subjects().pop()
}

/// rustls's verifier that trusts these anchors; `None`: there are none.
fn verifier<'a>(
    anchors: impl Iterator<Item = &'a Anchor>,
    provider: &Provider,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.map(|anchor| anchor.der.clone()));
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().ok()
}

pub(super) fn flaw(flaw: Flaw) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(flaw))))
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trusted.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let facts = facts(end_entity).ok_or(CertificateError::BadEncoding)?;
        if !facts.is_v3 {
            return Err(flaw(Flaw::Version1));
        }
        if self.trusted.has(end_entity) {
            check_dates(&facts, now)?;
            return if facts.is_for_clients {
                Ok(ClientCertVerified::assertion())
            } else {
                Err(flaw(Flaw::ClientPurpose))
            };
        }
        let chain: Vec<_> =
            intermediates.iter().chain(&self.trusted.intermediates).cloned().collect();
        let webpki = self.webpki.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        let verified = webpki.verify_client_cert(end_entity, &chain, now)?;
        if self.trusted.issuers().all(|issuer| issuer.is_valid(now)) {
            return Ok(verified);
        }
        // RFC 5280 leaves an anchor's own dates open, and rustls does not look at them.
        verifier(self.trusted.issuers().filter(|issuer| issuer.is_valid(now)), &self.provider)
            .and_then(|valid| valid.verify_client_cert(end_entity, &chain, now).ok())
            .ok_or_else(|| flaw(Flaw::AnchorDates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Says in words why a client's certificate, or a target's, was refused. `purpose` has the words for a certificate that
/// is for another purpose.
pub(super) fn explain(error: &CertificateError, purpose: &Flaw) -> String {
    let text: &dyn fmt::Display = match error {
        CertificateError::UnknownIssuer => &"no authority that is trusted has issued it",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            &"it, or one that it depends on, has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            &"it, or one that it depends on, is not valid yet"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            purpose
        }
        CertificateError::BadSignature => &"its signature, or that of one it depends on, is wrong",
        CertificateError::BadEncoding => &"it is damaged",
        CertificateError::Other(OtherError(other)) => other,
        error => error,
    };
    text.to_string()
}
