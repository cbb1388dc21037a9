//! The token in a request head. Knows text only, and nothing of what a token stands for.

use std::borrow::Cow;

use ::http::header::HOST;
use ::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::ws::single;

/// Where a request has its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPlace {
    /// The query: its first pair that is called `token` and is not empty.
    Query,
    /// The `Host` header without its port. Upper and lower case are the same.
    Host,
}

impl TokenPlace {
    /// A request's token, if it has one.
    pub(super) fn token(self, head: &Parts) -> Option<String> {
        match self {
            Self::Query => of_query(head.uri.query()?),
            Self::Host => of_host(std::str::from_utf8(single(&head.headers, HOST)?).ok()?),
        }
    }

    /// The form in which [`token`](Self::token) gives this token of a source when a request has it.
    pub(super) fn normal(self, token: &str) -> Cow<'_, str> {
        match self {
            Self::Host if token.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                token.to_ascii_lowercase().into()
            }
            Self::Query | Self::Host => token.into(),
        }
    }
}

/// The token of a query, decoded as forms are, and as upstream does: a plus is a space, a pair without a value is skipped, and
/// line feeds at the end are no part of the token.
pub(crate) fn of_query(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(_, value)| !value.is_empty());
    let (_, value) = values.find(|(name, _)| decoded(name).is_some_and(|name| name == "token"))?;
    let mut token = decoded(value)?;
    token.truncate(token.trim_end_matches('\n').len());
    Some(token)
}

/// `None`: it is not UTF-8.
fn decoded(part: &str) -> Option<String> {
    let spaced = part.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
}

pub(crate) fn of_host(host: &str) -> Option<String> {
    // The colons in brackets are those of an address.
    let end = match host.find(']') {
        Some(end) if host.starts_with('[') => end + 1,
        _ => host.find(':').unwrap_or(host.len()),
    };
    let name = &host[..end];
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    /// What `parse_qs` of Python makes of them, but for what is not UTF-8: that is replaced there.
    #[test]
    fn k1_the_token_is_the_first_of_the_query() {
        for (query, token) in [
            ("token=a", Some("a")),
            ("x=y&token=a&token=b", Some("a")),
            ("token=&token=b", Some("b")),
            ("token&token=b", Some("b")),
            ("token=a%20b%2Fc", Some("a b/c")),
            ("token=a+b", Some("a b")),
            ("token=a%2Bb", Some("a+b")),
            ("token=a=b", Some("a=b")),
            ("token=a;b", Some("a;b")),
            ("t%6Fken=a", Some("a")),
            ("token=%C5%BC", Some("ż")),
            ("token=a%", Some("a%")),
            ("token=%zz", Some("%zz")),
            ("token=%00", Some("\0")),
            ("token=a%0D%0A", Some("a\r")),
            ("token=a%0A%0A", Some("a")),
            ("token=%0A", Some("")),
            ("token=%ff&token=b", None),
            ("Token=a", None),
            (" token=a", None),
            ("xtoken=a", None),
            ("token", None),
            ("token=", None),
            ("", None),
        ] {
            assert_eq!(of_query(query).as_deref(), token, "{query}");
        }
    }

    #[test]
    fn k1_or_the_host_without_its_port() {
        for (host, token) in [
            ("a.example", Some("a.example")),
            ("A.Example:6080", Some("a.example")),
            ("[::1]:6080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("[::1", Some("[")),
            (":6080", None),
            ("", None),
        ] {
            let request = Request::builder().header(HOST, host).body(()).unwrap();
            let head = request.into_parts().0;
            assert_eq!(TokenPlace::Host.token(&head).as_deref(), token, "{host}");
            assert_eq!(TokenPlace::Query.token(&head), None);
        }
        let two = Request::builder().header(HOST, "a").header(HOST, "b").body(()).unwrap();
        assert_eq!(TokenPlace::Host.token(&two.into_parts().0), None);
        let none = Request::builder().uri("/?token=x").body(()).unwrap().into_parts().0;
        assert_eq!(TokenPlace::Host.token(&none), None);
        assert_eq!(TokenPlace::Query.token(&none).as_deref(), Some("x"));
    }
}
