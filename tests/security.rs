//! SECURITY.md compared with the tests that there are.

use crate::promises;
use crate::support::root;

/// The names of tests in a text: what stands in backquotes and begins as a test does, with a row and more.
fn named(text: &str) -> Vec<&str> {
    let is_test = |word: &&str| {
        let (row, rest) = word.split_once('_').unwrap_or_default();
        let number = row.strip_prefix(|letter: char| letter.is_ascii_lowercase()).unwrap_or("");
        number.parse::<u8>().is_ok() && rest.contains('_') && !word.contains(' ')
    };
    text.split('`').skip(1).step_by(2).filter(is_test).collect()
}

#[test]
fn l9_every_test_that_the_security_page_names_is_there() {
    let text = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let (named, tests) = (named(&text), promises::tests());
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that there are not: {missing:?}");
}

/// L9: each section names a test of what is defended, and says what is not defended.
#[test]
fn l9_each_threat_has_both_sides() {
    let text = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let sections = text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
    let threats: Vec<_> = sections.filter(|(title, _)| *title != "To report something").collect();
    assert_eq!(threats.len(), 7, "{threats:?}");
    for (title, section) in threats {
        assert!(!named(section).is_empty(), "{title}: no test");
        assert!(section.contains("\n*Not defended.* "), "{title}: nothing is perfect");
    }
}
