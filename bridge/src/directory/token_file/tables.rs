//! The tables of all files, in the order of the files' names. Knows tokens; must not know what is in a file, nor when one is
//! read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Rereads;
use super::table::Table;
use crate::destination::Endpoint;

/// The tables of one moment. To clone them costs little.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables(Arc<Vec<(PathBuf, Arc<Table>)>>);

impl Tables {
    /// Where a token leads. The last file that has it counts, as the last line does within a file.
    pub(super) fn target(&self, token: &str) -> Option<&Endpoint> {
        self.0.iter().rev().find_map(|(_, table)| table.target(token))
    }

    /// Whether a token is there, even if its line is not complete.
    pub(super) fn has(&self, token: &str) -> bool {
        self.0.iter().any(|(_, table)| table.has(token))
    }

    /// The table of one file.
    pub(super) fn of(&self, path: &Path) -> Option<&Arc<Table>> {
        let found = self.0.binary_search_by(|(other, _)| other.as_path().cmp(path)).ok();
        found.map(|at| &self.0[at].1)
    }

    /// How long a token that is in none of them may still be about to be written.
    pub(super) fn settle_in(&self) -> Duration {
        self.0.iter().map(|(_, table)| table.settles_in()).max().unwrap_or_default()
    }

    /// Logs the lines of each file that cannot be read.
    pub(super) fn complain(&self, rereads: Rereads) {
        self.0.iter().for_each(|(path, table)| table.complain(path, rereads));
    }

    /// Replaces the tables by these, which are in the order of the files' names. Returns whether they differ.
    pub(super) fn replace(&mut self, tables: Vec<(PathBuf, Arc<Table>)>) -> bool {
        let is_same = |one: &(PathBuf, Arc<Table>), other: &(PathBuf, Arc<Table>)| {
            one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1)
        };
        let are_same = self.0.len() == tables.len()
            && self.0.iter().zip(&tables).all(|(one, other)| is_same(one, other));
        if !are_same {
            self.0 = Arc::new(tables);
        }
        !are_same
    }
}
