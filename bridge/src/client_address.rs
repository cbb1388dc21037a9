//! What a target sees of its client (A1): the address that we connect from, and the PROXY header that we send first.
//!
//! - `addresses` gives each client an IPv4 address of its own,
//! - `table` tells `rebind.so` which connection is whose, by rows; `row` is the form of a row, which both sides know,
//! - `kernel` says which rows' connections a program can still meet, that is, can still accept or has open; `given_up`
//!   has the rows for which that takes longer.
//!
//! Knows who a client is and how it is to be shown; must not know what a session carries.

mod addresses;
mod given_up;
mod kernel;
#[path = "../../rebind/src/row.rs"]
#[allow(dead_code, reason = "rebind.so reads")]
mod row;
mod table;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::net::{Socket, connect, connect_from};
use crate::peer::{Peer, PeerAddress};
use crate::proxy_header::{self, ProxyVersion};
use addresses::{Addresses, Block};
use row::{Row, V6_ONLY};
pub(crate) use table::RowGuard;
pub use table::{ClientTable, ClientTableState};

/// What targets see of clients.
#[derive(Debug, Clone, Default)]
pub struct ClientAddress {
    /// How clients are shown.
    pub shown: ShownAs,
    /// The table that tells the wrapped program more about its connections than the kernel does, where that is wanted:
    /// which client each is from ([`ShownAs::Socket`]), or that we have made it.
    pub table: Option<Arc<ClientTable>>,
}

/// How a client is shown to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShownAs {
    /// As us.
    #[default]
    Hidden,
    /// As an address in 127/8 that no other client has.
    Loopback,
    /// As itself, with its own address: in the wrapped program only.
    Socket,
    /// As us, with a PROXY header that says who the client is.
    Proxy(ProxyVersion),
}

/// How the targets of one bridge are connected to.
#[derive(Debug)]
pub(crate) struct TargetConnector {
    client_address: ClientAddress,
    loopback: Addresses,
    reserved: Addresses,
    /// Whether the log has the warning that a target cannot see its clients' addresses.
    is_vain_named: AtomicBool,
}

/// How a target is connected to for one client.
pub(crate) struct Way<'a> {
    approach: &'a TargetConnector,
    client: PeerAddress,
    /// Whether a proxy has not named the client, so that `client` is the proxy's address.
    is_unnamed: bool,
    /// Its session's number, for the log.
    session: u64,
}

impl TargetConnector {
    pub(crate) fn new(client_address: ClientAddress) -> Self {
        Self {
            client_address,
            loopback: Addresses::from(Block::Loopback),
            reserved: Addresses::from(Block::Reserved),
            is_vain_named: AtomicBool::new(false),
        }
    }

    /// For this client, in the session with this number.
    pub(crate) fn way(&self, client: &Peer, session: u64) -> Way<'_> {
        let Peer { address: client, is_unnamed, .. } = *client;
        Way { approach: self, client, is_unnamed, session }
    }
}

impl Way<'_> {
    /// What the row with this number says of this client.
    fn row(&self, row: u16) -> Row {
        let TargetConnector { client_address, loopback, reserved, .. } = self.approach;
        let as_v4 = |ip: Ipv4Addr, port| Row {
            v6: ip.to_ipv6_mapped().octets(),
            scope: 0,
            v4: ip.octets(),
            port,
        };
        match (client_address.shown, self.client) {
            (ShownAs::Hidden | ShownAs::Proxy(_), _) => as_v4(Ipv4Addr::LOCALHOST, row),
            (ShownAs::Loopback, client) => as_v4(loopback.of(client.client()), row),
            // An unnamed client is not shown with its proxy's address: that is 127.0.0.1 as a rule, which the program may trust.
            (ShownAs::Socket, PeerAddress::Internet(address)) if !self.is_unnamed => {
                // The proxy may not have named the client's port. Then it is the row's number, so that no two
                // connections are shown alike.
                let port = if address.port() == 0 { row } else { address.port() };
                match address {
                    SocketAddr::V4(v4) => as_v4(*v4.ip(), port),
                    SocketAddr::V6(v6) => Row {
                        v6: v6.ip().octets(),
                        scope: v6.scope_id(),
                        v4: reserved.of(self.client.client()).octets(),
                        port,
                    },
                }
            }
            (ShownAs::Socket, client) => as_v4(reserved.of(client.client()), row),
        }
    }

    /// Connects to an address of a service.
    pub(crate) async fn to_service(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match self.approach.client_address.shown {
            ShownAs::Loopback => self.connect_as_own_address(to).await,
            _ => connect(to).await,
        }
    }

    /// The order in which the addresses of a service are to be tried; none: in theirs. If clients are shown by loopback
    /// addresses and all of these are loopback, IPv4 goes before IPv6, as only IPv4 has an address of its own for each client.
    pub(crate) fn order(&self, addrs: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
        let is_wanted = self.approach.client_address.shown == ShownAs::Loopback
            && addrs.iter().all(|addr| addr.ip().to_canonical().is_loopback());
        is_wanted.then(|| {
            let mut addrs = addrs.to_vec();
            addrs.sort_by_key(|addr| addr.ip().to_canonical().is_ipv6());
            addrs
        })
    }

    /// Connects to the wrapped program, which listens at `to`.
    pub(crate) async fn to_program(
        &self,
        to: SocketAddr,
    ) -> io::Result<(TcpStream, Option<RowGuard>)> {
        let ClientAddress { shown, table } = &self.approach.client_address;
        match (table, shown) {
            (Some(table), _) => {
                let (stream, taken) = Box::pin(self.connect_by_row(table, to)).await?;
                Ok((stream, Some(taken)))
            }
            (None, ShownAs::Loopback) => Ok((self.connect_as_own_address(to).await?, None)),
            (None, _) => Ok((connect(to).await?, None)),
        }
    }

    /// Whether a PROXY header goes ahead of what the client sends.
    pub(crate) fn introduces(&self) -> bool {
        matches!(self.approach.client_address.shown, ShownAs::Proxy(_))
    }

    /// Sends the PROXY header, if there is to be one. `us` is our address on the client's connection.
    pub(crate) async fn introduce(
        &self,
        socket: &mut Socket,
        us: Option<SocketAddr>,
    ) -> io::Result<()> {
        let ShownAs::Proxy(version) = self.approach.client_address.shown else { return Ok(()) };
        // A client that its proxy has not named must not be shown as the proxy. Its header says that the client is not
        // known (proxy-protocol.txt, section 2.1, UNKNOWN, and section 2.2, UNSPEC, which a receiver may reject; LOCAL
        // would mean a connection of our own).
        let client = match self.client {
            PeerAddress::Internet(address) if !self.is_unnamed => Some(address),
            PeerAddress::Internet(_) | PeerAddress::Unix { .. } => None,
        };
        socket.write_all(&proxy_header::header(version, client, us)).await
    }

    /// Connects from the client's own loopback address, if the target can see that, and else as we are.
    async fn connect_as_own_address(&self, to: SocketAddr) -> io::Result<TcpStream> {
        match to.ip().to_canonical() {
            IpAddr::V4(ip) if is_of_this_machine(ip) => {
                let own = self.approach.loopback.of(self.client.client());
                connect_from(own, SocketAddrV4::new(ip, to.port())).await
            }
            _ => {
                self.say_in_vain(&to);
                connect(to).await
            }
        }
    }

    /// Warns once that a target cannot see its clients' own loopback addresses, if clients are to be shown by these.
    pub(crate) fn say_in_vain(&self, to: &dyn fmt::Display) {
        let TargetConnector { client_address, is_vain_named, .. } = self.approach;
        if client_address.shown == ShownAs::Loopback && !is_vain_named.swap(true, Ordering::Relaxed)
        {
            warn!(
                "target {to} is at no IPv4 address of this machine: it cannot tell clients apart by their addresses"
            );
        }
    }

    async fn connect_by_row(
        &self,
        table: &Arc<ClientTable>,
        to: SocketAddr,
    ) -> io::Result<(TcpStream, RowGuard)> {
        let client = self.client;
        let port = to.port();
        let IpAddr::V4(known) = to.ip().to_canonical() else {
            return Err(io::Error::other("no client can be told from another there"));
        };
        // The program may have two listeners, one for IPv4 and one for IPv6. The one of the client's family is tried
        // first: it can be shown this client's own address.
        let is_v6 = matches!(client, PeerAddress::Internet(SocketAddr::V6(_)));
        let better = if is_v6 { V6_ONLY } else { Ipv4Addr::LOCALHOST };
        let is_doubtful = !self.is_unnamed && (is_v6 || known == V6_ONLY);
        if self.approach.client_address.shown == ShownAs::Socket && is_doubtful && better != known {
            let better = SocketAddrV4::new(better, port);
            match table.connect(better, |row| self.row(row)).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                connected => return connected,
            }
        }
        let connected = table.connect(SocketAddrV4::new(known, port), |row| self.row(row));
        let connected = connected.await?;
        if known != V6_ONLY || self.is_unnamed {
            self.say_substitute();
        }
        Ok(connected)
    }

    /// Logs the address that a client is shown with, if that is not its own: the client is not named by its proxy, or
    /// comes from a Unix socket, or has an IPv6 address and the program's socket is IPv4.
    fn say_substitute(&self) {
        let case = match self.client {
            _ if self.approach.client_address.shown != ShownAs::Socket => return,
            _ if self.is_unnamed => "its proxy names nobody, ",
            PeerAddress::Internet(SocketAddr::V4(_)) => return,
            _ => "where the program's socket is IPv4, ",
        };
        let (session, client) = (self.session, self.client.client());
        let shown = self.approach.reserved.of(client);
        info!(
            session,
            %client,
            %shown,
            "session {session}: {case}{client} is shown as {shown}"
        );
    }
}

/// Whether this is an address of this machine: only to such an address does the kernel connect from the very same address.
fn is_of_this_machine(ip: Ipv4Addr) -> bool {
    let source = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // connect(2) of a UDP socket sends nothing.
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    ip.is_loopback() || source().is_ok_and(|source: SocketAddr| source.ip() == ip)
}
