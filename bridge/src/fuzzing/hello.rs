//! How far a TLS client's first message is, against what rustls says of the same bytes.

use tokio_rustls::rustls::server::Acceptor;

use crate::tls::{Hello, hello as said_of};

/// The bytes are what a client begins with.
pub fn hello(bytes: &[u8]) {
    let mut before = Hello::Begun;
    for length in (0..=bytes.len()).step_by(1 + bytes.len() / 64).chain([bytes.len()]) {
        let now = said_of(&bytes[..length]);
        assert!(before == Hello::Begun || now == before, "more bytes do not change what it is");
        before = now;
    }
    match said_of(bytes) {
        // rustls waits for more, or finds something wrong with it already.
        Hello::Begun => assert!(!is_accepted(bytes), "it is whole"),
        // What is waited for would never come: the bytes are not looked at again before they are read.
        Hello::Whole => assert!(!is_waiting(bytes), "it is not whole"),
        Hello::TooLong | Hello::Other => {}
    }
}

/// What rustls makes of the bytes: `None`, it waits for more; whether they are a hello.
fn read(bytes: &[u8]) -> Option<bool> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(false);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(_)) => return Some(true),
            Err(_) => return Some(false),
        }
    }
    None
}

fn is_accepted(bytes: &[u8]) -> bool {
    read(bytes) == Some(true)
}

fn is_waiting(bytes: &[u8]) -> bool {
    read(bytes).is_none()
}
