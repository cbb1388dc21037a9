//! What the log has of a client's words: of a secret never more than four characters, wherever it stands and however often it is
//! encoded. `token` and `web` try it, with their bytes as a query, as a secret, and as a path.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::redact::{ENCODED_MAX, LONGEST, SECRET_SHOWN, SECRETS, path, text, token, without};

/// The text is a query, a secret in a query, and a secret that a helper repeats.
pub(super) fn query(said: &str) {
    request(&format!("/?{said}"));
    alone(said);
    // One name each time: all would take as long as seven inputs.
    in_a_query(SECRETS[said.len() % SECRETS.len()], said);
    repeated(said);
}

/// A path and query, whatever it is, is short, and a pair that is in plain text has its secret cut.
pub(super) fn request(said: &str) {
    let shown = path(said);
    let pairs = said.split('&').count();
    // An ellipsis for the whole, and one for each pair.
    assert!(shown.chars().count() <= LONGEST + 1 + pairs, "{shown:?}");
    let Some((_, query)) = shown.split_once('?') else { return };
    for pair in query.split('&').filter(|pair| !pair.contains('%')) {
        let pair = pair.to_ascii_lowercase();
        let secret = pair.match_indices('=').find(|(at, _)| {
            let name = pair[..*at].rsplit('=').next().expect("a last part");
            SECRETS.iter().any(|word| name.contains(word))
        });
        if let Some((at, _)) = secret {
            assert!(pair[at + 1..].chars().count() <= SECRET_SHOWN + 1, "{shown:?}");
        }
    }
}

/// A secret that stands alone, and anything else, which is cut only where it is too long.
fn alone(said: &str) {
    assert_eq!(cut(said), token(said));
    let shown = text(said);
    let is_cut = |start| said.starts_with(start) && said.chars().count() > LONGEST;
    assert!(shown == said || shown.strip_suffix('…').is_some_and(is_cut), "{shown:?}");
    assert!(shown.chars().count() <= LONGEST + 1, "{shown:?}");
}

/// A secret of this name, in a query, or in an address that stands in the query of another address, and so on.
fn in_a_query(name: &str, secret: &str) {
    let mut pair = format!("{name}={}", secret.replace('&', ""));
    for _ in 0..=ENCODED_MAX {
        let shown = path(&format!("/?next={pair}{BEHIND}")).into_owned();
        let value = shown.strip_prefix(&format!("/?next={name}=")).expect("its name is told");
        let mut cuts = value.char_indices().take(SECRET_SHOWN + 1).filter(|(_, one)| *one == '…');
        assert!(cuts.any(|(at, one)| is_behind(&value[at + one.len_utf8()..])), "{shown:?}");
        pair = utf8_percent_encode(&pair, NON_ALPHANUMERIC).to_string();
    }
}

const BEHIND: &str = "&more=x";

/// Whether this is the text behind the secret, or the beginning of that where the whole is too long.
fn is_behind(shown: &str) -> bool {
    shown.is_empty()
        || shown == BEHIND
        || shown.strip_suffix('…').is_some_and(|left| BEHIND.starts_with(left))
}

/// The secret in what a helper says, as it is and between quotes.
fn repeated(secret: &str) {
    // An ellipsis in the secret would be taken for ours.
    if secret.chars().count() <= SECRET_SHOWN || secret.contains('…') {
        return;
    }
    let said = format!("{secret} {secret:?} {secret}");
    let shown = without(&said, [secret]);
    assert!(!shown.contains(secret), "{shown:?}");
}

/// Another way to cut a secret.
fn cut(secret: &str) -> String {
    let end = secret.char_indices().nth(SECRET_SHOWN).map_or(secret.len(), |(at, _)| at);
    format!("{}…", &secret[..end])
}
