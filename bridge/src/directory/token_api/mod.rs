//! A web server that knows the tokens: it is asked by a URL for each, and answers with the target (K4).
//!
//! - `pattern` is the URL, with the token in it,
//! - `client` sends the request, and `redirect` says where an answer redirects it.

mod client;
mod pattern;
pub(crate) mod redirect;

use ::http::StatusCode;
use serde_json::Value;

use super::failure::SourceError;
use super::{json, target};
use crate::destination::Endpoint;
use client::Client;
pub use pattern::Pattern;

/// A server that is asked for each token.
#[derive(Debug)]
pub(super) struct TokenApi {
    pattern: Pattern,
    answers: Answers,
    client: Client,
}

/// How the server's answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// `host:port`.
    Text,
    /// `{"host": …, "port": …}`.
    Json,
}

impl TokenApi {
    pub(super) fn new(pattern: Pattern, answers: Answers) -> Self {
        Self { pattern, answers, client: Client::new() }
    }

    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Endpoint>, SourceError> {
        let failed = |why: String| SourceError::Server(self.pattern.to_string(), why);
        let Some(uri) = self.pattern.uri(token) else { return Ok(None) };
        let answer = self.client.get(uri, self.pattern.credentials()).await.map_err(failed)?;
        match answer.status {
            status if status.is_success() => {
                let endpoint = read(&answer.body, self.answers);
                endpoint
                    .map(Some)
                    .map_err(|why| failed(format!("its answer cannot be read: {why}")))
            }
            // The server may know the token, and cannot say so at the moment.
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Err(failed(format!("it answers {}", answer.status.as_u16())))
            }
            status if status.is_client_error() => Ok(None),
            status => Err(failed(format!("it answers {}", status.as_u16()))),
        }
    }
}

/// The target in an answer, or why there is none.
pub(crate) fn read(body: &[u8], answers: Answers) -> Result<Endpoint, &'static str> {
    match answers {
        Answers::Text => {
            let text = std::str::from_utf8(body).map_err(|_| "it is not text in UTF-8")?;
            target::endpoint(text.trim())
        }
        Answers::Json => {
            let object: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON")?;
            json::endpoint(&object)
        }
    }
}
