//! What a process keeps when it changes its user: the terminal that it was started from, and a keyring.

use std::process::{Command, Stdio};

use super::Place;
use crate::support::{WEBSOCKIFY, Websockify, free_port, needs, needs_root, skip_even_in_ci};

/// Each way to be another user.
const WAYS: [&[&str]; 3] =
    [&["--user=nobody"], &["--program-user=nobody"], &["--user=nobody", "--program-user=www-data"]];

/// The warning about the terminal.
const OPEN: &str = "user nobody may type into the terminal that websockify was started from";

/// Wraps a Python script in each of these ways, and checks its exit status. `before` is the command that starts websockify,
/// if there is one.
fn assert_exits(script: &str, status: i32, before: &[&str]) {
    for way in WAYS {
        let line: Vec<_> = before.iter().chain(&[WEBSOCKIFY]).collect();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).args(way).arg("--rebind-engine=preload");
        command.args([&free_port().to_string(), "--", "python3", "-c", script]);
        let output = Websockify::launch(&mut command).output();
        assert_eq!(output.status, status, "{way:?}: {output:?}");
    }
}

/// Root's shell would read what is typed. The script makes the system call itself, as an attacker would, also with bits in
/// the upper half of the request, which the kernel ignores.
#[test]
fn w16_nobody_types_into_the_terminal_of_roots() {
    if !needs_root() || !needs(&["python3"]) {
        return;
    }
    let script = r"
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 16, 'aarch64': 29}[platform.machine()]
null = os.open('/dev/null', os.O_RDWR)
def errno_of(request):
    return libc.syscall(number, null, ctypes.c_ulong(request), b'x') and ctypes.get_errno()
refused = [errno_of(request) for request in [0x5412, 0x541c, 1 << 32 | 0x5412, 0xffffffff0000541c]]
others = [errno_of(request) for request in [0x5401, 0x5413]]
os._exit(42 if refused == [errno.EPERM] * 4 and others == [errno.ENOTTY] * 2 else 43)
";
    assert_exits(script, 42, &[]);
}

/// As in a container: root without `CAP_SYS_ADMIN` can give no filter to a program that may gain rights later (seccomp(2)).
#[test]
fn w16_where_the_kernel_takes_no_filter_that_is_said() {
    if !needs_root() || !needs(&["script", "setpriv"]) {
        return;
    }
    let said = |before: &str| {
        let line = format!("{before} {WEBSOCKIFY} --program-user=nobody {} -- true", free_port());
        let mut command = Command::new("script");
        let output = command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let without = said("setpriv --bounding-set=-sys_admin");
    assert_eq!(without.matches(OPEN).count(), 1, "{without}");
    let with = said("");
    assert!(with.contains("program started") && !with.contains(OPEN), "{with}");
}

#[test]
fn w16_the_keyring_of_roots_session_stays_behind() {
    if !needs_root() || !needs(&["python3"]) {
        return;
    }
    let begin = r"
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
add_key, request_key, keyctl = {'x86_64': (248, 249, 250), 'aarch64': (217, 218, 219)}[platform.machine()]
";
    // The starter has a session keyring of its own, as a login has, and puts a key into it. It ends with 44 where it cannot.
    let place = Place::new();
    let starter = place.named("starter");
    let text = format!(
        "{begin}
libc.syscall(keyctl, 1, None)
if libc.syscall(add_key, b'user', b'w16', b'secret', 6, -3) < 0:
    os._exit(44)
os.execv(sys.argv[1], sys.argv[1:])
"
    );
    std::fs::write(&starter, text).unwrap();
    let script = format!(
        "{begin}
found = libc.syscall(request_key, b'user', b'w16', None, 0) >= 0
os._exit(43 if found else 42)
"
    );
    let as_root = Command::new("python3")
        .args([&starter, WEBSOCKIFY, &free_port().to_string(), "--", "python3", "-c", &script])
        .status()
        .unwrap();
    match as_root.code() {
        Some(44) => return skip_even_in_ci("no key can be put into a keyring here"),
        status => assert_eq!(status, Some(43), "root finds it"),
    }
    assert_exits(&script, 42, &["python3", &starter]);
}
