//! What holds for the texts of proc(5), whatever names and paths others have chosen (L3). Included by path in
//! `tests/fuzz/targets/proc_text.rs`.

use std::os::unix::ffi::OsStrExt;

use super::proc_text::{bound, field, mapped, stat};

/// How many bytes the kernel keeps of a thread's name, TASK_COMM_LEN without its NUL.
const NAME_MAX: usize = 15;

/// The bytes are a text, and a name or a path that the kernel puts in a text.
pub(crate) fn texts(bytes: &[u8]) {
    text(bytes);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    name(&bytes[..end.min(NAME_MAX)]);
    path(&bytes[..end]);
}

/// What is found stands there, though the text is one that no kernel writes.
fn text(bytes: &[u8]) {
    if let Some((name, fields)) = stat(bytes) {
        let fields: String = fields.collect();
        assert!(name.len() + fields.len() + "()".len() <= bytes.len());
        assert!(!fields.contains([')', ' ', '\n']));
    }
    if let Some(value) = field(bytes, "Uid") {
        assert!(bytes.windows(4).any(|part| part == b"Uid:"), "{value}");
        assert!(!value.contains('\n'));
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some((inode, path)) = mapped(line) {
            assert!(line.windows(path.len()).any(|part| part == path) && !inode.contains(&b' '));
        }
        if let Some(path) = bound(line) {
            assert!(path.is_absolute() && line.ends_with(path.as_os_str().as_bytes()));
        }
    }
}

/// The kernel's texts about a thread of this name have the same values as with any other name.
fn name(name: &[u8]) {
    let written = [b"7 (", name, b") D 1 2\n"].concat();
    let (read, fields) = stat(&written).expect("a whole text");
    assert_eq!(read, name);
    assert_eq!(fields.collect::<Vec<_>>(), ["D", "1", "2"]);
    let escaped: Vec<u8> = name.iter().flat_map(|byte| escape(*byte)).collect();
    let written = [b"Name:\t", &escaped[..], b"\nTgid:\t7\nUid:\t1\t2\t3\t4\n"].concat();
    assert_eq!(field(&written, "Tgid").as_deref(), Some("7"));
    assert_eq!(field(&written, "Uid").as_deref(), Some("1\t2\t3\t4"));
    assert_eq!(field(&written, "Gid"), None);
}

/// As the kernel's proc_task_name() does in `status`.
fn escape(byte: u8) -> Vec<u8> {
    match byte {
        b'\n' => b"\\n".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        byte => vec![byte],
    }
}

/// A path stands in its line as it is. The kernel escapes a line feed in `maps`, and in `unix` it ends the line.
fn path(path: &[u8]) {
    let path: Vec<u8> = path.iter().copied().filter(|byte| *byte != b'\n').collect();
    let absolute = [b"/", &path[..]].concat();
    let written = [b"7f00-7f01 r--p 00000000 08:01 4711           ", &absolute[..]].concat();
    let shown = absolute.strip_suffix(b" (deleted)").unwrap_or(&absolute);
    assert_eq!(mapped(&written), Some((&b"4711"[..], shown)));
    let line = b"0000000000000000: 00000002 00000000 00000000 0001 01 4711 ";
    let written = [&line[..], &absolute].concat();
    let found = bound(&written).expect("bound");
    assert_eq!(found.as_os_str().as_bytes(), absolute);
    let written = [&line[..], b"@", &path].concat();
    assert_eq!(bound(&written), None, "an abstract name");
}

#[cfg(test)]
mod tests {
    use crate::neighbours::try_neighbours;

    #[test]
    fn l3_known_texts_of_proc_and_their_neighbours_break_no_parser() {
        try_neighbours("proc_text", super::texts);
    }
}
