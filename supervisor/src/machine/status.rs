//! What proc_pid_status(5) says of a process or a thread. It begins with a name that others choose, in any bytes, and that
//! the kernel cuts at the fifteenth, within a letter too. So it is not read as UTF-8, as procfs reads it. Knows fields,
//! and not what they mean.

use std::fmt::Display;
use std::fs;
use std::io;

/// The value of this field; `who` is a process id, a thread id, or `self`.
///
/// # Errors
///
/// There is no such process or no such field, or /proc hides it.
pub(crate) fn field(who: impl Display, name: &str) -> io::Result<String> {
    let status = fs::read(format!("/proc/{who}/status"))?;
    value(&status, name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn value(status: &[u8], name: &str) -> Option<String> {
    let status = String::from_utf8_lossy(status);
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w16_a_field_is_read_whatever_the_name_is() {
        let name = &"програмаактор".as_bytes()[..15];
        let status = [b"Name:\t", name, b"\nTgid:\t7\nUid:\t1\t2\t3\t4\nUidMap:\t5\n"].concat();
        assert_eq!(value(&status, "Tgid").as_deref(), Some("7"));
        assert_eq!(value(&status, "Uid").as_deref(), Some("1\t2\t3\t4"));
        assert_eq!(value(&status, "Gid"), None);
        assert_eq!(field("self", "Pid").unwrap(), std::process::id().to_string());
        assert_eq!(field(0, "Pid").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
