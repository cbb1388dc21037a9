//! Values that begin with a hyphen, as passwords and file names may (C8). In the Python websockify the word behind an
//! option that takes a value is the value, whatever it looks like; so it is here for the options that it has, too.
//! Options that only this websockify has need `=` then: a word with a hyphen behind them is more likely the next
//! option, and the value was forgotten. Knows the names of options, written out by `shortened`.

use std::ffi::OsString;

use clap::CommandFactory;

use super::Args;
use super::shortened::{UPSTREAM, followed};

/// The command line with such a value joined to its option by `=`. Words behind `--` are the program's, and `--` is no
/// value.
pub(super) fn joined(args: Vec<OsString>) -> Vec<OsString> {
    let command = Args::command();
    let mut joined = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    while let Some(mut word) = args.next_if(|word| word != "--") {
        let option = followed(&word, &command).and_then(|option| option.get_long());
        let value = args.next_if(|next| option.is_some() && next != "--");
        let is_pythons = option.is_some_and(|option| UPSTREAM.contains(&option));
        match value {
            Some(value) if is_pythons && value.as_encoded_bytes().starts_with(b"-") => {
                word.push("=");
                word.push(value);
                joined.push(word);
            }
            value => {
                joined.push(word);
                joined.extend(value);
            }
        }
    }
    joined.extend(args);
    joined
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::shortened::takes_value;
    use super::*;

    fn line(typed: &str) -> String {
        let words = joined(typed.split(' ').map(OsString::from).collect());
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn c8_a_value_may_begin_with_a_hyphen() {
        let command = Args::command();
        let options = command.get_arguments().filter(|option| takes_value(option));
        let longs = options.filter_map(clap::Arg::get_long);
        let pythons: Vec<_> = longs.filter(|long| UPSTREAM.contains(long)).collect();
        assert!(pythons.len() > 15, "{pythons:?}");
        for option in pythons {
            for value in ["-abc", "-x:y", "-D", "--", "-", "--web", "--cert=x"] {
                let (apart, whole) =
                    (format!("--{option} {value} 1"), format!("--{option}={value} 1"));
                let is_value = value != "--";
                assert_eq!(line(&apart), if is_value { &whole } else { &apart }.as_str());
            }
        }
        let bytes = [b"--web".to_vec(), b"-\xff".to_vec()].map(OsString::from_vec);
        assert_eq!(joined(bytes.into()), [OsString::from_vec(b"--web=-\xff".to_vec())]);
    }

    #[test]
    fn c8_what_is_no_such_value_stays() {
        for typed in [
            "--web . --cert=-x -v -D 1 a:2",
            "--web x --record y -- sh --web -x",
            "--pid-file -x --daemon --record",
            "1 -- --web -x",
            "-- --web -x",
        ] {
            assert_eq!(line(typed), typed);
        }
    }
}
