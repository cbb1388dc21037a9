//! Another user of the machine who tries to take a program's port (`thief.c`). Knows how to start and
//! end the thief; must not know what the thief should get.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use super::actor::compile;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/thief.c");

/// A thief at work.
pub(crate) struct Thief {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

/// What a thief has achieved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loot {
    pub(crate) attempts: u64,
    /// Sockets bound to the port, and those of them that listened.
    pub(crate) bound: u64,
    pub(crate) listened: u64,
    /// Connections that came, and the bytes that were read from them.
    pub(crate) clients: u64,
    pub(crate) bytes: u64,
}

impl Thief {
    /// Starts a thief as this user, with `crowd` idle processes, from a copy of the program in `directory`.
    pub(crate) fn start(directory: &Path, user: u32, port: u16, crowd: usize) -> Self {
        static PROGRAM: LazyLock<std::path::PathBuf> =
            LazyLock::new(|| compile(SOURCE, "thief", &[]));
        let program = directory.join("thief");
        if !program.exists() {
            super::copy_program(&*PROGRAM, &program);
        }
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.arg("--clear-groups").arg(program).args([port.to_string(), crowd.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "at work\n");
        Self { child, said }
    }

    /// Ends the thief; gives what it has got.
    pub(crate) fn stop(mut self) -> Loot {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        let mut next = || numbers.next().unwrap_or_else(|| panic!("thief said {line:?}"));
        Loot { attempts: next(), bound: next(), listened: next(), clients: next(), bytes: next() }
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
