//! One file of tokens as it was read, and whether its writer seems to have finished. Knows its lines and
//! its times; must not know other files, nor who asks. Blocks.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use super::super::failure::SourceError;
use super::super::token::TokenPlace;
use super::Rereads;
use super::line::{self, Unreadable};
use crate::destination::Endpoint;
use crate::regular;

/// How long a file that has changed counts as still changing: a token that is not in it may still be about to be written.
pub(super) const SETTLING: Duration = Duration::from_secs(1);

/// The same for a file that is empty or ends within a line: its writer is not done, and a busy disk may delay it.
const SETTLING_CUT: Duration = Duration::from_secs(3);

/// Within this time two changes may get the same time stamp: the kernel's clock for files ticks every 10 ms at the slowest, and a
/// writer may be held up between setting the time stamp and writing the bytes.
const TICK: Duration = Duration::from_millis(100);

/// The longest file that is read, bytes.
const LONGEST: u64 = 1 << 28;

/// How many unreadable lines of a file the log names.
const NAMED_MAX: usize = 10;

/// The mark that some editors put before text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What differs between one content of a file and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// How long ago the last change was, by the clock of the file system; zero if that clock is ahead.
    fn age(&self) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        let since_epoch = u64::try_from(seconds).map_or(Duration::ZERO, Duration::from_secs)
            + Duration::from_nanos(nanoseconds.unsigned_abs());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(since_epoch)
    }
}

/// A file or directory that may change, as it was at the last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    stamp: Stamp,
    first: Instant,
    /// Whether the times of the file say when it changed. They do not if we saw it before the change: the kernel shortens a file
    /// first, and then sets its times; on a busy disk that is not at once.
    has_true_times: bool,
}

impl Seen {
    /// `before` is what was seen the last time.
    pub(super) fn new(stamp: Stamp, before: Option<Seen>) -> Self {
        let has_true_times = before.is_none();
        before.filter(|before| before.stamp == stamp).unwrap_or_else(|| Self {
            stamp,
            first: Instant::now(),
            has_true_times,
        })
    }

    /// Whether the file may change, or have changed, in a way that its stamp does not show. The time since the first look at this
    /// stamp counts, too: else a file with times in the future would be read at each look-up.
    fn may_change_unseen(&self) -> bool {
        self.first.elapsed().max(self.stamp.age()) < TICK
    }

    /// How long the file may still be changing. The time since the first look at this stamp counts, too: else a wrong clock would
    /// make that endless.
    pub(super) fn settles_in(&self) -> Duration {
        let age = if self.has_true_times { self.stamp.age() } else { Duration::ZERO };
        SETTLING.saturating_sub(self.first.elapsed().max(age))
    }
}

/// The same for a file that was found missing first at that time.
pub(super) fn settles_in(first: Instant) -> Duration {
    SETTLING.saturating_sub(first.elapsed())
}

/// A file of tokens as it was read.
#[derive(Debug)]
pub(super) struct Table {
    seen: Seen,
    /// Whether it may have changed since in a way that its stamp does not show.
    may_have_changed: bool,
    targets: HashMap<Box<str>, Endpoint>,
    /// Whether it ends with a line feed, as it does when its writer is done.
    ends_with_line: bool,
    /// The token of a last line without a line feed: its target may not be whole.
    unfinished: Option<Box<str>>,
    /// The first lines that cannot be read, and how many more there are.
    unreadable: Vec<(usize, Unreadable)>,
    further: usize,
    is_complained_of: AtomicBool,
}

impl Table {
    /// Reads a file; `before` is what was read of it the last time.
    pub(super) fn read(
        path: &Path,
        place: TokenPlace,
        before: Option<&Table>,
    ) -> Result<Self, SourceError> {
        let failed = |error: io::Error| SourceError::Read(path.to_owned(), error);
        let unusable = |why| Err(SourceError::Unusable(path.to_owned(), why));
        let file = regular::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.size() > LONGEST {
            return unusable("it is longer than 256 MiB");
        }
        let seen = Seen::new(Stamp::of(&metadata), before.map(|before| before.seen));
        let may_have_changed = seen.may_change_unseen();
        let mut text = Vec::with_capacity(usize::try_from(metadata.size()).unwrap_or_default());
        file.take(LONGEST).read_to_end(&mut text).map_err(failed)?;
        let mut table = Self::parse(&text, place, seen);
        table.may_have_changed = may_have_changed;
        // The same unreadable lines are not logged again each time that another line changes.
        let is_named = |before: &Table| {
            before.is_complained_of.load(Relaxed) && before.unreadable == table.unreadable
        };
        table.is_complained_of = before.is_some_and(is_named).into();
        Ok(table)
    }

    fn parse(text: &[u8], place: TokenPlace, seen: Seen) -> Self {
        let mut table = Self {
            seen,
            may_have_changed: false,
            targets: HashMap::new(),
            ends_with_line: text.ends_with(b"\n"),
            unfinished: None,
            unreadable: Vec::new(),
            further: 0,
            is_complained_of: AtomicBool::new(false),
        };
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match line::read(line) {
                Ok(None) => {}
                Ok(Some((token, endpoint))) => {
                    let token: Box<str> = place.normal(token).into();
                    if !line.ends_with(b"\n") {
                        table.unfinished = Some(token.clone());
                    }
                    // The last one counts, as in upstream.
                    table.targets.insert(token, endpoint);
                }
                Err(why) if table.unreadable.len() < NAMED_MAX => {
                    table.unreadable.push((at + 1, why));
                }
                Err(_) => table.further += 1,
            }
        }
        table
    }

    /// Whether the table is still that of a file that now has this stamp.
    pub(super) fn is_of(&self, stamp: &Stamp) -> bool {
        self.seen.stamp == *stamp && !self.may_have_changed
    }

    /// How long a token that is not in the table may still be about to be written.
    pub(super) fn settles_in(&self) -> Duration {
        if self.ends_with_line {
            self.seen.settles_in()
        } else {
            SETTLING_CUT.saturating_sub(self.seen.first.elapsed())
        }
    }

    /// Where a token leads, if that is known.
    pub(super) fn target(&self, token: &str) -> Option<&Endpoint> {
        self.targets.get(token).filter(|_| !self.is_unfinished(token))
    }

    /// Whether a token is there, even if its line is not complete.
    pub(super) fn has(&self, token: &str) -> bool {
        self.targets.contains_key(token)
    }

    fn is_unfinished(&self, token: &str) -> bool {
        self.unfinished.as_deref() == Some(token) && !self.seen.settles_in().is_zero()
    }

    /// Logs the lines that cannot be read, once, when their writer seems to be done, or the file is never read again.
    pub(super) fn complain(&self, path: &Path, rereads: Rereads) {
        if rereads == Rereads::WhenChanged && !self.seen.settles_in().is_zero() {
            return;
        }
        if self.unreadable.is_empty() || self.is_complained_of.swap(true, Relaxed) {
            return;
        }
        warn!("{}", self.complaint(path));
    }

    /// One log record for each file: of many similar records the log keeps only the number.
    fn complaint(&self, path: &Path) -> String {
        let path = path.display();
        if let ([(number, why)], 0) = (&*self.unreadable, self.further) {
            return format!("cannot read line {number} of {path}: {why}");
        }
        let named = self.unreadable.iter().map(|(number, why)| format!("line {number}: {why}"));
        let further = (self.further > 0).then(|| format!("and {} more", self.further));
        let named: Vec<_> = named.chain(further).collect();
        let count = self.unreadable.len() + self.further;
        format!("cannot read {count} lines of {path}: {}", named.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::destination::Address;

    fn table(text: &[u8], place: TokenPlace) -> Table {
        let metadata = std::fs::metadata("/").unwrap();
        let stamp = Stamp { changed: (0, 0), ..Stamp::of(&metadata) };
        Table::parse(text, place, Seen::new(stamp, None))
    }

    /// Each was compared with the Python websockify 0.13. Where that looks the target up as it stands and
    /// fails (a port in words, brackets, space in it), the line is none here, or means what was meant.
    #[test]
    fn k2_what_a_line_means() {
        let tcp = |host: &str, port| Some(Endpoint::Tcp(Address { host: host.into(), port }));
        let unix = |path: &str| Some(Endpoint::Unix(PathBuf::from(path)));
        for (line, token, target) in [
            ("a: h:1", "a", tcp("h", 1)),
            ("a:\th:1", "a", tcp("h", 1)),
            ("  a:   h:1  ", "a", tcp("h", 1)),
            ("a: h:1\r", "a", tcp("h", 1)),
            ("a:b: h:1", "a:b", tcp("h", 1)),
            ("a b: h:1", "a b", tcp("h", 1)),
            ("a : h:1", "a ", tcp("h", 1)),
            ("ż: h:1", "ż", tcp("h", 1)),
            ("a%20b: h:1", "a%20b", tcp("h", 1)),
            ("a#b: h:1", "a#b", tcp("h", 1)),
            ("a: :1", "a", tcp("localhost", 1)),
            ("a: ::1:5900", "a", tcp("::1", 5900)),
            ("a: [::1]:5900", "a", tcp("::1", 5900)),
            ("a: unix_socket:/run/a", "a", unix("/run/a")),
            ("a: unix_socket:/run/a:b", "a", unix("/run/a:b")),
            ("\u{feff}a: h:1", "a", tcp("h", 1)),
            ("# a: h:1", "# a", None),
            ("  #a: h:1", "#a", None),
        ] {
            let table = table(line.as_bytes(), TokenPlace::Query);
            assert_eq!(table.target(token), target.as_ref(), "{line:?}");
            assert_eq!(table.unreadable, [], "{line:?}");
        }
        for line in [
            "a:h:1",
            "a h:1",
            "a",
            "a:",
            ": h:1",
            "a: h: 1",
            "a: b: h:1",
            "a: h",
            "a: h:x",
            "a: h:0",
            "a: h:1 # b",
            "a: unix_socket: /run/a",
            "a = h:1",
        ] {
            let table = table(line.as_bytes(), TokenPlace::Query);
            assert!(table.targets.is_empty(), "{line:?}");
            assert_eq!(table.unreadable.len(), 1, "{line:?}");
        }
    }

    #[test]
    fn k2_unreadable_lines_are_counted_and_the_others_count() {
        let bad = "bad\n".repeat(12);
        let text =
            [b"a: h:1\n\n# b\n\xff: h:2\n".as_slice(), bad.as_bytes(), b"c: h:3\na: h:4"].concat();
        let table = table(&text, TokenPlace::Query);
        assert_eq!(table.unreadable[..2], [(4, Unreadable::NotText), (5, Unreadable::NotAPair)]);
        assert_eq!((table.unreadable.len(), table.further), (NAMED_MAX, 3));
        assert_eq!(table.targets.len(), 2);
        let last = Endpoint::Tcp(Address { host: "h".into(), port: 4 });
        assert_eq!(table.target("a"), Some(&last), "the last one counts");
        let complaint = table.complaint(Path::new("/tokens"));
        let start =
            "cannot read 13 lines of /tokens: line 4: it is not text in UTF-8; line 5: it is";
        assert!(complaint.starts_with(start) && complaint.ends_with("; and 3 more"), "{complaint}");
        let one = self::table(b"bad", TokenPlace::Query).complaint(Path::new("/tokens"));
        assert!(
            one.starts_with("cannot read line 1 of /tokens: it is not 'token: target'"),
            "{one}"
        );
    }

    #[test]
    fn k1_hosts_are_the_same_in_either_case() {
        let by_host = table(b"Desk.Example: h:1", TokenPlace::Host);
        assert!(by_host.target("desk.example").is_some());
        let by_query = table(b"Desk: h:1", TokenPlace::Query);
        assert!(by_query.target("desk").is_none() && by_query.target("Desk").is_some());
    }

    #[test]
    fn k2_a_line_that_is_still_being_written_is_not_believed() {
        let metadata = std::fs::metadata("/").unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let changed = (now.as_secs().cast_signed() + 3600, 0);
        let seen = Seen::new(Stamp { changed, ..Stamp::of(&metadata) }, None);
        let table = Table::parse(b"a: h:1\nb: h:59", TokenPlace::Query, seen);
        assert!(table.target("a").is_some() && table.target("b").is_none());
        assert!(seen.may_change_unseen());
        let settled = Seen { first: Instant::now().checked_sub(SETTLING).unwrap(), ..seen };
        let table = Table::parse(b"a: h:1\nb: h:59", TokenPlace::Query, settled);
        assert!(table.target("b").is_some(), "whatever the clock of the files says");
        assert!(!settled.may_change_unseen(), "nor is it read again each time");
    }

    /// What an O_TRUNC looks like half done: shorter, with the times of long ago.
    #[test]
    fn k2_a_file_that_is_shorter_than_it_was_is_changing_whatever_its_times() {
        let stamp = Stamp { changed: (0, 0), ..Stamp::of(&std::fs::metadata("/").unwrap()) };
        let before = Seen::new(stamp, None);
        assert!(before.settles_in().is_zero());
        let longer = Stamp { size: stamp.size + 1, ..stamp };
        let shorter = Seen::new(stamp, Some(Seen::new(longer, None)));
        assert!(!shorter.settles_in().is_zero());
        for cut in [b"".as_slice(), b"a: h"] {
            let table = Table::parse(cut, TokenPlace::Query, before);
            assert!(!table.settles_in().is_zero(), "also where it is seen for the first time");
        }
    }
}
