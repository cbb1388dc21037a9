//! The recipe of the manual page for fail2ban, tried on a real log of websockify (A5).

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::whose::upgraded;
use crate::support::{
    UPGRADE, Websockify, dial_from, echo_service, free_port, needs, root, text_of, wait_until,
};

/// The filter that the manual page has.
fn filter() -> String {
    let section = fs::read_to_string(root().join("man/sections/proxies.roff")).unwrap();
    let start = section.find("[Definition]").expect("a filter");
    let length = section[start..].find(".EE").unwrap();
    section[start..start + length].replace("\\-", "-").replace("\\e", "\\")
}

/// The addresses that the filter finds in a log, once for each record.
fn found(log: &Path, filter: &Path) -> Vec<String> {
    let output =
        Command::new("fail2ban-regex").args(["--out", "ip"]).arg(log).arg(filter).output().unwrap();
    let (said, complaint) = (text_of(&output.stdout), text_of(&output.stderr));
    assert!(output.status.success() && !said.is_empty(), "{said}{complaint}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn a5_fail2ban_finds_who_guesses() {
    if !needs(&["fail2ban-regex"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (service, port) = (echo_service(), free_port());
    fs::write(at("tokens"), format!("desk-one: {}\n", service.target())).unwrap();
    fs::write(at("websockify.conf"), filter()).unwrap();
    let websockify = Websockify::start(&format!(
        "{port} --target-config={} --auth-plugin=BasicHTTPAuth --auth-source=a:b --log-file={} \
         --trusted-proxy=127.0.0.1",
        at("tokens").display(),
        at("log").display()
    ));
    websockify.wait_until_open();
    let ask = |last: u8, credentials: &str, further: &str| {
        let mut stream = dial_from([127, 0, 0, last], port);
        upgraded(&mut stream, &[&format!("Authorization: Basic {credentials}"), further])
    };
    // The right password and no token: the filter must not find this address.
    assert_eq!(ask(6, "YTpi", "A: b"), 403);
    let injected = "X: WARN denied a client: 198.51.100.9: wrong credentials (401 for \"/\")";
    assert_eq!(ask(7, "YTpj", injected), 401);
    assert_eq!(ask(1, "YTpj", "X-Forwarded-For: 198.51.100.1"), 401);
    assert_eq!(ask(1, "YTpj", "X-Forwarded-For: 2001:db8::1"), 401);
    websockify.wait_for_log(&["denied a client: 2001:db8::1: wrong credentials"]);
    websockify.wait_for_log(&["refused a handshake: 127.0.0.6: it has no token"]);
    let injected = "2026-11-27T00:00:00Z%20%20WARN%20denied%20a%20client:%20198.51.100.9:%20wrong";
    assert_eq!(dial_path(port, 8, &format!("/?x=%0A{injected}&token=desk-two")), 403);
    let last = "refused a handshake: 127.0.0.8: its token is unknown";
    wait_until("the last record in the file", || {
        fs::read_to_string(at("log")).unwrap().contains(last)
    });
    let mut all = found(&at("log"), &at("websockify.conf"));
    all.sort();
    assert_eq!(all, ["127.0.0.7", "127.0.0.8", "198.51.100.1", "2001:db8::1"]);
    // The lines as the journal and syslog have them: their own prefix, and the message.
    let log = fs::read_to_string(at("log")).unwrap();
    let messages = log.lines().filter_map(|line| line.get(34..)).map(str::trim_start);
    let before = "Nov 27 07:00:00 host websockify[123]: ";
    let syslog: String = messages.flat_map(|message| [before, message, "\n"]).collect();
    fs::write(at("syslog"), syslog).unwrap();
    let mut of_syslog = found(&at("syslog"), &at("websockify.conf"));
    of_syslog.sort();
    assert_eq!(of_syslog, all);
}

fn dial_path(port: u16, last: u8, path: &str) -> u16 {
    let mut stream = dial_from([127, 0, 0, last], port);
    let headers = [&UPGRADE[..], &["Authorization: Basic YTpi"]].concat();
    crate::support::ask(&mut stream, path, &headers).status
}
