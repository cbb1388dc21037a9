//! How much of a TLS client's first message has come, compared with what rustls says of the same bytes; and where TLS records
//! end.

use tokio_rustls::rustls::server::Acceptor;

use crate::tls::{Hello, hello as said_of, whole_records};

/// The bytes are what a client begins with.
pub fn hello(bytes: &[u8]) {
    records(bytes);
    let mut before = Hello::Begun;
    for length in (0..=bytes.len()).step_by(1 + bytes.len() / 64).chain([bytes.len()]) {
        let now = said_of(&bytes[..length]);
        assert!(before == Hello::Begun || now == before, "more bytes do not change what it is");
        before = now;
    }
    match said_of(bytes) {
        // rustls waits for more, or finds something wrong with it already.
        Hello::Begun => assert!(!is_accepted(bytes), "it is whole"),
        // rustls is given the bytes now, and must not wait for more of them.
        Hello::Whole => assert!(!is_waiting(bytes), "it is not whole"),
        Hello::TooLong | Hello::Other => {}
    }
}

/// Records that are whole stay so when more bytes come, and each of their bytes is needed.
fn records(bytes: &[u8]) {
    let Some(end) = whole_records(bytes) else { return };
    assert!((5..=bytes.len()).contains(&end), "a record has a header");
    let before = whole_records(&bytes[..end - 1]);
    assert!(before.is_none_or(|before| before < end), "the last byte is needed");
    assert_eq!(whole_records(&bytes[..end]), Some(end), "what is behind them changes nothing");
    // Read one by one, they end there too.
    let (mut rest, mut read) = (&bytes[..end], 0);
    while let [_, _, _, high, low, behind @ ..] = rest {
        rest = behind.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
        read += 1;
    }
    assert!(rest.is_empty() && read <= 16, "{read} records");
}

/// What rustls reads. `None`: it waits for more; else whether the bytes are a hello.
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
