//! Redacts what a client said for the log: cuts it short, and the secrets out of it (K8).
//!
//! Knows text, and where a request has its path. Control characters are left to the log, which escapes them wherever they are.

use std::borrow::Cow;

use ::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::ws::path_of;

/// How many characters of a client's text are in a log record, at most.
pub(crate) const LONGEST: usize = 200;

/// How many characters of a secret are logged: enough for its owner to know which one it is, too few for anybody else
/// to know the secret.
pub(crate) const SECRET_SHOWN: usize = 4;

/// How often a query is decoded at most, where it has been encoded more than once.
pub(crate) const ENCODED_MAX: usize = 4;

/// A parameter of a query is a secret if its name contains one of these.
pub(crate) const SECRETS: [&str; 7] = ["token", "pass", "pwd", "secret", "auth", "jwt", "key"];

/// The path and query of a request.
pub(crate) fn head(head: &Parts) -> String {
    path(&path_of(&head.uri)).into_owned()
}

/// A path and query. What is short and has no secret is not copied.
pub(crate) fn path(path: &str) -> Cow<'_, str> {
    let shown = text(path);
    let Some((path, query)) = shown.split_once('?') else { return shown };
    if query.split('&').all(|pair| secret(pair).is_none()) {
        return shown;
    }
    let pairs = query.split('&').map(|pair| secret(pair).map_or(pair.into(), Cow::Owned));
    let query = pairs.collect::<Vec<_>>().join("&");
    Cow::Owned(format!("{path}?{query}"))
}

/// The beginning of a secret.
pub(crate) fn token(token: &str) -> String {
    let shown: String = token.chars().take(SECRET_SHOWN).collect();
    format!("{shown}…")
}

/// What a helper or a server says of a client, without these secrets of the client.
pub(crate) fn without<'a>(said: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let long = secrets.into_iter().filter(|secret| secret.chars().count() > SECRET_SHOWN);
    let shown = long.fold(said.to_owned(), |said, secret| {
        // The secret as it is, and as it is escaped between quotes.
        let quoted = secret.escape_debug().to_string();
        [secret, &quoted].iter().fold(said, |said, form| said.replace(form, &token(form)))
    });
    text(&shown).into_owned()
}

/// Whether a header with this name is a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    has_one(name.as_bytes(), &SECRETS) || has_one(name.as_bytes(), &["cookie"])
}

fn has_one(name: &[u8], words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| name.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes())))
}

/// Any other text.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// A pair of a query with its secret cut off, if it has one: its own value, or a parameter in its value, which may be
/// the address of a session (noVNC's `path=websockify%3Ftoken%3D…`).
fn secret(pair: &str) -> Option<String> {
    let pair = decoded(pair);
    let mut start = 0;
    for (at, _) in pair.match_indices('=') {
        let name = &pair.as_bytes()[start..at];
        start = at + 1;
        if has_one(name, &SECRETS) {
            return Some(format!("{}{}", &pair[..start], token(&pair[start..])));
        }
    }
    None
}

/// Decodes a pair as often as it was encoded, `ENCODED_MAX` times at most: an address may be in the query of another
/// one, which is in the query of a third (`next=%2Fvnc.html%3Fpath%3Dwebsockify%253Ftoken%253D…`).
fn decoded(pair: &str) -> Cow<'_, str> {
    let mut pair = percent_decode_str(pair).decode_utf8_lossy();
    for _ in 1..ENCODED_MAX {
        let further = percent_decode_str(&pair).decode_utf8_lossy();
        if further == pair {
            break;
        }
        pair = further.into_owned().into();
    }
    pair
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f9_a_long_path_is_cut() {
        let long = format!("/{}", "é".repeat(15_000));
        assert_eq!(path(&long), format!("/{}…", "é".repeat(LONGEST - 1)));
        let query = format!("/?token=12345&x={}", "y".repeat(15_000));
        assert_eq!(path(&query).chars().count(), LONGEST + 1);
        let exact = "/".repeat(LONGEST);
        assert!(matches!(path(&exact), Cow::Borrowed(same) if same == exact));
    }

    #[test]
    fn f9_k8_secrets_are_cut_after_four_characters() {
        for (typed, expected) in [
            ("/websockify?token=abcdefgh", "/websockify?token=abcd…"),
            ("/?a=b&token=abcdefgh&c=d", "/?a=b&token=abcd…&c=d"),
            ("/?TOKEN=abcdefgh&password=12345", "/?TOKEN=abcd…&password=1234…"),
            ("/?a=b;token=abcdefgh;password=12345", "/?a=b;token=abcd…"),
            ("/?access_token=abcdefgh", "/?access_token=abcd…"),
            ("/?t%6fken=abcdefgh", "/?token=abcd…"),
            ("/?token=%61%62%63%64%65", "/?token=abcd…"),
            ("/?token=ab", "/?token=ab…"),
            ("/?path=websockify%3Ftoken%3Dabcdefgh", "/?path=websockify?token=abcd…"),
            ("/?path=websockify?token=abcdefgh", "/?path=websockify?token=abcd…"),
            (
                "/?next=%2Fvnc.html%3Fpath%3Dwebsockify%253Ftoken%253Dabcdefgh",
                "/?next=/vnc.html?path=websockify?token=abcd…",
            ),
            ("/?a=%25252574oken%3Dabcdefgh", "/?a=token=abcd…"),
            ("/?token=%ff%fe%fd%fc%fb", "/?token=\u{fffd}\u{fffd}\u{fffd}\u{fffd}…"),
            ("/a?b=c", "/a?b=c"),
            ("/?token", "/?token"),
            ("/token=abcdefgh", "/token=abcdefgh"),
        ] {
            assert_eq!(path(typed), expected, "{typed}");
        }
    }

    #[test]
    fn k8_what_a_helper_says_is_cut_where_it_repeats_a_secret() {
        let said = "KeyError: 'abcdefgh', not abc";
        assert_eq!(without(said, ["abcdefgh", "abc", ""]), "KeyError: 'abcd…', not abc");
        assert_eq!(without("no \"ab\\\"cdef\"", ["ab\"cdef"]), "no \"ab\\\"…\"");
        assert_eq!(without(&"x".repeat(LONGEST + 1), []).chars().count(), LONGEST + 1);
        for (name, expected) in
            [("authorization", true), ("Cookie", true), ("x-api-key", true), ("host", false)]
        {
            assert_eq!(is_secret(name), expected, "{name}");
        }
    }

    #[test]
    fn f9_a_path_without_secrets_is_not_copied() {
        for typed in ["/", "/websockify", "/?a=b&c=%20"] {
            assert!(matches!(path(typed), Cow::Borrowed(_)), "{typed}");
        }
    }
}
