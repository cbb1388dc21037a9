//! Where tokens may lead, as it is typed: `CIDR[:PORTS]`, `NAME[:PORTS]` and `unix:DIR`, with space between
//! them. Looks no name up.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use bridge::{Network, Ports, Rule};

use super::address;
use crate::usage::{UsageError, invalid};

pub(super) fn list(typed: &str) -> Result<Vec<Rule>, UsageError> {
    let rules = typed
        .split_whitespace()
        .map(|word| rule(word).map_err(|expected| invalid("--target-allow", word, expected)));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() {
        return Err(UsageError("there is no place in the value of '--target-allow'".into()));
    }
    Ok(rules)
}

fn rule(word: &str) -> Result<Rule, &'static str> {
    if let Some(directory) = word.strip_prefix("unix:") {
        let directory = std::path::absolute(Path::new(directory));
        return directory.map(Rule::Unix).map_err(|_| "unix:DIR");
    }
    if let Some((address, rest)) = word.split_once('/') {
        let (bits, ports) = parted(rest);
        let network = bare(address).parse().ok().zip(address::whole(bits));
        let network = network.and_then(|(address, bits)| Network::new(address, bits));
        return Ok(Rule::Network(network.ok_or(CIDR)?, self::ports(ports)?));
    }
    if let Some(rest) = word.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(CIDR)?;
        let ports = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(CIDR)?) };
        let address = address.parse().map(IpAddr::V6).map_err(|_| CIDR)?;
        return Ok(Rule::Network(Network::one(address), self::ports(ports)?));
    }
    let (host, ports) = parted(word);
    let ports = self::ports(ports)?;
    match host.parse() {
        Ok(address) => Ok(Rule::Network(Network::one(IpAddr::V4(address)), ports)),
        Err(_) if is_name(host) => Ok(Rule::Name(host.to_owned(), ports)),
        Err(_) => {
            Err("CIDR[:PORTS], NAME[:PORTS] or unix:DIR, an IPv6 address as [::1] or ::1/128")
        }
    }
}

const CIDR: &str = "CIDR[:PORTS], such as 10.0.0.0/8:5900-5999, fd00::/8 or [::1]:80";

fn parted(text: &str) -> (&str, Option<&str>) {
    text.split_once(':').map_or((text, None), |(before, ports)| (before, Some(ports)))
}

fn bare(address: &str) -> &str {
    address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address)
}

/// Whether it is a host name. A name whose last part is a number would be an address.
fn is_name(host: &str) -> bool {
    let is_of_name = |letter: char| letter.is_alphanumeric() || "._-".contains(letter);
    let bare = host.strip_suffix('.').unwrap_or(host);
    let last = bare.rsplit('.').next().unwrap_or_default();
    !last.is_empty()
        && host.chars().all(is_of_name)
        && !last.bytes().all(|digit| digit.is_ascii_digit())
}

fn ports(typed: Option<&str>) -> Result<Ports, &'static str> {
    let ranges = typed.into_iter().flat_map(|typed| typed.split(',')).map(range);
    let ranges = ranges.collect::<Option<_>>();
    ranges
        .map(Ports)
        .ok_or("ports from 1 to 65535 behind the colon, such as 80, 5900-5999 or 80,443")
}

fn range(typed: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = typed.split_once('-').unwrap_or((typed, typed));
    let (first, last) = (address::port(first)?, address::port(last)?);
    (0 < first && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, bits: u32) -> Network {
        Network::new(address.parse().unwrap(), bits).unwrap()
    }

    #[test]
    fn k7_places_as_they_are_typed() {
        let all = Ports::default;
        for (typed, expected) in [
            ("10.0.0.0/8", Rule::Network(network("10.0.0.0", 8), all())),
            ("10.0.0.0/8:5900", Rule::Network(network("10.0.0.0", 8), Ports(vec![5900..=5900]))),
            ("192.0.2.1", Rule::Network(network("192.0.2.1", 32), all())),
            (
                "192.0.2.1:80,90-95",
                Rule::Network(network("192.0.2.1", 32), Ports(vec![80..=80, 90..=95])),
            ),
            ("fd00::/8", Rule::Network(network("fd00::", 8), all())),
            ("[fd00::]/8:80", Rule::Network(network("fd00::", 8), Ports(vec![80..=80]))),
            ("fd00::/8:80", Rule::Network(network("fd00::", 8), Ports(vec![80..=80]))),
            ("[::1]", Rule::Network(network("::1", 128), all())),
            ("[::1]:80", Rule::Network(network("::1", 128), Ports(vec![80..=80]))),
            ("a.example", Rule::Name("a.example".into(), all())),
            ("host-1:1-65535", Rule::Name("host-1".into(), Ports(vec![1..=65535]))),
            ("unix:/run/vnc", Rule::Unix("/run/vnc".into())),
        ] {
            assert_eq!(list(typed), Ok(vec![expected]), "{typed}");
        }
        assert_eq!(list(" 10.0.0.0/8  a unix:/x ").unwrap().len(), 3);
    }

    #[test]
    fn k7_what_is_no_place() {
        for typed in [
            "",
            " ",
            "unix:",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.300",
            "10.0.0.0/x",
            "10.0.0.0/+8",
            "a/8",
            "::1",
            "::1:5900",
            "[::1",
            "[a]:1",
            "[::1]80",
            "a:0",
            "a:x",
            "a:5-4",
            "a:1-70000",
            "a:",
            "a:1,",
            "a b:x",
            "*",
            "*.example",
            "a:b:1",
            "1",
            "a.1",
        ] {
            let UsageError(line) = list(typed).expect_err(typed);
            assert!(line.contains("'--target-allow'"), "{line}");
        }
    }
}
