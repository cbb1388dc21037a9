//! The manual page's `websockify 5901 --wrap-mode=ignore -- vncserver -geometry 1024x768 :1` with
//! TigerVNC, from the password that it asks for at its first run to the end (W1, W3, W13).

use std::fs;
use std::io::Write;

use tempfile::TempDir;

use super::des::vnc_response;
use crate::support::{Client, DEADLINE, Websockify, display, needs, wait_for_within, wait_until};

const PASSWORD: &str = "secret12";

/// An X display of one test. Removes what an X server leaves in /tmp when it is killed.
pub(super) struct Display {
    pub(super) number: u16,
    pub(super) home: TempDir,
}

impl Display {
    pub(super) fn new() -> Self {
        Self { number: display(), home: TempDir::new().unwrap() }
    }

    pub(super) fn port(&self) -> u16 {
        5900 + self.number
    }

    /// Starts vncserver, and answers as a person at the terminal would. No session script: xterm is
    /// the session.
    fn start(&self, mode: &str, options: &str) -> Websockify {
        let arguments = format!(
            "{} --wrap-mode={mode} -- vncserver -geometry 1024x768 {options} \
             -xstartup /usr/bin/xterm :{}",
            self.port(),
            self.number
        );
        let (websockify, mut keyboard) = Websockify::at_terminal(&arguments, |command| {
            command.env("HOME", self.home.path()).env_remove("DISPLAY").env_remove("XAUTHORITY");
        });
        for prompt in ["Password:", "Verify:"] {
            wait_until(prompt, || websockify.out.text().contains(prompt));
            keyboard.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        }
        wait_until("the last question", || {
            websockify.err.text().contains("view-only password (y/n)")
        });
        keyboard.write_all(b"n\n").unwrap();
        // vncserver starts the X server and waits for it, which takes longer.
        wait_for_within(3 * DEADLINE, "an open port", || {
            (!websockify.logged(&["listening on"]).is_empty()).then_some(())
        });
        websockify
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/tmp/.X{}-lock", self.number));
        let _ = fs::remove_file(format!("/tmp/.X11-unix/X{}", self.number));
    }
}

/// RFC 6143, section 7.1: the version, the security type, the challenge; gives the desktop's name.
fn authenticate(client: &mut Client) -> String {
    assert_eq!(client.read(12), b"RFB 003.008\n");
    client.send("RFB 003.008\n");
    let types = client.read(1)[0];
    let types = client.read(types.into());
    assert!(types.contains(&2), "VNC authentication is not offered: {types:?}");
    client.send([2]);
    let challenge = client.read(16).try_into().unwrap();
    client.send(vnc_response(PASSWORD, challenge));
    assert_eq!(client.read(4), [0; 4], "the password is taken");
    // Shared; then the size, the pixel format and the name.
    client.send([1]);
    let start = client.read(24);
    assert_eq!(start[..4], [4, 0, 3, 0], "1024x768");
    let length = u32::from_be_bytes(start[20..].try_into().unwrap());
    String::from_utf8(client.read(length.try_into().unwrap())).unwrap()
}

pub(super) fn installed() -> bool {
    needs(&["vncserver", "Xtigervnc", "xterm", "xauth"])
}

#[test]
fn w13_vncserver_asks_for_a_password_and_is_bridged_under_ignore() {
    if !installed() {
        return;
    }
    // Its default is the loopback; the other one has it bind every address of both families.
    for options in ["", "-localhost no -SecurityTypes VncAuth"] {
        let display = Display::new();
        let mut websockify = display.start("ignore", options);
        // Not before the program listens, whatever ports it has bound only to try them.
        websockify.assert_alone_on(display.port());
        let mut client = Client::connect(display.port());
        let name = authenticate(&mut client);
        assert!(name.contains(&format!(":{}", display.number)), "{name}");
        assert_eq!(client.close().code, 1000);
        websockify.wait_for_log(&["has daemonized as", "(Xtigervnc)"]);
        authenticate(&mut Client::connect(display.port()));
        assert_eq!(websockify.stop(), 0);
        let left = websockify.wait_for_log(&["left running"]);
        assert!(left.contains("(Xtigervnc)"), "{left}");
    }
}

#[test]
fn w13_vncserver_is_gone_after_a_stop_under_respawn() {
    if !installed() {
        return;
    }
    let display = Display::new();
    let mut websockify = display.start("respawn", "");
    authenticate(&mut Client::connect(display.port()));
    websockify.wait_for_log(&["has daemonized as"]);
    websockify.assert_logged(&["program started"], 1);
    websockify.tree();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

#[test]
fn w13_vncserver_is_stopped_under_exit() {
    if !installed() {
        return;
    }
    let display = Display::new();
    let mut websockify = display.start("exit", "");
    websockify.wait_for_log(&["has daemonized as", "--wrap-mode=ignore"]);
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
}
