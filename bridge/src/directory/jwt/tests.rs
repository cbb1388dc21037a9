//! Tokens made by another library (jwcrypto 1.6, which the Python websockify uses), tokens of RFCs, and forged ones.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::*;
use crate::destination::{Address, Endpoint};

/// The keys, as files have them, and the tokens. All claims are the same. Some tokens have `refused`: the library reads them, and
/// we must not.
const VECTORS: &str = include_str!("vectors.json");

const NOW: Duration = Duration::from_secs(2_000_000_000);

const SECRET: &[u8] = b"thirty-two bytes of a test's key";

/// Name, key and token of those that are to be accepted.
fn vectors() -> Vec<(String, String, String)> {
    vectors_that(false)
}

fn vectors_that(are_refused: bool) -> Vec<(String, String, String)> {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let text = |vector: &Value, name: &str| vector[name].as_str().unwrap().to_owned();
    let wanted = vectors.iter().filter(|vector| vector.get("refused").is_some() == are_refused);
    wanted.map(|it| (text(it, "name"), text(it, "key"), text(it, "token"))).collect()
}

fn desk() -> Endpoint {
    Endpoint::Tcp(Address { host: "desk.example".into(), port: 5900 })
}

fn key(text: &str) -> Key {
    Key::read(text.as_bytes()).expect("a key")
}

fn encoded(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

/// Signed by the secret as HS256 is, whatever the header says.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn endpoint(token: &str, key: &Key) -> Result<Endpoint, Invalid> {
    read(token, key, NOW).map(|claims| claims.endpoint)
}

fn of_claims(claims: &Value) -> Result<Endpoint, Invalid> {
    endpoint(&signed(r#"{"alg":"HS256"}"#, &claims.to_string()), &Key::Secret(SECRET.into()))
}

#[test]
fn k5_tokens_of_another_library_are_read() {
    let vectors = vectors();
    assert!(vectors.len() > 30);
    for (name, file, token) in &vectors {
        assert_eq!(endpoint(token, &key(file)), Ok(desk()), "{name}");
    }
}

/// Anybody can encrypt with a public key: nobody has vouched for what is in such a token, if it is not signed as well.
#[test]
fn k5_what_is_encrypted_for_a_public_key_and_not_signed_is_refused() {
    let vectors = vectors_that(true);
    for algorithm in ["RSA-OAEP A", "RSA-OAEP-256 A"] {
        assert!(vectors.iter().any(|(name, ..)| name.starts_with(algorithm)), "{algorithm}");
    }
    for (name, file, token) in &vectors {
        let key = key(file);
        // The key opens it, and its claims are good.
        let Ok(Parts::Encrypted(encrypted)) = compact::parts(token) else { panic!("{name}") };
        let text = encrypted.decrypted(&key).unwrap();
        assert_eq!(claims::read(&text, NOW).map(|claims| claims.endpoint), Ok(desk()), "{name}");
        let why = "it is encrypted with a public key, and not signed";
        assert_eq!(endpoint(token, &key), Err(why), "{name}");
    }
}

/// The key decides on the algorithm: no token is taken with the key of another, nor with one letter changed.
#[test]
fn k5_no_token_is_taken_with_another_key_or_changed() {
    let vectors = vectors();
    for (name, file, token) in &vectors {
        let key = key(file);
        let pair = pair_of(name, file);
        for (other, _, theirs) in
            vectors.iter().filter(|(name, file, _)| pair_of(name, file) != pair)
        {
            assert!(read(theirs, &key, NOW).is_err(), "{other} with the key of {name}");
        }
        for at in (0..token.len()).step_by(7) {
            let letter = if &token[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{letter}{}", &token[..at], &token[at + 1..]);
            assert!(read(&changed, &key, NOW).is_err(), "{name}: {at}");
            assert!(read(&token[..at], &key, NOW).is_err(), "{name}: {at}");
        }
    }
}

/// What tells the keys apart: one pair of RSA has made all of its tokens, and each curve has one.
fn pair_of<'a>(name: &'a str, file: &'a str) -> &'a str {
    match name.split(' ').next() {
        Some(algorithm) if algorithm.starts_with(['R', 'P']) => "RSA",
        Some(algorithm) if file.contains("-----BEGIN") => algorithm,
        _ => file,
    }
}

#[test]
fn k5_what_no_key_makes_genuine() {
    let claims = r#"{"host":"desk.example","port":5900}"#;
    let secret = Key::Secret(SECRET.into());
    let read = |token: &str| endpoint(token, &secret);
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT","kid":"1","zip":"DEF"}"#] {
        assert_eq!(read(&signed(header, claims)), Ok(desk()), "{header}");
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","crit":["x"]}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"["HS256"]"#,
        "alg",
        "",
    ] {
        let token = signed(header, claims);
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(read(&token).is_err() && read(&unsigned).is_err(), "{header}");
    }
    let good = signed(r#"{"alg":"HS256"}"#, claims);
    for token in [
        "",
        ".",
        "..",
        "....",
        ".....",
        "a",
        claims,
        "desk",
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}="),
        &format!(" {good}"),
        &format!("{good}\n"),
        &good.replace('.', "%2E"),
        &format!("{good}{}", ".".repeat(16_000)),
    ] {
        assert!(read(token).is_err(), "{token}");
    }
}

/// A public key, in any form, is no secret to sign with.
#[test]
fn k5_a_public_key_signs_nothing() {
    let (_, pem, _) = vectors().into_iter().find(|(name, ..)| name == "RS256").unwrap();
    let Key::Rsa { public, private: None } = key(&pem) else { panic!("a public key") };
    let message =
        format!("{}.{}", encoded(r#"{"alg":"HS256"}"#), encoded(r#"{"host":"h","port":1}"#));
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &public.der] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let token = format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()));
        assert_eq!(read(&token, &key(&pem), NOW), Err("its algorithm is none that the key is for"));
    }
}

/// RFC 7516, appendix A.3: the text is no claims, but it is decrypted.
#[test]
fn k5_the_example_of_the_rfc_is_decrypted() {
    let token = "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.\
                 6KB707dM9YTIgHtLvtgWQ8mKwboJW3of9locizkDTHzBC2IlrT1oOQ.AxY8DCtDaGlsbGljb3RoZQ.\
                 KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.U0m_YmjN04DJvceFICbCVQ";
    let Ok(Parts::Encrypted(encrypted)) = compact::parts(token) else { panic!("encrypted") };
    let text = encrypted.decrypted(&key("GawgguFyGrWKav7AX4VKUg"));
    assert_eq!(text.as_deref(), Ok(b"Live long and prosper.".as_slice()));
    assert_eq!(read(token, &key("GawgguFyGrWKav7AX4VKUg"), NOW), Err("its claims are not JSON"));
}

/// RFC 7515, appendix A.1: it has no host, but its signature is good.
#[test]
fn k5_the_example_of_the_rfc_is_genuine() {
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                 eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                 dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let key = key(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    );
    assert_eq!(read(token, &key, NOW), Err("it has expired"));
    assert_eq!(read(token, &key, Duration::ZERO), Err("it has no host"));
}

#[test]
fn k5_what_claims_say_and_until_when() {
    let now = NOW.as_secs();
    for (claims, expected) in [
        (json!({"host": "desk.example", "port": 5900}), Ok(desk())),
        (json!({"host": "desk.example", "port": "5900", "aud": "x", "iat": now + 9}), Ok(desk())),
        (json!({"host": "unix_socket", "port": "/run/a"}), Ok(Endpoint::Unix("/run/a".into()))),
        (json!({"host": "desk.example", "port": 5900, "exp": now, "nbf": now}), Ok(desk())),
        (json!({"host": "desk.example", "port": 5900, "exp": 2e9 + 0.5}), Ok(desk())),
        (json!({"host": "desk.example", "port": 5900, "exp": now - 1}), Err("it has expired")),
        (json!({"host": "desk.example", "port": 5900, "exp": -1}), Err("it has expired")),
        (
            json!({"host": "desk.example", "port": 5900, "nbf": now + 1}),
            Err("it does not count yet"),
        ),
        (
            json!({"host": "desk.example", "port": 5900, "exp": "never"}),
            Err("its times are not numbers"),
        ),
        (
            json!({"host": "desk.example", "port": 5900, "exp": null}),
            Err("its times are not numbers"),
        ),
        (json!({"host": "desk.example"}), Err("it has no port")),
        (json!({"port": 5900}), Err("it has no host")),
        (json!([]), Err("it has no host")),
        (json!("x"), Err("it has no host")),
    ] {
        assert_eq!(of_claims(&claims), expected, "{claims}");
    }
}

/// As Python decodes it for upstream; there, what is no base64url at all is refused later.
#[test]
fn k5_a_secret_is_the_k_of_a_json_web_key() {
    let text = BASE64URL_NOPAD.encode(&[0xfb; 32]);
    let plain = text.replace('-', "+").replace('_', "/");
    for file in [
        &*text,
        &plain,
        &format!("{text}="),
        &format!("{text}\r\n"),
        &format!(" {text}\n"),
        &text.replace("-_", "-._"),
    ] {
        match key(file) {
            Key::Secret(secret) => assert_eq!(secret, [0xfb; 32], "{file}"),
            other => panic!("{file}: {other:?}"),
        }
    }
    let short = BASE64URL_NOPAD.encode(&[1; 15]);
    for (file, why) in [
        ("", "shorter than 16 bytes"),
        (&*short, "shorter than 16 bytes"),
        ("abcdefghijklmnopqrstuvwxy", "neither PEM nor base64url"),
        ("-----BEGIN RSA PRIVATE KEY-----\n", "PEM"),
        (
            "-----BEGIN DSA PARAMETERS-----\nAAAA\n-----END DSA PARAMETERS-----\n",
            "its PEM has no key",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "its key is none of RSA",
        ),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "its key is none of RSA"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "its key is none of RSA",
        ),
    ] {
        let error = Key::read(file.as_bytes()).expect_err(file);
        assert!(error.contains(why), "{file}: {error}");
    }
    assert!(Key::read(b"\xff".as_slice()).is_err());
}

/// Upstream takes the letters of any text for a secret. Those of a public key everybody may know, and so sign with them.
#[test]
fn k5_a_public_key_is_no_secret_however_it_is_written() {
    let pem = vectors().into_iter().find(|(name, ..)| name == "ES256 public").unwrap().1;
    let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let ssh = format!("AAAAC3NzaC1lZDI1NTE5AAAAI{}", "A".repeat(43));
    for file in [
        &*lines.concat(),
        &lines.join("\n"),
        &pem.replace("-----", "---- "),
        &pem.replace("-----", "----"),
        &ssh,
        &format!("ssh-ed25519 {ssh}\n"),
        &format!("# a key\nssh-ed25519 {ssh} somebody@somewhere\n"),
        &json!({"kty": "RSA", "n": "A".repeat(342), "e": "AQAB"}).to_string(),
        &json!([{"kty": "RSA", "n": "A".repeat(342), "e": "AQAB"}]).to_string(),
        &format!("\n<RSAKeyValue><Modulus>{}</Modulus>", "A".repeat(40)),
    ] {
        let error = Key::read(file.as_bytes()).expect_err(file);
        assert!(error.contains("PEM"), "{file}: {error}");
    }
    assert!(matches!(key(&pem), Key::Other(_)));
}

#[tokio::test]
async fn k5_the_key_is_what_its_file_has_now() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let jwt = Jwt::new(path.clone());
    let [first, second] = ["ES256 public", "ES384 public"]
        .map(|wanted| vectors().into_iter().find(|(name, ..)| name == wanted).unwrap());
    let error = jwt.prepare().await.unwrap_err().to_string();
    assert!(error.contains("key: no such file"), "{error}");
    assert!(matches!(jwt.look_up(&first.2).await, Err(NoDestination::Source(_))));
    for (_, file, token) in [&first, &second, &first] {
        std::fs::write(&path, file).unwrap();
        jwt.prepare().await.unwrap();
        assert_eq!(jwt.look_up(token).await.unwrap().endpoint, desk());
    }
    assert!(matches!(jwt.look_up(&second.2).await, Err(NoDestination::InvalidToken(_))));
    std::fs::write(&path, "x".repeat(65 * 1024)).unwrap();
    let error = jwt.prepare().await.unwrap_err().to_string();
    assert!(error.contains("it is longer than 64 KiB"), "{error}");
}

#[test]
fn k5_a_token_counts_for_so_long() {
    let now = NOW.as_secs_f64();
    for (until, left) in [
        (json!(null), None),
        (json!(now), Some(Duration::ZERO)),
        (json!(now + 60.5), Some(Duration::from_millis(60_500))),
        (json!(1e300), None),
    ] {
        let mut claims = json!({"host": "desk.example", "port": 5900});
        if !until.is_null() {
            claims["exp"] = until;
        }
        let token = signed(r#"{"alg":"HS256"}"#, &claims.to_string());
        let read = read(&token, &Key::Secret(SECRET.into()), NOW).unwrap();
        assert_eq!((read.endpoint, read.left), (desk(), left), "{claims}");
    }
}
