//! Shortened long options, as the Python websockify takes them (C8): what is unambiguous among its options means the
//! same here, even if an option that only this websockify has begins alike. Knows the names of options, and of values
//! only where they stand; any other shortened option is left to clap.

use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory};

use super::Args;

/// All options that the Python websockify has, or had in any version from 0.3.0 to 0.13.0; `auto-pong` is in 0.7.0 and
/// 0.8.0 only.
pub(crate) const UPSTREAM: &[&str] = &[
    "auth-plugin",
    "auth-source",
    "auto-pong",
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

/// The command line with such options written out, in as many words. A value that is a word of its own stays as it is,
/// whatever it looks like. Words behind `--` are the program's, and stay.
pub(super) fn written_out(args: Vec<OsString>) -> Vec<OsString> {
    let command = Args::command();
    let mut written = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    while let Some(typed) = args.next_if(|word| word != "--") {
        let word = typed.to_str().and_then(|typed| full(typed, &command)).unwrap_or(typed);
        let takes_next = followed(&word, &command).is_some();
        written.push(word);
        written.extend(args.next_if(|next| takes_next && next != "--"));
    }
    written.extend(args);
    written
}

/// The option whose value is the next word, if this word is such an option's.
pub(super) fn followed<'a>(word: &OsString, command: &'a Command) -> Option<&'a Arg> {
    let long = word.to_str()?.strip_prefix("--").filter(|long| !long.contains('='))?;
    option(command, long).filter(|option| takes_value(option))
}

/// The option that a name stands for, whole or shortened: the one that the Python websockify takes it for, or the only
/// one here that begins so.
pub(super) fn option<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    let name = |arg: &Arg| arg.get_long().map(str::to_owned);
    let exact = |long| command.get_arguments().find(|arg| arg.get_long() == Some(long));
    let python = || {
        let mut alike = UPSTREAM.iter().filter(|name| name.starts_with(long));
        alike.next().filter(|_| alike.next().is_none()).and_then(|name| exact(name))
    };
    let mut alike =
        command.get_arguments().filter(|arg| name(arg).is_some_and(|name| name.starts_with(long)));
    exact(long).or_else(python).or_else(|| alike.next().filter(|_| alike.next().is_none()))
}

pub(super) fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

/// The word with its option's whole name, if only one option of the Python websockify begins so.
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

    /// A password may look like an option.
    #[test]
    fn c8_a_value_is_not_written_out() {
        for typed in [["--auth-source", "--rec"], ["--key-password", "--wrap=x"]] {
            assert_eq!(line(&typed), typed);
        }
        let typed = ["--key-passw", "--", "--rec"];
        assert_eq!(line(&typed), ["--key-password", "--", "--rec"]);
        assert_eq!(line(&["--web", "--rec", "--rec"]), ["--web", "--rec", "--record"]);
    }
}
