//! The channels by which a running bridge is told what to do. Must not know how the bridge does it.

use tokio::sync::watch;

use crate::hand_over::HandOver;
use crate::shutdown::Shutdown;

/// The channels of one bridge; the code that starts the bridge keeps copies of them.
#[derive(Debug)]
pub struct Orders {
    /// Tells the bridge how to end. The bridge itself sends here, too, when a limit of its configuration ends it.
    pub shutdown: watch::Sender<Shutdown>,
    /// Asks the bridge to stand still for a hand-over (O2).
    pub hand_over: HandOver,
}

/// Orders without a hand-over: the bridge is never asked to stand still.
impl From<watch::Sender<Shutdown>> for Orders {
    fn from(shutdown: watch::Sender<Shutdown>) -> Self {
        Self { shutdown, hand_over: HandOver::default() }
    }
}
