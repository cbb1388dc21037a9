//! A plugin that is a Python class (U8), as a helper: Python runs `plugin.py`, which makes an object of the class
//! and asks it. Knows how that is begun, and nothing of what is asked.

use std::ffi::OsString;
use std::time::Duration;

use bridge::error_text;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::child::{self, Child};
use super::lines::{self, Lines};
use crate::config::Class;

/// How long the class may take until it can be asked.
const LOADING: Duration = Duration::from_secs(60);

/// The Python code that gets `plugin.py` and runs it. As with any `python3 -c`, modules are looked for in the current
/// directory first.
const STUB: &str =
    "import json,sys; load = json.loads(sys.stdin.buffer.raw.readline()); exec(load['script'])";

/// The command line of Python. What it compiles it does not keep (-B): the directory may be one that is served.
pub(super) fn command() -> Vec<OsString> {
    ["python3", "-B", "-c", STUB].map(OsString::from).to_vec()
}

/// Has a Python that was just started make the object; or says why it cannot, in the last line of the traceback.
pub(super) async fn load(child: &mut Child, class: &Class) -> Result<(), String> {
    let line = json!({
        "script": include_str!("plugin.py"),
        "class": class.name,
        "source": class.source,
    });
    let mut said = Lines::default();
    let loaded = async {
        let line = format!("{line}\n");
        let told = child.questions.write_all(line.as_bytes()).await;
        told.map_err(|error| error_text(&error))?;
        loop {
            if let Some(line) = said.next()? {
                return lines::ready(&line);
            }
            child::read(&mut child.answers, &mut said).await?;
        }
    };
    let limit = LOADING.as_secs();
    timeout(LOADING, loaded).await.unwrap_or_else(|_| Err(format!("not ready within {limit} s")))
}
