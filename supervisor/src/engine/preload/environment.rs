//! Whether the environment was cleared on the way to the program (`su -`, `sudo`, `env -i`), and the variable for
//! rebind.so with it. Looks at the processes that run. For processes that ended too soon for a look, it has only the
//! command line that started them. Knows nothing of when to say so.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::obstacle;
use crate::machine::executable::{self, Executable};
use crate::machine::shown;
use crate::processes::Process;

/// How many processes of an instance one look reads. A program that does not listen yet has few; whoever logs in through it can
/// have a thousand, each of which shows megabytes. The processes of an instance are in no order (`Tree`): so the next look reads
/// others, and the program's server is read some time.
const LOOKED_AT: usize = 16;

/// What was seen of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LostEnvironment {
    /// A process without rebind.so and without the environment that carries it.
    bare: Option<String>,
    /// A process that has the environment, and is of a kind that no dynamic linker starts.
    unreached: Option<String>,
}

impl LostEnvironment {
    /// Looks at the processes, until one of each kind has been seen; `instead` is what to use where this engine does
    /// not reach.
    pub(super) fn look(&mut self, instance: &[Process], library: &Path, instead: &str) {
        let instance = &instance[..instance.len().min(LOOKED_AT)];
        if self.unreached.is_none() {
            self.unreached = instance.iter().find_map(|process| unreached(process, instead));
        }
        if self.bare.is_none() {
            let bare = instance.iter().find(|process| is_bare(process, library));
            self.bare = bare.map(ToString::to_string);
            if let Some(process) = &self.bare {
                debug!("{process} runs without rebind.so");
            }
        }
    }

    /// Why a program that was started by `command` does not listen where it should, if one of these is the reason.
    pub(super) fn reason(&self, command: &[OsString]) -> Option<String> {
        if let Some(process) = &self.unreached {
            return Some(process.clone());
        }
        let cause = match (&self.bare, clearing(command)) {
            (Some(process), _) => format!("the environment was cleared on the way to {process}"),
            (None, Some(words)) => format!("'{words}' clears the environment"),
            (None, None) => return None,
        };
        Some(format!(
            "{cause}, so rebind.so cannot move its port: use runuser, setpriv or su without '-', \
             which keep the environment"
        ))
    }
}

/// Whether a process runs without rebind.so: neither its environment nor what it has mapped has the library. Both are
/// looked at: a program may overwrite the environment that it got, but not what is mapped; a statically linked program
/// maps no library, but has the environment. Of a process that we may not look at, or that shows too much, nothing is said.
fn is_bare(process: &Process, library: &Path) -> bool {
    let library = library.as_os_str().as_encoded_bytes();
    let read = |file: &str| shown::text(process.pid, file);
    let lacks = |text: &[u8]| !text.windows(library.len()).any(|part| part == library);
    // A process that is ending has nothing mapped any more.
    let is_unmapped = read("maps").is_ok_and(|maps| !maps.is_empty() && lacks(&maps));
    is_unmapped && read("environ").is_ok_and(|environment| lacks(&environment))
}

/// Why rebind.so cannot be loaded into this process, if it cannot, and what is to be done, if that is known.
fn unreached(process: &Process, instead: &str) -> Option<String> {
    let path = format!("/proc/{}/exe", process.pid);
    let executable = executable::find(OsStr::new(&path), None).ok()??;
    let obstacle = obstacle::in_image_of(&executable)?;
    let advice = if obstacle.is_of_preloading() { format!(": {instead}") } else { String::new() };
    Some(format!("{process} {}{advice}", obstacle.cause()))
}

/// Whether a program starts others, as scripts and shells do; of those nothing is seen beforehand.
pub(super) fn starts_others(program: &Executable) -> bool {
    const SHELLS: [&str; 7] = ["ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"];
    let is_shell =
        || program.path.file_name().is_some_and(|name| SHELLS.iter().any(|shell| name == *shell));
    !program.interpreters.is_empty() || is_shell()
}

/// The words of a command line, also of a shell's within it, that clear the environment.
fn clearing(command: &[OsString]) -> Option<String> {
    let text: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let text = text.join(" ");
    let is_between = |letter: char| letter.is_whitespace() || "'\"`;&|()".contains(letter);
    let words: Vec<_> = text.split(is_between).filter(|word| !word.is_empty()).collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let name = word.rsplit('/').next().unwrap_or(word);
        // `su -s /bin/sh - daemon`: a shell may stand between the options.
        let is_option = |word: &&&str| word.starts_with(['-', '/']);
        let mut options = words[at + 1..].iter().take_while(is_option);
        let clear: &[&str] = match name {
            "sudo" | "doas" | "pkexec" => return Some(name.to_owned()),
            "su" | "runuser" => &["-", "-l", "--login"],
            "env" => &["-", "-i", "--ignore-environment"],
            _ => return None,
        };
        let option = options.find(|option| clear.contains(option))?;
        Some(format!("{name} {option}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f26_the_words_that_clear_the_environment() {
        for (line, words) in [
            ("su - daemon -c vncserver", Some("su -")),
            ("/bin/su -s /bin/sh -l daemon", Some("su -l")),
            ("sudo -u daemon vncserver", Some("sudo")),
            ("sh -c cd;exec|/usr/bin/env|-i|vncserver", Some("env -i")),
            ("su daemon -c vncserver -l", None),
            ("runuser -u daemon -- vncserver", None),
            ("env -u DISPLAY vncserver -i", None),
            ("vncserver :1", None),
        ] {
            let command: Vec<_> =
                line.split(' ').map(|word| OsString::from(word.replace('|', " "))).collect();
            assert_eq!(clearing(&command).as_deref(), words, "{line}");
        }
    }
}
