//! What a client must show, in its request or by its verified certificate.
//!
//! The kinds of proof are those of the Python websockify, under its names. The certificate's name
//! comes from the TLS connection alone; no header is asked for it. Knows neither replies nor clocks.

use std::fmt;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::{AUTHORIZATION, HeaderName, ORIGIN, SEC_WEBSOCKET_VERSION};
use data_encoding::BASE64;
use subtle::{Choice, ConstantTimeEq};

use crate::peer::Peer;
use crate::redact;
use crate::ws::single;

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

/// Why a client is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("it has shown no credentials yet")]
    NoCredentials,
    #[error("wrong credentials")]
    Credentials,
    #[error("too many wrong credentials from its address, these were not looked at")]
    Closed {
        /// For how much longer they are not looked at.
        time: Duration,
    },
    #[error("its origin is none that is expected")]
    Origin,
    #[error("its certificate has no name that is expected")]
    Name,
}

impl Auth {
    /// Whether a request shows what the client must show. `closed_for` says for how much longer the client's
    /// credentials are not looked at.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        closed_for: impl FnOnce() -> Option<Duration>,
    ) -> Result<(), Denial> {
        match self {
            Auth::Basic(_) if !headers.contains_key(AUTHORIZATION) => Err(Denial::NoCredentials),
            Auth::Basic(expected) => {
                closed_for().map_or(Ok(()), |time| Err(Denial::Closed { time }))?;
                is_one(basic(headers), [&*expected.0], Denial::Credentials)
            }
            Auth::ClientCertCn(names) => {
                let name = peer.certificate.as_deref().map(str::as_bytes);
                is_one(name, names.iter().map(|name| &**name), Denial::Name)
            }
            Auth::Origin(origins) => {
                is_one(origin(headers), origins.iter().map(|origin| &**origin), Denial::Origin)
            }
        }
    }
}

/// Whether the shown value is one of those expected. It is compared with all of them even after a match, so that the
/// time taken does not tell which one matched.
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

/// The origin that a request names, in the header that its version of the protocol has for it.
pub(super) fn origin(headers: &HeaderMap) -> Option<&[u8]> {
    match single(headers, SEC_WEBSOCKET_VERSION) {
        Some(b"7" | b"8") => single(headers, SEC_WEBSOCKET_ORIGIN),
        _ => single(headers, ORIGIN),
    }
}

/// The credentials of a request (RFC 7617), still encoded.
fn basic(headers: &HeaderMap) -> Option<&[u8]> {
    let value = single(headers, AUTHORIZATION)?;
    let (scheme, credentials) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then_some(credentials.trim_ascii())
}

/// The password of a request, if it has one.
pub(super) fn password(headers: &HeaderMap) -> Option<String> {
    user_and_password(headers)?.split_once(':').map(|(_, password)| password.to_owned())
}

/// The user that a request names, as the log may have it; none if the credentials have no colon.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    user_and_password(headers)?.split_once(':').map(|(user, password)| match password {
        // With an empty password the user is itself the secret: a token.
        "" => redact::token(user),
        _ => user.to_owned(),
    })
}

fn user_and_password(headers: &HeaderMap) -> Option<String> {
    let credentials = BASE64.decode(basic(headers)?).ok()?;
    Some(String::from_utf8_lossy(&credentials).into_owned())
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

    fn checked(
        auth: &Auth,
        name: Option<&str>,
        version: &str,
        lines: &[(&str, &str)],
    ) -> Result<(), Denial> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let peer = Peer { certificate: name.map(Into::into), ..Peer::new(address) };
        // The old drafts have no such header.
        let is_hybi = !version.starts_with("hixie");
        let version = is_hybi.then_some(("Sec-WebSocket-Version", version));
        let lines: Vec<_> = lines.iter().copied().chain(version).collect();
        auth.check(&headers(&lines), &peer, || None)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn t4_basic_credentials_must_be_exact() {
        let auth = || Auth::Basic(Credentials::new("Aladdin:open sesame"));
        let check = |value| checked(&auth(), None, "13", &[("Authorization", value)]);
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
        assert_eq!(checked(&auth(), None, "13", &[]), Err(Denial::NoCredentials));
        let good = ("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(checked(&auth(), None, "13", &[good, good]), Err(Denial::Credentials));
    }

    #[test]
    fn t4_the_origin_is_read_where_the_version_has_it() {
        let auth = || Auth::Origin(names(&["https://a.example", "http://b.example:8080"]));
        let check = |version, lines: &[_]| checked(&auth(), None, version, lines);
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
        assert_eq!(checked(&auth(), Some("Joe"), "13", &[]), Ok(()));
        for name in [None, Some(""), Some("joe"), Some("Joe "), Some("jane@example.com Joe")] {
            assert_eq!(checked(&auth(), name, "13", &[]), Err(Denial::Name), "{name:?}");
        }
        for header in ["ssl_client_s_dn_cn", "SSL_CLIENT_S_DN_CN", "Ssl-Client-S-Dn-Cn"] {
            assert_eq!(checked(&auth(), None, "13", &[(header, "Joe")]), Err(Denial::Name));
        }
    }

    /// The log has the user, which may be a token that is sent with an empty password.
    #[test]
    fn k8_a_user_without_a_password_is_a_secret() {
        for (credentials, shown) in
            [("joe:secret", Some("joe")), ("abcdefgh:", Some("abcd…")), ("joe", None)]
        {
            let value = format!("Basic {}", BASE64.encode(credentials.as_bytes()));
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            assert_eq!(user(&headers).as_deref(), shown, "{credentials}");
        }
    }
}
