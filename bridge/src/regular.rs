//! Regular files, opened so that anything else in their place, a FIFO above all, cannot block us. Knows kinds of files;
//! must not know what is in them.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Opens a file to read it. Blocks no longer than its file system does. The standard library adds O_CLOEXEC.
///
/// # Errors
///
/// As open(2), and if it is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    let is_file = file.metadata()?.is_file();
    is_file
        .then_some(file)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it is not a file"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn k2_what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (file, fifo) = (directory.path().join("file"), directory.path().join("fifo"));
        std::fs::write(&file, "text").unwrap();
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        let mut text = String::new();
        open(&file).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        for other in [&*fifo, directory.path(), Path::new("/dev/zero"), Path::new("/dev/tty")] {
            let error = open(other).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::NotFound, "{}: {error}", other.display());
        }
        assert_eq!(open(&fifo).unwrap_err().to_string(), "it is not a file");
        assert_eq!(open(&directory.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
