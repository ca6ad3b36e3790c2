//! Who is calling: the client's address behind trusted proxies, and the networks a key may be used from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnetwork::IpNetwork;

/// The de-facto forwarding header.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A list of networks, each in the form its addresses are compared in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Networks(Box<[IpNetwork]>);

/// Why a text is no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no address and no network; write 192.0.2.7, 192.0.2.0/24, 2001:db8::7 or 2001:db8::/32")]
pub struct NotANetwork(String);

impl Networks {
    /// Reads addresses and networks in CIDR form. IPv4-mapped IPv6 ones become IPv4: that is what they are compared as.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, NotANetwork> {
        texts.into_iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// No networks at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads one address or network.
fn network(text: &str) -> Result<IpNetwork, NotANetwork> {
    let wrong = || NotANetwork(text.to_owned());
    match text.parse().map_err(|_| wrong())? {
        IpNetwork::V6(v6) if v6.prefix() >= 96 => match v6.ip().to_canonical() {
            IpAddr::V4(v4) => IpNetwork::new(IpAddr::V4(v4), v6.prefix() - 96).map_err(|_| wrong()),
            IpAddr::V6(_) => Ok(IpNetwork::V6(v6)),
        },
        network => Ok(network),
    }
}

/// The client's address, or `None` when trusted proxies do not agree or do not say who it is: then no allowlist has it.
///
/// The forwarding headers of a peer that is not trusted say nothing. Those of a trusted one are walked from the right,
/// past every trusted hop, to the first address that is none: what stands left of it is the client's own claim.
/// With `Forwarded` (RFC 7239) and `X-Forwarded-For` both present, the proxy may have written only one of them and passed
/// the other on from the client, so both must name the same address.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !trusted.contains(peer) {
        return Some(peer);
    }
    let listed = |name| (headers.contains_key(&name)).then(|| walk(peer, hops(headers, &name), trusted));
    match (listed(X_FORWARDED_FOR), listed(FORWARDED)) {
        (None, None) => Some(peer),
        (Some(address), None) | (None, Some(address)) => address,
        (Some(a), Some(b)) => a.filter(|_| a == b),
    }
}

/// Whom trusted proxies vouch for behind a peer that is one: the client, and the proxies between it and the peer. `None` is
/// a hop that has no readable address: nobody knows what stands left of it, nor what stands left of the client.
pub fn vouched_for(headers: &HeaderMap, trusted: &Networks) -> Vec<Option<IpAddr>> {
    let name = if headers.contains_key(X_FORWARDED_FOR) { X_FORWARDED_FOR } else { FORWARDED };
    let mut hops = hops(headers, &name);
    let is_proxy = |hop: &Option<IpAddr>| hop.is_some_and(|address| trusted.contains(address));
    let first = hops.iter().rposition(|hop| !is_proxy(hop)).unwrap_or_default();
    hops.split_off(first)
}

/// A place for an address, or for none, that is read by others than those who write it: each half is true by itself, so it is
/// for one thread.
#[derive(Default)]
pub struct AddressCell([AtomicU64; 2]);

impl AddressCell {
    /// Puts an address into its place, or none.
    pub fn set(&self, address: Option<IpAddr>) {
        let bits = match address {
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
            Some(IpAddr::V6(v6)) => v6.to_bits(),
            // Nobody comes from `::`.
            None => 0,
        };
        for (cell, shift) in self.0.iter().zip([64, 0]) {
            cell.store((bits >> shift & u128::from(u64::MAX)) as u64, Relaxed);
        }
    }

    /// What is in it.
    pub fn get(&self) -> Option<IpAddr> {
        let bits = self.0.iter().fold(0, |bits, cell| bits << 64 | u128::from(cell.load(Relaxed)));
        (bits != 0).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical())
    }
}

/// Every hop that a forwarding header lists, over all its lines; `None` for one without a readable address.
fn hops(headers: &HeaderMap, name: &HeaderName) -> Vec<Option<IpAddr>> {
    let in_forwarded = name == FORWARDED;
    let text = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("unreadable"));
    let items = text.flat_map(|line| line.split(',')).map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| if in_forwarded { forwarded_for(item).and_then(host) } else { host(item) }).collect()
}

fn walk(peer: IpAddr, hops: Vec<Option<IpAddr>>, trusted: &Networks) -> Option<IpAddr> {
    let mut last = peer;
    for hop in hops.into_iter().rev() {
        last = hop?;
        if !trusted.contains(last) {
            return Some(last);
        }
    }
    Some(last)
}

/// The value of `for=` in one element of `Forwarded`, without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    Some(value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
}

/// An address with or without port, IPv6 with or without brackets.
fn host(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_addresses_of_both_families() {
        for (networks, address, inside) in [
            (&["1.2.3.4"][..], "1.2.3.4", true),
            (&["1.2.3.4"], "1.2.3.5", false),
            (&["1.2.3.4"], "::ffff:1.2.3.4", true),
            (&["::ffff:1.2.3.4"], "1.2.3.4", true),
            (&["::ffff:1.2.3.0/120"], "1.2.3.99", true),
            (&["::ffff:0:0/96"], "9.9.9.9", true),
            (&["::/0"], "9.9.9.9", false),
            (&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1", true),
            (&["10.0.0.0/8", "2001:db8::/32"], "10.255.0.1", true),
            (&["10.0.0.0/8"], "11.0.0.1", false),
            (&["10.1.2.3/8"], "10.9.9.9", true),
            (&[], "1.2.3.4", false),
        ] {
            let parsed = Networks::parse(networks.iter().copied()).unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{networks:?} {address}");
        }
    }

    #[test]
    fn v29_what_is_no_address_is_refused() {
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4/33",
            "1.2.3.4/",
            "example.com",
            "1.2.3.4 ",
            "2001:db8::/129",
            "fe80::1%eth0",
        ] {
            assert_eq!(Networks::parse([text]), Err(NotANetwork(text.to_owned())));
        }
    }

    #[track_caller]
    fn check(peer: &str, lines: &[(HeaderName, &str)], expected: Option<&str>) {
        let trusted = Networks::parse(["10.0.0.0/8", "::1"]).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().unwrap());
        }
        let address = client_address(peer.parse().unwrap(), &headers, &trusted);
        assert_eq!(address, expected.map(|a| a.parse().unwrap()), "{peer} {lines:?}");
    }

    #[test]
    fn only_trusted_hops_are_believed_from_the_right() {
        const XFF: HeaderName = X_FORWARDED_FOR;
        check("7.7.7.7", &[], Some("7.7.7.7"));
        check("7.7.7.7", &[(XFF, "1.1.1.1")], Some("7.7.7.7"));
        check("::ffff:10.0.0.1", &[(XFF, "1.1.1.1")], Some("1.1.1.1"));
        check("10.0.0.1", &[], Some("10.0.0.1"));
        check("10.0.0.1", &[(XFF, "9.9.9.9, 1.1.1.1, 10.2.2.2")], Some("1.1.1.1"));
        check("10.0.0.1", &[(XFF, "9.9.9.9"), (XFF, "1.1.1.1")], Some("1.1.1.1"));
        check("10.0.0.1", &[(XFF, "10.3.3.3, 10.2.2.2")], Some("10.3.3.3"));
        check("10.0.0.1", &[(XFF, "1.1.1.1:8080")], Some("1.1.1.1"));
        check("10.0.0.1", &[(XFF, "[2001:db8::1]:80")], Some("2001:db8::1"));
        check("10.0.0.1", &[(XFF, "1.1.1.1, unknown")], None);
        check("10.0.0.1", &[(XFF, "1.1.1.1, ::ffff:2.2.2.2")], Some("2.2.2.2"));
        check("10.0.0.1", &[(FORWARDED, "for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https")], Some("2001:db8::1"));
        check("10.0.0.1", &[(FORWARDED, "For=1.1.1.1;by=10.0.0.1")], Some("1.1.1.1"));
        check("10.0.0.1", &[(FORWARDED, "for=_hidden")], None);
        check("10.0.0.1", &[(FORWARDED, "proto=https")], None);
        check("10.0.0.1", &[(XFF, "1.1.1.1"), (FORWARDED, "for=1.1.1.1")], Some("1.1.1.1"));
        check("10.0.0.1", &[(XFF, "1.1.1.1"), (FORWARDED, "for=10.9.9.9")], None);
    }

    #[test]
    fn what_stands_left_of_the_client_is_vouched_for_by_nobody() {
        const XFF: HeaderName = X_FORWARDED_FOR;
        for (lines, vouched) in [
            (&[][..], &[][..]),
            (&[(XFF, "1.1.1.1")], &["1.1.1.1"]),
            (&[(XFF, "9.9.9.9, 1.1.1.1")], &["1.1.1.1"]),
            (&[(XFF, "10.9.9.9, 1.1.1.1, 10.2.2.2")], &["1.1.1.1", "10.2.2.2"]),
            (&[(XFF, "9.9.9.9, 1.1.1.1:80"), (XFF, "10.3.3.3, ::ffff:10.2.2.2")], &["1.1.1.1", "10.3.3.3", "10.2.2.2"]),
            (&[(XFF, "10.3.3.3, 10.2.2.2")], &["10.3.3.3", "10.2.2.2"]),
            (&[(XFF, "1.1.1.1, unknown, 10.2.2.2")], &["unknown", "10.2.2.2"]),
            (&[(XFF, "1.1.1.1, <x>")], &["unknown"]),
            (&[(XFF, " , ,")], &[]),
            (&[(FORWARDED, "for=9.9.9.9, for=\"[2001:db8::1]:1\", for=10.2.2.2")], &["2001:db8::1", "10.2.2.2"]),
            (&[(FORWARDED, "for=9.9.9.9"), (XFF, "1.1.1.1")], &["1.1.1.1"]),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, value.parse().unwrap());
            }
            let trusted = Networks::parse(["10.0.0.0/8", "::1"]).unwrap();
            let said = |hop: Option<IpAddr>| hop.map_or("unknown".to_owned(), |address| address.to_string());
            let hops: Vec<String> = vouched_for(&headers, &trusted).into_iter().map(said).collect();
            assert_eq!(hops, vouched, "{headers:?}");
        }
    }

    #[test]
    fn a_cell_holds_an_address_or_none() {
        let cell = AddressCell::default();
        assert_eq!(cell.get(), None);
        for text in ["1.2.3.4", "::1", "2001:db8::5:6:7", "255.255.255.255", "0.0.0.0"] {
            let address = Some(text.parse().unwrap());
            cell.set(address);
            assert_eq!(cell.get(), address);
        }
        cell.set(None);
        assert_eq!(cell.get(), None);
    }
}
