//! One running websockify: its output, its processes, its end. Nothing of it outlives the test.

use std::cell::RefCell;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::network::{has_ipv6, listeners_of, listening};
use super::output::Heard;
use super::process::{Process, below, everyone};
use super::wait::{stays, wait_for, wait_until};

/// The binary under test.
pub(crate) const WEBSOCKIFY: &str = env!("CARGO_BIN_EXE_websockify");

/// Variables that systemd gives a test run that is itself a service. No websockify may inherit them.
pub(crate) const OF_SYSTEMD: [&str; 8] = [
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// A new terminal, of which no process gets more than it is given: other tests start theirs at the same time.
pub(crate) fn terminal() -> OpenptyResult {
    let pty = openpty(None, None).unwrap();
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    pty
}

/// A variable by which processes that have left the tree are found.
const MARK: &str = "WEBSOCKIFY_TEST";

/// The variable that names the engine for tests that name none: the rows of W and R hold under each engine.
const ENGINE: &str = "WEBSOCKIFY_TEST_ENGINE";

/// The engine that the variable names, if it is there.
pub(crate) fn engine() -> Option<String> {
    std::env::var(ENGINE).ok()
}

/// The words of a command line, with the engine.
fn words(arguments: &str) -> Vec<String> {
    let mut words: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
    let program = words.iter().position(|word| word == "--");
    if let (Some(at), Some(engine)) = (program, engine()) {
        let is_given = words[..at].iter().any(|word| word.starts_with("--rebind-"));
        if !is_given {
            words.insert(at, format!("--rebind-engine={engine}"));
        }
    }
    words
}

/// A websockify and what it has started.
pub(crate) struct Websockify {
    child: Child,
    pub(crate) out: Heard,
    pub(crate) err: Heard,
    mark: String,
    /// Its `TMPDIR`, unless the test gave it one.
    scratch: TempDir,
    /// All processes that were seen in its tree: a daemon may have left the tree, and overwritten its environment, which had
    /// [`MARK`].
    seen: RefCell<Vec<Process>>,
}

/// The exit status of a websockify that has ended, and its output.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) out: Vec<String>,
    pub(crate) err: Vec<String>,
}

/// Runs websockify with these arguments, separated by spaces, until it and all that it started have
/// ended.
pub(crate) fn run(arguments: &str) -> Output {
    Websockify::start(arguments).output()
}

impl Websockify {
    /// Starts it with these arguments, separated by spaces as on a command line.
    pub(crate) fn start(arguments: &str) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// The same; `prepare` may change the command before.
    pub(crate) fn start_with(arguments: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(WEBSOCKIFY);
        command.args(words(arguments));
        prepare(&mut command);
        Self::launch(&mut command)
    }

    /// The same, with `--rebind-engine=auto`, whatever [`ENGINE`] says.
    pub(crate) fn start_auto(arguments: &str) -> Self {
        Self::start(&arguments.replacen(" -- ", " --rebind-engine=auto -- ", 1))
    }

    /// Starts a command that becomes websockify by `exec`.
    pub(crate) fn launch(command: &mut Command) -> Self {
        Self::launch_with(Stdio::null(), command)
    }

    /// The same with this standard input.
    pub(crate) fn launch_with(stdin: impl Into<Stdio>, command: &mut Command) -> Self {
        let mut websockify = Self::spawn(command.stdin(stdin).stdout(Stdio::piped()));
        websockify.out = Heard::of(websockify.child.stdout.take().unwrap());
        websockify
    }

    /// Starts it with a terminal as its standard input and output, and as its controlling terminal. Gives the other end
    /// of the terminal too, as a keyboard; what the terminal shows is in `out`.
    pub(crate) fn at_terminal(arguments: &str, prepare: impl FnOnce(&mut Command)) -> (Self, File) {
        let pty = terminal();
        let mut command = Command::new("setsid");
        command.args(["--ctty", WEBSOCKIFY]).args(words(arguments));
        prepare(&mut command);
        command.stdin(pty.slave.try_clone().unwrap()).stdout(pty.slave);
        let mut websockify = Self::spawn(&mut command);
        let keyboard = File::from(pty.master);
        websockify.out = Heard::of(keyboard.try_clone().unwrap());
        (websockify, keyboard)
    }

    fn spawn(command: &mut Command) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let scratch = TempDir::new().unwrap();
        // The mode of /tmp: the program may run as another user.
        fs::set_permissions(&scratch, Permissions::from_mode(0o1777)).unwrap();
        let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        let is_given = |name: &str| given.iter().any(|given| given == name);
        if !is_given("TMPDIR") {
            command.env("TMPDIR", scratch.path());
        }
        for name in OF_SYSTEMD.into_iter().filter(|name| !is_given(name)) {
            command.env_remove(name);
        }
        let mut child = command.env(MARK, &mark).stderr(Stdio::piped()).spawn().unwrap();
        let out = Heard::default();
        let err = Heard::of(child.stderr.take().unwrap());
        Self { child, out, err, mark, scratch, seen: RefCell::default() }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The loopback port that its program's port is moved to. Needs `-v`.
    pub(crate) fn relocated_port(&self) -> u16 {
        let line = self.wait_for_log(&[" becomes ", " on loopback"]);
        let (_, port) = line.split_once(" becomes ").unwrap();
        port.split(' ').next().unwrap().parse().unwrap()
    }

    /// The first line of its log that contains all of `parts`, waited for.
    pub(crate) fn wait_for_log(&self, parts: &[&str]) -> String {
        wait_for(&format!("{parts:?} in the log"), || self.logged(parts).into_iter().next())
    }

    /// The lines of its log up to now that contain all of `parts`.
    pub(crate) fn logged(&self, parts: &[&str]) -> Vec<String> {
        let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
        self.err.lines().into_iter().filter(has_all).collect()
    }

    /// Fails if its log does not get `count` lines with all of `parts`, or has more. A line may come later than what
    /// it tells of: a thread writes the log.
    #[track_caller]
    pub(crate) fn assert_logged(&self, parts: &[&str], count: usize) {
        wait_until(&format!("{count} times {parts:?} in the log"), || {
            self.logged(parts).len() >= count
        });
        assert_eq!(self.logged(parts).len(), count, "{parts:?}");
    }

    /// Fails if another instance of the program is started within `window`. First waits for the log line of the first
    /// instance, which may come after the port is open.
    pub(crate) fn assert_one_instance_for(&self, window: Duration) {
        self.wait_for_log(&["program started"]);
        stays(window, "one instance", || self.logged(&["program started"]).len() == 1);
    }

    /// The warnings up to now, but for that of every start without a certificate (T2).
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.logged(&[" WARN "]);
        warnings.retain(|line| !line.contains("No certificate (self.pem)"));
        warnings
    }

    /// Waits until the public port is open, without connecting to it.
    pub(crate) fn wait_until_open(&self) {
        self.wait_for_log(&["INFO listening on"]);
    }

    /// The program's first process.
    pub(crate) fn leader(&self) -> Process {
        self.nth_leader(1)
    }

    /// Waits for the nth start of the program, counted from 1; gives its first process's number.
    pub(crate) fn nth_start(&self, nth: usize) -> i32 {
        let line = wait_for(&format!("start number {nth} of the program"), || {
            self.logged(&["program started"]).into_iter().nth(nth - 1)
        });
        field(&line, "pid").parse().unwrap()
    }

    /// The first process of the program's nth instance, which must live.
    pub(crate) fn nth_leader(&self, nth: usize) -> Process {
        let pid = self.nth_start(nth);
        let leader = Process::find(pid).unwrap_or_else(|| panic!("{pid} has ended already"));
        self.seen.borrow_mut().push(leader.clone());
        leader
    }

    /// The living processes below it.
    pub(crate) fn tree(&self) -> Vec<Process> {
        let tree = below(self.pid());
        let mut seen = self.seen.borrow_mut();
        for process in &tree {
            if !seen.contains(process) {
                seen.push(process.clone());
            }
        }
        tree
    }

    /// The living processes that it started, whether they are still below it or not.
    pub(crate) fn remnants(&self) -> Vec<Process> {
        let mut remnants = self.tree();
        let others = everyone(MARK, &self.mark).into_iter();
        let seen = self.seen.borrow().clone().into_iter().filter(Process::is_alive);
        for process in others.chain(seen) {
            if process.pid != self.pid() && !remnants.contains(&process) {
                remnants.push(process);
            }
        }
        remnants
    }

    /// How many seconds of a processor's time websockify itself has used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        Process::find(self.pid()).unwrap().cpu_seconds()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Asks it to stop; gives its exit status.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end; gives its exit status as a shell does.
    pub(crate) fn wait(&mut self) -> i32 {
        let status = wait_for("the end of websockify", || self.child.try_wait().unwrap().map(code));
        // C4, checked in every test: the log tells an error in words, without its number.
        assert_eq!(self.logged(&["(os error"]), Vec::<String>::new());
        status
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Checks that nobody else listens on this port, and that its tree listens on loopback only.
    pub(crate) fn assert_alone_on(&self, port: u16) {
        let us = Process::find(self.pid()).unwrap();
        let ours = listeners_of(&[us]);
        assert!(ours.iter().any(|address| address.port() == port), "closed: {port}");
        let (mut of_port, mut all) = (ours, listening(port));
        of_port.retain(|address| address.port() == port);
        of_port.sort_unstable();
        all.sort_unstable();
        assert_eq!(all, of_port, "who listens on {port}, and what of it is websockify");
        let of_program = listeners_of(&self.tree());
        assert!(!of_program.is_empty(), "the program does not listen");
        for address in of_program {
            // Where IPv6 is switched off there is no ::1; the port is then on [::], bound to the loopback device.
            let is_v6 = address.is_ipv6() && address.ip().is_unspecified();
            let is_moved = address.ip().to_canonical().is_loopback() || is_v6 && !has_ipv6();
            assert!(is_moved, "the program listens on {address}");
        }
    }

    /// Waits for its end and for that of all that it started.
    pub(crate) fn output(mut self) -> Output {
        let status = self.wait();
        wait_until("the end of all output", || self.out.ended() && self.err.ended());
        assert_eq!(self.remnants(), [], "left behind");
        let left: Vec<_> = self.scratch.path().read_dir().unwrap().flatten().collect();
        assert!(left.is_empty(), "left in TMPDIR: {left:?}");
        Output { status, out: self.out.lines(), err: self.err.lines() }
    }
}

impl Drop for Websockify {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("websockify {} said:\n{}", self.pid(), self.err.lines().join("\n"));
        }
        self.tree();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Each process is stopped first, so that it forks no more before it is killed. Repeated, as it may have forked already.
        for _ in 0..100 {
            let remnants = self.remnants();
            if remnants.is_empty() {
                break;
            }
            for process in &remnants {
                process.signal(Signal::SIGSTOP);
            }
            let children = remnants.iter().flat_map(|process| below(process.pid));
            for process in children.chain(remnants.clone()) {
                process.signal(Signal::SIGKILL);
            }
        }
    }
}

/// The value that stands behind this name in a log line. A `pid` has no name there; it stands in brackets.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start = if name == "pid" { "[".to_owned() } else { format!(" {name} ") };
    let (_, rest) = line.rsplit_once(&start).unwrap_or_else(|| panic!("no {name} in {line}"));
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap(),
        None => rest.split([' ', ',', ']']).next().unwrap(),
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}
