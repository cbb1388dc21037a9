//! The gate: which requests are answered. A browser on this machine can reach a loopback address, too, and lets any web
//! page send requests to it. So a request that a page has made is refused, and at a loopback address also a request for
//! the name of another machine: that name may have been made to resolve to this one (DNS rebinding). Knows request
//! heads; must not know what is asked for.

use std::net::{IpAddr, Ipv4Addr};

use bridge::{Auth, ClientId, PasswordCheck, Unproven};
use http::header::{HOST, HeaderMap, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{StatusCode, Version};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Decides which requests are let in.
#[derive(Debug)]
pub(crate) struct Gate {
    guard: Option<PasswordCheck>,
    /// Whether a request must name this machine: a loopback address or localhost.
    minds_host: bool,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
    /// Whether a password is asked for.
    pub(super) challenges: bool,
    /// In how many seconds passwords are looked at again.
    pub(super) retry: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text, challenges: false, retry: None }
    }
}

impl Gate {
    /// With this password, if there is one.
    pub(super) fn new(password: Option<watch::Receiver<Auth>>, minds_host: bool) -> Self {
        Self { guard: password.map(PasswordCheck::new), minds_host }
    }

    /// Refuses a request that a web page has made, and one for the name of another machine.
    pub(super) fn is_meant(&self, head: &Parts) -> Result<(), Refused> {
        if head.headers.contains_key(ORIGIN) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "no page may ask for this"));
        }
        if !self.minds_host {
            return Ok(());
        }
        let names = names(head)?;
        if names.iter().all(is_of_this_machine) {
            return Ok(());
        }
        let text = "this is asked for by a loopback address or localhost";
        Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, text))
    }

    /// Whether the request shows the password, if there is one. The answer to a wrong password is delayed, until
    /// `latest` at most.
    pub(super) async fn lets_in(
        &self,
        headers: &HeaderMap,
        client: ClientId,
        latest: Instant,
    ) -> Result<(), Refused> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let Err(why) = guard.check(headers, guesser(client)) else { return Ok(()) };
        if why != Unproven::Nothing {
            tracing::warn!(
                target: bridge::UNADMITTED,
                "denied {client} at the admin address: {why}"
            );
        }
        Err(match why {
            Unproven::Nothing => Refused { challenges: true, ..not_authorized() },
            Unproven::Wrong(due) => {
                sleep_until(due.min(latest)).await;
                Refused { challenges: true, ..not_authorized() }
            }
            Unproven::Closed(time) => Refused {
                retry: Some(time.as_secs() + 1),
                ..Refused::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords")
            },
        })
    }
}

/// Whom a wrong password counts for. All loopback addresses count as one: a local user can connect from sixteen million
/// of them.
fn guesser(client: ClientId) -> ClientId {
    match client {
        ClientId::Address(address) if address.to_canonical().is_loopback() => {
            ClientId::Address(Ipv4Addr::LOCALHOST.into())
        }
        client => client,
    }
}

fn not_authorized() -> Refused {
    Refused::new(StatusCode::UNAUTHORIZED, "not authorized")
}

/// The names that a request gives to this server: in its first line, and in its only `Host`, which HTTP/1.0 need not
/// have.
fn names(head: &Parts) -> Result<Vec<Authority>, Refused> {
    let wrong = || Refused::new(StatusCode::BAD_REQUEST, "missing or invalid Host");
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(Authority::try_from(host.as_bytes()).map_err(|_| wrong())?),
        (None, _) if head.version == Version::HTTP_10 => None,
        _ => return Err(wrong()),
    };
    Ok(host.into_iter().chain(head.uri.authority().cloned()).collect())
}

fn is_of_this_machine(name: &Authority) -> bool {
    let host = name.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().version(version).uri(uri);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn o3_nobodys_page_asks_and_no_other_name() {
        let gate = Gate::new(None, true);
        let status = |version, uri, headers: &[_]| {
            gate.is_meant(&head(version, uri, headers)).err().map(|refused| refused.status.as_u16())
        };
        let of = |host| status(Version::HTTP_11, "/", &[("host", host)]);
        for host in
            ["127.0.0.1:9000", "127.0.0.1", "[::1]:9000", "localhost:1", "LocalHost", "127.9.9.9"]
        {
            assert_eq!(of(host), None, "{host}");
        }
        for host in [
            "a.example:9000",
            "localhost.a.example",
            "127.0.0.1.a.example",
            "192.0.2.1",
            "[::]",
            "x@localhost.example",
        ] {
            assert_eq!(of(host), Some(421), "{host}");
        }
        for host in ["", "a b", "[::1"] {
            assert_eq!(of(host), Some(400), "{host}");
        }
        let good = ("host", "localhost");
        assert_eq!(status(Version::HTTP_11, "/", &[]), Some(400));
        assert_eq!(status(Version::HTTP_10, "/", &[]), None);
        assert_eq!(status(Version::HTTP_11, "/", &[good, good]), Some(400));
        assert_eq!(status(Version::HTTP_11, "http://a.example/", &[good]), Some(421));
        for origin in ["http://a.example", "http://localhost:9000", "null", ""] {
            assert_eq!(status(Version::HTTP_11, "/", &[good, ("origin", origin)]), Some(403));
        }
        let elsewhere = Gate::new(None, false);
        let of = |headers: &[_]| elsewhere.is_meant(&head(Version::HTTP_11, "/", headers));
        assert_eq!(of(&[("host", "a.example")]), Ok(()));
        assert!(of(&[("origin", "http://a.example")]).is_err());
    }
}
