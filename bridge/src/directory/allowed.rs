//! Where tokens may lead (K7). A name is looked up first: the session connects to the very addresses that were checked. Knows no
//! token.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::failure::NoDestination;
use crate::destination::{Address, Endpoint, OpenedSocket};
use crate::error_text::error_text;
use crate::net::Lookups;
use crate::network::Network;
use crate::opened::{Opened, real_path};

/// How many look-ups a file system that hangs may hold up at a time. The runtime has 512 threads for all
/// that blocks.
const AT_ONCE: usize = 16;

/// The targets to which tokens may lead; what no rule allows is refused.
#[derive(Debug, Clone)]
pub struct Allowed {
    rules: Vec<Rule>,
    permits: Arc<Semaphore>,
}

/// A rule that allows some targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Addresses, whichever name has them.
    Network(Network, Ports),
    /// A name, whatever its addresses are.
    Name(String, Ports),
    /// The sockets below a directory.
    Unix(PathBuf),
}

/// Ranges of ports; empty: all ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ports(pub Vec<RangeInclusive<u16>>);

impl Allowed {
    /// The targets that these rules allow.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The endpoint to connect to, if that is allowed: with those of its addresses that are.
    pub(super) async fn check(
        &self,
        endpoint: Endpoint,
        lookups: &Lookups,
    ) -> Result<Endpoint, NoDestination> {
        match endpoint {
            Endpoint::Tcp(address) if self.rules.iter().any(|rule| rule.has_name(&address)) => {
                Ok(Endpoint::Tcp(address))
            }
            Endpoint::Tcp(address) => {
                let found = lookups.resolve(&address.host, address.port).await;
                let mut found = match found {
                    Ok(found) => found,
                    Err(why) => return Err(NoDestination::Unresolved(Endpoint::Tcp(address), why)),
                };
                found.retain(|found| self.rules.iter().any(|rule| rule.has_address(*found)));
                if found.is_empty() {
                    return Err(NoDestination::NotAllowed(Endpoint::Tcp(address)));
                }
                Ok(Endpoint::Resolved(address, found))
            }
            Endpoint::Unix(path) => match self.open(path.clone()).await {
                Ok(Some(socket)) => Ok(Endpoint::Opened(socket)),
                Ok(None) => Err(NoDestination::NotAllowed(Endpoint::Unix(path))),
                Err(why) => Err(NoDestination::Unresolved(Endpoint::Unix(path), error_text(&why))),
            },
            Endpoint::Opened(socket) => {
                let (directories, path) = (self.directories(), socket.path().to_owned());
                match self.blocking(move || Ok(is_below_any(&path, &directories))).await {
                    Ok(true) => Ok(Endpoint::Opened(socket)),
                    _ => Err(NoDestination::NotAllowed(Endpoint::Opened(socket))),
                }
            }
            Endpoint::Resolved(..) => Err(NoDestination::NotAllowed(endpoint)),
        }
    }

    /// Opens what a path leads to, if that is allowed. The session connects to this very socket, even if another replaces it at
    /// that path meanwhile.
    async fn open(&self, path: PathBuf) -> io::Result<Option<OpenedSocket>> {
        let directories = self.directories();
        self.blocking(move || {
            let opened = Opened::open(&path)?;
            let is_allowed = is_below_any(opened.path(), &directories);
            Ok(is_allowed.then(|| OpenedSocket::new(opened, path.to_string_lossy())))
        })
        .await
    }

    fn directories(&self) -> Vec<PathBuf> {
        let directories = self.rules.iter().filter_map(|rule| match rule {
            Rule::Unix(directory) => Some(directory.clone()),
            Rule::Network(..) | Rule::Name(..) => None,
        });
        directories.collect()
    }

    /// Looks at the file system, which may take long, in a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let found = spawn_blocking(move || {
            // Held until the file system answers, whether the client still waits or not.
            let _permit = permit;
            look()
        });
        found.await.unwrap_or_else(|failure| Err(failure.into()))
    }
}

/// Whether `path`, which has no links in it, is below one of these directories once their links are resolved.
fn is_below_any(path: &Path, directories: &[PathBuf]) -> bool {
    let is_below =
        |directory: &PathBuf| real_path(directory).is_ok_and(|real| path.starts_with(real));
    directories.iter().any(is_below)
}

impl Rule {
    fn has_name(&self, address: &Address) -> bool {
        let Self::Name(name, ports) = self else { return false };
        let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_lowercase();
        bare(name) == bare(&address.host) && ports.have(address.port)
    }

    fn has_address(&self, address: SocketAddr) -> bool {
        let Self::Network(network, ports) = self else { return false };
        network.has(address.ip()) && ports.have(address.port())
    }
}

impl Ports {
    fn have(&self, port: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn network(address: &str, bits: u32) -> Network {
        Network::new(address.parse().unwrap(), bits).unwrap()
    }

    async fn checked(rules: Vec<Rule>, host: &str, port: u16) -> Result<Endpoint, NoDestination> {
        let endpoint = Endpoint::Tcp(Address { host: host.into(), port });
        Allowed::new(rules).check(endpoint, &Lookups::new()).await
    }

    #[tokio::test]
    async fn k7_those_addresses_are_connected_to_that_were_checked() {
        let loopback = Rule::Network(network("127.0.0.0", 8), Ports(vec![80..=90, 5900..=5900]));
        let rules =
            || vec![loopback.clone(), Rule::Name("Host.Example".into(), Ports(vec![1..=1]))];
        for (host, port) in [("127.0.0.1", 80), ("localhost", 90), ("localhost", 5900)] {
            match checked(rules(), host, port).await {
                Ok(Endpoint::Resolved(address, found)) => {
                    assert_eq!((&*address.host, address.port), (host, port));
                    assert!(
                        !found.is_empty() && found.iter().all(SocketAddr::is_ipv4),
                        "{found:?}"
                    );
                }
                other => panic!("{host}:{port}: {other:?}"),
            }
        }
        assert!(matches!(checked(rules(), "host.example.", 1).await, Ok(Endpoint::Tcp(_))));
        for (host, port) in [("127.0.0.1", 79), ("192.0.2.1", 80), ("::1", 80), ("0.0.0.0", 80)] {
            let refused = checked(rules(), host, port).await;
            assert!(matches!(refused, Err(NoDestination::NotAllowed(_))), "{host}: {refused:?}");
        }
        let unknown = checked(rules(), "no name has spaces", 80).await;
        assert!(matches!(unknown, Err(NoDestination::Unresolved(..))), "{unknown:?}");
    }

    #[tokio::test]
    async fn k7_a_socket_is_where_its_links_lead() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("in")).unwrap();
        std::fs::create_dir(at("inside")).unwrap();
        for name in ["in/socket", "inside/socket"] {
            drop(UnixListener::bind(at(name)).unwrap());
        }
        std::os::unix::fs::symlink(at("inside/socket"), at("in/link")).unwrap();
        let check = async |name: &str| {
            let allowed = Allowed::new(vec![Rule::Unix(at("in"))]);
            allowed.check(Endpoint::Unix(at(name)), &Lookups::new()).await
        };
        assert!(matches!(check("in/socket").await, Ok(Endpoint::Opened(_))));
        assert!(matches!(check("in/../in/socket").await, Ok(Endpoint::Opened(_))));
        for name in ["inside/socket", "in/link", "in/../inside/socket"] {
            let refused = check(name).await;
            assert!(matches!(refused, Err(NoDestination::NotAllowed(_))), "{name}: {refused:?}");
        }
        assert!(matches!(check("in/none").await, Err(NoDestination::Unresolved(..))));
        let network = Allowed::new(vec![Rule::Network(network("::", 0), Ports::default())]);
        let refused = network.check(Endpoint::Unix(at("in/socket")), &Lookups::new()).await;
        assert!(matches!(refused, Err(NoDestination::NotAllowed(_))));
    }
}
