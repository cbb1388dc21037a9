//! Where clients connect: a port, a Unix socket, or the socket that inetd gives us. Only where clients connect to a
//! port is the first argument the source port. Opens nothing.

use std::path::{Path, PathBuf};

use super::address::{self, Source};
use crate::cli::Args;
use crate::usage::{UsageError, invalid};

/// Where clients connect.
#[derive(Debug)]
pub(crate) enum Listen {
    Port(Source),
    Unix {
        path: PathBuf,
        /// Who can connect, as chmod(2) has it.
        mode: u32,
    },
    /// To a socket that is our standard input.
    Inetd,
}

/// Who can connect to a Unix socket, by default: we and root.
const MODE: u32 = 0o600;

/// Reads it. Where there is no source port, the first argument becomes the target. If a program follows, the argument
/// stays: it is the program's port.
pub(super) fn read(args: &mut Args) -> Result<Listen, UsageError> {
    let (listen, option) = match (args.unix_listen.as_deref(), args.inetd) {
        (Some(_), true) => return Err(exclude("--unix-listen")),
        (None, true) if args.daemon => return Err(exclude("--daemon")),
        (None, true) => (Listen::Inetd, "--inetd"),
        (Some(path), false) => {
            let mode = args.unix_listen_mode.as_deref().map_or(Ok(MODE), octal)?;
            (Listen::Unix { path: socket(path)?, mode }, "--unix-listen")
        }
        (None, false) => {
            let typed = args.source.as_deref().expect("it is demanded without these options");
            return address::source(typed, args.prefer_ipv6).map(Listen::Port);
        }
    };
    if args.program.is_none() {
        no_source(args, option)?;
    }
    Ok(listen)
}

fn exclude(option: &str) -> UsageError {
    UsageError(format!("options '{option}' and '--inetd' exclude each other"))
}

fn no_source(args: &mut Args, option: &str) -> Result<(), UsageError> {
    if let (Some(first), Some(second)) = (&args.source, &args.target) {
        return Err(UsageError(format!(
            "unexpected argument '{second}': with '{option}' there is no source port, and '{first}' is the target"
        )));
    }
    args.target = args.source.take();
    Ok(())
}

/// The port that a program binds, if it stands before `--` where there is no source port.
pub(super) fn program_port(typed: &str) -> Result<u16, UsageError> {
    let port = address::port(typed).filter(|port| *port != 0);
    port.ok_or_else(|| invalid("PROGRAM_PORT", typed, "the program's port, from 1 to 65535"))
}

fn socket(typed: &Path) -> Result<PathBuf, UsageError> {
    let path = std::path::absolute(typed).ok().filter(|path| path.file_name().is_some());
    path.ok_or_else(|| invalid("--unix-listen", &typed.to_string_lossy(), "the path of a socket"))
}

/// A mode as chmod(1) has it.
fn octal(typed: &str) -> Result<u32, UsageError> {
    let digits = typed.strip_prefix("0o").unwrap_or(typed);
    let is_octal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| invalid("--unix-listen-mode", typed, "an octal number from 0 to 777"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u3_a_mode_is_octal() {
        for (typed, mode) in [("600", 0o600), ("0660", 0o660), ("0o777", 0o777), ("0", 0)] {
            assert_eq!(octal(typed), Ok(mode), "{typed}");
        }
        for typed in ["8", "-1", "99999", "1000", "+600", "", "0o", "0x1ff", "77777777777777777"] {
            let UsageError(line) = octal(typed).expect_err(typed);
            assert!(line.contains(&format!("'{typed}' for '--unix-listen-mode'")), "{line}");
        }
    }
}
