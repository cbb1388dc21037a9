//! Helper programs that know the tokens (U9): the one of the manual page, and others that do what no helper should.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use procfs::process::all_processes;
use tempfile::TempDir;

use super::{bridge, by_token, named, refused};
use crate::support::{
    Footprint, Process, WEBSOCKIFY, Websockify, copy_program, free_port, in_pid_namespace, needs,
    needs_root, root, text_of, wait_until, write_script,
};

/// The beginning of every script: it calls `answer` for each question, with the question's `number` and `token`.
const ASKED: &str = r#"#!/bin/sh
asked() {
    while read -r line; do
        number=${line#*'"id":'} number=${number%%,*}
        token=${line#*'"token":"'} token=${token%'"}'}
        answer
    done
}
"#;

/// A websockify in `directory` that asks this script.
fn asking(directory: &TempDir, script: &str) -> (Websockify, u16) {
    write_script(directory.path().join("helper"), &format!("{ASKED}{script}"));
    bridge(directory, &["--token-plugin=Helper", "--token-source=./helper 'an argument'"])
}

/// The helper itself, and not a process that the helper has started, which may end at any time.
fn helper(websockify: &Websockify) -> Option<Process> {
    let is_child = |process: &Process| {
        process.stat_if_there().is_some_and(|stat| stat.ppid == websockify.pid())
    };
    websockify.tree().into_iter().find(is_child)
}

/// The program that the manual page has in its section on helpers.
fn example() -> String {
    example_from("import json")
}

/// The example of that section that begins with this text.
pub(crate) fn example_from(beginning: &str) -> String {
    let section = fs::read_to_string(root().join("man/sections/helpers.roff")).unwrap();
    let start = section.find(beginning).expect("an example");
    let length = section[start..].find(".EE").unwrap();
    section[start..start + length].replace("\\-", "-").replace("\\e", "\\")
}

#[test]
fn u9_the_example_of_the_manual_page_runs() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("desks.py"), example()).unwrap();
    let options = ["--token-plugin=Helper", "--token-source=python3 desks.py"];
    let (websockify, port) = bridge(&directory, &options);
    // Nothing listens at that target: a client with the right token gets a session before that shows.
    let (code, _) = by_token(port, "desk7").unwrap_err();
    assert_eq!(code, 1011);
    websockify.wait_for_log(&["127.0.0.7:5900"]);
    for unknown in ["desk0", "desk", "x", "%00%0Adesk7", "desk%C5%BC"] {
        assert_eq!(refused(port, unknown), 403, "{unknown}");
    }
}

#[test]
fn u9_a_helper_in_any_language_knows_the_tokens() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let port_of = |target: String| target.rsplit_once(':').unwrap().1.to_owned();
    let script = format!(
        r#"
echo "began with $1" >&2
answer() {{
    case $token in
    one) echo "{{\"id\":$number,\"host\":\"localhost\",\"port\":{}}}" ;;
    two) echo "{{\"id\":$number,\"host\":\"127.0.0.1\",\"port\":\"{}\"}}" ;;
    error) echo "{{\"id\":$number,\"error\":\"no database\"}}" ;;
    half) echo "{{\"id\":$number,\"host\":\"a\"}}" ;;
    *) echo "{{\"id\":$number}}" ;;
    esac
}}
asked
"#,
        port_of(one.target()),
        port_of(two.target())
    );
    let (mut websockify, port) = asking(&directory, &script);
    websockify.wait_for_log(&["helper[", "]: began with an argument"]);
    assert_eq!(by_token(port, "one"), Ok("one".into()));
    assert_eq!(by_token(port, "two"), Ok("two".into()));
    assert_eq!(refused(port, "three"), 403);
    assert_eq!(refused(port, "error"), 503);
    websockify.wait_for_log(&["refused a handshake", "the helper says \"no database\" (503"]);
    assert_eq!(refused(port, "half"), 503);
    let helper = helper(&websockify).unwrap();
    websockify.signal(Signal::SIGHUP);
    assert_eq!(by_token(port, "one"), Ok("one".into()));
    assert!(helper.is_alive(), "SIGHUP is nothing to it");
    websockify.stop();
    assert!(!helper.is_alive(), "it ends with us");
}

/// Each failure costs the look-up that the helper was asked for, and the next look-up finds a new helper.
#[test]
fn u9_a_helper_that_fails_is_started_again() {
    let one = named("one");
    for (deed, why) in [
        ("exit 3", "it has ended"),
        ("echo no object", "no JSON object"),
        ("echo '{}'", "has no id"),
        ("echo '{\"id\":99}'", "nobody has asked it what 99 answers"),
        ("head -c 70000 /dev/zero | tr '\\0' x", "longer than 64 KiB"),
        ("yes", "no JSON object"),
    ] {
        let directory = TempDir::new().unwrap();
        let target = one.target();
        let (_, served) = target.rsplit_once(':').unwrap();
        let script = format!(
            r#"
answer() {{
    if [ "$token" = bad ]; then {deed}; sleep 60; fi
    echo "{{\"id\":$number,\"host\":\"127.0.0.1\",\"port\":{served}}}"
}}
asked
"#
        );
        let (websockify, port) = asking(&directory, &script);
        assert_eq!(by_token(port, "good"), Ok("one".into()), "{deed}");
        let first = helper(&websockify).unwrap();
        assert_eq!(refused(port, "bad"), 503, "{deed}");
        websockify.wait_for_log(&["has failed and is started again", why]);
        assert_eq!(by_token(port, "good"), Ok("one".into()), "{deed}");
        assert!(!first.is_alive(), "{deed}");
        wait_until("nothing of the first is left", || websockify.tree().len() == 1);
    }
}

/// A process that the helper leaves behind may have the helper's pipes open, so that these do not end with the helper.
#[test]
fn u9_a_helper_that_has_ended_is_missed_whoever_has_its_pipes() {
    let directory = TempDir::new().unwrap();
    let script = "[ -e again ] && { answer() { echo \"{\\\"id\\\":$number}\"; }; asked; }\n\
                  : >again; sleep 600 & exit 0\n";
    let (websockify, port) = asking(&directory, script);
    websockify.wait_for_log(&["has failed and is started again: it has ended"]);
    let began = Instant::now();
    assert_eq!(refused(port, "a"), 403);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    wait_until("what the first has left is gone", || websockify.tree().len() == 1);
}

/// A helper that websockify may not kill does not hold up websockify's end.
#[test]
fn u9_a_helper_that_has_become_another_user_does_not_hold_up_the_end() {
    if !needs_root() || !needs(&["python3", "setpriv"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let python = directory.path().join("python");
    copy_program("/usr/bin/python3", &python);
    fs::set_permissions(&python, Permissions::from_mode(0o4755)).unwrap();
    let script = "import os, time; os.setgid(0); os.setuid(0); open('root', 'w'); time.sleep(600)";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", WEBSOCKIFY]);
    command.arg(free_port().to_string()).arg("--token-plugin=Helper").current_dir(&directory);
    command.arg(format!("--token-source={} -c \"{script}\"", python.display()));
    let mut websockify = Websockify::launch(&mut command);
    wait_until("it is another user", || directory.path().join("root").exists());
    let helper = helper(&websockify).unwrap();
    websockify.signal(Signal::SIGTERM);
    let began = Instant::now();
    assert_eq!(websockify.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    websockify.wait_for_log(&["cannot end helper python[", "or has become another user"]);
    helper.signal(Signal::SIGKILL);
}

/// L6, U9: helper hung: an answer that never comes costs its client 10 seconds and a 503, and nobody else any.
#[test]
fn u9_a_helper_that_hangs_holds_up_its_own_lookups() {
    let directory = TempDir::new().unwrap();
    let (websockify, port) = asking(
        &directory,
        "answer() { [ \"$token\" = hang ] || echo \"{\\\"id\\\":$number}\"; }\nasked\n",
    );
    assert_eq!(refused(port, "first"), 403);
    let before = Footprint::at_rest(&websockify);
    let began = Instant::now();
    let hanging = std::thread::spawn(move || refused(port, "hang"));
    while !hanging.is_finished() {
        let asked = Instant::now();
        assert_eq!(refused(port, "other"), 403);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    assert_eq!(hanging.join().unwrap(), 503);
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
    assert!(helper(&websockify).is_some());
    before.wait_until_back(&websockify);
}

#[test]
fn u9_a_helper_that_says_nothing_is_killed_with_its_group() {
    let directory = TempDir::new().unwrap();
    let (websockify, port) = asking(&directory, "sleep 600 & trap '' TERM; wait; sleep 600\n");
    wait_until("both are there", || websockify.tree().len() == 2);
    let both = websockify.tree();
    assert_eq!(refused(port, "a"), 503);
    websockify.wait_for_log(&["has failed and is started again: no answer within 12 s"]);
    wait_until("both are gone", || both.iter().all(|process| !process.is_alive()));
}

/// A helper inherits no descriptors, no blocked signals and no `LD_PRELOAD`, and ends with websockify, also when that is
/// killed.
#[test]
fn u9_a_helper_is_not_left_behind_and_has_nothing_of_ours() {
    let directory = TempDir::new().unwrap();
    let script = "(ls -l /proc/$$/fd >fds); grep Sig /proc/self/status >signals; exec sleep 600\n";
    let (mut websockify, _) = asking(&directory, script);
    wait_until("it sleeps", || {
        helper(&websockify).is_some_and(|helper| helper.stat().comm == "sleep")
    });
    let helper = helper(&websockify).unwrap();
    assert_eq!(helper.stat().pgrp, helper.stat().pid);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let open = read("fds");
    assert_eq!(open.matches("socket:").count(), 0, "{open}");
    assert_eq!(open.matches("pipe:").count(), 3, "{open}");
    assert!(read("signals").contains("SigBlk:\t0000000000000000"), "{}", read("signals"));
    assert!(!helper.environment().contains_key(std::ffi::OsStr::new("LD_PRELOAD")));
    websockify.signal(Signal::SIGKILL);
    websockify.wait();
    wait_until("it has gone with us", || !helper.is_alive());
}

#[test]
fn u9_a_helper_that_cannot_be_started_is_told_at_once() {
    let directory = TempDir::new().unwrap();
    for (source, why) in [
        ("no-such-helper", "cannot start helper no-such-helper: no such file or directory"),
        ("/", "cannot start helper /: permission denied"),
        ("'a", "invalid value for '--token-source': Helper expects a command line"),
        (" ", "invalid value for '--token-source': Helper expects a command line"),
    ] {
        let status = if why.contains("cannot start") { 1 } else { 2 };
        for options in [&[][..], &["-D"]] {
            let mut command = Command::new(WEBSOCKIFY);
            command.arg(free_port().to_string()).args(options).current_dir(&directory);
            command.arg("--token-plugin=Helper").arg(format!("--token-source={source}"));
            let output = command.output().unwrap();
            let said = text_of(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{source}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains(why), "{said}");
        }
    }
}

/// U9, L7: in a container websockify may be the first process, and becomes the parent of what a helper leaves behind.
#[test]
fn u9_l7_what_a_helper_leaves_behind_is_no_zombie() {
    let Some(mut command) = in_pid_namespace() else { return };
    let (one, directory, port) = (named("one"), TempDir::new().unwrap(), free_port());
    let target = one.target();
    let (_, served) = target.rsplit_once(':').unwrap();
    let script = format!(
        r#"
orphan() {{ (./orphan "$1" &) }}
answer() {{
    orphan "$token"
    echo "{{\"id\":$number,\"host\":\"localhost\",\"port\":{served}}}"
}}
orphan start
asked
"#
    );
    let orphan =
        "#!/bin/sh\nuntil grep -q '^PPid:.1$' /proc/$$/status; do :; done\n: > orphan-$1\n";
    write_script(directory.path().join("orphan"), orphan);
    write_script(directory.path().join("helper"), &format!("{ASKED}{script}"));
    command.args([
        WEBSOCKIFY,
        &port.to_string(),
        "--token-plugin=Helper",
        "--token-source=./helper",
    ]);
    let mut unshare = Websockify::launch(command.current_dir(&directory));
    unshare.wait_until_open();
    let tree = unshare.tree();
    let websockify = tree.iter().find(|below| below.stat().ppid == unshare.pid()).unwrap();
    for token in ["1", "2", "3"] {
        assert_eq!(by_token(port, token), Ok("one".into()));
    }
    for name in ["start", "1", "2", "3"] {
        let file = directory.path().join(format!("orphan-{name}"));
        wait_until("an orphan that is our child", || file.exists());
    }
    wait_until("no child but the helper, and no zombie", || {
        let all = all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
        all.filter(|stat| stat.ppid == websockify.pid).count() == 1
    });
    assert_eq!(by_token(port, "4"), Ok("one".into()));
    websockify.signal(Signal::SIGTERM);
    assert_eq!(unshare.wait(), 0);
}
