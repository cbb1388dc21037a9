//! Which options may have a password in their value, and where on the command line it stands. Knows words, and
//! nothing of where they are in memory.

use std::ffi::OsString;
use std::ops::Range;

use clap::{Arg, CommandFactory};

use super::Args;
use super::shortened::{option, takes_value, written_out};

/// A value of the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// The whole name of its option, without dashes.
    pub(crate) option: String,
    /// Which word of the command line, its first being the program's name.
    pub(crate) word: usize,
    /// Which bytes of that word.
    pub(crate) bytes: Range<usize>,
    /// Whether the option has another value behind this one, which is used in its place.
    pub(crate) is_overridden: bool,
}

/// The values in which a password may stand. Words behind `--` are the program's, and are left out.
pub(crate) fn values(args: &[OsString]) -> Vec<Value> {
    let mut command = Args::command();
    command.build();
    let mut values: Vec<Value> = Vec::new();
    let whole = written_out(args.to_vec());
    let mut words = whole.iter().enumerate().skip(1).take_while(|(_, word)| *word != "--");
    while let Some((at, word)) = words.next() {
        // The value may be bytes of any kind.
        let Some(long) = word.as_encoded_bytes().strip_prefix(b"--") else { continue };
        let mut parts = long.splitn(2, |byte| *byte == b'=');
        let name = parts.next().and_then(|name| std::str::from_utf8(name).ok());
        let (Some(name), inline) = (name, parts.next()) else { continue };
        let Some(option) = option(&command, name).filter(|option| takes_value(option)) else {
            continue;
        };
        let (at, length) = match inline {
            Some(value) => (at, value.len()),
            None => match words.next() {
                Some((at, value)) => (at, value.len()),
                None => break,
            },
        };
        if may_be_secret(option) {
            let end = args[at].len();
            let option = option.get_long().unwrap_or_default().to_owned();
            let same = values.iter_mut().filter(|value| value.option == option);
            same.for_each(|value| value.is_overridden = true);
            let bytes = end - length..end;
            values.push(Value { option, word: at, bytes, is_overridden: false });
        }
    }
    values
}

/// Whether a password may stand in its value.
pub(super) fn may_be_secret(option: &Arg) -> bool {
    let secrets = ["auth_source", "key_password", "token_source"];
    secrets.iter().any(|secret| option.get_id() == secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn c9_passwords_are_found_however_they_are_typed() {
        for (line, secret) in [
            ("websockify --auth-source=me:x=y 80 a:1", "me:x=y"),
            ("websockify --auth-so me:secret 80 a:1", "me:secret"),
            ("websockify 80 a:1 --key-password secret", "secret"),
            (
                "websockify 80 --record --auth-source=x --token-source=cache:1:0:secret",
                "cache:1:0:secret",
            ),
            ("websockify --token-s=cache:1:0:secret 80", "cache:1:0:secret"),
            ("websockify 80 --auth-source --key-password=x a:1", "--key-password=x"),
            ("websockify 80 --auth-source --key-pass=x a:1", "--key-pass=x"),
            ("websockify 80 --key-password --rec a:1", "--rec"),
            ("websockify 80 --auth-source -x:y a:1", "-x:y"),
        ] {
            let args: Vec<_> = line.split(' ').map(OsString::from).collect();
            let found = values(&args);
            let shown =
                |value: &Value| args[value.word].to_str().unwrap()[value.bytes.clone()].to_owned();
            assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), [secret], "{line}");
        }
        let mut bytes = b"--token-source=cache:\xff".to_vec();
        let args = [b"websockify".to_vec(), bytes.clone()].map(OsString::from_vec);
        let found = values(&args);
        assert_eq!(
            (found[0].word, &bytes.split_off(found[0].bytes.start)[..]),
            (1, &b"cache:\xff"[..])
        );
        for line in [
            "websockify 80 -- su --auth-source=me:secret",
            "websockify --auth-source-file=x --key-password-file=y --token-source-file z",
            "websockify 80 --auth-source",
            "websockify",
        ] {
            let args: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert_eq!(values(&args), [], "{line}");
        }
    }
}
