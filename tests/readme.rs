//! The commands that README.md tells people to type, compared with what there is.

use std::path::Path;

use crate::support::{needs, root};

/// README.md, and its indented lines, which are commands.
fn readme() -> (String, Vec<String>) {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let typed = text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned);
    let typed = typed.collect();
    (text, typed)
}

/// F70: each program is where Debian has it: a server needs its whole path, as an ordinary user's PATH does not lead
/// there.
#[test]
fn f70_the_programs_that_are_wrapped_are_where_the_readme_says() {
    if !needs(&["in.telnetd", "vncserver"]) {
        return;
    }
    let (_, typed) = readme();
    let programs: Vec<_> = typed
        .iter()
        .filter_map(|line| line.split_once(" -- ")?.1.split(' ').next())
        .filter(|name| *name != "PROGRAM")
        .collect();
    assert!(programs.len() >= 4, "{programs:?}");
    for program in programs {
        // A whole path, or a name in PATH.
        let places = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(program));
        assert!(places.iter().any(|path| path.is_file()), "{program}");
    }
}

#[test]
fn f37_the_least_rust_is_named() {
    let least = format!("Rust {} or newer", env!("CARGO_PKG_RUST_VERSION"));
    let (text, _) = readme();
    assert!(text.contains(&least) && text.contains("gcc libc6-dev"), "{least}");
}

/// F38, F39, F59, F69: the user builds websockify, with the versions that were tested; the commands run this
/// websockify and not Debian's; no telnet server of inetd's is public beside it.
#[test]
fn f38_f39_f59_f69_what_is_typed_does_what_is_meant() {
    let (text, typed) = readme();
    assert!(text.contains("`cargo install --locked --path supervisor`"));
    let line = |part: &str| typed.iter().find(|line| line.contains(part)).unwrap();
    assert!(line("telnetd-ssl").starts_with("sudo systemctl mask inetd.service && "));
    assert!(line("cargo build").contains("&& sudo target/release/websockify localhost:2023 "));
    assert!(line("novnc").starts_with("target/release/websockify "));
    assert!(!typed.iter().any(|line| line.contains("cargo run")));
}
