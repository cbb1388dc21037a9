//! Our process and the machine that it runs on: signals, systemd, users and their rights, files, ports, limits. Knows nothing of
//! what is bridged to, nor of a program's life.

pub(crate) mod changes;
pub(crate) mod command_line;
pub(crate) mod daemon;
pub(crate) mod directories;
pub(crate) mod executable;
#[cfg(test)]
mod fuzzing;
pub(crate) mod inetd;
pub(crate) mod memory;
pub(crate) mod open_files;
pub(crate) mod pid_file;
pub(crate) mod ports;
pub(crate) mod privileges;
pub(crate) mod proc_text;
pub(crate) mod progress;
pub(crate) mod public;
pub(crate) mod random;
pub(crate) mod runtime;
pub(crate) mod search_path;
pub(crate) mod shown;
pub(crate) mod signals;
pub(crate) mod systemd;
pub(crate) mod terminal;
pub(crate) mod trusted;
pub(crate) mod unix_socket;
pub(crate) mod user;
