//! The lines to a helper and from it: one JSON object each. Knows text only.

use bridge::{ClientInfo, Rejection, Verdict};
use serde_json::{Map, Value, json};

/// The longest line that a helper may say, bytes.
const LINE_MAX: usize = 64 * 1024;

/// What stands in a line.
pub(super) type Object = Map<String, Value>;

/// What a helper has said and is not yet read, cut into lines.
#[derive(Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Where to put what it says next.
    pub(super) fn space(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The next line, if it is there as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(self.0.len()) > LINE_MAX {
            return Err("it has said a line that is longer than 64 KiB".into());
        }
        Ok(end.map(|end| self.0.drain(..=end).collect()))
    }
}

/// The line that asks where a token leads.
pub(super) fn lookup(id: u64, token: &str) -> String {
    format!("{}\n", json!({ "id": id, "ask": "lookup", "token": token }))
}

/// The line that asks whether a client is let in.
pub(super) fn authenticate(id: u64, shown: &ClientInfo) -> String {
    let ClientInfo { headers, client, certificate, host, port, unix } = shown;
    let unix = unix.as_ref().map(|path| path.to_string_lossy());
    let line = json!({
        "id": id, "ask": "authenticate", "headers": headers, "client": client,
        "certificate": certificate, "host": host, "port": port, "unix": unix,
    });
    format!("{line}\n")
}

/// What a line says, and which question it answers.
pub(super) fn answer(line: &[u8]) -> Result<(u64, Object), String> {
    let object = object(line)?;
    let id = object.get("id").and_then(Value::as_u64);
    let id = id.ok_or("it has said a line that has no id")?;
    Ok((id, object))
}

/// Whether a plugin can be asked now, or why it cannot be.
pub(super) fn ready(line: &[u8]) -> Result<(), String> {
    let object = object(line)?;
    match (object.get("ready"), object.get("error").and_then(Value::as_str)) {
        (Some(Value::Bool(true)), None) => Ok(()),
        (_, why) => Err(shortened(why.unwrap_or("it has not said that it is ready"))),
    }
}

fn object(line: &[u8]) -> Result<Object, String> {
    serde_json::from_slice(line).map_err(|_| "it has said a line that is no JSON object".into())
}

/// Where a token leads, by the answer, written as in token files. An answer that cannot be understood fails only its
/// own question.
pub(super) fn target(object: &Object) -> Result<Option<String>, String> {
    failure(object)?;
    if let Some(path) = text(object, "unix")? {
        return Ok(Some(format!("unix_socket:{path}")));
    }
    match (text(object, "host")?, member(object, "port")) {
        (None, None) => Ok(None),
        (Some(host), Some(port)) => {
            let number = port.as_u64().map(|port| port.to_string());
            let port = number.or_else(|| port.as_str().map(str::to_owned));
            Ok(Some(format!("{host}:{}", port.ok_or("its port is no number")?)))
        }
        (Some(_), None) => Err("the answer has a host without a port".into()),
        (None, Some(_)) => Err("the answer has a port without a host".into()),
    }
}

/// Whether a client is let in, by the answer: only by one that says so.
pub(super) fn verdict(object: &Object) -> Result<Verdict, String> {
    failure(object)?;
    match member(object, "allowed").and_then(Value::as_bool) {
        Some(true) => Ok(Verdict::Allowed),
        Some(false) => refusal(object),
        None => Err("the answer does not say whether it is allowed".into()),
    }
}

fn refusal(object: &Object) -> Result<Verdict, String> {
    const FORBIDDEN: u64 = 403;
    let code = member(object, "code").map_or(Some(FORBIDDEN), Value::as_u64);
    let headers = member(object, "headers").cloned().unwrap_or(json!([]));
    let headers: Vec<_> = serde_json::from_value(headers)
        .map_err(|_| "its headers are no list of pairs".to_owned())?;
    let (message, reason) = (text(object, "message")?, text(object, "reason")?);
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let refusal =
        Rejection::new(code.unwrap_or_default(), &headers, owned(message), owned(reason))?;
    Ok(Verdict::Refused(refusal.into()))
}

/// Why there is no answer, if the helper says so.
fn failure(object: &Object) -> Result<(), String> {
    match text(object, "error")? {
        None => Ok(()),
        // The text is cut short later, when secrets have been taken out of it: half of a secret would not be found.
        Some(why) => Err(format!("the helper says {why:?}")),
    }
}

fn text<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, String> {
    let text = |value: &'a Value| value.as_str().ok_or(format!("its {name} is no text"));
    member(object, name).map(text).transpose()
}

fn member<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// What a helper says is of any length.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object_of(line: &str) -> Object {
        object(line.as_bytes()).unwrap()
    }

    #[test]
    fn u9_a_question_is_one_line_whatever_the_token() {
        assert_eq!(lookup(1, "desk"), "{\"ask\":\"lookup\",\"id\":1,\"token\":\"desk\"}\n");
        let line = lookup(2, "a\nb\r\0\"\\\u{2028}ż");
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(object_of(&line)["token"], "a\nb\r\0\"\\\u{2028}ż");
        let headers = vec![("cookie".to_owned(), "a\"\u{ff}\n".to_owned())];
        let line = authenticate(3, &ClientInfo { headers, port: Some(7), ..ClientInfo::default() });
        assert_eq!(line.matches('\n').count(), 1);
        let object = object_of(&line);
        assert_eq!(object["headers"], json!([["cookie", "a\"\u{ff}\n"]]));
        assert_eq!((&object["port"], &object["host"]), (&json!(7), &Value::Null));
    }

    #[test]
    fn u9_the_forms_of_an_answer() {
        let target_of = |line: &str| target(&object_of(line));
        for (line, expected) in [
            (r#"{"id":7,"host":"a","port":1}"#, Some("a:1")),
            (r#"{"id":7,"host":"::1","port":"5900","more":[]}"#, Some("::1:5900")),
            (r#"{"id":7,"unix":"/run/a"}"#, Some("unix_socket:/run/a")),
            (r#"{"id":7}"#, None),
            (r#"{"id":7,"host":null,"port":null}"#, None),
        ] {
            assert_eq!(target_of(line), Ok(expected.map(str::to_owned)), "{line}");
        }
        for line in [
            r#"{"id":7,"error":"no database"}"#,
            r#"{"id":7,"error":7}"#,
            r#"{"id":7,"host":"a"}"#,
            r#"{"id":7,"port":1}"#,
            r#"{"id":7,"host":1,"port":1}"#,
            r#"{"id":7,"host":"a","port":-1}"#,
            r#"{"id":7,"unix":[]}"#,
        ] {
            assert!(target_of(line).is_err(), "{line}");
        }
        for line in ["", "7", "[]", "{}", r#"{"id":-1}"#, r#"{"id":"7"}"#, "{\"id\":7", "\u{1}"] {
            assert!(answer(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn u9_nobody_is_let_in_by_an_answer_that_does_not_say_so() {
        let verdict_of = |line: &str| verdict(&object_of(line));
        assert_eq!(verdict_of(r#"{"allowed":true}"#), Ok(Verdict::Allowed));
        let headers = [("A".to_owned(), "b".to_owned())];
        let message = Some("who?".to_owned());
        for (line, refused) in [
            (r#"{"allowed":false}"#, Rejection::new(403, &[], None, None)),
            (
                r#"{"allowed":false,"code":401,"headers":[["A","b"]],"message":"who?"}"#,
                Rejection::new(401, &headers, message, None),
            ),
        ] {
            assert_eq!(verdict_of(line), Ok(Verdict::Refused(refused.unwrap().into())), "{line}");
        }
        for line in [
            "{}",
            r#"{"allowed":"true"}"#,
            r#"{"allowed":1}"#,
            r#"{"allowed":null,"code":403}"#,
            r#"{"allowed":true,"error":"no database"}"#,
            r#"{"allowed":false,"code":200}"#,
            r#"{"allowed":false,"code":"403"}"#,
            r#"{"allowed":false,"headers":{"A":"b"}}"#,
            r#"{"allowed":false,"headers":[["A"]]}"#,
            r#"{"allowed":false,"message":[]}"#,
        ] {
            assert!(verdict_of(line).is_err(), "{line}");
        }
    }

    #[test]
    fn u8_a_plugin_is_ready_or_says_why_not() {
        assert_eq!(ready(br#"{"ready":true}"#), Ok(()));
        assert_eq!(ready(br#"{"error":"ImportError: a"}"#), Err("ImportError: a".into()));
        for line in ["{}", r#"{"ready":1}"#, "[]", ""] {
            assert!(ready(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn u9_lines_are_cut_wherever_they_are_read() {
        let mut lines = Lines::default();
        lines.space().extend(b"on");
        assert_eq!(lines.next(), Ok(None));
        lines.space().extend(b"e\n\ntw");
        assert_eq!(lines.next(), Ok(Some(b"one\n".to_vec())));
        assert_eq!(lines.next(), Ok(Some(b"\n".to_vec())));
        assert_eq!(lines.next(), Ok(None));
        lines.space().resize(LINE_MAX, b'x');
        assert_eq!(lines.next(), Ok(None));
        lines.space().extend(b"xx");
        assert!(lines.next().is_err());
    }

    /// Whatever a helper says, it is read to its end or refused.
    #[test]
    fn u9_random_lines() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap()
        };
        let parts = [
            "{",
            "}",
            "\"id\":7,",
            "\"host\":",
            "\"port\":",
            "\"allowed\":",
            "\"headers\":",
            "\"code\":",
            "false",
            "[[\"a\",\"b\"]]",
            "\"a\"",
            ",",
            "7",
            "null",
            "\n",
            "\\",
            "\u{0}",
        ];
        for _ in 0..20_000 {
            let count = random() % 12;
            let text: String = (0..count).map(|_| parts[random() % parts.len()]).collect();
            let mut lines = Lines(text.clone().into_bytes());
            let mut read = 0;
            while let Ok(Some(line)) = lines.next() {
                read += line.len();
                if let Ok((_, object)) = answer(&line) {
                    let _ = target(&object);
                    assert_ne!(verdict(&object), Ok(Verdict::Allowed), "{text:?}");
                }
            }
            assert_eq!(read, text.rfind('\n').map_or(0, |end| end + 1), "{text:?}");
        }
    }
}
