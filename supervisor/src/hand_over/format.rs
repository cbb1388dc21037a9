//! The format of a state in memory, which one binary leaves to the other: a line that says what it is and in which
//! format, the length of a document and the document itself (JSON), then the bytes that the document speaks of. No I/O.
//! Whatever the bytes are, only what is there as a whole is used.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The number of the format, for all that is in the document. To be raised with whatever a binary that knows the number
/// before would read wrongly.
pub(crate) const FORMAT: u32 = 1;

/// What each state begins with, whatever its format.
const NAME: &str = "websockify hand-over ";

/// How long the first line may be, bytes.
const LINE_MAX: usize = 40;

/// Why bytes are no state that we can go on with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They are something else.
    Foreign,
    Format(u32),
    /// It ends too soon.
    Cut,
    Damaged(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(out, "it is no state of websockify"),
            Self::Format(other) => {
                write!(out, "the state has format {other}, and this program knows format {FORMAT}")
            }
            Self::Cut => write!(out, "the state is cut off"),
            Self::Damaged(why) => write!(out, "the state is damaged: {why}"),
        }
    }
}

/// Writes a document, and bytes that belong to it.
pub(crate) fn write(document: &impl Serialize, bytes: &[u8]) -> serde_json::Result<Vec<u8>> {
    let document = serde_json::to_vec(document)?;
    let mut state = format!("{NAME}{FORMAT}\n").into_bytes();
    // A length of 64 bits holds any length.
    state.extend((document.len() as u64).to_le_bytes());
    state.extend(document);
    state.extend(bytes);
    Ok(state)
}

/// Whether the document can be read again. If it cannot, neither the new binary nor we, by the way back, could go on
/// with it.
///
/// # Errors
/// Why it cannot.
pub(crate) fn check<T: Serialize + DeserializeOwned>(document: &T) -> Result<(), String> {
    let state = write(document, &[]).map_err(|error| error.to_string())?;
    read::<T>(&state).map(drop).map_err(|why| why.to_string())
}

/// Whether this is a state of some format, whole or not.
pub(crate) fn is_state(bytes: &[u8]) -> bool {
    bytes.starts_with(NAME.as_bytes())
}

/// Reads what [`write`] has written.
pub(crate) fn read<T: DeserializeOwned>(state: &[u8]) -> Result<(T, &[u8]), Unreadable> {
    let rest = state.strip_prefix(NAME.as_bytes()).ok_or(Unreadable::Foreign)?;
    let line = &rest[..rest.len().min(LINE_MAX)];
    let end = line.iter().position(|byte| *byte == b'\n').ok_or(Unreadable::Cut)?;
    let format = std::str::from_utf8(&rest[..end]).ok().and_then(|format| format.parse().ok());
    match format.ok_or(Unreadable::Foreign)? {
        FORMAT => {}
        other => return Err(Unreadable::Format(other)),
    }
    let (length, rest) = rest[end + 1..].split_first_chunk::<8>().ok_or(Unreadable::Cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| Unreadable::Cut)?;
    let (document, bytes) = rest.split_at_checked(length).ok_or(Unreadable::Cut)?;
    let document = serde_json::from_slice(document);
    Ok((document.map_err(|error| Unreadable::Damaged(error.to_string()))?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Document = Vec<(String, u64)>;

    fn written() -> Vec<u8> {
        let document: Document = vec![("a".into(), 1), ("\u{e9}\n".into(), u64::MAX)];
        write(&document, b"\0bytes\n").unwrap()
    }

    fn read_document(state: &[u8]) -> Result<(Document, &[u8]), Unreadable> {
        read(state)
    }

    #[test]
    fn o2_what_was_written_is_read() {
        let state = written();
        let (document, bytes) = read_document(&state).unwrap();
        assert_eq!(document, [("a".into(), 1), ("\u{e9}\n".into(), u64::MAX)]);
        assert_eq!(bytes, b"\0bytes\n");
        assert!(is_state(&state));
    }

    #[test]
    fn o2_what_would_not_be_read_again_is_found_before_it_is_left() {
        use crate::processes::number;
        #[derive(Serialize, serde::Deserialize)]
        struct Numbers {
            #[serde(with = "number")]
            process: nix::unistd::Pid,
            #[serde(with = "number::group")]
            group: nix::unistd::Pid,
        }
        let checked = |process, group| {
            let [process, group] = [process, group].map(nix::unistd::Pid::from_raw);
            check(&Numbers { process, group })
        };
        assert_eq!(checked(1, 1), Ok(()));
        assert_eq!(checked(1, 0), Ok(()));
        assert!(checked(0, 1).unwrap_err().contains("0 is no process id"));
        assert!(checked(1, -1).unwrap_err().contains("-1 is no process group or session"));
    }

    #[test]
    fn o2_a_state_that_is_cut_anywhere_is_not_believed() {
        let state = written();
        // The format has no length of the bytes at the end: the reader of the document knows how many they are.
        let document = state.len() - b"\0bytes\n".len();
        for length in 0..document {
            let expected = if length < NAME.len() { Unreadable::Foreign } else { Unreadable::Cut };
            assert_eq!(read_document(&state[..length]), Err(expected), "{length}");
        }
        assert!(read_document(&state[..document]).is_ok());
    }

    #[test]
    fn o2_another_format_is_named_and_garbage_is_none() {
        let rest = [0; 64];
        for (line, expected) in [
            (format!("{NAME}{}\n", FORMAT + 1), Unreadable::Format(FORMAT + 1)),
            (format!("{NAME}0\n"), Unreadable::Format(0)),
            (format!("{NAME}4294967296\n"), Unreadable::Foreign),
            (format!("{NAME}one\n"), Unreadable::Foreign),
            (format!("{NAME}\n"), Unreadable::Foreign),
            (format!("{NAME}{}", "1".repeat(99)), Unreadable::Cut),
            ("websockify".into(), Unreadable::Foreign),
            ("\u{7f}ELF".into(), Unreadable::Foreign),
        ] {
            let state = [line.as_bytes(), &rest].concat();
            assert_eq!(read_document(&state), Err(expected), "{line:?}");
        }
    }

    /// Each bit of each byte is changed: the state is read, or is an error, and there is no panic.
    #[test]
    fn o2_no_damage_is_more_than_an_error() {
        let state = written();
        for at in 0..state.len() {
            for bit in 0..8 {
                let mut damaged = state.clone();
                damaged[at] ^= 1 << bit;
                let _ = read_document(&damaged);
            }
        }
        let mut long = state.clone();
        let length = NAME.len() + 2;
        long[length..length + 8].fill(0xff);
        assert_eq!(read_document(&long), Err(Unreadable::Cut));
        // A document that nests without end.
        let mut deep = format!("{NAME}{FORMAT}\n").into_bytes();
        let nested = vec![b'['; 1 << 20];
        deep.extend((nested.len() as u64).to_le_bytes());
        deep.extend(nested);
        assert!(matches!(read_document(&deep), Err(Unreadable::Damaged(_))));
    }
}
