//! Answers of web servers that know tokens, and where their redirects lead.

use ::http::Uri;
use serde_json::json;

use crate::destination::Endpoint;
use crate::directory::token_api::redirect::{is_followed, target};
use crate::directory::token_api::{Answers, Pattern, read};

/// The bytes are an answer of either kind, a place where it leads, and a pattern of URLs.
pub fn token_api(bytes: &[u8]) {
    for answers in [Answers::Text, Answers::Json] {
        if let Ok(endpoint) = read(bytes, answers) {
            let again = read(written(&endpoint, answers).as_bytes(), answers);
            assert_eq!(again, Ok(endpoint), "{answers:?}");
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for base in ["http://a.example/x/y?z", "https://a.example:8443/"] {
        let base: Uri = base.parse().expect("a URL");
        let Some(uri) = target(&base, text) else { continue };
        assert!(matches!(uri.scheme_str(), Some("http" | "https")));
        let is_ours = uri.host().is_some_and(|host| host.eq_ignore_ascii_case("a.example"));
        assert!(is_ours || !is_followed(&base, &uri), "{uri}");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        let uri = pattern.uri("a/b").expect("a short token has a URL");
        assert!(uri.to_string().starts_with(&format!("{pattern}/")), "{uri}");
        assert!(uri.path_and_query().is_some_and(|path| path.as_str().contains("a%2Fb")), "{uri}");
    }
}

fn written(endpoint: &Endpoint, answers: Answers) -> String {
    let pair = match endpoint {
        Endpoint::Tcp(address) => (address.host.clone(), address.port.to_string()),
        Endpoint::Unix(path) => ("unix_socket".into(), path.display().to_string()),
        Endpoint::Resolved(..) | Endpoint::Opened(_) => panic!("not of an answer"),
    };
    match answers {
        Answers::Text => format!("{}:{}", pair.0, pair.1),
        Answers::Json => json!({"host": pair.0, "port": pair.1}).to_string(),
    }
}
