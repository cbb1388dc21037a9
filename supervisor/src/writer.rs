//! A thread that writes for those who must not wait, so that a slow disk, a stopped terminal or a log that
//! nobody reads holds up nobody. What has no room in its queue is dropped and counted. Knows no files and
//! no records.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
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
    /// The thread halts, and says so.
    Halt(Sender<()>),
    End,
}

/// What the thread does until it is to end, or to halt: then this returns where to say that it has halted.
type Work = Box<dyn FnMut() -> Option<Sender<()>> + Send>;

/// Where the thread leaves its work when it halts. It does not end then, and takes up its work again: another thread
/// could perhaps not be started. Only a process that was forked meanwhile has to start one.
#[derive(Default)]
struct Halt {
    work: Mutex<Option<Work>>,
    /// Whether the thread goes on. It looks at this without a lock, which it could have when the process is forked.
    goes_on: AtomicBool,
}

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
    /// The process that has the thread.
    process: AtomicU32,
    halt: Arc<Halt>,
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
    let halt = Arc::new(Halt::default());
    halt.leave(work(items, Arc::clone(&backlog), write, ended));
    let thread = Arc::new(Mutex::new(spawn(name, &halt)?));
    let (sender, woken) = (queue.sender.clone(), Arc::clone(&thread));
    let mark = Box::new(move |mark| {
        // If it fails, the thread has ended.
        let _ = sender.send(Message::Mark(mark));
        woken.lock().unwrap_or_else(PoisonError::into_inner).unpark();
    });
    let (name, process) = (name.to_owned(), AtomicU32::new(process::id()));
    Ok((queue, Writer { name, mark, backlog, end, thread, process, halt }))
}

/// Starts a thread that does the work which is left there.
fn spawn(name: &str, halt: &Arc<Halt>) -> io::Result<Thread> {
    let halt = Arc::clone(halt);
    let thread = thread::Builder::new().name(name.into()).spawn(move || halt.run())?;
    Ok(thread.thread().clone())
}

/// The work of a thread that writes with `write`.
fn work<T: Send + 'static>(
    items: Receiver<Message<T>>,
    backlog: Arc<Backlog>,
    mut write: impl FnMut(T, u64) + Send + 'static,
    ended: Sender<()>,
) -> Work {
    Box::new(move || {
        // Dropped with the work, at the end.
        let _ended = &ended;
        write_all(&items, &backlog, &mut write)
    })
}

impl Halt {
    /// What the thread does.
    fn run(&self) {
        while let Some(mut work) = self.take() {
            let Some(halted) = work() else { return };
            self.leave(work);
            // If nobody waits for the halt any more, the thread goes on.
            if halted.send(()).is_ok() {
                while !self.goes_on.load(Ordering::Acquire) {
                    thread::park();
                }
            }
        }
    }

    fn leave(&self, work: Work) {
        self.goes_on.store(false, Ordering::Release);
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }

    fn take(&self) -> Option<Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
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

    /// Halts the thread when what is pending is written, but within this time. What is put after that waits until the
    /// writer [goes on](Self::go_on), which may be in a process that was forked meanwhile. False: the thread did not
    /// halt in time; it is to be told to go on all the same.
    pub(crate) fn halt(&self, limit: Duration) -> bool {
        let (give, given) = mpsc::channel();
        (self.mark)(Mark::Halt(give));
        given.recv_timeout(limit).is_ok()
    }

    /// Writes again.
    ///
    /// # Errors
    /// This process was forked while the writer was halted, and no thread can be started: nothing is written.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.process.load(Ordering::Relaxed) == process::id() {
            self.halt.goes_on.store(true, Ordering::Release);
            thread.unpark();
        } else {
            *thread = spawn(&self.name, &self.halt)?;
            self.process.store(process::id(), Ordering::Relaxed);
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

/// Writes until the end, or until a halt: then returns where to say that it has halted.
fn write_all<T>(
    items: &Receiver<Message<T>>,
    backlog: &Backlog,
    mut write: impl FnMut(T, u64),
) -> Option<Sender<()>> {
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

    /// Where the program has taken the last process id, no other thread could be started after a hand-over that failed.
    #[test]
    fn o2_a_writer_goes_on_in_the_thread_that_it_had() {
        let (seen, see) = mpsc::channel();
        let (queue, writer) = start("test", move |item, _| {
            let _ = seen.send((item, thread::current().id()));
        })
        .expect("a thread");
        queue.put(0, 8);
        writer.flush();
        let (_, first) = see.try_recv().expect("written");
        for round in 1..100 {
            assert!(writer.halt(Duration::from_secs(20)));
            queue.put(round, 8);
            writer.flush_within(Duration::from_millis(1));
            assert!(see.try_recv().is_err(), "it has halted");
            writer.go_on().expect("it has a thread");
            writer.flush();
            assert_eq!(see.try_recv(), Ok((round, first)));
        }
    }

    #[test]
    fn o2_a_writer_that_does_not_halt_in_time_goes_on() {
        let (release, hang) = mpsc::channel::<()>();
        let (seen, see) = mpsc::channel();
        let (queue, writer) = start("test", move |item, _| {
            let _ = hang.recv();
            let _ = seen.send(item);
        })
        .expect("a thread");
        queue.put(1, 8);
        assert!(!writer.halt(Duration::from_millis(1)));
        writer.go_on().expect("it has a thread");
        queue.put(2, 8);
        drop(release);
        drop(writer);
        assert_eq!(see.iter().collect::<Vec<_>>(), [1, 2]);
    }

    /// As in a process that was forked while the writer was halted, which has its memory and not its thread.
    #[test]
    fn o2_another_process_writes_what_is_left() {
        let (seen, see) = mpsc::channel();
        let (queue, writer) = start("test", move |item, _| {
            let _ = seen.send((item, thread::current().id()));
        })
        .expect("a thread");
        let first = writer.thread.lock().expect("no panic").id();
        assert!(writer.halt(Duration::from_secs(20)));
        queue.put(1, 8);
        writer.process.store(0, Ordering::Relaxed);
        writer.go_on().expect("a thread");
        drop(writer);
        let (item, other) = see.recv_timeout(Duration::from_secs(20)).expect("written");
        assert_eq!((item, other == first), (1, false));
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
