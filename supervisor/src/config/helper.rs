//! A helper as it was asked for: a program, or a plugin that is a Python class. Starts nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Where Python keeps what it has compiled.
const COMPILED: &str = "__pycache__";

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HelperSpec {
    /// A program and its arguments; never empty.
    Program(Vec<OsString>),
    Class(Class),
}

/// A Python class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    /// MODULE.CLASS.
    pub(crate) name: String,
    /// What its constructor is told.
    pub(crate) source: Option<String>,
}

impl HelperSpec {
    /// The program with the command line `source`, split as by a shell that expands nothing.
    pub(super) fn program(source: &OsStr) -> Result<Self, String> {
        let words = shlex::bytes::split(source.as_bytes());
        let words = words.filter(|words| !words.is_empty() && !words.concat().contains(&0));
        let words = words.ok_or("Helper expects a command line: check its quotes")?;
        Ok(Self::Program(words.into_iter().map(OsString::from_vec).collect()))
    }

    /// The files and directories of the helper, as far as they can be seen. Of a program: the program and the scripts
    /// among its arguments. Of a class: its module if that is in the current directory, or all of its package, and what
    /// Python has compiled of them.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Program(words) => {
                words.iter().map(PathBuf::from).filter(|file| file.is_file()).collect()
            }
            Self::Class(class) => {
                let module = class.name.rsplit_once('.').map_or("", |(module, _)| module);
                let package = PathBuf::from(module.replace('.', "/"));
                let compiled = [package.join(COMPILED), package.with_file_name(COMPILED)];
                let all = [package.with_extension("py"), package].into_iter().chain(compiled);
                all.filter(|path| path.exists()).collect()
            }
        }
    }

    /// The class of this name.
    pub(super) fn class(name: &str, source: Option<&OsStr>) -> Result<Self, String> {
        let source = source.map(|text| text.to_str().ok_or("it is not text in UTF-8"));
        let source = source.transpose()?.map(str::to_owned);
        Ok(Self::Class(Class { name: name.to_owned(), source }))
    }
}

/// Whether a plugin is named as a class in a module. Our own plugins have no dots in their names.
pub(super) fn is_class(typed: &str) -> bool {
    typed.rsplit_once('.').is_some_and(|(module, class)| !module.is_empty() && !class.is_empty())
}
