//! Texts of proc(5) that other processes have a part in: their names and paths, in any bytes. No function reads a file but
//! [`status`]. Knows fields, and not what they mean.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The value of this field in proc_pid_status(5); `who` is a process id, a thread id, or `self`.
///
/// # Errors
///
/// There is no such process or no such field, or /proc hides it.
pub(crate) fn status(who: impl Display, name: &str) -> io::Result<String> {
    let status = fs::read(format!("/proc/{who}/status"))?;
    field(&status, name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The value of a field in the text of proc_pid_status(5). That begins with a name that others choose, and that the kernel
/// cuts at the fifteenth byte, within a letter too. So it is not read as UTF-8, as procfs reads it. A line feed in the name
/// is escaped by the kernel.
pub(crate) fn field(status: &[u8], name: &str) -> Option<String> {
    let status = String::from_utf8_lossy(status);
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// The name in the text of proc_pid_stat(5), and the fields that follow it, of which the state is the first. The name may have
/// anything in it, brackets and line feeds too, and may end within a letter.
pub(crate) fn stat(text: &[u8]) -> Option<(&[u8], impl Iterator<Item = &str>)> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let start = text[..end].iter().position(|byte| *byte == b'(')?;
    let fields = std::str::from_utf8(&text[end + 1..]).ok()?;
    Some((&text[start + 1..end], fields.split_ascii_whitespace()))
}

/// The inode and the path in a line of proc_pid_maps(5): address, mode, offset, device, inode and path. The path may have
/// blanks in it; that the file was removed is not a part of it.
pub(crate) fn mapped(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (fields, path) = split_fields(line)?;
    let [_, _, _, _, inode] = fields;
    let path = path.trim_ascii_start();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    (!path.is_empty()).then_some((inode, path))
}

/// The path of a stream socket that is bound and neither listens nor is connected, in a line of /proc/net/unix: number, users,
/// protocol, flags, type, state, inode and path. An abstract name, which begins with `@`, is no path.
pub(crate) fn bound(line: &[u8]) -> Option<&Path> {
    let (fields, path) = split_fields(line)?;
    let [_, _, _, flags, kind, state, _] = fields;
    let is_bound = [flags, kind, state] == [b"00000000", &b"0001"[..], b"01"];
    (is_bound && path.starts_with(b"/")).then(|| Path::new(OsStr::from_bytes(path)))
}

/// The first fields, which one or more blanks end, and what follows the blank behind the last of them.
fn split_fields<const NUMBER: usize>(line: &[u8]) -> Option<([&[u8]; NUMBER], &[u8])> {
    let mut rest = line;
    let mut fields = [&b""[..]; NUMBER];
    for field in &mut fields {
        let text = rest.trim_ascii_start();
        let end = text.iter().position(|byte| *byte == b' ')?;
        (*field, rest) = (&text[..end], &text[end + 1..]);
    }
    Some((fields, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w16_a_field_is_read_whatever_the_name_is() {
        let name = &"програмаактор".as_bytes()[..15];
        let text = [b"Name:\t", name, b"\nTgid:\t7\nUid:\t1\t2\t3\t4\nUidMap:\t5\n"].concat();
        assert_eq!(field(&text, "Tgid").as_deref(), Some("7"));
        assert_eq!(field(&text, "Uid").as_deref(), Some("1\t2\t3\t4"));
        assert_eq!(field(&text, "Gid"), None);
        assert_eq!(status("self", "Pid").unwrap(), std::process::id().to_string());
        assert_eq!(status(0, "Pid").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn u3_a_bound_socket_is_known_by_its_line_and_no_abstract_name_is_a_path() {
        let line = |rest: &str| format!("0000000000000000: 00000002 00000000 {rest}").into_bytes();
        for (rest, path) in [
            ("00000000 0001 01 4711 /run/a b", Some("/run/a b")),
            ("00010000 0001 01 4711 /run/a", None),
            ("00000000 0002 01 4711 /run/a", None),
            ("00000000 0001 03 4711 /run/a", None),
            ("00000000 0001 01 4711 @/run/a", None),
            ("00000000 0001 01 4711 a/run/a", None),
            ("00000000 0001 01 4711", None),
        ] {
            assert_eq!(bound(&line(rest)), path.map(Path::new), "{rest}");
        }
    }

    #[test]
    fn f20_a_mapped_file_is_known_by_its_line() {
        let line = |rest: &str| format!("7f00-7f01 r--p 00000000 08:01 {rest}").into_bytes();
        for (rest, expected) in [
            ("4711                     /tmp/a b/rebind.so", Some("/tmp/a b/rebind.so")),
            ("4711 /tmp/a/rebind.so (deleted)", Some("/tmp/a/rebind.so")),
            ("4711 ", None),
            ("4711", None),
        ] {
            let expected = expected.map(|path| (&b"4711"[..], path.as_bytes()));
            assert_eq!(mapped(&line(rest)), expected, "{rest}");
        }
        assert_eq!(mapped(b""), None);
    }
}
