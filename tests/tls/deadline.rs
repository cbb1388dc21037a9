//! One deadline over first byte, handshake and request head (T6).

use std::io::Write;
use std::net::TcpStream;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{bridge_in, directory};
use crate::support::{Caller, connect, echo_service, read_to_end};

/// When a connection that sends no request is closed, counted from its begin: after 10 s, or later on a busy machine.
const ITS_TIME: Range<Duration> = Duration::from_secs(9)..Duration::from_secs(14);

/// The beginning of a ClientHello record that announces more.
const BEGUN: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Clients that stop at different points before they have sent a request.
fn stallers(port: u16, count: usize) -> Vec<TcpStream> {
    let stages: [&[u8]; 4] = [b"", b"\x16", BEGUN, b"GET / HTTP/1.1\r\nHost:"];
    (0..count)
        .map(|index| {
            let mut staller = connect(port);
            staller.write_all(stages[index % stages.len()]).unwrap();
            staller
        })
        .collect()
}

#[test]
fn t6_five_hundred_stallers_hold_up_nobody_and_are_sent_away() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    let began = Instant::now();
    let mut stallers = stallers(port, 500);
    // One more has done its handshake, and sends nothing.
    let mut silent = Caller::anonymous().call(port).unwrap();
    let all_are_there = Instant::now();
    let mut good = Caller::anonymous().session(port, &[]).unwrap();
    good.exchange(b"hello");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    for staller in &mut stallers {
        read_to_end(staller);
    }
    assert_eq!(silent.read_to_end(), b"");
    let (time, at_most) = (began.elapsed(), all_are_there.elapsed());
    assert!(time >= ITS_TIME.start, "not before their time: {time:?}");
    assert!(at_most < ITS_TIME.end, "and not long after it: {at_most:?}");
    good.exchange(b"still here");
}

/// T6: the request head gets no new time after the handshake: one deadline holds for both.
#[test]
fn t6_the_time_of_the_handshake_is_part_of_the_heads() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    let began = Instant::now();
    let mut late = Caller::anonymous().call_without_last_flight(connect(port));
    // It is this pause that is tested.
    sleep(Duration::from_secs(6));
    late.send_but(b"", 0);
    assert_eq!(late.read_to_end(), b"");
    let time = began.elapsed();
    assert!(ITS_TIME.contains(&time), "{time:?}");
}

/// T6: a client that sends one byte after the other gets no more time.
#[test]
fn t6_who_dribbles_gets_no_more_time() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    let began = Instant::now();
    let mut dribbler = connect(port);
    dribbler.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut bytes = BEGUN.iter().chain(std::iter::repeat(&0));
    loop {
        if dribbler.write_all(&[*bytes.next().unwrap()]).is_err() {
            break;
        }
        let mut end = [0];
        match std::io::Read::read(&mut dribbler, &mut end) {
            Ok(0) => break,
            Ok(_) => panic!("an answer to half a handshake"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => assert!(began.elapsed() < ITS_TIME.end, "it goes on"),
        }
    }
    assert!(ITS_TIME.contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[test]
fn t6_a_staller_is_nothing_to_run_once() {
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &["--run-once"]);
    let stallers = stallers(port, 8);
    let began = Instant::now();
    let mut good = Caller::anonymous().session(port, &[]).unwrap();
    good.exchange(b"hello");
    for mut staller in stallers {
        assert_eq!(read_to_end(&mut staller), b"", "closed when the one session has begun");
    }
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    drop(good);
    assert_eq!(websockify.output().status, 0);
}
