//! Our own command line, as every user sees it in the list of processes: proc_pid_cmdline(5) shows the memory that the
//! kernel put the arguments in. Knows bytes, and nothing of options.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;

use super::proc_text;

/// Puts asterisks in the place of these bytes, each of one word of `args`, which is the whole command line.
///
/// # Errors
///
/// The arguments are not found in our memory, as without /proc. They stay visible as they were typed then.
pub(crate) fn overwrite(
    args: &[OsString],
    places: impl IntoIterator<Item = (usize, Range<usize>)>,
) -> io::Result<()> {
    let memory = memory(&fs::read("/proc/self/stat")?)
        .ok_or_else(|| io::Error::other("/proc/self/stat does not say where it is"))?;
    let words: Vec<_> = args.iter().map(|arg| arg.as_encoded_bytes()).collect();
    let shown = fs::read("/proc/self/cmdline")?;
    // Each argument ends in NUL. If they were changed, or we were started without a name (`argv[0]`), nothing is
    // overwritten.
    if shown.len() != memory.len() || shown.strip_suffix(&[0]) != Some(&words.join(&0)) {
        return Err(io::Error::other("/proc/self/cmdline is not what was typed"));
    }
    for (word, bytes) in places {
        let before: usize = words[..word].iter().map(|word| word.len() + 1).sum();
        cover(memory.start + before + bytes.start, words[word][bytes].len());
    }
    Ok(())
}

/// `arg_start` and `arg_end` of proc_pid_stat(5), fields 48 and 49.
fn memory(text: &[u8]) -> Option<Range<usize>> {
    // The state is field 3.
    let mut fields = proc_text::stat(text)?.1.skip(48 - 3);
    let mut next = || fields.next()?.parse().ok().filter(|address| *address != 0);
    let (start, end) = (next()?, next()?);
    (start < end).then_some(start..end)
}

/// Writes by a pointer: /proc/self/mem cannot be used where it belongs to root, as in a program that has capabilities.
#[allow(unsafe_code)]
fn cover(start: usize, length: usize) {
    // SAFETY: the caller has found these bytes between arg_start and arg_end, on the stack that execve(2) made. They
    // are writable and stay for as long as we do. The standard library reads them only to copy them, and we have no
    // second thread yet.
    unsafe {
        std::ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(b'*', length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c9_the_place_is_read_whatever_the_name_is() {
        let stat = |start: &str| {
            let fields = format!(") S {} {start} 900 0\n", ["0"; 44].join(" "));
            [b"7 (a) 1 (b\xd0", fields.as_bytes()].concat()
        };
        assert_eq!(memory(&stat("800")), Some(800..900));
        for start in ["0", "x", "", "900"] {
            assert_eq!(memory(&stat(start)), None, "{start}");
        }
        assert_eq!(memory(b""), None);
        let own = memory(&fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(own.len(), fs::read("/proc/self/cmdline").unwrap().len());
    }
}
