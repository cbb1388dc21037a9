//! Why a command line is refused: what clap found, on one line, with what was probably meant (C4). Knows the names of
//! options and where arguments stand; values are checked in `config.rs`.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, Parser};

use super::secrets::may_be_secret;
use super::shortened::{option, takes_value};
use super::{Args, NOT_OURS, Refusal};
use crate::config::address;
use crate::machine::search_path;
use crate::usage::UsageError;

/// Where a person finds what may be typed.
const SEE_HELP: &str = "see 'websockify --help'";

/// What is said of a command line (program name first) that clap refuses.
pub(super) fn of(error: &clap::Error, args: &[OsString]) -> Refusal {
    Refusal::Usage(UsageError(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return Refusal::Answer(error.render().to_string());
        }
        ErrorKind::InvalidUtf8 => not_text(args),
        ErrorKind::MissingRequiredArgument => {
            "no source port given; try 'websockify --help'".to_owned()
        }
        ErrorKind::UnknownArgument => unknown(error, args),
        _ => first_paragraph(&error.render().to_string()),
    }))
}

/// For an argument that is not text: only the program and file names may be bytes of any kind.
fn not_text(args: &[OsString]) -> String {
    let at = args.iter().position(|arg| arg.to_str().is_none()).unwrap_or(0);
    let culprit = args[at].as_encoded_bytes();
    // The value of an option may be a password.
    let name = culprit.split(|byte| *byte == b'=').next().filter(|_| culprit.starts_with(b"--"));
    let before = args[..at].last().and_then(|arg| arg.to_str()?.strip_prefix("--"));
    let secret = before.filter(|long| option(&built(), long).is_some_and(may_be_secret));
    if let Some(long) = secret {
        return format!("the value of '--{long}' is not text in UTF-8");
    }
    let shown = name.unwrap_or(culprit).escape_ascii();
    format!("argument '{shown}' is not text in UTF-8")
}

/// The error itself, without clap's tips and usage, on one line.
fn first_paragraph(rendered: &str) -> String {
    let paragraph = rendered.split("\n\n").next().unwrap_or(rendered);
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// For an option that does not exist, or one argument too many.
fn unknown(error: &clap::Error, args: &[OsString]) -> String {
    let Some(ContextValue::String(found)) = error.get(ContextKind::InvalidArg) else {
        return first_paragraph(&error.render().to_string());
    };
    let line = Line::read(args, found);
    let culprit = line.culprit.map_or(found.as_str(), |at| line.words[at].as_str());
    // The value of an option may be a password.
    let name = culprit.split('=').next().filter(|_| culprit.starts_with('-')).unwrap_or(culprit);
    if let Some(option) = of_others(found.split('=').next().unwrap_or(found), name) {
        return format!("option '{option}' of other websockifys is not supported by this one");
    }
    let nearest = nearest(name, error);
    let meant = match (line.forgotten_dashes(nearest.is_some()), nearest) {
        (Some(meant), _) => meant,
        (None, Some(nearest)) => format!("did you mean {nearest}? {SEE_HELP}"),
        (None, None) => SEE_HELP.to_owned(),
    };
    format!("unexpected argument '{name}': {meant}")
}

/// The option of other websockifys that is meant, perhaps shortened or with one dash only.
fn of_others(found: &str, name: &str) -> Option<&'static str> {
    let long = if name.starts_with("--") { name.to_owned() } else { format!("-{name}") };
    let is_meant = |option: &&&str| {
        **option == found || **option == long || (long.len() > 4 && option.starts_with(&long))
    };
    NOT_OURS.iter().find(is_meant).copied()
}

/// The options of ours that are like `name`, quoted.
fn nearest(name: &str, error: &clap::Error) -> Option<String> {
    let suggested = |error: &clap::Error| match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(option)) => Some(format!("'{option}'")),
        _ => None,
    };
    if let Some(start) = name.strip_prefix("--") {
        let command = built();
        let longs = command.get_arguments().filter_map(Arg::get_long);
        let alike: Vec<_> = longs.filter(|long| long.starts_with(start)).collect();
        if !start.is_empty() && !alike.is_empty() {
            return Some(format!("'--{}'", alike.join("' or '--")));
        }
        return suggested(error);
    }
    // One dash: `-web` is read as `-w`, `-e` and `-b`.
    if !name.starts_with('-') || name.len() < 3 {
        return None;
    }
    let long = format!("-{name}");
    match Args::try_parse_from(["websockify", &long]) {
        Err(error) if error.kind() == ErrorKind::UnknownArgument => suggested(&error),
        _ => Some(format!("'{long}'")),
    }
}

/// The definitions, with `--help` and `--version` among them.
fn built() -> Command {
    let mut command = Args::command();
    command.build();
    command
}

/// A command line, and what is known of its words.
struct Line {
    /// The words before `--`, program name first; values that may be passwords are replaced by dots.
    words: Vec<String>,
    /// Which of the words are no options and no options' values.
    positional: Vec<usize>,
    /// Which of the words clap does not know.
    culprit: Option<usize>,
    /// Whether `--` follows the words.
    has_dashes: bool,
}

impl Line {
    /// `found` is what clap says that it does not know.
    fn read(args: &[OsString], found: &str) -> Self {
        let command = built();
        let before_dashes = args.iter().take_while(|arg| *arg != "--");
        let mut words: Vec<_> =
            before_dashes.map(|arg| arg.to_string_lossy().into_owned()).collect();
        let (mut positional, mut culprit) = (vec![], None);
        let mut at = 1;
        while at < words.len() {
            let word = &words[at];
            let name = word.split('=').next().unwrap_or(word);
            if culprit.is_none() && is_culprit(word, name, found, positional.len()) {
                culprit = Some(at);
            }
            if let Some(long) = name.strip_prefix("--") {
                let option = option(&command, long);
                let takes_next = name.len() == word.len() && option.is_some_and(takes_value);
                if option.is_some_and(may_be_secret) {
                    hide(&mut words, at);
                }
                at += usize::from(takes_next);
            } else if !word.starts_with('-') || word.len() == 1 {
                positional.push(at);
            }
            at += 1;
        }
        Self { words, positional, culprit, has_dashes: args.iter().any(|arg| arg == "--") }
    }

    /// If a program seems to stand in the target's place: the line as it should be, with `--`. A word that is no
    /// program on this machine may be a host without its port, all the more if the unknown option is `like_ours`.
    fn forgotten_dashes(&self, like_ours: bool) -> Option<String> {
        let program = *self.positional.get(1)?;
        let name = &self.words[program];
        if self.has_dashes || self.culprit? < program || address::target(name).is_ok() {
            return None;
        }
        let is_program = search_path::is_program(OsStr::new(name));
        if like_ours && !is_program {
            return None;
        }
        let quoted =
            |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let (ours, theirs) = self.words[1..].split_at(program - 1);
        let line = format!(
            "a program stands behind '--': websockify {} -- {}",
            quoted(ours),
            quoted(theirs)
        );
        match theirs {
            [host, port] if !is_program && address::port(port).is_some() => {
                Some(format!("a target is HOST:PORT ({host}:{port}?), {line}"))
            }
            _ => Some(line),
        }
    }
}

/// Puts dots in the place of an option's value, in its own word or the next.
fn hide(words: &mut [String], at: usize) {
    if let Some(end) = words[at].find('=') {
        words[at].replace_range(end + 1.., "...");
    } else if let Some(value) = words.get_mut(at + 1) {
        *value = "...".into();
    }
}

/// Whether a word is what clap calls `found`: an option, the letter of a word that begins with one
/// dash, or an argument after source and target.
fn is_culprit(word: &str, name: &str, found: &str, positional: usize) -> bool {
    match found.strip_prefix('-') {
        Some(_) if found.starts_with("--") => name == found.split('=').next().unwrap_or(found),
        Some(letter) => {
            word.starts_with('-') && !word.starts_with("--") && word[1..].contains(letter)
        }
        None => word == found && positional >= 2,
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_./:=,@%+-".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn c9_a_password_that_is_not_text_is_not_shown() {
        let said = |words: &[&[u8]]| {
            let args =
                [b"websockify"].into_iter().map(|name| &name[..]).chain(words.iter().copied());
            match Args::parse_from_os(args.map(|word| OsString::from_vec(word.to_vec()))) {
                Err(Refusal::Usage(UsageError(text))) => text,
                _ => panic!("taken: {words:?}"),
            }
        };
        for (words, line) in [
            (
                &[&b"--key-password"[..], b"\xffse"][..],
                "the value of '--key-password' is not text in UTF-8",
            ),
            (&[b"--key-p", b"-\xffse"], "the value of '--key-p' is not text in UTF-8"),
            (
                &[b"--key-password", b"--\xffse"],
                "the value of '--key-password' is not text in UTF-8",
            ),
            (&[b"--auth-source=\xffse"], "argument '--auth-source' is not text in UTF-8"),
            (&[b"80", b"h\xff:1"], r"argument 'h\xff:1' is not text in UTF-8"),
        ] {
            assert_eq!(said(words), line);
        }
    }
}
