//! The book, and what it has of a session, as another image of this program goes on with them. Must not know how that is
//! written down.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{ABNORMAL, Bell, Book, Entry, LastSeen, Open, Session, Sessions};
use crate::demand::Counter;
use crate::destination::{Address, Destination, Endpoint, OpenedSocket};
use crate::directory::Directory;
use crate::hand_over::{
    Invalid, SavedBook, SavedDestination, SavedEntry, SavedLastSeen, SavedLogin, SavedPeer,
};
use crate::login::Login;
use crate::peer::Peer;

impl Book {
    /// Its numbers.
    pub(crate) fn saved(&self) -> SavedBook {
        let sessions = self.sessions();
        SavedBook {
            begun: sessions.begun,
            received: sessions.received,
            sent: sessions.sent,
            counts: self.metrics.saved(),
        }
    }

    /// What its upkeep has seen of a session.
    pub(crate) fn last_seen(&self, id: u64) -> Option<SavedLastSeen> {
        let sessions = self.sessions();
        let last_seen = sessions.open.get(&id)?.last_seen.as_deref()?;
        Some(SavedLastSeen {
            heard: last_seen.heard.into(),
            moved: last_seen.moved,
            moved_at: last_seen.moved_at.into(),
        })
    }

    /// Goes on counting from these. So many connections are open by now.
    pub(crate) fn resume(&self, saved: &SavedBook, open: u64) {
        let mut sessions = self.sessions();
        let SavedBook { begun, received, sent, counts } = saved;
        *sessions =
            Sessions { begun: *begun, received: *received, sent: *sent, ..Sessions::default() };
        drop(sessions);
        self.metrics.resume(counts, open);
    }

    /// Goes on with a session.
    pub(crate) fn go_on(
        self: &Arc<Self>,
        saved: &SavedEntry,
        peer: Arc<Peer>,
        directory: &Directory,
    ) -> Result<Session, Invalid> {
        let entry = Arc::new(Entry {
            id: saved.id,
            peer,
            destination: saved.destination.resume(directory)?,
            login: saved.login.as_ref().map(|login| Box::new(login.resume())),
            began: saved.began.instant(),
            asked: saved
                .asked
                .as_deref()
                .map_or_else(OnceLock::new, |asked| Box::<str>::from(asked).into()),
            received: AtomicU64::new(saved.received),
            sent: AtomicU64::new(saved.sent),
            is_heard: AtomicBool::new(saved.is_heard),
            is_look_wanted: AtomicBool::new(false),
            calls: AtomicU8::new(saved.calls),
            ended: AtomicU16::new(ABNORMAL),
            task: Bell::default(),
        });
        let last_seen = saved.last_seen.as_ref().map(|seen| {
            let (heard, moved_at) = (seen.heard.instant(), seen.moved_at.instant());
            Box::new(LastSeen { heard, moved: seen.moved, moved_at })
        });
        let mut sessions = self.sessions();
        if sessions.open.contains_key(&entry.id) || entry.id > sessions.begun {
            return Err(Invalid(format!("it has an impossible session {}", entry.id)));
        }
        sessions.open.insert(entry.id, Open { entry: Arc::clone(&entry), last_seen });
        self.open.send_replace(sessions.open.len());
        drop(sessions);
        self.changed.notify_one();
        entry.destination.visitors().into_iter().for_each(Counter::begin);
        Ok(Session { entry, book: Arc::clone(self) })
    }
}

impl Entry {
    /// What another image knows of it; not what its upkeep has seen, which is the book's.
    pub(crate) fn saved(&self) -> SavedEntry {
        SavedEntry {
            id: self.id,
            peer: SavedPeer::of(&self.peer),
            destination: SavedDestination::of(&self.destination),
            login: self.login.as_deref().map(SavedLogin::of),
            began: self.began.into(),
            asked: self.asked.get().map(ToString::to_string),
            received: self.received(),
            sent: self.sent(),
            is_heard: self.is_heard.load(Ordering::Relaxed),
            last_seen: None,
            calls: self.calls.load(Ordering::Acquire),
        }
    }
}

impl SavedPeer {
    pub(crate) fn of(peer: &Peer) -> Self {
        Self {
            address: peer.address,
            via: peer.via.as_deref().copied(),
            is_unnamed: peer.is_unnamed,
            tls: peer.tls,
            certificate: peer.certificate.as_deref().map(str::to_owned),
        }
    }

    /// Whom nobody has looked at yet: where it has a place among its connections is the door's to say.
    pub(crate) fn resume(self) -> Peer {
        Peer {
            via: self.via.map(Box::new),
            is_unnamed: self.is_unnamed,
            tls: self.tls,
            certificate: self.certificate.map(String::into_boxed_str),
            ..Peer::new(self.address)
        }
    }
}

impl SavedLogin {
    fn of(login: &Login) -> Self {
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let expires = login.expires.map(Into::into);
        Self { user: owned(&login.user), token: owned(&login.token), expires }
    }

    fn resume(&self) -> Login {
        let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
        let expires = self.expires.map(crate::hand_over::Moment::instant);
        Login { user: boxed(&self.user), token: boxed(&self.token), expires }
    }
}

impl SavedDestination {
    fn of(destination: &Destination) -> Self {
        let named = |address: &Address| (address.host.clone(), address.port);
        match destination {
            Destination::Program(_) => Self::Program,
            Destination::Service(Endpoint::Tcp(address)) => {
                let (host, port) = named(address);
                Self::Tcp { host, port }
            }
            Destination::Service(Endpoint::Resolved(address, addresses)) => {
                let ((host, port), addresses) = (named(address), addresses.clone());
                Self::Resolved { host, port, addresses }
            }
            Destination::Service(Endpoint::Unix(path)) => Self::Unix(path.clone()),
            Destination::Service(Endpoint::Opened(socket)) => {
                Self::Opened { shown: socket.shown().to_owned(), path: socket.path().to_owned() }
            }
        }
    }

    /// The same as the directory's, if that has only this.
    pub(crate) fn resume(&self, directory: &Directory) -> Result<Arc<Destination>, Invalid> {
        let endpoint = match self {
            Self::Program => {
                let only =
                    directory.shared().filter(|only| matches!(**only, Destination::Program(_)));
                let none = || Invalid("a session goes to a program, and there is none".to_owned());
                return only.ok_or_else(none);
            }
            Self::Tcp { host, port } => Endpoint::Tcp(Address { host: host.clone(), port: *port }),
            Self::Resolved { host, port, addresses } => {
                Endpoint::Resolved(Address { host: host.clone(), port: *port }, addresses.clone())
            }
            Self::Unix(path) => Endpoint::Unix(path.clone()),
            Self::Opened { shown, path } => {
                Endpoint::Opened(OpenedSocket::used(path.clone(), shown.as_str()))
            }
        };
        let is_same = |only: &Arc<Destination>| matches!(&**only, Destination::Service(other) if *other == endpoint);
        let shared = directory.shared().filter(is_same);
        Ok(shared.unwrap_or_else(|| Arc::new(Destination::Service(endpoint))))
    }
}
