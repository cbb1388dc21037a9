//! The authentication that a helper does (U9): it is told who asks for what, and says yes or no. Knows what is told
//! and what an answer means, and nothing of who gives it.

use std::time::Duration;

use ::http::header::AUTHORIZATION;
use ::http::request::Parts;
use ::http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::destination::{Destination, Endpoint};
use crate::peer::Peer;
use crate::questions::{Asked, Rejection, Shown, Verdict};
use crate::redact;

/// How long a client waits for the helper's word.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the helper lets a client in, who goes to `destination` if that is known.
pub(super) async fn check(
    asked: &Asked,
    head: &Parts,
    peer: &Peer,
    destination: Option<&Destination>,
) -> Result<(), Refusal> {
    let verdict = timeout(PATIENCE, asked.authenticate(shown(head, peer, destination))).await;
    match verdict {
        Ok(Ok(Verdict::Allowed)) => Ok(()),
        Ok(Ok(Verdict::Refused(rejection))) => Err(refused(*rejection, &head.headers)),
        Ok(Err(why)) => {
            Err(Refusal::unanswered(redact::without(&why.to_string(), secrets(&head.headers))))
        }
        Err(_) => Err(Refusal::unanswered(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

fn shown(head: &Parts, peer: &Peer, destination: Option<&Destination>) -> Shown {
    let text = |value: &[u8]| value.iter().copied().map(char::from).collect();
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
    Shown { headers: headers.collect(), client, certificate, host, port, unix }
}

fn refused(rejection: Rejection, headers: &HeaderMap) -> Refusal {
    let Rejection { status, headers: more, message, reason } = rejection;
    let why = reason.as_ref().or(message.as_ref()).map_or("no reason", String::as_str);
    let is_first = status == StatusCode::UNAUTHORIZED && !headers.contains_key(AUTHORIZATION);
    let why = (!is_first).then(|| redact::without(why, secrets(headers)));
    Refusal::rejected(status, more, message, why)
}

/// What must not stand in a log whole (K8), and its parts: whoever is asked may repeat them.
fn secrets(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let secret = headers.iter().filter(|(name, _)| redact::is_secret(name.as_str()));
    let values = secret.filter_map(|(_, value)| value.to_str().ok());
    values.flat_map(|value| {
        let parts = value.split([' ', ';', ',', '=']);
        std::iter::once(value).chain(parts.filter(|part| part.len() >= 8))
    })
}
