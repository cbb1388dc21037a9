//! The processes below us: found, told apart, signalled and reaped. Knows nothing of what the program
//! is for, and asks no socket.

mod aside;
pub(crate) mod birth;
mod children;
mod exits;
pub(crate) mod number;
mod process;
mod reap;
mod table;
mod tree;

pub(crate) use aside::Aside;
pub(crate) use children::{is_child, wait};
pub(crate) use exits::ExitWatcher;
pub(crate) use process::{Process, list, list_with_sessions};
pub(crate) use reap::{Reaper, ReaperState};
pub(crate) use table::is_alive;
pub(crate) use tree::{Tree, TreeState};
