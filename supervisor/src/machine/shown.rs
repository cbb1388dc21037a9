//! What /proc shows of other processes in files that these processes themselves fill. Any user can point the environment
//! that is shown at all of a huge map (prctl(2), PR_SET_MM), and map one file tens of thousands of times. So no more is read
//! than an ordinary process has there. Knows nothing of what it means.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use nix::unistd::Pid;

/// How much is read, in bytes. The kernel starts no program with more than 6 MiB of arguments and environment (execve(2)),
/// and maps have about 100 bytes a line.
const MOST: u64 = 8 << 20;

/// The whole text of this file of a process, such as `environ`.
///
/// # Errors
///
/// The process has ended, /proc hides it, we may not look, or the text has 8 MiB or more
/// ([`FileTooLarge`](ErrorKind::FileTooLarge)).
pub(crate) fn text(pid: Pid, name: &str) -> io::Result<Vec<u8>> {
    whole(File::open(format!("/proc/{pid}/{name}"))?)
}

fn whole(file: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    if text.len() as u64 == MOST {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F26: an environment of gigabytes, as a process may show it, is not read.
    #[test]
    fn f26_no_more_is_read_than_an_ordinary_process_shows() {
        let endless = whole(io::repeat(0)).unwrap_err();
        assert_eq!(endless.kind(), ErrorKind::FileTooLarge);
        let long = whole(io::repeat(b'a').take(MOST - 1)).unwrap();
        assert_eq!(long.len() as u64, MOST - 1);
        let maps = text(Pid::this(), "maps").unwrap();
        assert!(maps.windows(7).any(|part| part == b"[stack]"));
    }
}
