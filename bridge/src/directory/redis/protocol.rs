//! The few messages of Redis's protocol, version 2, that we send and receive. Sans-I/O, and bounded. Knows bytes; must not know
//! which keys are asked for, nor what a value means.

use std::io::Write;

/// The longest value, bytes.
pub(crate) const VALUE_MAX: usize = 64 * 1024;

/// The longest line, bytes.
const LINE_MAX: usize = 1024;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The command was executed.
    Status,
    /// The command failed, and why.
    Error(String),
    Value(Vec<u8>),
    Nil,
}

/// A command with its arguments.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let infallible = "a Vec takes everything";
    write!(bytes, "*{}\r\n", words.len()).expect(infallible);
    for word in words {
        write!(bytes, "${}\r\n", word.len()).expect(infallible);
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The answer at the beginning of these bytes, and how long it is. None: it is not all there yet.
pub(crate) fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, &'static str> {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(NOT_REDIS) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(NOT_REDIS)?;
    let (kind, line) = line.split_first().ok_or(NOT_REDIS)?;
    let start = end + 1;
    match kind {
        b'+' => Ok(Some((Reply::Status, start))),
        b'-' => Ok(Some((Reply::Error(shown(line)), start))),
        b'$' if line == b"-1" => Ok(Some((Reply::Nil, start))),
        b'$' => {
            let length = length(line).ok_or(NOT_REDIS)?;
            if length > VALUE_MAX {
                return Err("its answer is longer than 64 KiB");
            }
            let Some(rest) = bytes[start..].get(..length + 2) else { return Ok(None) };
            let value = rest.strip_suffix(b"\r\n").ok_or(NOT_REDIS)?;
            Ok(Some((Reply::Value(value.to_owned()), start + rest.len())))
        }
        _ => Err(NOT_REDIS),
    }
}

const NOT_REDIS: &str = "it does not speak as Redis does";

fn length(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|_| is_number)
}

/// An error text without what the server quotes in it: it repeats what it was sent, tokens and passwords (K8).
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    match text.find(['\'', '"', '`']) {
        None => text.into_owned(),
        Some(quote) => format!("{}…", &text[..quote]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k6_commands_are_counted_and_so_are_their_words() {
        assert_eq!(command(&[b"GET", b"a\r\nb"]), b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }

    /// K8: as Redis 3 to 8 answer where a command has another name.
    #[test]
    fn k6_k8_what_a_server_repeats_is_not_passed_on() {
        for (line, shown) in [
            (
                "ERR unknown command 'GET', with args beginning with: 'token' ",
                "ERR unknown command …",
            ),
            (
                "ERR unknown command `GET`, with args beginning with: `token`, ",
                "ERR unknown command …",
            ),
            ("ERR \"token\"", "ERR …"),
            ("NOAUTH Authentication required.", "NOAUTH Authentication required."),
        ] {
            let error = Reply::Error(shown.into());
            let line = format!("-{line}\r\n");
            assert_eq!(reply(line.as_bytes()), Ok(Some((error, line.len()))));
        }
    }

    #[test]
    fn k6_answers_however_they_are_split() {
        let value = |text: &str| Reply::Value(text.into());
        for (bytes, expected) in [
            ("+OK\r\n", Reply::Status),
            ("-ERR no\r\n", Reply::Error("ERR no".into())),
            ("$-1\r\n", Reply::Nil),
            ("$0\r\n\r\n", value("")),
            ("$6\r\nh:5900\r\n", value("h:5900")),
            ("$4\r\na\r\nb\r\n", value("a\r\nb")),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(reply(&bytes.as_bytes()[..end]), Ok(None), "{bytes:?} {end}");
            }
            let more = format!("{bytes}+OK\r\n");
            assert_eq!(reply(more.as_bytes()), Ok(Some((expected, bytes.len()))), "{bytes:?}");
        }
        for bytes in [
            "\n",
            "\r\n",
            "+OK\n",
            ":1\r\n",
            "*1\r\n$1\r\na\r\n",
            "$\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$+1\r\na\r\n",
            "$65537\r\n",
            "$99999999999999999999\r\n",
            "$1\r\nab\r\n",
            "HTTP/1.1 400 Bad\r\n",
        ] {
            assert!(reply(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(reply("+".repeat(LINE_MAX).as_bytes()).is_err());
        let long = format!("-ERR {}\r\n", "x".repeat(LINE_MAX));
        assert!(reply(long.as_bytes()).is_err());
    }
}
