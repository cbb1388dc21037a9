//! Committed files that are generated.

use std::fs;

use super::root;

/// Compares a committed file with what it should be, or writes it if `BLESS` is set. `tests` is the filter that
/// selects the tests that do so, for the message.
pub(crate) fn blessed(path: &str, expected: &str, tests: &str) {
    let path = root().join(path);
    if std::env::var_os("BLESS").is_some() {
        return fs::write(path, expected).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(expected.lines()).find(|(a, b)| a != b);
    assert!(
        committed == expected,
        "{} is out of date (first difference: {differs:?}); write it anew: \
         BLESS=1 cargo test -p websockify --test end_to_end {tests}",
        path.display()
    );
}
