//! Bytes that are text as a rule, in the state that is handed over to a new binary (O2): paths, names, output of
//! programs. Must not know what they mean.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Any bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Octets {
    Text(String),
    Bytes(Vec<u8>),
}

impl Octets {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    pub(crate) fn into_name(self) -> OsString {
        OsString::from_vec(self.into_bytes())
    }

    pub(crate) fn into_path(self) -> PathBuf {
        self.into_name().into()
    }
}

impl From<Vec<u8>> for Octets {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

impl From<&Path> for Octets {
    fn from(path: &Path) -> Self {
        path.as_os_str().to_owned().into_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_any_bytes_are_the_same_again() {
        for (bytes, json) in [(&b"/tmp/\xc3\xa4"[..], "\"/tmp/ä\""), (b"a\xff", "[97,255]")] {
            let text = serde_json::to_string(&Octets::from(bytes.to_vec())).expect("JSON");
            assert_eq!(text, json);
            let read: Octets = serde_json::from_str(&text).expect("octets");
            assert_eq!(read.into_bytes(), bytes);
        }
    }
}
