//! Who may begin a session, by what the request shows and by the client's verified certificate.
//!
//! The kinds of proof are those of the Python websockify, under its names. The certificate's name
//! comes from the TLS connection alone; no header is asked for it.

use std::fmt;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::{AUTHORIZATION, HeaderName, ORIGIN};
use data_encoding::BASE64;
use subtle::{Choice, ConstantTimeEq};
use tokio::time::Instant;

use crate::admission::penalty::Penalties;
use crate::peer::Peer;

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
    #[error("it has shown no credentials yet")]
    NoCredentials,
    #[error("wrong credentials")]
    Credentials,
    #[error("too many wrong credentials from its address, these were not looked at")]
    Closed {
        /// For how long.
        time: Duration,
    },
    #[error("its origin is none that is expected")]
    Origin,
    #[error("its certificate has no name that is expected")]
    Name,
}

/// Asks one connection's requests for what they must show.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    auth: Option<&'a Auth>,
    /// Whether web requests are asked as well.
    web_auth: bool,
    penalties: &'a Penalties,
    peer: &'a Peer,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(
        auth: Option<&'a Auth>,
        web_auth: bool,
        penalties: &'a Penalties,
        peer: &'a Peer,
    ) -> Self {
        Self { auth, web_auth, penalties, peer }
    }

    /// Whether a handshake of this protocol version may become a session.
    pub(crate) fn admit_session(&self, headers: &HeaderMap, version: &str) -> Result<(), Denial> {
        let Some(auth) = self.auth else { return Ok(()) };
        match auth {
            Auth::Basic(_) if !headers.contains_key(AUTHORIZATION) => Err(Denial::NoCredentials),
            Auth::Basic(expected) => {
                let closed = self.penalties.closed_for(self.peer.address.ip(), Instant::now());
                closed.map_or(Ok(()), |time| Err(Denial::Closed { time }))?;
                is_one(basic(headers), [&*expected.0], Denial::Credentials)
            }
            Auth::ClientCertCn(names) => {
                let name = self.peer.certificate.as_deref().map(str::as_bytes);
                is_one(name, names.iter().map(|name| &**name), Denial::Name)
            }
            Auth::Origin(origins) => {
                let origins = origins.iter().map(|origin| &**origin);
                is_one(origin(headers, version), origins, Denial::Origin)
            }
        }
    }

    /// Whether a web request is answered.
    pub(crate) fn admit_web_request(&self, headers: &HeaderMap) -> Result<(), Denial> {
        if self.web_auth { self.admit_session(headers, "") } else { Ok(()) }
    }

    /// Counts wrong credentials; says when they are to be answered.
    pub(crate) fn penalty(&self) -> Instant {
        self.penalties.add(self.peer.address.ip(), Instant::now())
    }
}

/// Whether what is shown is one of those that are expected. All are compared, whichever matches.
fn is_one<'a>(
    shown: Option<&[u8]>,
    expected: impl IntoIterator<Item = &'a str>,
    denial: Denial,
) -> Result<(), Denial> {
    let shown = shown.ok_or(denial)?;
    let matches = expected.into_iter().map(|expected| expected.as_bytes().ct_eq(shown));
    let is_one = matches.fold(Choice::from(0), |any, one| any | one);
    if bool::from(is_one) { Ok(()) } else { Err(denial) }
}

/// The origin that a handshake of this version names; or another request, of no version.
pub(crate) fn origin<'a>(headers: &'a HeaderMap, version: &str) -> Option<&'a [u8]> {
    let name = if matches!(version, "7" | "8") { SEC_WEBSOCKET_ORIGIN } else { ORIGIN };
    single(headers, &name)
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

    fn peer(certificate: Option<&str>) -> Peer {
        let address = "127.0.0.1:1".parse().unwrap();
        Peer { address, tls: None, certificate: certificate.map(Into::into) }
    }

    fn guarded(
        auth: &Auth,
        name: Option<&str>,
        version: &str,
        lines: &[(&str, &str)],
    ) -> Result<(), Denial> {
        let penalties = Penalties::default();
        let peer = peer(name);
        let guard = Guard::new(Some(auth), false, &penalties, &peer);
        guard.admit_session(&headers(lines), version)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn t4_basic_credentials_must_be_exact() {
        let auth = || Auth::Basic(Credentials::new("Aladdin:open sesame"));
        let check = |value| guarded(&auth(), None, "13", &[("Authorization", value)]);
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
        assert_eq!(guarded(&auth(), None, "13", &[]), Err(Denial::NoCredentials));
        let good = ("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(guarded(&auth(), None, "13", &[good, good]), Err(Denial::Credentials));
    }

    #[test]
    fn t4_the_origin_is_read_where_the_version_has_it() {
        let auth = || Auth::Origin(names(&["https://a.example", "http://b.example:8080"]));
        let check = |version, lines: &[_]| guarded(&auth(), None, version, lines);
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
        assert_eq!(guarded(&auth(), Some("Joe"), "13", &[]), Ok(()));
        for name in [None, Some(""), Some("joe"), Some("Joe "), Some("jane@example.com Joe")] {
            assert_eq!(guarded(&auth(), name, "13", &[]), Err(Denial::Name), "{name:?}");
        }
        for header in ["ssl_client_s_dn_cn", "SSL_CLIENT_S_DN_CN", "Ssl-Client-S-Dn-Cn"] {
            assert_eq!(guarded(&auth(), None, "13", &[(header, "Joe")]), Err(Denial::Name));
        }
    }

    #[test]
    fn t4_web_requests_are_asked_if_that_is_wanted() {
        for (web_auth, expected) in [(false, Ok(())), (true, Err(Denial::NoCredentials))] {
            let auth = Auth::Basic(Credentials::new("a:b"));
            let penalties = Penalties::default();
            let peer = peer(None);
            let guard = Guard::new(Some(&auth), web_auth, &penalties, &peer);
            assert_eq!(guard.admit_web_request(&HeaderMap::new()), expected);
        }
    }
}
