//! The tables of all files, in the order of their names. Knows tokens, and nothing of files; must not know when
//! one is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Rereads;
use super::table::Table;
use crate::destination::Endpoint;

/// Those of a moment. To clone them costs little.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables(Arc<Vec<(PathBuf, Arc<Table>)>>);

impl Tables {
    /// Where a token leads. The last one counts, as within a file.
    pub(super) fn target(&self, token: &str) -> Option<&Endpoint> {
        self.0.iter().rev().find_map(|(_, table)| table.target(token))
    }

    /// Whether a token is there, be it written to its end or not.
    pub(super) fn has(&self, token: &str) -> bool {
        self.0.iter().any(|(_, table)| table.has(token))
    }

    /// That of one file.
    pub(super) fn of(&self, path: &Path) -> Option<&Arc<Table>> {
        let found = self.0.binary_search_by(|(other, _)| other.as_path().cmp(path)).ok();
        found.map(|at| &self.0[at].1)
    }

    /// For how long what is in none of them may be still to come.
    pub(super) fn settle_in(&self) -> Duration {
        self.0.iter().map(|(_, table)| table.settles_in()).max().unwrap_or_default()
    }

    /// Names the lines of each that cannot be read.
    pub(super) fn complain(&self, rereads: Rereads) {
        self.0.iter().for_each(|(path, table)| table.complain(path, rereads));
    }

    /// Takes these, in the order of their names. Whether they are others.
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
