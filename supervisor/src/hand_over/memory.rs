//! The memory (memfd_create(2)) in which the old binary leaves its state to the new one: written whole, then sealed, so
//! that nobody can change it any more. Knows bytes and descriptors.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

/// The longest state that is read, bytes.
const SIZE_MAX: u64 = 4 << 30;

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// Memory with these bytes. exec(2) closes it, unless FD_CLOEXEC is cleared before (`cloexec`).
pub(crate) fn with(bytes: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let create = |flags| memfd_create("websockify-hand-over", flags);
    // Some machines allow no other memory (vm.memfd_noexec), and kernels before 6.3 do not know this flag.
    let memory = match create(flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => create(flags),
        memory => memory,
    };
    let mut memory = File::from(memory?);
    memory.write_all(bytes)?;
    fcntl_add_seals(&memory, SEALS)?;
    Ok(memory)
}

/// The bytes in it. None: it is not sealed, so it is something else, which somebody may change.
pub(crate) fn read(memory: &File) -> io::Result<Option<Vec<u8>>> {
    let is_sealed = fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(SEALS));
    if !is_sealed {
        return Ok(None);
    }
    let size = memory.metadata()?.len();
    if size > SIZE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    memory.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_what_is_written_stays_as_it_is() {
        let mut memory = with(b"state").unwrap();
        assert_eq!(read(&memory).unwrap().as_deref(), Some(&b"state"[..]));
        assert!(memory.write_all(b"more").is_err());
        assert!(memory.set_len(0).is_err());
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file).unwrap(), None);
    }
}
