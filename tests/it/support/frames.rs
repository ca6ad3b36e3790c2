//! HTTP/2 as bytes: frames that a well-behaved client never sends.

use std::io;
use std::net::SocketAddr;

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
    let text = |text: &str| {
        assert!(text.len() < 127);
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// One end of a connection.
pub(crate) struct Frames {
    client: Client,
}

impl Frames {
    /// Connects, and begins as a client does. `settings` are pairs of number and value.
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut client = Client::connect(address);
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        client.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat());
        Self { client }
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
