//! What a request's path means below the directory that is served. Knows no files.
//!
//! Nothing here leads out of the directory (H2): a path is taken apart first and decoded after it,
//! and a part that the file system would not take for a plain name is refused. So is a name that
//! begins with a dot, by which people hide what is for programs: `.git`, `.htpasswd`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// All but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The one name with a dot that is for the web (RFC 8615). It stands at the root.
const WELL_KNOWN: &[u8] = b".well-known";

/// A path below the directory, as the URL has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlPath {
    /// The names on the way to it. Empty: the directory itself.
    names: Vec<OsString>,
    /// Whether the path ended in a slash, as a directory's does.
    pub(crate) is_directory: bool,
}

impl UrlPath {
    /// Reads the path of a request target. Doubled slashes count as one.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let mut url_path = Self { names: Vec::new(), is_directory: path.ends_with('/') };
        for part in parts {
            let name = name(part).filter(|name| url_path.shows(name))?;
            url_path.names.push(name);
        }
        Some(url_path)
    }

    /// Whether an entry of this name, in the directory that this path names, is for the web.
    pub(crate) fn shows(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        !name.starts_with(b".") || (self.names.is_empty() && name == WELL_KNOWN)
    }

    /// The path in the file system, if `root` is the directory that is served.
    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        path.extend(&self.names);
        path
    }

    /// Its last name. The directory itself has none.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.names.last().map(OsString::as_os_str)
    }

    /// The path for people.
    pub(crate) fn text(&self) -> String {
        let names = self.names.iter().map(|name| format!("/{}", name.to_string_lossy()));
        names.chain(["/".to_owned()]).collect()
    }
}

/// A reference to `name`, relative to the directory it is in (RFC 3986, section 4.2): it begins
/// with a dot, so that no name can pass for a scheme or a host.
pub(crate) fn reference(name: &OsStr) -> String {
    format!("./{}", percent_encode(name.as_bytes(), ESCAPED))
}

fn name(part: &str) -> Option<OsString> {
    let name: Vec<u8> = percent_decode_str(part).collect();
    let is_plain =
        !matches!(&*name, b"." | b"..") && !name.iter().any(|byte| b"/\0".contains(byte));
    is_plain.then(|| OsString::from_vec(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(typed: &str) -> Option<PathBuf> {
        UrlPath::parse(typed).map(|url_path| url_path.below(Path::new("/dir")))
    }

    #[test]
    fn h1_a_path_is_decoded_name_by_name() {
        for (typed, expected) in [
            ("/", "/dir"),
            ("/a/b.html", "/dir/a/b.html"),
            ("/a%20b/%c5%bc", "/dir/a b/ż"),
            ("/50%", "/dir/50%"),
            ("//a//b", "/dir/a/b"),
            ("/a.b.", "/dir/a.b."),
            ("*", "/dir/*"),
        ] {
            assert_eq!(path(typed).as_deref(), Some(Path::new(expected)), "{typed}");
        }
        assert!(
            UrlPath::parse("/a/").unwrap().is_directory
                && !UrlPath::parse("/a").unwrap().is_directory
        );
        assert_eq!(UrlPath::parse("//a%3c/b").unwrap().text(), "/a</b/");
    }

    #[test]
    fn h2_no_path_leaves_the_directory() {
        for typed in [
            "/..",
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/%2E./x",
            "/.%2e/x",
            "/..%2fx",
            "/%2e%2e%2fx",
            "/a%2f..%2f..%2fx",
            "/%2fetc/passwd",
            "/a%00.html",
            "/./x",
            "/a/.",
            "//../x",
        ] {
            assert_eq!(path(typed), None, "{typed}");
        }
        // A backslash is a letter like any other here; decoding happens once.
        assert_eq!(path("/a\\..\\..\\x").unwrap(), Path::new("/dir/a\\..\\..\\x"));
        assert_eq!(path("/%252e%252e/x").unwrap(), Path::new("/dir/%2e%2e/x"));
    }

    #[test]
    fn f6_a_name_with_a_dot_before_it_is_no_place_but_the_well_known_one() {
        for typed in ["/.git/config", "/a/.htpasswd", "/%2egit/x", "/...", "/a/.well-known/x"] {
            assert_eq!(path(typed), None, "{typed}");
        }
        assert_eq!(path("/.well-known/.x"), None);
        let challenge = path("/.well-known/acme-challenge/x").unwrap();
        assert_eq!(challenge, Path::new("/dir/.well-known/acme-challenge/x"));
    }

    #[test]
    fn h2_a_reference_is_below_where_it_stands() {
        for (name, expected) in [
            ("a b", "./a%20b"),
            ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
            ("\\evil.com", "./%5Cevil.com"),
            ("x?y#z\"", "./x%3Fy%23z%22"),
        ] {
            assert_eq!(reference(OsStr::new(name)), expected);
        }
    }
}
