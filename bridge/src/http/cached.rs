//! The file that a web request is answered with, as tower-http reads it: from the page cache where it can.
//!
//! tokio hands each read to another thread, as a disk may keep it waiting. For pieces of 16 kB that costs
//! more CPU than all the rest, and larger ones cost memory while a client does not take them (F17). So we
//! ask the page cache first, which does not wait: RWF_NOWAIT of preadv2(2).
//!
//! Knows one path, and bytes. Which file a request means, and who may have it, is decided in `files`.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{self, IoSliceMut, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::fs;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File};

/// The offset, -1, by which preadv2(2) reads from the file's current position, and advances it.
const CURRENT_POSITION: u64 = u64::MAX;

/// A file system of one file, which tower-http finds whatever path it asks for.
#[derive(Clone, Debug)]
pub(super) struct OneFile(pub(super) PathBuf);

impl OneFile {
    /// A path by which tower-http tells the media type of the file.
    pub(super) fn reference(&self) -> String {
        let extension = self.0.extension().and_then(OsStr::to_str).unwrap_or_default();
        let is_plain = extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
        format!("/file.{}", if is_plain { extension } else { "" })
    }
}

impl Backend for OneFile {
    type File = Cached;
    type Metadata = Metadata;
    type OpenFuture = Pin<Box<dyn Future<Output = io::Result<Cached>> + Send>>;
    type MetadataFuture = Pin<Box<dyn Future<Output = io::Result<Metadata>> + Send>>;

    fn open(&self, _: PathBuf) -> Self::OpenFuture {
        let path = self.0.clone();
        Box::pin(async move { Cached::open(&path).await })
    }

    fn metadata(&self, _: PathBuf) -> Self::MetadataFuture {
        let path = self.0.clone();
        Box::pin(fs::metadata(path))
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Cached {
    file: fs::File,
    /// Whether a read through tokio is under way: it must end before anything else is read.
    is_tokio_reading: bool,
    /// Whether the kernel reads from the page cache alone if asked to. Some file systems, old kernels and
    /// containers' filters refuse that.
    has_nowait: bool,
}

impl Cached {
    async fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: fs::File::open(path).await?, is_tokio_reading: false, has_nowait: true })
    }

    /// Reads from the page cache. False: the bytes are not there, or the kernel cannot be asked.
    fn read_cached(&mut self, room: &mut ReadBuf<'_>) -> bool {
        let mut slices = [IoSliceMut::new(room.initialize_unfilled())];
        match preadv2(&self.file, &mut slices, CURRENT_POSITION, ReadWriteFlags::NOWAIT) {
            Ok(length) => {
                room.advance(length);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // If there is another error, the read through tokio reports it.
            Err(_) => self.has_nowait = false,
        }
        false
    }
}

impl AsyncRead for Cached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_nowait && !self.is_tokio_reading && self.read_cached(room) {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.file).poll_read(cx, room);
        self.is_tokio_reading = read.is_pending();
        read
    }
}

impl AsyncSeek for Cached {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

impl File for Cached {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Metadata>> + Send + 'a>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.file.metadata())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncSeekExt};

    use super::*;

    /// A file of 300 kB that differs from place to place.
    fn file(directory: &TempDir) -> (PathBuf, Vec<u8>) {
        let bytes: Vec<u8> = (0..250u8).flat_map(|byte| [byte; 1200]).collect();
        let path = directory.path().join("file.x");
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    #[tokio::test]
    async fn f17_a_file_reads_the_same_from_memory_and_by_waiting_and_both_in_turn() {
        let directory = TempDir::new().unwrap();
        let (path, bytes) = file(&directory);
        for waits in [|_| false, |_| true, |piece| piece % 3 == 1] {
            let mut cached = Cached::open(&path).await.unwrap();
            cached.seek(SeekFrom::Start(1000)).await.unwrap();
            let mut read = vec![];
            for piece in 0.. {
                cached.is_tokio_reading = waits(piece);
                let mut room = [0; 1789];
                let length = cached.read(&mut room).await.unwrap();
                if length == 0 {
                    break;
                }
                read.extend_from_slice(&room[..length]);
            }
            assert!(read == bytes[1000..]);
        }
    }

    #[tokio::test]
    async fn f17_a_file_that_shrinks_while_it_is_read_ends() {
        let directory = TempDir::new().unwrap();
        let (path, _) = file(&directory);
        let mut cached = Cached::open(&path).await.unwrap();
        cached.read_exact(&mut vec![0; 200_000]).await.unwrap();
        File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
        assert_eq!(cached.read(&mut [0; 1000]).await.unwrap(), 0);
        File::options().write(true).open(&path).unwrap().write_all_at(b"x", 200_000).unwrap();
        assert_eq!(cached.read(&mut [0; 1000]).await.unwrap(), 1);
    }

    #[test]
    fn h1_the_media_type_goes_by_an_ordinary_extension() {
        for (path, reference) in [
            ("/a/b.html", "/file.html"),
            ("/a/b.tar.gz", "/file.gz"),
            ("/a/b", "/file."),
            ("/a/b.%2e/c", "/file."),
            ("/a/b.%2e", "/file."),
        ] {
            assert_eq!(OneFile(path.into()).reference(), reference);
        }
    }
}
