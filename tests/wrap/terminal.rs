//! A program that asks at the terminal before it listens, as vncserver does for a password (W1).

use std::io::Write;

use tempfile::TempDir;

use crate::support::{Actor, Client, Websockify, free_port, wait_until};

const INTERRUPT: &[u8] = b"\x03";
const QUIT: &[u8] = b"\x1c";

/// The foreground process group of its terminal.
fn foreground(websockify: &Websockify) -> i32 {
    procfs::process::Process::new(websockify.pid()).unwrap().stat().unwrap().tpgid
}

#[test]
fn w1_the_program_may_read_the_terminal_until_it_listens() {
    let port = free_port();
    let (mut websockify, mut keyboard) =
        Websockify::at_terminal(&format!("{port} -- {Actor} ask bind {port} listen serve"), |_| {});
    let program = websockify.leader();
    wait_until("the program in the foreground", || foreground(&websockify) == program.pid);
    keyboard.write_all(b"secret\n").unwrap();
    Client::connect_once_open(port).read_line();
    wait_until("the line, from the terminal and from the program", || {
        websockify.out.text().matches("secret").count() == 2
    });
    wait_until("websockify in the foreground", || foreground(&websockify) == websockify.pid());
    keyboard.write_all(INTERRUPT).unwrap();
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
}

#[test]
fn w1_interrupting_the_program_at_the_terminal_stops_websockify() {
    // For the core file that the kernel may write at SIGQUIT.
    let directory = TempDir::new().unwrap();
    for (mode, key, of_signal) in [
        ("exit", INTERRUPT, 130),
        ("respawn", INTERRUPT, 130),
        ("exit", QUIT, 131),
        ("respawn", QUIT, 131),
    ] {
        let port = free_port();
        let line = format!("{port} --wrap-mode={mode} -- {Actor} ask");
        let (mut websockify, mut keyboard) = Websockify::at_terminal(&line, |command| {
            command.current_dir(&directory);
        });
        let program = websockify.leader();
        wait_until("the program in the foreground", || foreground(&websockify) == program.pid);
        keyboard.write_all(key).unwrap();
        let status = websockify.wait();
        assert!([0, of_signal].contains(&status), "{mode}: {status}");
        websockify.assert_logged(&["program started"], 1);
        assert_eq!(websockify.remnants(), []);
    }
}

/// W1: a program that ends without listening gives the terminal back.
#[test]
fn w1_the_terminal_is_given_back_when_the_program_ends() {
    let port = free_port();
    let (websockify, mut keyboard) = Websockify::at_terminal(
        &format!("{port} --wrap-mode=respawn -- {Actor} ask exit 1"),
        |_| {},
    );
    for nth in 1..=2 {
        let program = websockify.nth_start(nth);
        wait_until("the program in the foreground", || foreground(&websockify) == program);
        keyboard.write_all(b"line\n").unwrap();
        let ours = || foreground(&websockify) == websockify.pid();
        wait_until("websockify in the foreground", ours);
    }
}
