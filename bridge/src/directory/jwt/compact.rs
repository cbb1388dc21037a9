//! A token in its compact form: what is signed (RFC 7515, section 7.1) or encrypted (RFC 7516, section 7.1), in
//! base64url, with dots between. Knows no key.

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

use super::Invalid;

/// A token taken apart.
pub(super) enum Parts<'a> {
    Signed(Signed<'a>),
    Encrypted(Encrypted<'a>),
}

/// What is signed, and the signature.
pub(super) struct Signed<'a> {
    pub(super) algorithm: String,
    /// Header and payload, as they are in the token.
    pub(super) message: &'a str,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// What is encrypted, and how.
pub(super) struct Encrypted<'a> {
    pub(super) algorithm: String,
    pub(super) encryption: String,
    /// The header as it is in the token: it is authenticated together with the text.
    pub(super) header: &'a str,
    pub(super) key: Vec<u8>,
    pub(super) nonce: Vec<u8>,
    pub(super) text: Vec<u8>,
    pub(super) tag: Vec<u8>,
}

/// Takes a token apart.
pub(super) fn parts(token: &str) -> Result<Parts<'_>, Invalid> {
    let pieces: Vec<_> = token.splitn(6, '.').collect();
    let decoded =
        |piece: &str| BASE64URL_NOPAD.decode(piece.as_bytes()).map_err(|_| "it is not base64url");
    match *pieces {
        [header, payload, signature] => Ok(Parts::Signed(Signed {
            algorithm: text(&self::header(header)?, "alg")?,
            message: &token[..header.len() + 1 + payload.len()],
            payload: decoded(payload)?,
            signature: decoded(signature)?,
        })),
        [header, key, nonce, text, tag] => {
            let fields = self::header(header)?;
            // What is compressed may be of any length once it is decompressed.
            if fields.get("zip").is_some() {
                return Err("it is compressed");
            }
            Ok(Parts::Encrypted(Encrypted {
                algorithm: self::text(&fields, "alg")?,
                encryption: self::text(&fields, "enc")?,
                header,
                key: decoded(key)?,
                nonce: decoded(nonce)?,
                text: decoded(text)?,
                tag: decoded(tag)?,
            }))
        }
        _ => Err("it is not a JSON Web Token"),
    }
}

fn header(piece: &str) -> Result<Value, Invalid> {
    let text =
        BASE64URL_NOPAD.decode(piece.as_bytes()).map_err(|_| "its header is not base64url")?;
    let header: Value = serde_json::from_slice(&text).map_err(|_| "its header is not JSON")?;
    // A token with critical extensions must be refused by a reader that does not know them (RFC 7515, section 4.1.11).
    if header.get("crit").is_some() {
        return Err("its header has extensions that must be understood");
    }
    Ok(header)
}

fn text(header: &Value, name: &str) -> Result<String, Invalid> {
    header
        .get(name)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or("its header names no algorithm")
}
