//! Looks at the bytes of a client's requests on their way to hyper, for what its parser does not tell those who serve them.
//!
//! Of a target with a fragment it drops the fragment, of a `Content-Length` beside a `Transfer-Encoding` the length, of two
//! equal lengths one: each of them a request that another server may read otherwise (reliability catalogue 6, 48, 49). All
//! else that it accepts (lone line feeds, empty lines before a request, which RFC 9112 section 2.2 allows) is framed anew.
//!
//! To know where heads begin, the guard follows the framing. It cannot come to other ends than hyper: it goes on only
//! behind heads with one plain length, exactly `chunked`, or neither, which leave nothing to read differently, and in
//! chunks it looks for the very bytes without which hyper gives the connection up. Should the two ever differ, requests
//! come that the guard has not counted, and those are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memchr::{memchr, memchr2};

/// The requests of a connection: counted by the guard as their heads pass, and again as they are served.
#[derive(Default)]
pub(super) struct Heads {
    fit: AtomicU64,
    served: AtomicU64,
}

impl Heads {
    /// Whether the guard has found the next request's head fit. To be asked once for each.
    pub(super) fn next_is_fit(&self) -> bool {
        let served = self.served.load(Relaxed);
        self.served.store(served + 1, Relaxed);
        served < self.fit.load(Relaxed)
    }
}

/// Follows the bytes of one connection.
pub(super) struct HeadGuard {
    heads: Arc<Heads>,
    at: At,
    framing: Framing,
    /// The beginning of a field line that came in pieces.
    line: Vec<u8>,
}

/// Where the next byte stands.
#[derive(Clone, Copy)]
enum At {
    /// Before a head, where empty lines may stand.
    Gap,
    Method,
    Target,
    Field,
    /// In so many bytes of which only the number counts.
    Skip(u64, Next),
    /// In the digits of a chunk's size.
    ChunkSize(u64),
    /// Behind them.
    ChunkExtension(u64),
    /// Where a trailer begins, or the last line.
    TrailerStart,
    Trailer,
    /// Behind a head that is not fit: no request that follows is served.
    Lost,
}

/// What stands behind skipped bytes.
#[derive(Clone, Copy)]
enum Next {
    Head,
    ChunkSize,
    TrailerStart,
}

/// What a head says of its body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    Doubtful,
}

/// The longest field line about framing that is plain.
const LONGEST_FRAMING_LINE: usize = 64;

impl HeadGuard {
    pub(super) fn new(heads: Arc<Heads>) -> Self {
        Self { heads, at: At::Gap, framing: Framing::None, line: Vec::new() }
    }

    /// Takes note of the next bytes, in pieces of any size.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            bytes = match self.at {
                At::Gap if matches!(first, b'\r' | b'\n') => rest,
                At::Gap | At::Method => match bytes.iter().position(|byte| *byte == b' ') {
                    Some(end) => self.enter(At::Target, &bytes[end + 1..]),
                    None => self.enter(At::Method, &[]),
                },
                At::Target => self.target(bytes),
                At::Field => self.fields(bytes),
                At::Skip(left, next) => self.skip(left, next, bytes),
                At::ChunkSize(size) => self.chunk_size(size, *first, rest),
                At::ChunkExtension(size) => match memchr(b'\n', bytes) {
                    Some(end) => {
                        self.at = behind_size(size);
                        &bytes[end + 1..]
                    }
                    None => return,
                },
                At::TrailerStart if *first == b'\r' => self.enter(At::Skip(1, Next::Head), rest),
                At::TrailerStart | At::Trailer => match memchr(b'\r', bytes) {
                    Some(end) => self.enter(At::Skip(1, Next::TrailerStart), &bytes[end + 1..]),
                    None => self.enter(At::Trailer, &[]),
                },
                At::Lost => return,
            };
        }
    }

    fn enter<'b>(&mut self, at: At, rest: &'b [u8]) -> &'b [u8] {
        self.at = at;
        rest
    }

    /// No target has a fragment (RFC 9112 section 3.2). The version behind it has no `#` either.
    fn target<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match memchr2(b'#', b'\n', bytes) {
            Some(end) if bytes[end] == b'\n' => self.enter(At::Field, &bytes[end + 1..]),
            Some(_) => self.enter(At::Lost, &[]),
            None => self.enter(At::Target, &[]),
        }
    }

    /// Field lines, to the end of the head or of the bytes. Nearly all of them say nothing about framing, so what matters is
    /// how each begins, and the line feeds are looked for in eight bytes at once.
    fn fields<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if !self.line.is_empty() || matters(bytes) {
            return self.field_line(bytes);
        }
        let mut line = bytes;
        let (words, _) = bytes.as_chunks();
        for (at, word) in words.iter().enumerate() {
            let mut feeds = line_feeds(*word);
            while feeds != 0 {
                line = &bytes[at * 8 + feeds.trailing_zeros() as usize / 8 + 1..];
                if matters(line) {
                    return self.field_line(line);
                }
                feeds &= feeds - 1;
            }
        }
        self.field_line(line)
    }

    /// One line, or the rest of one that began in an earlier piece.
    fn field_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if let (true, [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..]) = (self.line.is_empty(), bytes) {
            self.end_of_head();
            return rest;
        }
        let Some(end) = memchr(b'\n', bytes) else {
            self.keep(bytes);
            return &[];
        };
        self.keep(&bytes[..end]);
        let mut line = std::mem::take(&mut self.line);
        self.field(&line);
        line.clear();
        self.line = line;
        &bytes[end + 1..]
    }

    /// Remembers a piece of a line, as far as it can matter.
    fn keep(&mut self, piece: &[u8]) {
        let room = (LONGEST_FRAMING_LINE + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// A line without its line feed.
    fn field(&mut self, line: &[u8]) {
        let stated = match line {
            [] | [b'\r'] => return self.end_of_head(),
            [b'c' | b'C', ..] => value_of(line, b"content-length:").map(length),
            [b't' | b'T', ..] => value_of(line, b"transfer-encoding:").map(coding),
            _ => None,
        };
        if let Some(stated) = stated {
            let plain = self.framing == Framing::None && line.len() <= LONGEST_FRAMING_LINE;
            self.framing = if plain { stated } else { Framing::Doubtful };
        }
    }

    fn end_of_head(&mut self) {
        self.at = match self.framing {
            Framing::None => At::Gap,
            Framing::Length(length) => skip(length, Next::Head),
            Framing::Chunked => At::ChunkSize(0),
            Framing::Doubtful => return self.at = At::Lost,
        };
        self.framing = Framing::None;
        self.heads.fit.store(self.heads.fit.load(Relaxed) + 1, Relaxed);
    }

    fn skip<'b>(&mut self, left: u64, next: Next, bytes: &'b [u8]) -> &'b [u8] {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.enter(skip(left - skipped as u64, next), &bytes[skipped..])
    }

    fn chunk_size<'b>(&mut self, size: u64, byte: u8, rest: &'b [u8]) -> &'b [u8] {
        let at = match (char::from(byte).to_digit(16), byte) {
            (Some(_), _) if size > u64::MAX >> 4 => At::Lost,
            (Some(digit), _) => At::ChunkSize(size << 4 | u64::from(digit)),
            (None, b'\n') => behind_size(size),
            (None, _) => At::ChunkExtension(size),
        };
        self.enter(at, rest)
    }
}

/// Whether a line may be the last of a head, or one about framing: told by two or three bytes, and never wrongly denied.
fn matters(line: &[u8]) -> bool {
    match line {
        [b'\r' | b'\n', ..] => true,
        [b'c' | b'C', _, _, _, _, _, _, dash, l, ..] => *dash == b'-' && matches!(l, b'l' | b'L'),
        [b't' | b'T', _, _, _, _, _, _, _, dash, ..] => *dash == b'-',
        _ => line.len() < 9,
    }
}

/// The line feeds among eight bytes, each as the highest bit of its byte, in order from the lowest.
fn line_feeds(bytes: [u8; 8]) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let others = u64::from_le_bytes(bytes) ^ u64::from_ne_bytes([b'\n'; 8]);
    !(((others & LOW) + LOW) | others | LOW)
}

fn skip(left: u64, next: Next) -> At {
    match next {
        _ if left > 0 => At::Skip(left, next),
        Next::Head => At::Gap,
        Next::ChunkSize => At::ChunkSize(0),
        Next::TrailerStart => At::TrailerStart,
    }
}

/// A chunk's data and the line end behind it, or trailers behind the last chunk.
fn behind_size(size: u64) -> At {
    if size == 0 { At::TrailerStart } else { At::Skip(size.saturating_add(2), Next::ChunkSize) }
}

/// The value of a field line, if it has this name (in lower case and with its colon).
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| trim(value.strip_suffix(b"\r").unwrap_or(value)))
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// One plain decimal: no sign, no list, no leading zeros.
fn length(value: &[u8]) -> Framing {
    let plain = value == b"0" || (!value.starts_with(b"0") && value.iter().all(u8::is_ascii_digit));
    let digits = std::str::from_utf8(value).ok().filter(|_| plain);
    digits.and_then(|digits| digits.parse().ok()).map_or(Framing::Doubtful, Framing::Length)
}

fn coding(value: &[u8]) -> Framing {
    if value.eq_ignore_ascii_case(b"chunked") { Framing::Chunked } else { Framing::Doubtful }
}

#[cfg(test)]
mod tests;
