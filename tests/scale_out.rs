//! `contrib/scale-out`: several websockifys behind HAProxy, with tokens in one Redis, and the same in Kubernetes (O4).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{WEBSOCKIFY, needs, root, text_of};

fn file(name: &str) -> PathBuf {
    root().join("contrib/scale-out").join(name)
}

/// Asserts that websockify takes a command line of these words.
fn assert_taken(words: impl IntoIterator<Item = String>) {
    let words: Vec<_> = std::iter::once("websockify".to_owned()).chain(words).collect();
    let taken = websockify::command().try_get_matches_from(&words);
    assert!(taken.is_ok(), "{words:?}: {taken:?}");
}

/// O4: under load, each of three websockifys is restarted, one is killed, and Redis restarts: no client is refused,
/// and only the kill cuts sessions off.
#[test]
fn o4_a_rolling_restart_refuses_nobody_and_cuts_nobody_off() {
    if !needs(&["haproxy", "redis-server", "redis-cli", "python3"]) {
        return;
    }
    let mut run = Command::new("python3");
    run.arg(file("run")).args(["--brief", "--websockify", WEBSOCKIFY]);
    // Python must not write compiled files into the project.
    let output = run.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    let said = text_of(&output.stdout) + &text_of(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    for act in ["each machine is restarted", "a machine is killed", "Redis restarts"] {
        let line = said.lines().find(|line| line.starts_with(act));
        let line = line.unwrap_or_else(|| panic!("{act}: {said}"));
        assert!(line.contains("refused 0,") && line.contains("wrong bytes 0"), "{line}");
        assert!(act.contains("killed") || line.contains("cut off 0,"), "{line}");
    }
}

#[test]
fn o4_haproxy_has_nothing_to_say_against_its_configuration() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-c").arg("-f").arg(file("haproxy.cfg")).env("RUN", directory.path());
    for (number, name) in ["FRONT", "ONE", "TWO", "THREE", "REDIS"].into_iter().enumerate() {
        haproxy.env(name, format!("192.0.2.{}", number + 1));
    }
    let output = haproxy.output().unwrap();
    let said = text_of(&output.stdout) + &text_of(&output.stderr);
    assert!(output.status.success() && !said.contains("WARNING"), "{said}");
}

/// O4, D4: the unit's settings are those of the file beside it, and make a command line.
#[test]
fn o4_the_unit_and_its_settings_make_a_command_line() {
    let settings = fs::read_to_string(file("websockify.default")).unwrap();
    let unit = fs::read_to_string(file("websockify.service.d.conf")).unwrap();
    let mut commands = unit.lines().filter_map(|line| line.strip_prefix("ExecStart="));
    let mut command = commands.next_back().unwrap().replace("/usr/bin/websockify ", "");
    let mut drain = None;
    for line in settings.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').unwrap();
        let before = command.clone();
        command = command
            .replace(&format!("${{{name}}}"), value)
            .replace(&format!("${name} "), &format!("{value} "));
        assert_ne!(command, before, "{name} is not used");
        drain = drain.or((name == "DRAIN").then(|| value.parse::<u32>().unwrap()));
    }
    assert!(!command.contains('$'), "{command}");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    // --stop-timeout is 10 s.
    assert!(stop.parse::<u32>().unwrap() > drain.unwrap() + 10);
    assert_taken(command.split_whitespace().map(str::to_owned));
}

/// O4: Kubernetes takes the Deployment, and websockify takes its arguments.
#[test]
fn o4_the_deployment_is_one_that_kubernetes_takes() {
    let text = fs::read_to_string(file("kubernetes.yaml")).unwrap();
    let number = |name: &str| {
        let found = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
        let digits: String = found.unwrap().chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap()
    };
    let grace = number("terminationGracePeriodSeconds:");
    assert!(grace > number("- --drain-timeout=") + number("seconds:") + 10);
    assert!(text.contains("path: /readyz") && text.contains("preStop:"));
    let (_, arguments) = text.split_once("args:\n").unwrap();
    let arguments = arguments.lines().map_while(|line| line.trim_start().strip_prefix("- "));
    let arguments: Vec<_> = arguments.map(|word| word.trim_matches('"').to_owned()).collect();
    assert!(arguments.len() > 5, "{arguments:?}");
    assert_taken(arguments);
    if !needs(&["kubernetes-validate"]) {
        return;
    }
    // The oldest version that the file says it is for, and the newest that the checker knows.
    for version in [&["--kubernetes-version=1.30"][..], &[]] {
        let mut validate = Command::new("kubernetes-validate");
        let output = validate.arg("--strict").args(version).arg(file("kubernetes.yaml")).output();
        let output = output.unwrap();
        let said = text_of(&output.stdout) + &text_of(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches(" passed ").count(), text.matches("\nkind: ").count(), "{said}");
    }
}
