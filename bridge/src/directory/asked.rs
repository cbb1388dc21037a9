//! The look-up of tokens by a helper (U9). Knows what an answer means; must not know who gives it.

use super::failure::SourceError;
use super::target;
use crate::destination::Endpoint;
use crate::questions::{NoAnswer, QuestionSender};
use crate::redact;

/// Where this token leads, if it is known.
pub(super) async fn look_up(
    asked: &QuestionSender,
    token: &str,
) -> Result<Option<Endpoint>, SourceError> {
    let found = asked.look_up(token).await.map_err(|why| match why {
        NoAnswer::Because(why) => SourceError::Answer(redact::without(&why, [token])),
        NoAnswer::Ended => SourceError::Answer(why.to_string()),
    });
    let endpoint = found?.as_deref().map(target::endpoint).transpose();
    endpoint.map_err(|why| SourceError::Answer(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Address;
    use crate::questions::Question;

    #[tokio::test]
    async fn u9_an_answer_is_a_target_or_says_why_it_is_none() {
        let (asked, mut questions) = QuestionSender::channel();
        let answers = async {
            let target = |text: &str| Ok(Some(text.to_owned()));
            for reply in [target("a:1"), target("a:0"), Err("no such key: secretdesk".into())] {
                let Some(Question::Lookup { answer, .. }) = questions.next().await else {
                    panic!("no look-up")
                };
                answer.send(reply).unwrap();
            }
        };
        let looks = async {
            let endpoint = Endpoint::Tcp(Address { host: "a".into(), port: 1 });
            assert_eq!(look_up(&asked, "secretdesk").await.unwrap(), Some(endpoint));
            let failed = look_up(&asked, "secretdesk").await.unwrap_err().to_string();
            assert!(failed.ends_with("its port is no number from 1 to 65535"), "{failed}");
            // K8: the helper may repeat the token, the log does not.
            let failed = look_up(&asked, "secretdesk").await.unwrap_err().to_string();
            assert!(failed.ends_with("no such key: secr…"), "{failed}");
        };
        tokio::join!(answers, looks);
    }
}
