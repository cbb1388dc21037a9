//! Which clients may connect, and which proxies may name the client of a connection, as it is typed: blocks of
//! addresses. Looks no name up.

use bridge::{ClientNaming, Network, Networks, Proxies};

use super::address;
use crate::cli::Args;
use crate::usage::{UsageError, invalid, needs};

/// Who may connect, and which proxies may name the client.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) proxies: Proxies,
    /// None: everybody.
    pub(crate) allowed: Option<Networks>,
    pub(crate) connections_per_client: Option<usize>,
}

impl Clients {
    pub(super) fn new(args: &Args) -> Result<Self, UsageError> {
        let trusted = args.trusted_proxy.as_deref();
        let trusted = trusted.map(|typed| networks("--trusted-proxy", typed)).transpose()?;
        let word = match args.proxy_protocol {
            true if trusted.is_none() => return Err(needs("--proxy-protocol", "--trusted-proxy")),
            true => ClientNaming::ProxyHeader,
            false => ClientNaming::Headers,
        };
        let allowed = args.allow_from.as_deref();
        let most = args.max_connections_per_client.as_deref();
        Ok(Self {
            proxies: Proxies { trusted: trusted.unwrap_or_default(), word },
            allowed: allowed.map(|typed| networks("--allow-from", typed)).transpose()?,
            connections_per_client: most
                .map(|typed| super::number("--max-connections-per-client", typed))
                .transpose()?,
        })
    }
}

fn networks(option: &str, typed: &str) -> Result<Networks, UsageError> {
    let mut networks = Networks::default();
    for word in typed.split_whitespace() {
        match word {
            "unix" => networks.unix = true,
            _ => networks.blocks.push(network(word).ok_or_else(|| invalid(option, word, PLACE))?),
        }
    }
    if networks == Networks::default() {
        return Err(UsageError(format!("there is no address in the value of '{option}'")));
    }
    Ok(networks)
}

const PLACE: &str = "an address, a CIDR such as 10.0.0.0/8 or fd00::/8, or unix";

fn network(word: &str) -> Option<Network> {
    match word.split_once('/') {
        Some((address, bits)) => Network::new(address.parse().ok()?, address::whole(bits)?),
        None => word.parse().ok().map(Network::one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a3_a4_addresses_as_they_are_typed() {
        let network = |address: &str, bits| Network::new(address.parse().unwrap(), bits).unwrap();
        let blocks = vec![
            network("10.0.0.0", 8),
            network("192.0.2.1", 32),
            network("fd00::", 8),
            network("::1", 128),
        ];
        let typed = networks("--x", " 10.0.0.0/8 192.0.2.1  fd00::/8 ::1 unix");
        assert_eq!(typed, Ok(Networks { blocks, unix: true }));
        for typed in [
            "",
            " ",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "a.example",
            "[::1]",
            "10.0.0.1:80",
            "unix:/run",
            "UNIX",
            "*",
            "10.0.0.1,10.0.0.2",
            "fe80::1%eth0",
        ] {
            let UsageError(line) = networks("--x", typed).expect_err(typed);
            assert!(line.contains("'--x'"), "{line}");
        }
    }
}
