//! Failures of the TLS handshake with a target, in words for an administrator who looks for the reason. Knows
//! rustls's errors; must not know how a handshake is done.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, OtherError};

use crate::error_text::error_text;
use crate::tls::authorities::{Flaw, explain};
use crate::tls::failure::{is_end, rustls_error};

/// Why there is no TLS with a target, in words for a log.
#[derive(Debug)]
pub(crate) struct TargetFailure {
    why: String,
    /// Names, which the log is told and the client is not.
    names: Option<String>,
    /// Whether the connection was reset.
    is_reset: bool,
}

impl TargetFailure {
    /// A handshake's failure.
    pub(super) fn from_handshake(error: &io::Error) -> Self {
        let is_reset = error.kind() == io::ErrorKind::ConnectionReset;
        let why = match rustls_error(error) {
            Some(Error::InvalidCertificate(flaw)) => {
                let why = format!("its certificate is refused: {}", explain(flaw, PURPOSE));
                return Self { why, names: names(flaw), is_reset };
            }
            Some(Error::AlertReceived(alert)) => alert_text(*alert),
            Some(Error::PeerIncompatible(_)) => NOTHING_IN_COMMON.into(),
            Some(
                Error::InvalidMessage(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. }
                | Error::PeerSentOversizedRecord,
            ) => "what it sends is not TLS, or damaged".into(),
            Some(error) => format!("the TLS handshake has failed: {error}"),
            None if is_end(error) => "it broke off the TLS handshake, and may not speak TLS".into(),
            None => error_text(error),
        };
        Self { why, names: None, is_reset }
    }

    /// The target has not finished the handshake in time.
    pub(super) fn late() -> Self {
        Self::of("it does not answer the TLS handshake: timed out")
    }

    /// The target's name cannot stand in a certificate.
    pub(super) fn no_name() -> Self {
        Self::of("no certificate can have its name")
    }

    fn of(why: &str) -> Self {
        Self { why: why.into(), names: None, is_reset: false }
    }

    /// The reason as a client may hear it: without names.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// Whether the connection was reset, so that it is not known whether the target speaks TLS.
    pub(crate) fn is_reset(&self) -> bool {
        self.is_reset
    }
}

impl fmt::Display for TargetFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        self.names.as_ref().map_or(Ok(()), |names| write!(f, ": {names}"))
    }
}

const PURPOSE: &Flaw = &Flaw::ServerPurpose;

const NOTHING_IN_COMMON: &str = "it has no version of TLS, cipher or signature that we have";

fn names(flaw: &CertificateError) -> Option<String> {
    let CertificateError::Other(OtherError(other)) = flaw else { return None };
    match other.downcast_ref()? {
        Flaw::Name(wanted, found) => Some(format!("for {found}, and not for {wanted}")),
        _ => None,
    }
}

/// What an alert of the target means (RFC 8446, section 6.2).
fn alert_text(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    let meaning = match alert {
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            NOTHING_IN_COMMON
        }
        Alert::UnrecognisedName => "it does not know its own name",
        Alert::CertificateRequired => "it wants a certificate of ours",
        _ => "it broke off the TLS handshake",
    };
    format!("{meaning} (its alert: {alert:?})")
}
