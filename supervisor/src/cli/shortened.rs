//! Long options that are shortened as the Python websockify takes them (C8): what is unambiguous among its
//! options means the same here, though options of ours alone begin alike. Knows names, and no values;
//! whatever else is shortened is clap's affair.

use std::ffi::OsString;

use clap::{Command, CommandFactory};

use super::Args;

/// All that the Python websockify 0.13 has; earlier ones have no others.
pub(crate) const UPSTREAM: &[&str] = &[
    "auth-plugin",
    "auth-source",
    "cafile",
    "cert",
    "daemon",
    "file-only",
    "heartbeat",
    "help",
    "host-token",
    "idle-timeout",
    "inetd",
    "key",
    "key-password",
    "legacy-syslog",
    "libserver",
    "log-file",
    "prefer-ipv6",
    "record",
    "run-once",
    "ssl-ciphers",
    "ssl-only",
    "ssl-target",
    "ssl-version",
    "syslog",
    "target-config",
    "timeout",
    "token-plugin",
    "token-source",
    "traffic",
    "unix-listen",
    "unix-listen-mode",
    "unix-target",
    "verbose",
    "verify-client",
    "web",
    "web-auth",
    "wrap-mode",
];

/// The command line with such options written out; what stands behind `--` is the program's.
pub(super) fn written_out(args: Vec<OsString>) -> Vec<OsString> {
    let command = Args::command();
    let mut is_ours = true;
    let write_out = |arg: OsString| {
        is_ours &= arg != "--";
        let typed = arg.to_str().filter(|_| is_ours);
        typed.and_then(|typed| full(typed, &command)).unwrap_or(arg)
    };
    args.into_iter().map(write_out).collect()
}

/// The word with its option's whole name, if only one of upstream's begins so.
fn full(typed: &str, command: &Command) -> Option<OsString> {
    let rest = typed.strip_prefix("--")?;
    let start = rest.split('=').next().unwrap_or(rest);
    let is_whole = command.get_arguments().any(|option| option.get_long() == Some(start));
    if is_whole || UPSTREAM.contains(&start) {
        return None;
    }
    let mut alike = UPSTREAM.iter().filter(|name| name.starts_with(start));
    let name = alike.next().filter(|_| !start.is_empty() && alike.next().is_none())?;
    // An option that we do not take stays as it was typed, and the error line names it so.
    let is_taken = command.get_arguments().any(|option| option.get_long() == Some(*name));
    (is_taken || *name == "help").then(|| format!("--{name}{}", &rest[start.len()..]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<String> {
        let words = written_out(words.iter().map(OsString::from).collect());
        words.iter().map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn c8_what_is_unambiguous_for_the_python_websockify_is_written_out() {
        let typed = ["websockify", "--wrap=respawn", "--rec", "x=y", "--idle=5", "--vers", "--ssl"];
        let meant = [
            "websockify",
            "--wrap-mode=respawn",
            "--record",
            "x=y",
            "--idle-timeout=5",
            "--vers",
            "--ssl",
        ];
        assert_eq!(line(&typed), meant);
        // Whole names stay, and so does the program's part.
        let typed = ["websockify", "--web", ".", "--key=k", "1", "--", "sh", "--wrap"];
        assert_eq!(line(&typed), typed);
    }
}
