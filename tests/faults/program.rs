//! Programs that do not do as they are told, while websockify lives on.

use std::thread;

use nix::sys::signal::Signal;

use crate::support::{Actor, Client, Footprint, Websockify, free_port, wait_until};

/// L6, O5: program deaf to SIGTERM: also where websockify goes on, as on demand: it is killed, nothing of it is left, and it
/// is started again for the next client.
#[test]
fn l6_a_deaf_program_on_demand_leaves_nothing_behind() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --start=on-demand --stop-idle=0.2 --stop-timeout=0.3 --wrap-mode=respawn -- \
         {Actor} stubborn-helper ignore-term bind {port} listen serve"
    ));
    let mut asleep = None;
    for nth in 1..=3 {
        let mut client = Client::connect_once_open(port);
        client.read_line();
        let all = websockify.tree();
        websockify.nth_start(nth);
        assert_eq!(client.close().code, 1000);
        wait_until("the end of all", || all.iter().all(|process| !process.is_alive()));
        wait_until("nobody", || websockify.tree().is_empty());
        let asleep = asleep.get_or_insert_with(|| Footprint::at_rest(&websockify));
        asleep.wait_until_back(&websockify);
        assert_eq!(asleep.children, 0);
    }
    assert_eq!(websockify.stop(), 0);
}

/// L6: program stopped by SIGSTOP: its sessions wait and lose nothing, in no memory of ours; who comes meanwhile waits, too;
/// and one that is stopped can be ended.
#[test]
fn l6_a_program_that_is_stopped_keeps_its_sessions() {
    const MUCH: usize = 16 << 20;
    let port = free_port();
    let mut websockify = Websockify::start(&format!("{port} -- {Actor} bind {port} listen serve"));
    Client::connect_once_open(port).read_line();
    wait_until("the leader alone", || websockify.tree().len() == 1);
    let before = Footprint::at_rest(&websockify);
    let mut client = Client::connect(port);
    client.read_line();
    let all = websockify.tree();
    assert_eq!(all.len(), 2);
    let signal = |signal| all.iter().for_each(|process| process.signal(signal));
    signal(Signal::SIGSTOP);
    let bytes: Vec<u8> = (0..MUCH).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (expected, mut sender) = (bytes.clone(), client.stream().try_clone().unwrap());
    let sending = thread::spawn(move || {
        use std::io::Write;
        for piece in bytes.chunks(60_000) {
            sender.write_all(&crate::support::frame(0x82, piece)).unwrap();
        }
    });
    let late = thread::spawn(move || {
        let mut client = Client::connect(port);
        client.read_line();
        client.close().code
    });
    websockify.wait_for_log(&["session started: 3,"]);
    let now = Footprint::at_rest(&websockify);
    assert!(now.memory < before.memory + (4 << 20), "{now:?}, and it was {before:?}");
    assert!(!sending.is_finished() && !late.is_finished());
    signal(Signal::SIGCONT);
    assert!(client.read(MUCH) == expected);
    sending.join().unwrap();
    assert_eq!((client.close().code, late.join().unwrap()), (1000, 1000));
    before.wait_until_back(&websockify);
    websockify.leader().signal(Signal::SIGSTOP);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}
