//! By what a bridge is told something while it is at work. Must not know what comes of it.

use tokio::sync::watch;

use crate::hand_over::HandOver;
use crate::shutdown::Shutdown;

/// What whoever starts a bridge keeps copies of.
#[derive(Debug)]
pub struct Orders {
    /// How it is told to end; it says so itself, too, when a limit of its configuration ends it.
    pub shutdown: watch::Sender<Shutdown>,
    /// By which it is asked to stand still (O2).
    pub hand_over: HandOver,
}

/// It is asked by nobody to stand still.
impl From<watch::Sender<Shutdown>> for Orders {
    fn from(shutdown: watch::Sender<Shutdown>) -> Self {
        Self { shutdown, hand_over: HandOver::default() }
    }
}
