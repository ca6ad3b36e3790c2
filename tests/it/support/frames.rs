//! HTTP/2 as bytes: frames that a well-behaved client never sends.

use std::io;
use std::net::{SocketAddr, TcpStream};

use super::Client;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, each as it is: no table, no Huffman code.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [length(text.len()), text.as_bytes().to_vec()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A length as HPACK has it (RFC 7541 section 5.1), in seven bits or more.
fn length(length: usize) -> Vec<u8> {
    let Some(mut rest) = length.checked_sub(127) else { return vec![u8::try_from(length).unwrap()] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A block in as many frames as it takes.
pub(crate) fn head(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(16 << 10).peekable();
    let mut frames = frame(HEADERS, flags & END_STREAM, stream, parts.next().unwrap_or_default());
    if parts.peek().is_none() {
        frames[4] |= END_HEADERS;
    }
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frames.extend(frame(CONTINUATION, last, stream, part));
    }
    frames
}

/// The status in the first block of an answer on a connection: an entry of the table, or three digits.
pub(crate) fn status(block: &[u8]) -> u16 {
    match block {
        // The table has another size from here.
        [0x20..=0x3e, rest @ ..] => status(rest),
        [entry @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(entry - 0x88)],
        [0x08 | 0x18 | 0x48, size, rest @ ..] if size & 0x80 == 0 => digits(&rest[..usize::from(*size)]),
        [0x08 | 0x18 | 0x48, size, rest @ ..] => digits(&unfolded(&rest[..usize::from(size & 0x7f)])),
        _ => panic!("no status is the first of {block:?}"),
    }
}

fn digits(text: &[u8]) -> u16 {
    String::from_utf8_lossy(text).parse().expect("a status is a number")
}

/// Three digits in Huffman's code (RFC 7541 appendix B): 0 to 2 take five bits, the others six.
fn unfolded(code: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let (mut at, mut digits) = (0, Vec::new());
    while digits.len() < 3 {
        let short = number(&bits[at..at + 5]);
        let (digit, size) = if short < 3 { (short, 5) } else { (number(&bits[at..at + 6]) - 0b01_1001 + 3, 6) };
        digits.push(b'0' + digit);
        at += size;
    }
    digits
}

/// One end of a connection.
pub(crate) struct Frames {
    client: Client,
}

/// What a client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frames {
    /// Connects, and says nothing.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        Self { client: Client::connect(address) }
    }

    /// A connection that was made already, on which nothing has been said.
    pub(crate) fn over(socket: TcpStream) -> Self {
        Self { client: Client::over(socket) }
    }

    /// Connects, and begins as a client does. `settings` are pairs of number and value.
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::silent(address);
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        frames.client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat());
        frames
    }

    /// The server's end: what a client begins with has been read, and settings have been said.
    pub(crate) fn accept(socket: TcpStream) -> Option<Self> {
        let mut frames = Self::over(socket);
        frames.client.wire().exactly(PREFACE.len()).ok().filter(|bytes| bytes == PREFACE)?;
        frames.send(&frame(SETTINGS, 0, 0, &[])).ok()?;
        Some(frames)
    }

    /// Sends exact bytes; the other end may have closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.client.wire().send(bytes)
    }

    /// The next frame; `None` when there are no more. Settings are acknowledged and pings answered on the way.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let head = self.client.wire().exactly(9).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.client.wire().exactly(length as usize).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame_in = Frame { kind: head[3], flags: head[4], stream, payload };
        if matches!(frame_in.kind, SETTINGS | PING) && frame_in.flags & ACK == 0 {
            let payload = if frame_in.kind == PING { &frame_in.payload[..] } else { &[] };
            let _ = self.send(&frame(frame_in.kind, ACK, 0, payload));
        }
        Some(frame_in)
    }

    /// The first frame that fits; `None` if the connection ends without one.
    pub(crate) fn find(&mut self, fits: impl Fn(&Frame) -> bool) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(fits)
    }
}
