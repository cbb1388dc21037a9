//! An origin as a browser writes it in a request (RFC 6454, section 6.2). Knows text only.

/// The origin of pages that have none of their own: of files, of sandboxed frames.
const OPAQUE: &str = "null";

/// The form in which browsers send what was typed: scheme and host in lower case, no port that the
/// scheme implies, nothing behind it. `None`: it is no origin.
pub(crate) fn normal(typed: &str) -> Option<String> {
    if typed == OPAQUE {
        return Some(typed.into());
    }
    let (scheme, rest) = typed.split_once("://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = split(rest)?;
    // An application may have a scheme of its own for its pages. The origin of a page from a file may be `file://`.
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|one| one.is_ascii_alphanumeric() || "+-.".contains(one));
    let is_host = host.chars().all(|one| one.is_ascii_alphanumeric() || "-._~".contains(one))
        || host.strip_prefix('[').is_some_and(|rest| rest.ends_with(']'));
    if !is_scheme || !is_host || host.is_empty() && !scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    let (scheme, host) = (scheme.to_ascii_lowercase(), address(host)?);
    let implied = match &*scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    };
    let port = port.filter(|port| Some(*port) != implied);
    Some(format!("{scheme}://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
}

/// Host and port.
fn split(rest: &str) -> Option<(&str, Option<u16>)> {
    match rest.rsplit_once(':') {
        // The colon is part of an address in brackets.
        Some((_, port)) if port.contains(']') => Some((rest, None)),
        Some((host, port)) => {
            let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
            Some((host, Some(port.parse().ok().filter(|port| is_number && *port != 0)?)))
        }
        None => Some((rest, None)),
    }
}

/// A host in lower case; an IPv6 address in its short form.
fn address(host: &str) -> Option<String> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => Some(format!("[{}]", address.parse::<std::net::Ipv6Addr>().ok()?)),
        None => Some(host.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f27_origins_are_read_as_browsers_write_them() {
        for (typed, expected) in [
            ("https://a.example", "https://a.example"),
            ("https://A.Example", "https://a.example"),
            ("HTTPS://a.example/", "https://a.example"),
            ("https://a:443", "https://a"),
            ("https://a:443/", "https://a"),
            ("http://a:80", "http://a"),
            ("http://a:443", "http://a:443"),
            ("https://a:8443", "https://a:8443"),
            ("http://[::1]:6080", "http://[::1]:6080"),
            ("http://[0:0::1]", "http://[::1]"),
            ("http://192.0.2.1", "http://192.0.2.1"),
            ("null", "null"),
            ("file://", "file://"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(normal(typed).as_deref(), Some(expected), "{typed}");
            assert_eq!(normal(expected).as_deref(), Some(expected), "{typed}");
        }
    }

    #[test]
    fn f27_what_no_browser_sends_is_no_origin() {
        for typed in [
            "",
            "a",
            "a.example:443",
            "*",
            "https://*",
            "https://",
            "://a",
            "https://a/page",
            "https://a?x",
            "https://user@a",
            "https://a:",
            "https://a:0",
            "https://a:+1",
            "https://a:65536",
            "https://bücher.example",
            "https:/a",
            "https://a,https://b",
            "https://[::1",
            "https://[x]",
            "https://::1",
        ] {
            assert_eq!(normal(typed), None, "{typed}");
        }
    }
}
