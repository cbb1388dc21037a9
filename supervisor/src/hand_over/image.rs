//! The arguments and the environment that a binary is executed with. They are made beforehand, so that executing it
//! takes no more than a system call: between fork(2) and exec(2), and in a signal handler, nothing else may be done
//! (signal-safety(7)).

use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

/// The variable by which the new binary is told of two descriptors: the memory with the state, and the file of the old
/// binary.
pub(super) const VARIABLE: &str = "WEBSOCKIFY_HAND_OVER";
/// The variable by which the old binary is told why it is executed again.
pub(super) const BACK: &str = "WEBSOCKIFY_HAND_BACK";

/// A command line and an environment.
pub(crate) struct ExecArgs {
    /// The strings that the other fields point to.
    _words: Vec<CString>,
    args: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

// SAFETY: the pointers are to strings that this owns itself, and that nobody changes.
#[allow(unsafe_code)]
unsafe impl Send for ExecArgs {}
// SAFETY: the same.
#[allow(unsafe_code)]
unsafe impl Sync for ExecArgs {}

impl ExecArgs {
    /// # Errors
    ///
    /// A word has a zero byte in it, which no command line and no environment has.
    pub(crate) fn new(
        args: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let word = |word: OsString| CString::new(word.into_vec()).map_err(io::Error::from);
        let args = args.into_iter().map(word).collect::<io::Result<Vec<_>>>()?;
        let variables = environment.into_iter().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            word(name)
        });
        let variables = variables.collect::<io::Result<Vec<_>>>()?;
        let pointers = |words: &[CString]| {
            let pointers = words.iter().map(|word| word.as_ptr());
            pointers.chain([ptr::null()]).collect::<Vec<_>>()
        };
        let (args, environment, mut words) = (pointers(&args), pointers(&variables), args);
        words.extend(variables);
        Ok(Self { _words: words, args, environment })
    }

    /// Executes the file of this descriptor, whatever lies at its path by now, and never with a shell, as execvp(3)
    /// does where the kernel does not know the kind of the file. Returns only if that fails. Async-signal-safe.
    #[allow(unsafe_code)]
    pub(crate) fn execute(&self, program: RawFd) -> io::Error {
        let (args, environment) = (self.args.as_ptr(), self.environment.as_ptr());
        // SAFETY: both lists end with a null pointer and point to strings that live as long as they do.
        unsafe {
            let call = libc::SYS_execveat;
            libc::syscall(call, program, c"".as_ptr(), args, environment, libc::AT_EMPTY_PATH);
        }
        io::Error::last_os_error()
    }
}

/// Our environment without the variables of `without`, and with those of `with`.
pub(crate) fn environment(
    without: &[&str],
    with: impl IntoIterator<Item = (&'static str, String)>,
) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsString| !without.iter().any(|other| OsStr::new(other) == name);
    let kept = std::env::vars_os().filter(|(name, _)| is_kept(name));
    kept.chain(with.into_iter().map(|(name, value)| (name.into(), value.into()))).collect()
}
