//! Descriptors that the old binary has left to the new one in a hand-over (O2): each is looked at before it is used,
//! and what is used is a copy. The originals stay as they are until all has succeeded, so that the old binary can still
//! be executed again. Knows sockets and files; must not know what they are for.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};
use bridge::Descriptors;
use rustix::fs::{FileType, fstat};
use socket2::{Domain, Socket, Type};

/// The descriptors that were not asked for yet, and the originals of which we have copies.
#[derive(Debug)]
pub(crate) struct Handed<'a> {
    all: &'a mut Descriptors,
    /// Under the numbers that the state has for them.
    originals: Vec<OwnedFd>,
}

impl<'a> Handed<'a> {
    pub(crate) fn of(all: &'a mut Descriptors) -> Self {
        Self { all, originals: vec![] }
    }

    /// A copy of the descriptor with this number.
    ///
    /// # Errors
    /// It is not there, or we have too many descriptors open.
    pub(crate) fn copy(&mut self, number: RawFd) -> Result<OwnedFd> {
        let original = self.all.take(number)?;
        let copy = original.try_clone();
        self.originals.push(original);
        copy.with_context(|| format!("cannot copy descriptor {number}"))
    }

    /// A socket of this type, and of one of these families.
    pub(crate) fn socket(
        &mut self,
        number: RawFd,
        domains: &[Domain],
        kind: Type,
    ) -> Result<Socket> {
        let descriptor = self.copy(number)?;
        ensure!(type_of(&descriptor)? == FileType::Socket, "descriptor {number} is no socket");
        let socket = Socket::from(descriptor);
        let is_such = domains.contains(&socket.domain()?) && socket.r#type()? == kind;
        ensure!(is_such, "descriptor {number} is a socket of another kind");
        Ok(socket)
    }

    pub(crate) fn directory(&mut self, number: RawFd) -> Result<File> {
        let descriptor = self.copy(number)?;
        let is_directory = type_of(&descriptor)? == FileType::Directory;
        ensure!(is_directory, "descriptor {number} is no directory");
        Ok(descriptor.into())
    }

    /// A descriptor of the kind that /proc calls `what`, for kinds that no system call tells.
    pub(crate) fn of_kernel(&mut self, number: RawFd, what: &str) -> Result<OwnedFd> {
        let descriptor = self.copy(number)?;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        // Where /proc cannot be read, a wrong descriptor shows at its first use.
        let is_such = link.map_or(true, |link| link.to_str() == Some(what));
        ensure!(is_such, "descriptor {number} is no {what}");
        Ok(descriptor)
    }

    /// The descriptors that were not asked for yet.
    pub(crate) fn others(&mut self) -> &mut Descriptors {
        self.all
    }

    /// All has succeeded, and the copies stay in use. Gives the originals, to be closed when there is no way back any
    /// more.
    pub(crate) fn settle(mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.originals)
    }
}

impl Drop for Handed<'_> {
    /// Something has failed. The originals stay open under their numbers, which exec(2) keeps.
    fn drop(&mut self) {
        self.originals.drain(..).for_each(|original| _ = original.into_raw_fd());
    }
}

fn type_of(descriptor: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(descriptor)?.st_mode))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    /// A copy of an open descriptor that somebody else owns, as if exec(2) had left it to another binary.
    #[allow(unsafe_code)]
    pub(crate) fn steal(number: RawFd) -> OwnedFd {
        // SAFETY: the caller has it open.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        borrowed.try_clone_to_owned().expect("a copy")
    }

    fn is_open(number: RawFd) -> bool {
        std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()
    }

    #[test]
    fn o2_what_is_missing_or_of_another_kind_is_named_and_nothing_is_closed() {
        let file = OwnedFd::from(tempfile::tempfile().expect("a file"));
        let datagrams = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let numbers = [file.as_raw_fd(), datagrams.as_raw_fd()];
        let mut all: Descriptors = [file, datagrams].into_iter().collect();
        let mut handed = Handed::of(&mut all);
        let internet = [Domain::IPV4, Domain::IPV6];
        let mut refused = |number| {
            let error = handed.socket(number, &internet, Type::STREAM).expect_err("no such socket");
            error.to_string()
        };
        assert_eq!(refused(numbers[0]), format!("descriptor {} is no socket", numbers[0]));
        let line = format!("descriptor {} is a socket of another kind", numbers[1]);
        assert_eq!(refused(numbers[1]), line);
        assert_eq!(refused(numbers[0]), format!("descriptor {} is missing", numbers[0]));
        drop(handed);
        assert!(numbers.into_iter().all(is_open));
    }

    #[test]
    fn o2_what_was_taken_over_is_left_with_its_copy_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let address = listener.local_addr().expect("an address");
        let descriptor = OwnedFd::from(listener);
        let number = descriptor.as_raw_fd();
        let mut all: Descriptors = [descriptor].into_iter().collect();
        let mut handed = Handed::of(&mut all);
        let socket = handed.socket(number, &[Domain::IPV4], Type::STREAM).expect("a listener");
        handed.settle();
        std::net::TcpStream::connect(address).expect("it listens");
        drop(socket);
        std::net::TcpStream::connect(address).expect_err("nobody has it any more");
    }
}
