//! A guestbook that is read and written by telnet: a small server to wrap.
//!
//!     websockify 2023 --web=contrib/wstelnet/dist -- target/debug/examples/guestbook 2023
//!
//! It knows nothing of websockify. It binds the port that it is given on every address, and a
//! preloaded `rebind.so` makes that a port of loopback. The book lasts as long as the program.

use std::collections::VecDeque;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The oldest entries make way for new ones.
const ENTRIES: usize = 200;
/// How many of them a guest is shown.
const PAGE: usize = 10;
/// Letters of a line that count.
const LINE: usize = 200;
/// Letters of a name.
const NAME: usize = 30;
/// A guest who says nothing for so long has gone.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

static BOOK: Mutex<Book> = Mutex::new(Book { entries: VecDeque::new(), guests: Vec::new() });

struct Book {
    entries: VecDeque<Entry>,
    /// Who is here now.
    guests: Vec<String>,
}

struct Entry {
    name: String,
    text: String,
    written: Instant,
}

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok());
    let Some(port) = port else {
        eprintln!("usage: guestbook PORT");
        return ExitCode::from(2);
    };
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("guestbook: cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // A guest who leaves without a word is no error.
            let _ = welcome(&stream);
        });
    }
    ExitCode::SUCCESS
}

fn book() -> MutexGuard<'static, Book> {
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn welcome(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut lines = Lines { bytes: BufReader::new(stream).bytes() };
    say(stream, "\r\n  * * *  The Guestbook  * * *\r\n\r\n")?;
    show(stream)?;
    let name = loop {
        say(stream, "What is your name? ")?;
        match lines.next()? {
            None => return Ok(()),
            Some(line) if line.is_empty() => {}
            Some(line) => break line.chars().take(NAME).collect::<String>(),
        }
    };
    book().guests.push(name.clone());
    let visited = visit(stream, &mut lines, &name);
    let mut book = book();
    if let Some(place) = book.guests.iter().position(|guest| *guest == name) {
        book.guests.swap_remove(place);
    }
    visited
}

/// A guest with a name, until it says goodbye.
fn visit(stream: &TcpStream, lines: &mut Lines<'_>, name: &str) -> io::Result<()> {
    say(stream, &format!("\r\nHello, {name}. Write a line into the book, or type\r\n"))?;
    say(stream, "  read  to see the last entries,\r\n  who   to see who else is here,\r\n")?;
    say(stream, "  bye   to leave.\r\n\r\n")?;
    loop {
        say(stream, "> ")?;
        let Some(line) = lines.next()? else { return Ok(()) };
        match line.as_str() {
            "" => {}
            "read" => show(stream)?,
            "who" => {
                let guests = book().guests.join(", ");
                say(stream, &format!("Here now: {guests}\r\n"))?;
            }
            "bye" | "quit" | "exit" => return say(stream, &format!("Goodbye, {name}.\r\n")),
            _ => {
                let mut book = book();
                if book.entries.len() == ENTRIES {
                    book.entries.pop_front();
                }
                let name = name.to_owned();
                book.entries.push_back(Entry { name, text: line, written: Instant::now() });
                drop(book);
                say(stream, "It is written.\r\n")?;
            }
        }
    }
}

fn show(stream: &TcpStream) -> io::Result<()> {
    let book = book();
    let first = book.entries.len().saturating_sub(PAGE);
    let lines = book.entries.iter().skip(first).map(|entry| {
        let Entry { name, text, written } = entry;
        format!("  {name}, {}:\r\n    {text}\r\n", ago(written.elapsed()))
    });
    let mut page: String = lines.collect();
    if page.is_empty() {
        page = "  The book is empty. Be the first to write something.\r\n".into();
    }
    drop(book);
    say(stream, &format!("{page}\r\n"))
}

fn ago(time: Duration) -> String {
    match time.as_secs() / 60 {
        0 => "just now".into(),
        1 => "a minute ago".into(),
        minutes @ 2..120 => format!("{minutes} minutes ago"),
        minutes => format!("{} hours ago", minutes / 60),
    }
}

fn say(mut stream: &TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())
}

/// Telnet's commands (RFC 854).
const SE: u8 = 240;
const SB: u8 = 250;
const WILL: u8 = 251;
const DONT: u8 = 254;
const IAC: u8 = 255;

/// A guest's lines, without what telnet says beside them (RFC 854).
struct Lines<'a> {
    bytes: io::Bytes<BufReader<&'a TcpStream>>,
}

impl Lines<'_> {
    /// The next line without its end and without control characters, with which one guest could
    /// paint another's screen. `None`: there are no more.
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            match self.next_byte()? {
                None => return Ok(None),
                Some(b'\n') => break,
                Some(byte) if line.len() < 4 * LINE => line.push(byte),
                Some(_) => {}
            }
        }
        let line = String::from_utf8_lossy(&line);
        let letters = line.chars().filter(|letter| !letter.is_control()).take(LINE);
        Ok(Some(letters.collect::<String>().trim().to_owned()))
    }

    /// The next byte that is no telnet command. All options are left as they are.
    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.raw()? {
                Some(IAC) => {}
                byte => return Ok(byte),
            }
            match self.raw()? {
                Some(IAC) => return Ok(Some(IAC)),
                Some(WILL..=DONT) => {
                    self.raw()?;
                }
                Some(SB) => while !matches!(self.raw()?, None | Some(SE)) {},
                _ => {}
            }
        }
    }

    fn raw(&mut self) -> io::Result<Option<u8>> {
        match self.bytes.next().transpose() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            byte => byte,
        }
    }
}
