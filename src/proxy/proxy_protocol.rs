//! The PROXY protocol, versions 1 and 2: what a balancer that passes bytes on says of the client, before the first of them
//! (HAProxy's `proxy-protocol.txt`). A pure function over bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// What stands before the address in version 2: signature, command, family, length.
const FIXED: usize = 16;

/// A header, as far as it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// There must be more of it.
    Incomplete,
    /// It is all there.
    Whole {
        /// How many bytes it has.
        length: usize,
        /// The client's address, IPv4 where it is a mapped one. `None` when the peer speaks for itself (a health check), or
        /// does not say: then the connection's own address counts.
        client: Option<IpAddr>,
    },
}

/// What is no header, and can become none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY protocol header")]
pub struct Malformed;

/// Reads the header that bytes begin with. What is refused is refused as soon as it can be.
///
/// # Errors
/// When they begin with none, or with one that breaks its own rules.
pub fn parse(bytes: &[u8]) -> Result<Preamble, Malformed> {
    if bytes.starts_with(SIGNATURE) {
        binary(bytes)
    } else if bytes.starts_with(WORD) {
        line(bytes)
    } else if SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes) {
        Ok(Preamble::Incomplete)
    } else {
        Err(Malformed)
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443` and a line break.
fn line(bytes: &[u8]) -> Result<Preamble, Malformed> {
    let longest = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = longest.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LONGEST_LINE { Ok(Preamble::Incomplete) } else { Err(Malformed) };
    };
    let text = std::str::from_utf8(&bytes[WORD.len()..end]).map_err(|_| Malformed)?;
    let words: Vec<&str> = text.split(' ').collect();
    let client = match words[..] {
        // Whatever else stands in the line says nothing.
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, from, to] => Some(addresses::<Ipv4Addr>([source, destination], [from, to])?),
        ["TCP6", source, destination, from, to] => Some(addresses::<Ipv6Addr>([source, destination], [from, to])?),
        _ => return Err(Malformed),
    };
    Ok(Preamble::Whole { length: end + 2, client })
}

/// The first of two addresses, when both are addresses, and the ports are ports.
fn addresses<A: std::str::FromStr + Into<IpAddr>>(addresses: [&str; 2], ports: [&str; 2]) -> Result<IpAddr, Malformed> {
    let [source, destination] = addresses.map(str::parse::<A>);
    let is_port = |text: &&str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits && (*text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
    };
    match (source, destination) {
        (Ok(source), Ok(_)) if ports.iter().all(is_port) => Ok(source.into().to_canonical()),
        _ => Err(Malformed),
    }
}

/// Version 2: a fixed part, addresses of a certain length, and then whatever else the peer says, each with type and length.
fn binary(bytes: &[u8]) -> Result<Preamble, Malformed> {
    let fixed = &bytes[SIGNATURE.len()..bytes.len().min(FIXED)];
    let is_local = match fixed.first() {
        Some(0x20) => true,
        Some(0x21) | None => false,
        Some(_) => return Err(Malformed),
    };
    let &[_, family, high, low] = fixed else { return Ok(Preamble::Incomplete) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(Preamble::Incomplete) };
    if is_local {
        return Ok(Preamble::Whole { length, client: None });
    }
    // Streams only: no datagram becomes a connection.
    let (client, after) = match family {
        0x00 => (None, rest),
        0x11 => source::<4, 12>(rest)?,
        0x21 => source::<16, 36>(rest)?,
        0x31 => (None, rest.get(216..).ok_or(Malformed)?),
        _ => return Err(Malformed),
    };
    if has_whole_fields(after) { Ok(Preamble::Whole { length, client }) } else { Err(Malformed) }
}

/// The source, which stands first in a block of addresses and ports, and what follows the block.
fn source<const ADDRESS: usize, const BLOCK: usize>(rest: &[u8]) -> Result<(Option<IpAddr>, &[u8]), Malformed>
where
    [u8; ADDRESS]: Into<IpAddr>,
{
    let (block, after) = rest.split_first_chunk::<BLOCK>().ok_or(Malformed)?;
    let address = block.first_chunk::<ADDRESS>().ok_or(Malformed)?;
    Ok((Some((*address).into().to_canonical()), after))
}

/// Whether the fields behind the addresses end where the header ends. What they say is not needed.
fn has_whole_fields(mut fields: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(after) = rest.get(length..) else { return false };
        fields = after;
    }
    fields.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    #[track_caller]
    fn check(header: &[u8], expected: Result<Option<&str>, Malformed>) {
        let parsed = parse(header);
        let length = header.len();
        let expected =
            expected.map(|client| Preamble::Whole { length, client: client.map(|text| text.parse().unwrap()) });
        assert_eq!(parsed, expected, "{:?}", String::from_utf8_lossy(header));
    }

    #[test]
    fn r46_lines_of_version_1() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Ok(Some("192.0.2.1")));
        check(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Ok(Some("2001:db8::1")));
        check(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 1\r\n", Ok(Some("192.0.2.1")));
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN whatever it says\r\n", Ok(None));
        for wrong in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1  443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.1 1 443\r\n",
            "PROXY TCP4 192.0.2.1 example 1 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 443\r\n",
            "GET / HTTP/1.1\r\n",
            "\x16\x03\x01",
        ] {
            check(wrong.as_bytes(), Err(Malformed));
        }
        check(&[b"PROXY UNKNOWN ", &[b'x'; 91][..], b"\r\n"].concat(), Ok(None));
        check(&[b"PROXY UNKNOWN ", &[b'x'; 92][..], b"\r\n"].concat(), Err(Malformed));
    }

    #[test]
    fn r46_headers_of_version_2() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 1, 187];
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[255, 255, 192, 0, 2, 1]);
        check(&v2(0x21, 0x11, &v4), Ok(Some("192.0.2.1")));
        check(&v2(0x21, 0x21, &mapped), Ok(Some("192.0.2.1")));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(None));
        check(&v2(0x21, 0x00, b""), Ok(None));
        check(&v2(0x20, 0x00, b""), Ok(None));
        check(&v2(0x20, 0x11, &v4), Ok(None));
        check(&v2(0x20, 0xff, b"anything"), Ok(None));
        let fields = |fields: &[u8]| v2(0x21, 0x11, &[&v4[..], fields].concat());
        check(&fields(&[4, 0, 0, 3, 0, 4, 1, 2, 3, 4]), Ok(Some("192.0.2.1")));
        for wrong in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 255, 255, 0], &[4, 0, 0, 0]] {
            check(&fields(wrong), Err(Malformed));
        }
        for (command, family, block) in [
            (0x22, 0x11, &v4[..]),
            (0x11, 0x11, &v4),
            (0x31, 0x11, &v4),
            (0x21, 0x12, &v4),
            (0x21, 0x41, &v4),
            (0x21, 0x11, &v4[..11]),
            (0x21, 0x21, &mapped[..35]),
            (0x21, 0x31, &[0; 215]),
        ] {
            check(&v2(command, family, block), Err(Malformed));
        }
        // The first byte that cannot be right is enough.
        assert_eq!(parse(&v2(0x22, 0x11, &v4)[..13]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn anything_is_answered_and_nothing_beyond_the_end_is_read(
            start in 0..3_usize,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [[&b""[..], &SIGNATURE[..], WORD][start], &bytes].concat();
            if let Ok(Preamble::Whole { length, .. }) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(parse(&bytes[..length]), parse(&bytes));
            }
        }

        #[test]
        fn a_header_is_read_alike_however_it_arrives(
            source in any::<[u8; 4]>(),
            fields in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..5),
            first in any::<bool>(),
        ) {
            let address = Ipv4Addr::from(source);
            let mut block = [&source[..], &[0; 8]].concat();
            for (kind, value) in &fields {
                block.extend([*kind, 0, u8::try_from(value.len()).unwrap()]);
                block.extend(value);
            }
            let header =
                if first { format!("PROXY TCP4 {address} 0.0.0.0 1 2\r\n").into_bytes() } else { v2(0x21, 0x11, &block) };
            for end in 0..header.len() {
                prop_assert_eq!(parse(&header[..end]), Ok(Preamble::Incomplete));
            }
            let whole = Ok(Preamble::Whole { length: header.len(), client: Some(address.into()) });
            prop_assert_eq!(parse(&header), whole);
            prop_assert_eq!(parse(&[&header[..], b"GET / HTTP/1.1\r\n"].concat()), whole);
        }
    }
}
