//! Process ids in the state that is handed over to a new binary (O2); for fields (`#[serde(with = …)]`). A number below
//! 1 is refused: with it kill(2) would signal many processes.

use nix::unistd::Pid;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is how serde asks")]
pub(crate) fn serialize<S: Serializer>(pid: &Pid, to: S) -> Result<S::Ok, S::Error> {
    pid.as_raw().serialize(to)
}

pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Pid, D::Error> {
    at_least(1, from, "process id")
}

fn at_least<'a, D: Deserializer<'a>>(least: i32, from: D, what: &str) -> Result<Pid, D::Error> {
    let number = i32::deserialize(from)?;
    if number < least {
        return Err(Error::custom(format!("{number} is no {what}")));
    }
    Ok(Pid::from_raw(number))
}

/// The same for process groups and sessions: one that began outside our PID namespace is 0 (pid_namespaces(7)). Our own
/// are 0 where somebody entered a container with nsenter(1), or made one with unshare(1).
pub(crate) mod group {
    use nix::unistd::Pid;
    use serde::Deserializer;

    pub(crate) use super::serialize;

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Pid, D::Error> {
        super::at_least(0, from, "process group or session")
    }
}

/// The same for ids that may be none; such fields need `#[serde(default)]`, too.
pub(crate) mod maybe {
    use nix::unistd::Pid;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(with = "super")] Pid);

    #[expect(clippy::ref_option, reason = "it is how serde asks")]
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the same")]
    pub(crate) fn serialize<S: Serializer>(pid: &Option<Pid>, to: S) -> Result<S::Ok, S::Error> {
        pid.map(Number).serialize(to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Pid>, D::Error> {
        Ok(Option::<Number>::deserialize(from)?.map(|number| number.0))
    }
}
