//! Authentication by a helper, which is outside of the bridge (U9): it is told which client asks for what, and lets the
//! client in or not. Knows what the helper is told and what its answer means; must not know who the helper is.

use std::time::Duration;

use ::http::header::AUTHORIZATION;
use ::http::request::Parts;
use ::http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use super::auth;
use super::refusal::Refusal;
use crate::destination::{Destination, Endpoint};
use crate::peer::Peer;
use crate::questions::{ClientInfo, QuestionSender, Rejection, Verdict};
use crate::redact;

/// How long a client waits for the helper's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the helper lets a client in, which goes to `destination` if that is known.
pub(super) async fn check(
    asked: &QuestionSender,
    head: &Parts,
    peer: &Peer,
    destination: Option<&Destination>,
) -> Result<(), Refusal> {
    let verdict = timeout(ANSWER_TIMEOUT, asked.authenticate(shown(head, peer, destination))).await;
    match verdict {
        Ok(Ok(Verdict::Allowed)) => Ok(()),
        Ok(Ok(Verdict::Refused(rejection))) => Err(refused(*rejection, &head.headers)),
        Ok(Err(why)) => Err(Refusal::unanswered(without_secrets(&why.to_string(), &head.headers))),
        Err(_) => {
            Err(Refusal::unanswered(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
        }
    }
}

fn shown(head: &Parts, peer: &Peer, destination: Option<&Destination>) -> ClientInfo {
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    let (mut host, mut port, mut unix) = (None, None, None);
    match destination {
        Some(Destination::Service(Endpoint::Tcp(address) | Endpoint::Resolved(address, _))) => {
            (host, port) = (Some(address.host.clone()), Some(address.port));
        }
        Some(Destination::Service(Endpoint::Unix(path))) => unix = Some(path.clone()),
        Some(Destination::Service(Endpoint::Opened(socket))) => {
            unix = Some(socket.path().to_owned());
        }
        Some(Destination::Program(gate)) => {
            let address = gate.address();
            host = address.map(|address| address.ip().to_string());
            port = address.map(|address| address.port());
        }
        None => {}
    }
    let client = peer.address.client().to_string();
    let certificate = peer.certificate.as_deref().map(str::to_owned);
    ClientInfo { headers: headers.collect(), client, certificate, host, port, unix }
}

fn refused(rejection: Rejection, headers: &HeaderMap) -> Refusal {
    let Rejection { status, headers: more, message, reason } = rejection;
    let why = reason.as_ref().or(message.as_ref()).map_or("no reason", String::as_str);
    let is_first = status == StatusCode::UNAUTHORIZED && !headers.contains_key(AUTHORIZATION);
    let why = (!is_first).then(|| without_secrets(why, headers));
    Refusal::rejected(status, more, message, why)
}

fn without_secrets(said: &str, headers: &HeaderMap) -> String {
    redact::without(said, secrets(headers).iter().map(String::as_str))
}

/// What must not stand in a log whole (K8): the values of secret headers, the parts of these values, and the password.
/// The helper may repeat any of them in its answer.
fn secrets(headers: &HeaderMap) -> Vec<String> {
    let secret = headers.iter().filter(|(name, _)| redact::is_secret(name.as_str()));
    let mut secrets = Vec::new();
    for value in secret.map(|(_, value)| text(value.as_bytes())) {
        let parts = value.split([' ', ';', ',', '=']).filter(|part| part.len() >= 8);
        let parts: Vec<_> = parts.map(str::to_owned).collect();
        secrets.push(value);
        secrets.extend(parts);
    }
    secrets.extend(auth::password(headers));
    secrets
}

/// Bytes of the request as text, in which each byte is one character: the helper is told header values in this form.
fn text(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use ::http::header::COOKIE;

    use super::*;

    #[test]
    fn k8_no_log_has_a_secret_whole_that_a_helper_has_decoded() {
        let mut headers = HeaderMap::new();
        headers
            .insert(AUTHORIZATION, HeaderValue::from_static("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        headers.insert(COOKIE, HeaderValue::from_bytes(b"desk=caf\xc3\xa9-house").unwrap());
        let said = "not 'open sesame' of Aladdin, nor caf\u{c3}\u{a9}-house";
        let secrets = secrets(&headers);
        let shown = redact::without(said, secrets.iter().map(String::as_str));
        assert_eq!(shown, "not 'open…' of Aladdin, nor caf\u{c3}…");
    }
}
