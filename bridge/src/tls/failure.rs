//! Failures of a new connection: why it was refused, and why the TLS handshake with the client has failed, in words for an
//! administrator who looks for the reason. Knows rustls's errors; must not know how a handshake is done.

use std::io;

use tokio_rustls::rustls::{AlertDescription, Error, PeerIncompatible};

use super::authorities::{Flaw, explain};
use crate::error_text::error_text;

/// Our versions are those of rustls.
const NO_VERSION: &str = "the client speaks no version of TLS that we do, 1.2 and 1.3";

const NO_CIPHER: &str = "the client has no cipher, group or signature that we have";

/// A client has sent as many bytes as it may without a result, and rustls waits for more; see [`records`](super::records).
#[derive(Debug, thiserror::Error)]
#[error("the client sends more than TLS can make anything of")]
pub(super) struct TooMuch;

/// Why a connection was not accepted, in words for a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("closed by the client")]
    Closed,
    #[error("{}", error_text(.0))]
    Unreadable(io::Error),
    #[error("refused a TLS client, TLS is off: {0}")]
    Off(String),
    #[error("refused an SSLv2 client: it must say the hello of SSLv3 or TLS")]
    Sslv2,
    #[error("refused an unencrypted client")]
    Plain,
    #[error("refused a TLS client that is none of those who may connect")]
    Stranger,
    #[error("refused a client's certificate: {0}")]
    ClientCertificate(String),
    #[error("refused a client without a certificate")]
    NoClientCertificate,
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
}

impl Failure {
    /// A handshake's failure.
    pub(super) fn from_handshake(error: &io::Error) -> Self {
        let why = match rustls_error(error) {
            Some(Error::InvalidCertificate(flaw)) => {
                return Self::ClientCertificate(explain(flaw, &Flaw::ClientPurpose));
            }
            Some(Error::NoCertificatesPresented) => return Self::NoClientCertificate,
            Some(Error::AlertReceived(alert)) => alert_text(*alert),
            Some(Error::PeerIncompatible(flaw)) => incompatibility(flaw),
            Some(Error::NoApplicationProtocol) => "the client does not offer HTTP/1.1".into(),
            Some(
                Error::InvalidMessage(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. }
                | Error::PeerSentOversizedRecord,
            ) => "what the client sends is not TLS, or damaged".into(),
            Some(error) => error.to_string(),
            None if is_end(error) => {
                "the client broke it off, as one may that does not trust our certificate".into()
            }
            None => error_text(error),
        };
        Self::Handshake(why)
    }

    /// The failure behind an error of a later read, if the client has sent an alert: some clients check our certificate
    /// only after the handshake.
    pub(crate) fn from_read(error: &io::Error) -> Option<Self> {
        matches!(rustls_error(error), Some(Error::AlertReceived(_)))
            .then(|| Self::from_handshake(error))
    }
}

pub(super) fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

pub(super) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// What an alert of the client means (RFC 8446, section 6.2).
fn alert_text(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    let meaning = match alert {
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::AccessDenied => "the client does not trust our certificate",
        Alert::CertificateExpired => "the client holds our certificate for expired",
        Alert::UnrecognisedName => "our certificate has not the name that the client wants",
        Alert::ProtocolVersion => NO_VERSION,
        Alert::HandshakeFailure | Alert::InsufficientSecurity => NO_CIPHER,
        Alert::UserCanceled | Alert::CloseNotify => "the client broke it off",
        _ => "the client broke it off with an alert",
    };
    format!("{meaning} (its alert: {alert:?})")
}

fn incompatibility(flaw: &PeerIncompatible) -> String {
    match flaw {
        // rustls looks for an extension of TLS 1.2 before it looks at the version, so that clients of TLS 1.1 and older fail so.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => NO_VERSION.into(),
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon => NO_CIPHER.into(),
        flaw => format!("the client lacks what we need: {flaw:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f25_failures_are_told_in_words() {
        let alert = |alert| io::Error::other(Error::AlertReceived(alert));
        let flaw = |flaw| io::Error::other(Error::PeerIncompatible(flaw));
        for (error, parts) in [
            (alert(AlertDescription::UnknownCA), ["does not trust our certificate", "UnknownCA"]),
            (alert(AlertDescription::CertificateUnknown), ["does not trust", "CertificateUnknown"]),
            (alert(AlertDescription::from(200)), ["broke it off with an alert", "0xc8"]),
            (flaw(PeerIncompatible::Tls12NotOfferedOrEnabled), ["no version of TLS", "1.2"]),
            (
                flaw(PeerIncompatible::SignatureAlgorithmsExtensionRequired),
                ["no version of TLS", "1.2"],
            ),
            (flaw(PeerIncompatible::NoCipherSuitesInCommon), ["no cipher", "TLS"]),
            (io::ErrorKind::UnexpectedEof.into(), ["broke it off", "our certificate"]),
            (io::ErrorKind::ConnectionReset.into(), ["broke it off", "our certificate"]),
        ] {
            let text = Failure::from_handshake(&error).to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{error:?}: {text}");
        }
    }
}
