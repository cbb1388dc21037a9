//! Questions that a helper outside of the bridge answers (U9). Each question waits in a bounded queue, and the task
//! that has asked waits for the answer as long as its client may wait. Must not know who answers, nor how.

use std::path::PathBuf;

use ::http::StatusCode;
use ::http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use tokio::sync::{mpsc, oneshot};

/// How many questions may be in the queue, besides those that the helper has taken; further clients wait for a place.
const WAITING: usize = 64;

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub enum Question {
    /// Where the token of a client leads: to a target, in the form of token files (`host:port` or `unix_socket:/path`),
    /// or nowhere.
    Lookup {
        /// What the client has sent.
        token: String,
        /// Takes the target.
        answer: Reply<Option<String>>,
    },
    /// Whether a client is let in.
    Authenticate {
        /// What is known of the client.
        shown: Box<ClientInfo>,
        /// Takes the verdict.
        answer: Reply<Verdict>,
    },
}

/// Takes an answer, or why there is none. It is closed when the client no longer waits. If it is dropped without an
/// answer, the question has failed.
pub type Reply<T> = oneshot::Sender<Result<T, String>>;

/// What is known of a client that asks for a session or a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The headers of its request, in their order. Each byte of a value is a character.
    pub headers: Vec<(String, String)>,
    /// The client's address.
    pub client: String,
    /// The common name in the client's certificate, which was verified.
    pub certificate: Option<String>,
    /// The host name or IP address that the client is to be connected to, if the target is known and has one.
    pub host: Option<String>,
    /// The port of that host.
    pub port: Option<u16>,
    /// The Unix socket that the client is to be connected to instead.
    pub unix: Option<PathBuf>,
}

/// The result of an authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The client is let in.
    Allowed,
    /// The client is refused.
    Refused(Box<Rejection>),
}

/// The answer to a client that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The text for the client.
    pub(crate) message: Option<String>,
    /// The reason, for the log.
    pub(crate) reason: Option<String>,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The helper says why.
    #[error("{0}")]
    Because(String),
    /// The helper has ended first.
    #[error("the helper has not answered")]
    Ended,
}

/// The end of the queue where questions are put.
#[derive(Debug, Clone)]
pub struct QuestionSender(mpsc::Sender<Question>);

/// The end of the queue where questions are taken.
#[derive(Debug)]
pub struct QuestionReceiver(mpsc::Receiver<Question>);

impl QuestionSender {
    /// A new queue: both ends.
    pub fn channel() -> (Self, QuestionReceiver) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), QuestionReceiver(receiver))
    }

    /// Where a token leads.
    pub(crate) async fn look_up(&self, token: &str) -> Result<Option<String>, NoAnswer> {
        let token = token.to_owned();
        self.ask(|answer| Question::Lookup { token, answer }).await
    }

    /// Whether a client is let in.
    pub(crate) async fn authenticate(&self, shown: ClientInfo) -> Result<Verdict, NoAnswer> {
        let shown = Box::new(shown);
        self.ask(|answer| Question::Authenticate { shown, answer }).await
    }

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        self.0.send(question(answer)).await.map_err(|_| NoAnswer::Ended)?;
        answered.await.map_err(|_| NoAnswer::Ended)?.map_err(NoAnswer::Because)
    }
}

impl QuestionReceiver {
    /// The next question that a client still waits for; `None` once the bridge has ended.
    pub async fn next(&mut self) -> Option<Question> {
        loop {
            let question = self.0.recv().await?;
            if question.is_awaited() {
                return Some(question);
            }
        }
    }
}

impl Question {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Lookup { answer, .. } => !answer.is_closed(),
            Self::Authenticate { answer, .. } => !answer.is_closed(),
        }
    }
}

impl Rejection {
    /// A rejection with this status code. Headers that say how the answer is sent (`Content-Length` and the like) are
    /// left out: we set those.
    ///
    /// # Errors
    ///
    /// Such an answer cannot be sent: the code is not that of a refusal, or a header is malformed.
    pub fn new(
        code: u64,
        headers: &[(String, String)],
        message: Option<String>,
        reason: Option<String>,
    ) -> Result<Self, &'static str> {
        const NO_CODE: &str = "its code is none from 300 to 599 whose answer has a text";
        const OURS: [HeaderName; 6] =
            [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
        let code = u16::try_from(code).ok().filter(|code| (300..600).contains(code));
        let status = code.ok_or(NO_CODE)?.try_into().map_err(|_| NO_CODE)?;
        if status == StatusCode::NOT_MODIFIED {
            return Err(NO_CODE);
        }
        let mut all = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|_| "it has a header with a bad name")?;
            let value = value.parse().map_err(|_| "it has a header with a bad value")?;
            if !OURS.contains(&name) {
                all.push((name, value));
            }
        }
        Ok(Self { status, headers: all, message, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn u9_a_question_ends_as_its_answer_says() {
        let (asked, mut questions) = QuestionSender::channel();
        let answers = async {
            for reply in [Some(Ok(None)), Some(Err("no database".to_owned())), None] {
                let Some(Question::Lookup { token, answer }) = questions.next().await else {
                    panic!("no look-up")
                };
                assert_eq!(token, "desk");
                if let Some(reply) = reply {
                    answer.send(reply).unwrap();
                }
            }
        };
        let looks = async {
            assert_eq!(asked.look_up("desk").await, Ok(None));
            assert_eq!(asked.look_up("desk").await, Err(NoAnswer::Because("no database".into())));
            assert_eq!(asked.look_up("desk").await, Err(NoAnswer::Ended));
        };
        tokio::join!(answers, looks);
    }

    /// A client that has gone leaves no work behind.
    #[tokio::test]
    async fn u9_a_question_that_nobody_waits_for_is_not_asked() {
        let (asked, mut questions) = QuestionSender::channel();
        let gone = tokio::time::timeout(std::time::Duration::ZERO, asked.look_up("gone")).await;
        assert!(gone.is_err());
        let found = tokio::select! {
            found = questions.next() => found,
            _ = asked.look_up("here") => None,
        };
        assert!(matches!(found, Some(Question::Lookup { token, .. }) if token == "here"));
    }

    #[test]
    fn u9_a_refusal_says_nothing_that_a_client_would_take_for_ours() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let of = |code, headers: &[_]| Rejection::new(code, headers, None, None);
        let all = [
            header("WWW-Authenticate", "Basic"),
            header("content-length", "7"),
            header("Transfer-Encoding", "chunked"),
            header("Connection", "Upgrade"),
        ];
        let refused = of(401, &all).unwrap();
        assert_eq!((refused.status.as_u16(), refused.headers.len()), (401, 1));
        for code in [0, 101, 200, 299, 304, 600, 65_536 + 401, u64::MAX] {
            assert!(of(code, &[]).is_err(), "{code}");
        }
        for (name, value) in [("", "a"), ("a b", "c"), ("a", "b\r\nc: d"), ("a\n", "b")] {
            assert!(of(403, &[header(name, value)]).is_err(), "{name:?}: {value:?}");
        }
    }
}
