//! Options with an empty value, as in scripts that write `--cert=$CERT` (U1): the Python websockify takes most of its
//! options as not given then. Knows the names of options, written out by `shortened`, and no values but empty ones. An
//! empty value of any other option is left to that option.

use std::ffi::OsString;

/// The options of the Python websockify that it takes empty. It refuses an empty number, an empty choice and a
/// plugin without a name, and so do we.
const TAKEN_EMPTY: &[&str] = &[
    "auth-source",
    "cafile",
    "cert",
    "key",
    "key-password",
    "log-file",
    "record",
    "ssl-ciphers",
    "syslog",
    "target-config",
    "token-source",
    "unix-listen",
    "unix-listen-mode",
    "unix-target",
    "web",
];

/// A word of the command line, with the next word if that is its value, and which of those options it is.
struct Words {
    option: Option<&'static str>,
    words: Vec<OsString>,
}

/// The command line without those options if they are empty, and without their earlier values: the last value counts.
/// Words behind `--` are the program's, and stay.
pub(super) fn left_out(args: Vec<OsString>) -> Vec<OsString> {
    let mut left: Vec<Words> = Vec::new();
    let mut args = args.into_iter();
    while let Some(word) = args.next() {
        if word == "--" {
            let program = std::iter::once(word).chain(args).collect();
            left.push(Words { option: None, words: program });
            break;
        }
        let (name, inline) = split(&word);
        let option = name.and_then(|name| TAKEN_EMPTY.iter().copied().find(|taken| *taken == name));
        let next = if option.is_some() && inline.is_none() { args.next() } else { None };
        let is_empty = inline == Some("") || next.as_ref().is_some_and(|value| value.is_empty());
        if option.is_some() && is_empty {
            left.retain(|words| words.option != option);
        } else {
            left.push(Words { option, words: std::iter::once(word).chain(next).collect() });
        }
    }
    left.into_iter().flat_map(|words| words.words).collect()
}

/// The name of a long option, and the value behind `=`.
fn split(word: &OsString) -> (Option<&str>, Option<&str>) {
    let Some(long) = word.to_str().and_then(|word| word.strip_prefix("--")) else {
        return (None, None);
    };
    match long.split_once('=') {
        Some((name, value)) => (Some(name), Some(value)),
        None => (Some(long), None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shortened::UPSTREAM;
    use super::*;

    fn left(typed: &[&str]) -> Vec<String> {
        let words = left_out(typed.iter().map(OsString::from).collect());
        words.iter().map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn u1_an_option_with_an_empty_value_is_left_out() {
        for name in TAKEN_EMPTY {
            assert!(UPSTREAM.contains(name), "{name}");
            let (inline, alone) = (format!("--{name}="), format!("--{name}"));
            assert_eq!(left(&["websockify", &inline, "80", "a:1"]), ["websockify", "80", "a:1"]);
            assert_eq!(left(&["websockify", "80", &alone, "", "a:1"]), ["websockify", "80", "a:1"]);
        }
    }

    #[test]
    fn u1_the_last_value_counts() {
        assert_eq!(left(&["--cert=a", "--key", "k", "--cert", "b", "--cert="]), ["--key", "k"]);
        assert_eq!(left(&["--cert=", "--cert=a"]), ["--cert=a"]);
    }

    #[test]
    fn u1_what_is_not_empty_stays() {
        for line in [
            &["--web", "--cert=", "80"][..],
            &["--timeout=", "--token-plugin", "", ""],
            &["80", "--", "sh", "--cert=", "--web", ""],
            &["80", "--cert"],
            &["80", "--cert", "--", ""],
        ] {
            assert_eq!(left(line), line);
        }
    }
}
