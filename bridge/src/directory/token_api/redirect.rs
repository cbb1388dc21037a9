//! Where an answer redirects to (RFC 9110, section 15.4). Knows URLs only.

use ::http::{Uri, uri};

/// The URL that a `Location` means, as seen from `base`. None: it is none of http or https.
pub(crate) fn target(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if let Some(rest) = location.strip_prefix("//") {
        return checked(format!("{}://{rest}", base.scheme_str()?).parse().ok()?);
    }
    if has_scheme(location) {
        return checked(location.parse().ok()?);
    }
    let path = base.path();
    let path_and_query = match location.chars().next() {
        None => return None,
        Some('/') => location.to_owned(),
        Some('?') => format!("{path}{location}"),
        Some(_) => format!("{}/{location}", path.rsplit_once('/').map_or("", |(before, _)| before)),
    };
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    checked(Uri::from_parts(parts).ok()?)
}

/// Whether a redirect is followed: to no other host, and not out of encryption. Otherwise the server that answers could have us
/// ask hosts that only we can reach.
pub(crate) fn is_followed(from: &Uri, to: &Uri) -> bool {
    let is_same = match (from.host(), to.host()) {
        (Some(from), Some(to)) => from.eq_ignore_ascii_case(to),
        _ => false,
    };
    is_same && (to.scheme() == from.scheme() || to.scheme() == Some(&uri::Scheme::HTTPS))
}

/// Whether both URLs are at one server, which may be sent the same credentials for both.
pub(crate) fn is_same_server(one: &Uri, other: &Uri) -> bool {
    let port = |uri: &Uri| {
        let default = if uri.scheme() == Some(&uri::Scheme::HTTPS) { 443 } else { 80 };
        uri.port_u16().unwrap_or(default)
    };
    one.scheme() == other.scheme() && port(one) == port(other) && is_followed(one, other)
}

/// Whether it begins with a scheme, which ends in a colon before any slash, question mark or the like (RFC 3986, section 3.1).
fn has_scheme(location: &str) -> bool {
    let is_of_scheme = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(is_of_scheme)
    })
}

fn checked(uri: Uri) -> Option<Uri> {
    let is_web =
        [uri::Scheme::HTTP, uri::Scheme::HTTPS].iter().any(|scheme| uri.scheme() == Some(scheme));
    let has_host =
        uri.authority().is_some_and(|at| !at.host().is_empty() && !at.as_str().contains('@'));
    (is_web && has_host).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_where_a_location_leads() {
        let base: Uri = "http://h:81/a/b?c".parse().unwrap();
        for (location, expected, is_followed) in [
            ("/x?y", Some("http://h:81/x?y"), true),
            ("x", Some("http://h:81/a/x"), true),
            ("?z", Some("http://h:81/a/b?z"), true),
            ("//h/x", Some("http://h/x"), true),
            ("http://H:82/x#y", Some("http://H:82/x"), true),
            ("https://h/x", Some("https://h/x"), true),
            ("http://other/x", Some("http://other/x"), false),
            ("//other/x", Some("http://other/x"), false),
            ("http://h.other/", Some("http://h.other/"), false),
            ("file:///etc/passwd", None, false),
            ("mailto:a", None, false),
            ("http://u@h/", None, false),
            ("http:", None, false),
            ("http://", None, false),
            ("#x", None, false),
            ("", None, false),
            ("/a b", None, false),
        ] {
            let found = target(&base, location);
            assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), expected, "{location}");
            let followed = found.is_some_and(|found| super::is_followed(&base, &found));
            assert_eq!(followed, is_followed, "{location}");
        }
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(!super::is_followed(&uri("https://h/"), &uri("http://h/")), "out of encryption");
        assert!(is_same_server(&uri("http://h/"), &uri("http://h:80/x")));
        assert!(!is_same_server(&uri("http://h/"), &uri("https://h/x")));
        assert!(!is_same_server(&uri("http://h/"), &uri("http://h:81/x")));
    }
}
