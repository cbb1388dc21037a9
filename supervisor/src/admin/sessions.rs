//! The open sessions in JSON, as `/sessions` shows them.

use std::time::SystemTime;

use bridge::{Observer, SessionView};
use serde_json::{Value, json};

use crate::log::universal_time;

/// A list of objects, in the order in which the sessions have begun.
pub(super) fn list(observer: &Observer) -> String {
    let now = SystemTime::now();
    let sessions = observer.sessions();
    let sessions: Value = sessions.iter().map(|session| object(session, now)).collect();
    format!("{sessions}\n")
}

fn object(session: &SessionView, now: SystemTime) -> Value {
    let since = now.checked_sub(session.age).map(universal_time);
    json!({
        "id": session.id,
        "client": session.client,
        "port": session.port,
        "via": session.via,
        "user": session.user,
        "token": session.token,
        "name": session.certificate,
        "tls": session.tls,
        "version": session.version,
        "path": session.path,
        "target": session.target,
        "since": since,
        "received_bytes": session.received,
        "sent_bytes": session.sent,
    })
}
