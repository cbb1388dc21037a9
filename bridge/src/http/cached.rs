//! A file that is answered with, read where its bytes lie in memory.
//!
//! tokio reads a file on another thread, for a disk may keep it waiting. That costs more than small
//! pieces do, and large ones cost memory while a client does not take them (F17). So the page cache is
//! asked first, which does not wait: RWF_NOWAIT of preadv2(2).

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{self, IoSliceMut, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::{ReadWriteFlags, preadv2};
use tokio::fs;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File};

/// The offset by which preadv2(2) reads where the file stands, and moves it.
const WHERE_IT_STANDS: u64 = u64::MAX;

/// The one file that tower-http finds, whatever path it asks for.
#[derive(Clone, Debug)]
pub(super) struct Only(pub(super) PathBuf);

impl Only {
    /// A path by which tower-http tells the media type of the file.
    pub(super) fn reference(&self) -> String {
        let extension = self.0.extension().and_then(OsStr::to_str).unwrap_or_default();
        let is_plain = extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
        format!("/file.{}", if is_plain { extension } else { "" })
    }
}

impl Backend for Only {
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
    /// Whether the next read is tokio's: one of its reads is under way, or the file system does not
    /// tell what is in memory.
    waits: bool,
    is_told: bool,
}

impl Cached {
    async fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: fs::File::open(path).await?, waits: false, is_told: true })
    }

    /// Reads what is in memory. `None`: that must be waited for.
    fn read_now(&mut self, room: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let mut slices = [IoSliceMut::new(room.initialize_unfilled())];
        match preadv2(&self.file, &mut slices, WHERE_IT_STANDS, ReadWriteFlags::NOWAIT) {
            Ok(length) => room.advance(length),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
            // Where the file system, the kernel or a container refuses this, a plain read is due, and
            // says what is wrong if that is something else.
            Err(_) => {
                self.is_told = false;
                return None;
            }
        }
        Some(Ok(()))
    }
}

impl AsyncRead for Cached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_told
            && !self.waits
            && let Some(read) = self.read_now(room)
        {
            return Poll::Ready(read);
        }
        let read = Pin::new(&mut self.file).poll_read(cx, room);
        self.waits = read.is_pending();
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
                cached.waits = waits(piece);
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
            assert_eq!(Only(path.into()).reference(), reference);
        }
    }
}
