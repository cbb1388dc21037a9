//! A thread that writes for those who must not wait, so that a slow disk, a stopped terminal or a log that
//! nobody reads holds up nobody. What has no room in its queue is dropped and counted. Knows no files and
//! no records.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SendError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How much waits before the next items are dropped; bytes.
const BACKLOG: usize = 4 << 20;
/// What an item costs besides what it holds, about; bytes.
const OVERHEAD: usize = 64;
/// How long the thread sleeps when all there was is written: under load it is woken for many items at once, which costs
/// the sessions less than a wake-up for each.
const REST: Duration = Duration::from_millis(5);
/// How long a flush, or our end, waits for what is not written yet, if nothing of it is written meanwhile.
const FLUSH: Duration = Duration::from_secs(1);
/// How many times that long it waits at most, on a machine that is busy.
const FLUSHES: usize = 10;

/// Takes items and never waits. Clones lead to the same thread.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    sender: Sender<Message<T>>,
    backlog: Arc<Backlog>,
}

#[derive(Debug)]
enum Message<T> {
    /// With its size.
    Item(T, usize),
    Mark(Mark),
}

/// A mark in the queue, which the thread comes to when everything before is written.
#[derive(Debug)]
enum Mark {
    /// The thread drops the sender.
    Flush(Sender<()>),
    /// The thread ends, and sends the work that another thread is to go on with.
    Halt(Sender<Work>),
    End,
}

/// What the thread does.
type Work = Box<dyn FnOnce() + Send>;

/// What is on its way to the thread.
#[derive(Debug, Default)]
struct Backlog {
    /// Bytes.
    pending: AtomicUsize,
    /// Items that there was no room for, and that were not reported to the thread yet.
    dropped: AtomicU64,
}

/// The thread that writes. When this is dropped, what is pending is written, but that is not waited for for ever.
pub(crate) struct Writer {
    name: String,
    mark: Box<dyn Fn(Mark) + Send>,
    backlog: Arc<Backlog>,
    /// The thread drops the other end when it ends.
    end: Receiver<()>,
    /// The thread that is to be woken for a mark.
    thread: Arc<Mutex<Thread>>,
    /// The work that is to go on, while there is no thread.
    halted: Mutex<Option<Work>>,
}

/// Starts a thread that calls `write` with each item of the queue, and with how many were dropped
/// since the one before.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    write: impl FnMut(T, u64) + Send + 'static,
) -> io::Result<(Queue<T>, Writer)> {
    let (queue, items) = Queue::new();
    let (ended, end) = mpsc::channel();
    let backlog = Arc::clone(&queue.backlog);
    let work = work(items, Arc::clone(&backlog), write, ended);
    let thread = Arc::new(Mutex::new(spawn(name, work)?));
    let (sender, woken) = (queue.sender.clone(), Arc::clone(&thread));
    let mark = Box::new(move |mark| {
        // If it fails, the thread has ended.
        let _ = sender.send(Message::Mark(mark));
        woken.lock().unwrap_or_else(PoisonError::into_inner).unpark();
    });
    let (name, halted) = (name.to_owned(), Mutex::default());
    Ok((queue, Writer { name, mark, backlog, end, thread, halted }))
}

fn spawn(name: &str, work: Work) -> io::Result<Thread> {
    Ok(thread::Builder::new().name(name.into()).spawn(work)?.thread().clone())
}

/// Writes until the end, or until it is to halt.
fn work<T: Send + 'static>(
    items: Receiver<Message<T>>,
    backlog: Arc<Backlog>,
    mut write: impl FnMut(T, u64) + Send + 'static,
    ended: Sender<()>,
) -> Work {
    Box::new(move || {
        let Some(halted) = write_all(&items, &backlog, &mut write) else { return drop(ended) };
        // If `halt` does not wait for it any more, the thread goes on.
        if let Err(SendError(rest)) = halted.send(work(items, backlog, write, ended)) {
            rest();
        }
    })
}

impl<T> Queue<T> {
    fn new() -> (Self, Receiver<Message<T>>) {
        let (sender, items) = mpsc::channel();
        (Self { sender, backlog: Arc::default() }, items)
    }

    /// Takes an item that holds this many bytes.
    pub(crate) fn put(&self, item: T, bytes: usize) {
        let size = bytes + OVERHEAD;
        let pending = self.backlog.pending.fetch_add(size, Ordering::Relaxed);
        if pending + size > BACKLOG || self.sender.send(Message::Item(item, size)).is_err() {
            self.backlog.pending.fetch_sub(size, Ordering::Relaxed);
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), backlog: Arc::clone(&self.backlog) }
    }
}

/// A queue of lines is a file that never blocks. What is written at once stays together.
impl io::Write for Queue<Vec<u8>> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_vec(), line.len());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    /// Waits until what is pending is written, but not for ever.
    pub(crate) fn flush(&self) {
        let (flushed, flush) = mpsc::channel();
        (self.mark)(Mark::Flush(flushed));
        self.wait(&flush);
    }

    /// The same, but no longer than this.
    pub(crate) fn flush_within(&self, limit: Duration) {
        let (flushed, flush) = mpsc::channel();
        (self.mark)(Mark::Flush(flushed));
        let _ = flush.recv_timeout(limit);
    }

    /// Ends the thread when what is pending is written, but within this time. What is put after that waits until the
    /// writer [goes on](Self::go_on), which may be in a process that was forked meanwhile. False: the thread did not
    /// end in time, and goes on.
    pub(crate) fn halt(&self, limit: Duration) -> bool {
        let (give, given) = mpsc::channel();
        (self.mark)(Mark::Halt(give));
        let Ok(work) = given.recv_timeout(limit) else { return false };
        *self.halted.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        true
    }

    /// Writes again.
    ///
    /// # Errors
    /// No thread can be started; what is put is dropped.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        let halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = halted {
            let thread = spawn(&self.name, work)?;
            *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = thread;
        }
        Ok(())
    }

    /// Waits until the other end is dropped.
    fn wait(&self, end: &Receiver<()>) {
        let pending = || self.backlog.pending.load(Ordering::Relaxed);
        let mut before = pending();
        for _ in 0..FLUSHES {
            let ended = end.recv_timeout(FLUSH);
            let now = pending();
            if ended != Err(RecvTimeoutError::Timeout) || now >= before {
                return;
            }
            before = now;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        (self.mark)(Mark::End);
        self.wait(&self.end);
    }
}

/// Writes until the end, or until a halt: then returns where to send the work.
fn write_all<T>(
    items: &Receiver<Message<T>>,
    backlog: &Backlog,
    mut write: impl FnMut(T, u64),
) -> Option<Sender<Work>> {
    loop {
        let next = items.try_recv().or_else(|_| {
            thread::park_timeout(REST);
            items.recv()
        });
        match next {
            Ok(Message::Item(item, size)) => {
                write(item, backlog.dropped.swap(0, Ordering::Relaxed));
                backlog.pending.fetch_sub(size, Ordering::Relaxed);
            }
            Ok(Message::Mark(Mark::Flush(flushed))) => drop(flushed),
            Ok(Message::Mark(Mark::Halt(halted))) => return Some(halted),
            Ok(Message::Mark(Mark::End)) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w11_what_has_no_room_is_dropped_and_counted() {
        let (queue, items) = Queue::new();
        for number in 0..5 {
            queue.put(number, BACKLOG / 3);
        }
        queue.sender.send(Message::Mark(Mark::End)).expect("sent");
        let mut written = Vec::new();
        write_all(&items, &queue.backlog, |item, dropped| written.push((item, dropped)));
        assert_eq!(written, [(0, 3), (1, 0)]);
        assert_eq!(queue.backlog.pending.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn w11_what_is_pending_is_written_at_the_end() {
        let (seen, see) = mpsc::channel();
        let (queue, writer) = start("test", move |item, _| {
            let _ = seen.send(item);
        })
        .expect("a thread");
        for number in 0..1000 {
            queue.put(number, 8);
        }
        drop(writer);
        assert_eq!(see.iter().collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn f71_a_flush_returns_when_all_before_it_is_written() {
        let (seen, see) = mpsc::channel();
        let (queue, writer) = start("test", move |item, _| {
            let _ = seen.send(item);
        })
        .expect("a thread");
        for round in 0..100 {
            queue.put(round, 8);
            writer.flush();
            assert_eq!(see.try_recv(), Ok(round));
        }
    }

    /// A busy machine may write less than all of it in a second.
    #[test]
    fn w11_a_writer_that_is_slow_is_waited_for() {
        let (seen, see) = mpsc::channel();
        let (_never, slow) = mpsc::channel::<()>();
        let (queue, writer) = start("test", move |item, _| {
            let _ = slow.recv_timeout(FLUSH * 2 / 3);
            let _ = seen.send(item);
        })
        .expect("a thread");
        for number in 0..3 {
            queue.put(number, 8);
        }
        drop(writer);
        assert_eq!(see.iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    /// Our end does not wait for ever for a file that takes nothing.
    #[test]
    fn w11_a_writer_that_hangs_is_left() {
        let (release, hang) = mpsc::channel::<()>();
        let (queue, writer) = start("test", move |(), _| {
            let _ = hang.recv();
        })
        .expect("a thread");
        queue.put((), 0);
        drop(writer);
        drop(release);
    }
}
