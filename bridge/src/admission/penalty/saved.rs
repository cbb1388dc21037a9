//! The penalties for wrong passwords, as saved for the new binary in a hand-over. Must not know how they are serialized.

use std::net::IpAddr;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{CLIENTS_MAX, Penalties, Penalty};
use crate::clients::ClientId;
use crate::saved::Moment;

/// The penalty of one client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedPenalty {
    pub(crate) client: SavedClient,
    pub(crate) count: u32,
    pub(crate) end: Moment,
}

/// The client: its address, or its user on a Unix socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SavedClient {
    Address(IpAddr),
    User(u32),
}

impl Penalties {
    /// All penalties, for the new binary.
    pub(crate) fn saved(&self) -> Vec<SavedPenalty> {
        let by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = |(client, penalty): (&ClientId, &Penalty)| SavedPenalty {
            client: match *client {
                ClientId::Address(address) => SavedClient::Address(address),
                ClientId::User(user) => SavedClient::User(user),
            },
            count: penalty.count,
            end: penalty.end.into(),
        };
        by_client.iter().map(saved).collect()
    }

    /// Takes over the penalties that the old binary has saved.
    pub(crate) fn resume(&self, saved: &[SavedPenalty]) {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        by_client.extend(saved.iter().take(CLIENTS_MAX).map(|penalty| {
            let client = match penalty.client {
                SavedClient::Address(address) => ClientId::Address(address),
                SavedClient::User(user) => ClientId::User(user),
            };
            let end = Instant::from_std(penalty.end.instant());
            (client, Penalty { count: penalty.count, end })
        }));
    }
}
