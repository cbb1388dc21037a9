//! Who may begin a session, by what the request shows and by the client's verified certificate.
//!
//! The kinds of proof are those of the Python websockify, under its names. The certificate's name
//! comes from the TLS connection alone; no header is asked for it.

use std::fmt;
use std::net::SocketAddr;

use ::http::HeaderMap;
use ::http::header::{AUTHORIZATION, HeaderName, ORIGIN};
use data_encoding::BASE64;
use subtle::{Choice, ConstantTimeEq};
use tracing::warn;

use crate::security::Security;

/// `Origin` as the HyBi drafts before version 13 call it.
const SEC_WEBSOCKET_ORIGIN: HeaderName = HeaderName::from_static("sec-websocket-origin");

/// What a client must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A certificate whose subject has one of these common names.
    ClientCertCn(Vec<String>),
    /// These credentials (RFC 7617).
    Basic(Credentials),
    /// One of these origins: the page that opened the connection comes from there.
    Origin(Vec<String>),
}

/// A user and password, encoded as the header has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// `user:password`; the password may have colons in it.
    pub fn new(user_and_password: &str) -> Self {
        Self(BASE64.encode(user_and_password.as_bytes()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("no credentials, or wrong ones")]
    Credentials,
    #[error("its origin is none that is expected")]
    Origin,
    #[error("its certificate has no name that is expected")]
    Name,
}

/// Asks one connection's requests for what they must show.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    security: &'a Security,
    client: SocketAddr,
    /// The common name in the client's certificate, if it was verified.
    name: Option<&'a str>,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(security: &'a Security, client: SocketAddr, name: Option<&'a str>) -> Self {
        Self { security, client, name }
    }

    /// Whether a handshake of this protocol version may become a session.
    pub(crate) fn admit_session(&self, headers: &HeaderMap, version: &str) -> Result<(), Denial> {
        let origin = if matches!(version, "7" | "8") { SEC_WEBSOCKET_ORIGIN } else { ORIGIN };
        self.admit(headers, &origin)
    }

    /// Whether an old handshake may become a session; who may not is logged when it is answered.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        self.security
            .auth
            .as_ref()
            .is_none_or(|auth| auth.check(headers, &ORIGIN, self.name).is_ok())
    }

    /// Whether a web request is answered.
    pub(crate) fn admit_web_request(&self, headers: &HeaderMap) -> Result<(), Denial> {
        if self.security.web_auth { self.admit(headers, &ORIGIN) } else { Ok(()) }
    }

    fn admit(&self, headers: &HeaderMap, origin: &HeaderName) -> Result<(), Denial> {
        let Some(auth) = &self.security.auth else { return Ok(()) };
        auth.check(headers, origin, self.name).inspect_err(|denial| {
            let (client, port) = (self.client.ip(), self.client.port());
            warn!(%client, port, "denied a client: {client}: {denial}");
        })
    }
}

impl Auth {
    fn check(
        &self,
        headers: &HeaderMap,
        origin: &HeaderName,
        name: Option<&str>,
    ) -> Result<(), Denial> {
        let (shown, expected, denial) = match self {
            Self::ClientCertCn(names) => (name.map(str::as_bytes), names.as_slice(), Denial::Name),
            Self::Basic(Credentials(expected)) => {
                (basic(headers), std::slice::from_ref(expected), Denial::Credentials)
            }
            Self::Origin(origins) => (single(headers, origin), origins.as_slice(), Denial::Origin),
        };
        let shown = shown.ok_or(denial)?;
        // All are compared, whichever matches.
        let matches = expected.iter().map(|expected| expected.as_bytes().ct_eq(shown));
        let is_one = matches.fold(Choice::from(0), |any, one| any | one);
        if bool::from(is_one) { Ok(()) } else { Err(denial) }
    }
}

/// The credentials of RFC 7617, encoded.
fn basic(headers: &HeaderMap) -> Option<&[u8]> {
    let value = single(headers, &AUTHORIZATION)?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then_some(credentials.trim_ascii())
}

/// The value of a header that comes once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).into_iter();
    let value = lines.next()?;
    lines.next().is_none().then_some(value.as_bytes().trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = name.parse::<HeaderName>().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn guarded(
        auth: Auth,
        name: Option<&str>,
        version: &str,
        lines: &[(&str, &str)],
    ) -> Result<(), Denial> {
        let security = Security { auth: Some(auth), ..Security::default() };
        let guard = Guard::new(&security, "127.0.0.1:1".parse().unwrap(), name);
        guard.admit_session(&headers(lines), version)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn t4_basic_credentials_must_be_exact() {
        let auth = || Auth::Basic(Credentials::new("Aladdin:open sesame"));
        let check = |value| guarded(auth(), None, "13", &[("Authorization", value)]);
        // The example of RFC 7617, section 2.
        assert_eq!(check("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(()));
        assert_eq!(check("bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(()));
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZ",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic QWxhZGRpbjo=",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ] {
            assert_eq!(check(wrong), Err(Denial::Credentials), "{wrong:?}");
        }
        assert_eq!(guarded(auth(), None, "13", &[]), Err(Denial::Credentials));
        let good = ("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(guarded(auth(), None, "13", &[good, good]), Err(Denial::Credentials));
    }

    #[test]
    fn t4_the_origin_is_read_where_the_version_has_it() {
        let auth = || Auth::Origin(names(&["https://a.example", "http://b.example:8080"]));
        let check = |version, lines: &[_]| guarded(auth(), None, version, lines);
        let (new, old) = ("Origin", "Sec-WebSocket-Origin");
        let good = "http://b.example:8080";
        for version in ["13", "hixie-76", "hixie-75"] {
            assert_eq!(check(version, &[(new, good)]), Ok(()), "{version}");
            assert_eq!(check(version, &[(old, good)]), Err(Denial::Origin), "{version}");
        }
        for version in ["7", "8"] {
            assert_eq!(check(version, &[(old, good)]), Ok(()), "{version}");
            assert_eq!(check(version, &[(new, good)]), Err(Denial::Origin), "{version}");
        }
        for wrong in ["", "null", "https://a.example.evil", "https://a.exampl", "http://a.example"]
        {
            assert_eq!(check("13", &[(new, wrong)]), Err(Denial::Origin), "{wrong}");
        }
        assert_eq!(check("13", &[(new, good), (new, good)]), Err(Denial::Origin));
    }

    #[test]
    fn t4_the_certificates_name_comes_from_no_header() {
        let auth = || Auth::ClientCertCn(names(&["jane@example.com", "Joe"]));
        assert_eq!(guarded(auth(), Some("Joe"), "13", &[]), Ok(()));
        for name in [None, Some(""), Some("joe"), Some("Joe "), Some("jane@example.com Joe")] {
            assert_eq!(guarded(auth(), name, "13", &[]), Err(Denial::Name), "{name:?}");
        }
        for header in ["ssl_client_s_dn_cn", "SSL_CLIENT_S_DN_CN", "Ssl-Client-S-Dn-Cn"] {
            assert_eq!(guarded(auth(), None, "13", &[(header, "Joe")]), Err(Denial::Name));
        }
    }

    #[test]
    fn t4_web_requests_are_asked_if_that_is_wanted() {
        for (web_auth, expected) in [(false, Ok(())), (true, Err(Denial::Credentials))] {
            let auth = Some(Auth::Basic(Credentials::new("a:b")));
            let security = Security { auth, web_auth, ..Security::default() };
            let guard = Guard::new(&security, "127.0.0.1:1".parse().unwrap(), None);
            assert_eq!(guard.admit_web_request(&HeaderMap::new()), expected);
        }
    }
}
