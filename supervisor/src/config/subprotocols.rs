//! The sub-protocols that `--subprotocol` names (U10). Knows how a name reads (RFC 6455, section 4.1).

use crate::usage::{UsageError, invalid};

/// Names separated by commas. They are never freed, so that they are `'static` as the names that are built in.
pub(super) fn named(typed: &str) -> Result<Vec<&'static str>, UsageError> {
    let names: Vec<_> = typed.split(',').map(str::trim).collect();
    let wrong = |expected| Err(invalid("--subprotocol", typed, expected));
    if !names.iter().all(|name| is_token(name)) {
        return wrong("names of sub-protocols, with commas between them");
    }
    if names.contains(&"base64") {
        return wrong("sub-protocols whose frames are binary, which those of base64 are not");
    }
    Ok(names.into_iter().map(|name| &*name.to_owned().leak()).collect())
}

/// RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_of_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u10_sub_protocols_are_tokens_and_not_base64() {
        assert_eq!(named("mqtt, v12.stomp"), Ok(vec!["mqtt", "v12.stomp"]));
        for typed in ["", "mqtt,", "a b", "a,base64", "\u{e9}", "a:b"] {
            let UsageError(line) = named(typed).expect_err(typed);
            assert!(line.contains("'--subprotocol'"), "{line}");
        }
    }
}
