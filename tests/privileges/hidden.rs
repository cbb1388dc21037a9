//! A /proc that hides processes of other users (`hidepid=2`), and with them their start times.

use std::process::Command;

use super::apart::{BOTH, place};
use crate::support::{
    WEBSOCKIFY, Websockify, free_port, needs, needs_root, skip_even_in_ci, wait_until,
};

/// websockify does not see the program. The launcher does not see it either if it is not dumpable. The program gets its
/// signals all the same.
#[test]
fn w16_a_program_of_another_user_that_is_hidden_is_stopped() {
    if !needs_root() || !needs(&["unshare", "mount", "setpriv"]) {
        return;
    }
    let mut mount = Command::new("unshare");
    mount.args(["-m", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"]);
    if !mount.status().unwrap().success() {
        return skip_even_in_ci("no /proc of our own here");
    }
    let place = place();
    let actor = place.actor();
    for way in ["", "undumpable ", "ignore-term ", "ignore-term undumpable "] {
        let port = free_port();
        let script = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", WEBSOCKIFY, &port.to_string()]);
        command.args(BOTH.split(' ')).args(["--stop-timeout=0.2", "--", &actor]);
        command.args(format!("{way}bind {port} listen sleep").split(' '));
        let mut websockify = Websockify::launch(&mut command);
        let program = websockify.leader();
        websockify.signal(nix::sys::signal::Signal::SIGTERM);
        wait_until("the program's end", || !program.is_alive());
        assert_eq!(websockify.wait(), 0, "{way}");
        assert_eq!(websockify.logged(&["cannot send"]), Vec::<String>::new(), "{way}");
    }
}
