//! The preload engine in a hand-over (O2): what the old binary saves of it, and how the new one goes on with it. Knows
//! what its parts are, and of each only that it can be saved.

use std::os::fd::RawFd;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Preload;
use super::clients::ClientTableFile;
use super::environment::LostEnvironment;
use super::library::{Library, LibraryState};
use super::notifications::{Notifications, NotificationsState};
use crate::engine::relocated::RelocatedPort;
use crate::handed::Handed;

/// What the new binary needs to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PreloadState {
    relocated: Vec<RawFd>,
    library: LibraryState,
    notifications: NotificationsState,
    #[serde(default)]
    lost: LostEnvironment,
}

impl Preload {
    pub(in crate::engine) fn save(&self) -> PreloadState {
        PreloadState {
            relocated: self.relocated.descriptors(),
            library: self.library.save(),
            notifications: self.notifications.save(),
            lost: self.lost.clone(),
        }
    }

    /// The new binary does not look for what dead instances have left: the old one has done that.
    pub(in crate::engine) fn resume(
        state: PreloadState,
        port: u16,
        clients: Option<Arc<ClientTableFile>>,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        Ok(Self {
            port,
            relocated: RelocatedPort::resume(&state.relocated, handed)?,
            library: Library::resume(state.library, handed)?,
            notifications: Notifications::resume(state.notifications, handed)?,
            lost: state.lost,
            clients,
        })
    }

    /// The library is ours to remove from now on.
    pub(in crate::engine) fn go_on(&mut self) {
        self.library.go_on();
    }
}

impl PreloadState {
    pub(in crate::engine) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.relocated.clone();
        all.extend(self.library.descriptors());
        all.push(self.notifications.descriptor());
        all
    }
}
