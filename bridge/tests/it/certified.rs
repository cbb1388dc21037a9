//! A certificate for localhost, servers that have it, and clients that trust it.

use bridge::tls::{Acceptor, Files, MinVersion, Offer, Sources, Tls};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

pub(crate) struct Certified {
    root: Certificate,
    certificate: Certificate,
    key: KeyPair,
}

impl Certified {
    pub(crate) fn new() -> Self {
        let authority = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&authority).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = certificate.signed_by(&key, &Issuer::new(params, authority)).unwrap();
        Self { root, certificate, key }
    }

    /// The TLS of a bridge that has this certificate.
    pub(crate) fn bridge(&self) -> Tls {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.certificate.pem() + &self.key.serialize_pem()).unwrap();
        let certificate = file.path().to_owned();
        let files = Files { certificate, key: None, password: None, clients: None };
        let (offer, _) = Offer::new(MinVersion::V1_2, None).unwrap();
        let (acceptor, _) = Acceptor::load(&files, Sources::Any, &offer).unwrap();
        Tls::On(acceptor)
    }

    /// The configuration of another server that has this certificate.
    pub(crate) fn server(&self, version: &'static SupportedProtocolVersion) -> ServerConfig {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        ServerConfig::builder_with_protocol_versions(&[version])
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap()
    }

    pub(crate) fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}
