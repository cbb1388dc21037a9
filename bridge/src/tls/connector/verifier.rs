//! The check of targets' certificates. Good are those that lead to an authority of the CA file, or of the system,
//! and have the target's name.
//!
//! rustls checks signatures, purposes and dates. Added here, as for clients' certificates: intermediates of the CA
//! file, the dates of the authority itself, and self-signed certificates that stand in the CA file. A self-signed one
//! may have the target's name as its common name, where `openssl req -x509` puts it.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::tls::authorities::{Anchor, Flaw, Trusted, check_dates, flaw};
use crate::tls::certificate::{Facts, Signer, common_name, facts};
use crate::tls::{Authorities, Provider, Sources, Unusable};

/// Verifies the certificates of targets.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trusted: Trusted,
    /// All anchors that may sign, whatever their dates.
    roots: RootCertStore,
    provider: Provider,
}

impl ServerVerifier {
    pub(super) fn load(
        authorities: &Authorities,
        sources: Sources,
        provider: &Provider,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Unusable> {
        let trusted = Trusted::load(authorities, sources, warnings)?;
        let roots = roots(trusted.issuers());
        Ok(Self { trusted, roots, provider: Arc::clone(provider) })
    }

    /// Checks that the certificate leads to an authority.
    fn verify_chain(
        &self,
        certificate: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<_> =
            intermediates.iter().chain(&self.trusted.intermediates).cloned().collect();
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verify = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(certificate, roots, &chain, now, algorithms)
        };
        verify(&self.roots)?;
        if self.trusted.issuers().all(|issuer| issuer.is_valid(now)) {
            return Ok(());
        }
        // RFC 5280 leaves an anchor's own dates open, and rustls does not look at them.
        let valid = self.trusted.issuers().filter(|issuer| issuer.is_valid(now));
        verify(&roots(valid)).map_err(|_| flaw(Flaw::AnchorDates))
    }
}

fn roots<'a>(anchors: impl Iterator<Item = &'a Anchor>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.map(|anchor| anchor.der.clone()));
    roots
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let facts = facts(end_entity).ok_or(CertificateError::BadEncoding)?;
        if !facts.is_v3 {
            return Err(flaw(Flaw::Version1));
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let is_known = self.trusted.has(end_entity);
        if is_known {
            check_dates(&facts, now)?;
            facts.is_for_servers.then_some(()).ok_or_else(|| flaw(Flaw::ServerPurpose))?;
        } else if facts.signer != Signer::Other {
            return Err(flaw(Flaw::SelfSigned));
        } else {
            self.verify_chain(&certificate, intermediates, now)?;
        }
        let common_name = common_name(end_entity).filter(|_| is_known && facts.names.is_empty());
        let is_common = |found: String| found.eq_ignore_ascii_case(&name.to_str());
        if common_name.is_some_and(is_common) {
            return Ok(ServerCertVerified::assertion());
        }
        verify_server_name(&certificate, name).map_err(|_| another_name(&facts, name))?;
        Ok(ServerCertVerified::assertion())
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

/// The error for a certificate of another name. One without alternative names is described by its subject.
fn another_name(facts: &Facts, wanted: &ServerName<'_>) -> Error {
    let names = match facts.names.as_slice() {
        [] => facts.subject.clone(),
        names => names.join(", "),
    };
    flaw(Flaw::Name(wanted.to_str().into_owned(), names))
}
