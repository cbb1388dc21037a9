//! TLS to targets: from authorities to a [`Connector`], and from a connected socket to an encrypted [`Leg`].
//!
//! - `verifier` decides which certificates are good,
//! - `failure` says why a handshake has failed.
//!
//! Knows names and sockets; must not know how they were found.

mod failure;
mod verifier;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;

use super::records::Records;
use super::{Authorities, Provider, Sources, Unusable};
use crate::leg::Leg;
use crate::net::{CONNECT, Socket, zone};
pub(crate) use failure::TargetFailure;
use verifier::ServerVerifier;

/// What a TLS handshake with a target needs.
#[derive(Debug, Clone)]
pub struct Connector(Arc<ClientConfig>);

impl Connector {
    /// A connector that trusts these authorities, and warnings: about what works, but should be mended.
    ///
    /// # Errors
    ///
    /// The authorities cannot be read, or there are none.
    pub fn load(
        authorities: &Authorities,
        sources: Sources,
    ) -> Result<(Self, Vec<String>), Unusable> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut warnings = Vec::new();
        let verifier = ServerVerifier::load(authorities, sources, &provider, &mut warnings)?;
        Ok((Self(Arc::new(config(verifier, provider))), warnings))
    }

    /// Does the TLS handshake with a target, which must have a certificate for this name or address.
    pub(crate) async fn encrypt(&self, socket: Socket, name: &str) -> Result<Leg, TargetFailure> {
        let name = server_name(name).ok_or_else(TargetFailure::no_name)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        match timeout(CONNECT, connector.connect(name, Records::at_will(socket))).await {
            Ok(Ok(stream)) => Ok(Leg::encrypted(stream)),
            Ok(Err(error)) => Err(TargetFailure::from_handshake(&error)),
            Err(_) => Err(TargetFailure::late()),
        }
    }
}

fn config(verifier: ServerVerifier, provider: Provider) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for each version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // A TLS session that is resumed would outlive the target's certificate, which is not checked again then.
    config.resumption = Resumption::disabled();
    config
}

/// The name as certificates have it: an IPv6 address without its zone.
fn server_name(name: &str) -> Option<ServerName<'static>> {
    match zone::split(name) {
        Some((address, _)) => Some(ServerName::IpAddress(IpAddr::from(address).into())),
        None => ServerName::try_from(name).ok().map(|name| name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn u5_a_target_that_says_nothing_is_not_waited_for_longer_than_for_a_connection() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, certificate.pem()).unwrap();
        let authorities = Authorities::File(file.path().to_owned());
        let (connector, _) = Connector::load(&authorities, Sources::Any).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let began = tokio::time::Instant::now();
        let failure = connector.encrypt(Socket::Unix(ours), "localhost").await.err().unwrap();
        assert_eq!(began.elapsed().as_secs(), 10);
        assert_eq!(failure.why(), "it does not answer the TLS handshake: timed out");
    }

    #[test]
    fn u5_the_names_that_certificates_have() {
        for (typed, name) in [
            ("a.example", "a.example"),
            ("a.example.", "a.example"),
            ("a_b", "a_b"),
            ("192.0.2.1", "192.0.2.1"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1"),
        ] {
            assert_eq!(server_name(typed).unwrap().to_str(), name);
        }
        for none in ["", "a b", "bücher.example"] {
            assert!(server_name(none).is_none(), "{none}");
        }
    }
}
