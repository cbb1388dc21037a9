//! JSON Web Tokens that no key has signed, keys of any text, and any claims in genuine tokens.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

use crate::directory::jwt::{Key, read};

const SECRET: [u8; 32] = [7; 32];

const NOW: Duration = Duration::from_secs(2_000_000_000);

/// The bytes are a token, the contents of a key file, and claims.
pub fn jwt(bytes: &[u8]) {
    let secret = Key::Secret(SECRET.into());
    if let Ok(token) = std::str::from_utf8(bytes) {
        assert!(read(token, &secret, NOW).is_err(), "nobody has signed {token:?}");
    }
    if let Ok(key) = Key::read(bytes) {
        for token in [signed(b"{}"), "e30..AA.AA.AA".into()] {
            assert!(read(&token, &key, NOW).is_err(), "{key:?}");
        }
    }
    let token = signed(bytes);
    let found = read(&token, &secret, NOW);
    assert!(found != Err("its signature is not the key's"), "it is");
    if let Ok(endpoint) = found.map(|claims| claims.endpoint) {
        let other = Key::Secret(vec![8; 32]);
        assert!(read(&token, &other, NOW).is_err(), "{endpoint} with another key");
        let again = format!("{token}A");
        assert!(read(&again, &secret, NOW).is_err(), "{endpoint} with another signature");
    }
}

fn signed(claims: &[u8]) -> String {
    let (header, claims) =
        (BASE64URL_NOPAD.encode(br#"{"alg":"HS256"}"#), BASE64URL_NOPAD.encode(claims));
    let message = format!("{header}.{claims}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}
