//! The library in a hand-over (O2): what the old binary saves of it, and how the new one goes on with it. The new
//! binary's own library may be of another version: programs that run keep the old one, and the next instance gets the
//! new one.

use std::os::fd::RawFd;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::super::unpacked::{Unpacked, UnpackedState};
use super::{Library, Origin};
use crate::handed::Handed;
use crate::octets::Octets;

/// What the new binary needs to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct LibraryState {
    path: Octets,
    origin: OriginState,
    #[serde(default)]
    former: Vec<UnpackedState>,
}

#[derive(Debug, Serialize, Deserialize)]
enum OriginState {
    Given,
    Packaged,
    Unpacked(UnpackedState),
}

impl Library {
    pub(in super::super) fn save(&self) -> LibraryState {
        let origin = match &self.origin {
            Origin::Given => OriginState::Given,
            Origin::Packaged => OriginState::Packaged,
            Origin::Unpacked(unpacked) | Origin::Outdated(unpacked) => {
                OriginState::Unpacked(unpacked.save())
            }
        };
        let former = self.former.iter().map(Unpacked::save).collect();
        LibraryState { path: self.path.as_path().into(), origin, former }
    }

    /// No file is removed when this is dropped, until it [goes on](Self::go_on).
    pub(in super::super) fn resume(state: LibraryState, handed: &mut Handed<'_>) -> Result<Self> {
        let origin = match state.origin {
            OriginState::Given => Origin::Given,
            OriginState::Packaged => Origin::Packaged,
            OriginState::Unpacked(state) => {
                let unpacked = Unpacked::resume(state, handed)?;
                if unpacked.is_whole() {
                    Origin::Unpacked(unpacked)
                } else {
                    Origin::Outdated(unpacked)
                }
            }
        };
        let former = state.former.into_iter().map(|state| Unpacked::resume(state, handed));
        Ok(Self { path: state.path.into_path(), origin, former: former.collect::<Result<_>>()? })
    }

    /// From now on what was unpacked is removed at our end, unless a daemon needs it.
    pub(in super::super) fn go_on(&mut self) {
        match &mut self.origin {
            Origin::Unpacked(unpacked) | Origin::Outdated(unpacked) => unpacked.go_on(),
            Origin::Given | Origin::Packaged => {}
        }
        self.former.iter_mut().for_each(Unpacked::go_on);
    }
}

impl LibraryState {
    pub(in super::super) fn descriptors(&self) -> Vec<RawFd> {
        let unpacked = match &self.origin {
            OriginState::Unpacked(unpacked) => Some(unpacked),
            OriginState::Given | OriginState::Packaged => None,
        };
        self.former.iter().chain(unpacked).map(UnpackedState::descriptor).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use bridge::Descriptors;

    use super::super::super::stale;
    use super::super::super::unpacked::EMBEDDED;
    use super::*;
    use crate::handed::tests::steal;

    /// As in a hand-over: the old binary's objects are gone without being dropped, and its descriptors are open.
    fn hand_over(library: Library) -> Library {
        let state = library.save();
        let json = serde_json::to_string(&state).expect("JSON");
        let mut state: LibraryState = serde_json::from_str(&json).expect("the same");
        let mut renumber = |unpacked: &mut UnpackedState| {
            let copy = steal(unpacked.descriptor());
            unpacked.set_descriptor(copy.as_raw_fd());
            copy
        };
        let mut copies: Vec<_> = state.former.iter_mut().map(&mut renumber).collect();
        if let OriginState::Unpacked(unpacked) = &mut state.origin {
            copies.push(renumber(unpacked));
        }
        let mut all: Descriptors = copies.into_iter().collect();
        std::mem::forget(library);
        let mut handed = Handed::of(&mut all);
        let mut resumed = Library::resume(state, &mut handed).expect("resumed");
        handed.settle();
        resumed.go_on();
        resumed
    }

    fn scratch() -> (tempfile::TempDir, [PathBuf; 1]) {
        let scratch = tempfile::tempdir().expect("a directory");
        fs::set_permissions(&scratch, Permissions::from_mode(0o755)).expect("set");
        let parents = [scratch.path().to_owned()];
        (scratch, parents)
    }

    #[test]
    fn o2_the_same_library_goes_on_and_is_removed_at_the_end() {
        let (_scratch, parents) = scratch();
        let library = hand_over(Library::unpack(&parents).expect("unpacked"));
        let path = library.path().to_owned();
        stale::remove(&parents);
        assert!(path.exists(), "it is locked still");
        let mut library = library;
        library.renew().expect("it is whole");
        assert_eq!(library.path(), path);
        drop(library);
        assert!(!path.parent().expect("a directory").exists());
    }

    /// Also after two hand-overs.
    #[test]
    fn o2_another_version_is_kept_for_who_runs_and_the_next_get_ours() {
        let (_scratch, parents) = scratch();
        let library = Library::unpack(&parents).expect("unpacked");
        let old = library.path().to_owned();
        let other = [EMBEDDED, b"another version"].concat();
        fs::remove_file(&old).expect("removed");
        fs::write(&old, &other).expect("written");
        let mut library = hand_over(library);
        assert_eq!(library.path(), old, "who runs has that one");
        library.renew().expect("unpacked");
        let new = library.path().to_owned();
        assert_ne!(new, old);
        assert_eq!(fs::read(&new).expect("there"), EMBEDDED);
        assert_eq!(fs::read(&old).expect("there"), other);
        let library = hand_over(library);
        assert!(new.exists() && old.exists());
        drop(library);
        assert!(!new.exists() && !old.exists(), "nothing is left");
    }

    #[test]
    fn o2_who_does_not_go_on_removes_nothing() {
        let (_scratch, parents) = scratch();
        let library = Library::unpack(&parents).expect("unpacked");
        let mut state = library.save();
        let OriginState::Unpacked(unpacked) = &mut state.origin else { panic!("it is unpacked") };
        let copy = steal(unpacked.descriptor());
        unpacked.set_descriptor(copy.as_raw_fd());
        let mut all: Descriptors = [copy].into_iter().collect();
        drop(Library::resume(state, &mut Handed::of(&mut all)).expect("resumed"));
        assert_eq!(fs::read(library.path()).expect("there"), EMBEDDED);
    }
}
