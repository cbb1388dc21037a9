//! Whether a request says which host it is for, as RFC 9112, section 3.2, has it.
//!
//! Knows heads only. We are one host under any name. A proxy before us may serve several, and we must not accept a request whose
//! host that proxy may understand otherwise.

use ::http::Version;
use ::http::header::HOST;
use ::http::request::Parts;

/// Whether there is one `Host` of valid characters; HTTP/1.0 may do without.
pub(super) fn is_good(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(|byte| may_have(*byte)),
        (None, _) => head.version < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// The characters that RFC 3986, section 3.2, allows in names, addresses and ports; a `Host` may be empty.
fn may_have(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    #[test]
    fn f19_a_request_has_one_host() {
        for (version, hosts, expected) in [
            (Version::HTTP_11, &["a"][..], true),
            (Version::HTTP_11, &["a.example:6080"], true),
            (Version::HTTP_11, &["[::1]:6080"], true),
            (Version::HTTP_11, &["a_b"], true),
            (Version::HTTP_11, &[""], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["a", "a"], false),
            (Version::HTTP_11, &["a, b"], false),
            (Version::HTTP_11, &["a/b"], false),
            (Version::HTTP_11, &["user@a"], false),
            (Version::HTTP_11, &["\u{e9}"], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["a"], true),
            (Version::HTTP_10, &["a", "b"], false),
        ] {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, host.as_bytes());
            }
            let head = request.body(()).unwrap().into_parts().0;
            assert_eq!(is_good(&head), expected, "{version:?} {hosts:?}");
        }
    }
}
