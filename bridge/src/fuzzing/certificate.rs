//! Reading certificates of which nothing is verified yet: a client's, and one of the CA file.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use crate::tls::{ClientVerifier, common_name};

/// A time in 2030.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The bytes are a certificate in DER, or are not. It is the only one of the CA file, and a client
/// shows it.
pub fn certificate(bytes: &[u8]) {
    let der = CertificateDer::from(bytes.to_vec());
    let _ = common_name(&der);
    let mut warnings = Vec::new();
    match ClientVerifier::of(vec![der.clone()], "the file", &PROVIDER, &mut warnings) {
        Some(verifier) => {
            let judged = verifier.verify_client_cert(&der, &[], NOW);
            // A certificate of the file may be accepted. With a byte behind it, it is another one, and must not be.
            let other = CertificateDer::from([bytes, b"\0"].concat());
            assert!(verifier.verify_client_cert(&other, &[], NOW).is_err(), "{judged:?}");
        }
        // The certificate is damaged, or was issued by another.
        None => assert!(warnings.len() <= 1),
    }
}
