//! JSON Web Tokens, which say themselves where they lead (K5), made here as a site that sends clients to websockify would
//! make them.

use std::fs;
use std::io::Read;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PSS_SHA384};
use data_encoding::{BASE64_MIME, BASE64URL_NOPAD};
use tempfile::TempDir;

use super::{bridge, by_token, named, named_at, refused};
use crate::support::Service;

pub(super) const SECRET: &[u8; 32] = b"thirty-two bytes of a test's key";

pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

pub(super) fn signed(secret: &[u8], claims: &str) -> String {
    let message = format!("{}.{}", encoded(r#"{"alg":"HS256","typ":"JWT"}"#), encoded(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", encoded(tag))
}

/// Encrypted with the secret itself, as `dir` and `A256GCM` say.
fn encrypted(secret: &[u8], text: &str) -> String {
    let header = encoded(r#"{"alg":"dir","enc":"A256GCM"}"#);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).unwrap());
    let mut text = text.as_bytes().to_vec();
    let nonce = Nonce::assume_unique_for_key([7; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header.as_bytes()), &mut text);
    format!("{header}..{}.{}.{}", encoded([7; 12]), encoded(text), encoded(tag.unwrap()))
}

fn seconds_from_now(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    now.as_secs().cast_signed() + offset
}

#[test]
fn k5_a_token_says_itself_where_it_leads() {
    let (one, directory) = (named("one"), TempDir::new().unwrap());
    let at = |name: &str| directory.path().join(name);
    named_at(&at("socket"), "socket");
    fs::write(at("key"), format!("{}\n", encoded(SECRET))).unwrap();
    let options = ["--token-plugin=JWTTokenApi", "--token-source=key", "--web=."];
    let (websockify, port) = bridge(&directory, &options);
    let number = one.address.port();
    let claims = format!(r#"{{"host":"127.0.0.1","port":{number}}}"#);
    let until = |offset| {
        let time = seconds_from_now(offset);
        format!(r#"{{"host":"127.0.0.1","port":"{number}","exp":{time}}}"#)
    };
    let good = signed(SECRET, &claims);
    for token in [
        &good,
        &signed(SECRET, &until(60)),
        &encrypted(SECRET, &claims),
        &encrypted(SECRET, &signed(SECRET, &claims)),
    ] {
        assert_eq!(by_token(port, token), Ok("one".into()), "{token}");
    }
    let unix = format!(r#"{{"host":"unix_socket","port":"{}"}}"#, at("socket").display());
    assert_eq!(by_token(port, &signed(SECRET, &unix)), Ok("socket".into()));
    let from = seconds_from_now(60);
    for (token, why) in [
        (signed(SECRET, &until(-60)), "it has expired"),
        (
            signed(SECRET, &format!(r#"{{"host":"a","port":1,"nbf":{from}}}"#)),
            "it does not count yet",
        ),
        (signed(&[1; 32], &claims), "its signature is not the key's"),
        (encrypted(&[1; 32], &claims), "it cannot be decrypted with the key"),
        (signed(SECRET, r#"{"host":"a"}"#), "it has no port"),
        ("desk".into(), "it is not a JSON Web Token"),
        (format!("x{good}"), "its header is not"),
    ] {
        assert_eq!(refused(port, &token), 403, "{token}");
        websockify.wait_for_log(&["INFO", &format!("its token is not valid: {why}")]);
    }
    assert_eq!(refused(port, &format!("{}..", "a".repeat(9000))), 403);
    // K8: such tokens are worth as much as passwords.
    assert_eq!(websockify.logged(&[&good[..10]]), Vec::<String>::new());
    assert_eq!(crate::support::request(port, "/key", &[]).0.status, 404, "no key is served");
}

/// The key may be replaced, may be the public one of a pair, and may be missing.
#[test]
fn k5_the_key_is_what_the_file_has_at_the_moment() {
    let (one, directory) = (named("one"), TempDir::new().unwrap());
    let write = |text: String| fs::write(directory.path().join("key"), text).unwrap();
    let claims = format!(r#"{{"host":"127.0.0.1","port":{}}}"#, one.address.port());
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let message = format!("{}.{}", encoded(r#"{"alg":"PS384"}"#), encoded(&claims));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    let by_pair = format!("{message}.{}", encoded(signature));
    let by_secret = signed(SECRET, &claims);
    let options = ["--token-plugin=JWTTokenApi", "--token-source=key"];
    let (websockify, port) = bridge(&directory, &options);
    websockify.wait_for_log(&["WARN", "cannot read the key of tokens", "key: no such file"]);
    assert_eq!(refused(port, &by_secret), 503);
    write(encoded(SECRET));
    assert_eq!((by_token(port, &by_secret), refused(port, &by_pair)), (Ok("one".into()), 403));
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let body = BASE64_MIME.encode(der.as_ref());
    write(format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"));
    assert_eq!((by_token(port, &by_pair), refused(port, &by_secret)), (Ok("one".into()), 403));
    for (text, why) in [
        ("secret", "its secret is shorter than 16 bytes"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "its key is none of RSA"),
        ("-----BEGIN PUBLIC KEY-----\n", "PEM"),
    ] {
        write(text.into());
        assert_eq!(refused(port, &by_pair), 503, "{text}");
        websockify.wait_for_log(&["WARN", "refused a handshake", "key of tokens", why, "(503"]);
    }
}

/// K5: a session goes on when its token has expired, unless `--session-expires` is given.
#[test]
fn k5_a_session_may_end_with_its_token() {
    let silent = Service::new(|mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("key"), encoded(SECRET)).unwrap();
    for (option, reason) in
        [("--session-expires", "token expired"), ("--session-timeout=4", "session timeout")]
    {
        let options = ["--token-plugin=JWTTokenApi", "--token-source=key", option];
        let (websockify, port) = bridge(&directory, &options);
        let exp = seconds_from_now(2);
        let claims =
            format!(r#"{{"host":"127.0.0.1","port":{},"exp":{exp}}}"#, silent.address.port());
        let ended = by_token(port, &signed(SECRET, &claims));
        assert_eq!(ended, Err((1000, reason.to_owned())));
        assert!(seconds_from_now(0) >= exp, "too early");
        websockify.wait_for_log(&["session ended", "code 1000"]);
    }
}
