//! HTTP/1 messages as bytes, read strictly: what is not exactly as it should be on the wire fails the test.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::PATIENCE;

/// The head of a message, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    raw: Vec<u8>,
}

impl Head {
    /// The first line.
    pub(crate) fn start(&self) -> String {
        let end = find(&self.raw, b"\r\n").expect("a head ends with an empty line");
        String::from_utf8_lossy(&self.raw[..end]).into_owned()
    }

    /// The second word of the first line: a request's target, an answer's status.
    pub(crate) fn target(&self) -> String {
        self.start().split(' ').nth(1).expect("a first line has words").to_owned()
    }

    /// Every field: its name in lower case, and its value without the spaces around it.
    pub(crate) fn fields(&self) -> Vec<(String, Vec<u8>)> {
        let text = self.raw.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
        split_lines(text).skip(1).map(field).collect()
    }

    /// The values of a field, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let fields = self.fields().into_iter().filter(|(n, _)| n == name);
        fields.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect()
    }

    /// The value of a field that is there once at most.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        assert!(values.len() <= 1, "{name} is there more than once: {values:?}");
        values.pop()
    }

    /// All of its bytes.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// How the body of a request with this head is framed.
    pub(crate) fn framing(&self) -> Framing {
        match (self.value("transfer-encoding"), self.value("content-length")) {
            (None, None) => Framing::None,
            (None, Some(length)) => Framing::Length(length.parse().expect("a length is a plain number")),
            (Some(coding), None) if coding == "chunked" => Framing::Chunked,
            framing => panic!("no plain framing: {framing:?}"),
        }
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// A body without its framing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// What it says.
    pub(crate) bytes: Vec<u8>,
    /// The lines behind the last chunk, as they came.
    pub(crate) trailers: Vec<u8>,
}

/// One end of a connection.
pub(crate) struct Wire {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    /// A wire on which nothing waits for ever.
    pub(crate) fn new(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket, unread: Vec::new() }
    }

    /// The socket, for what is not about bytes.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The socket alone.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Sends exact bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends a chunk; an empty one is the last.
    pub(crate) fn send_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk)
    }

    /// The next head; `None` if the other end closed before it began.
    pub(crate) fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                return Ok(Some(Head { raw: self.take(end + 4) }));
            }
            match self.fill() {
                Ok(0) if self.unread.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole body.
    pub(crate) fn body(&mut self, framing: Framing) -> io::Result<Body> {
        let mut body = Body::default();
        match framing {
            Framing::None => {}
            Framing::Length(length) => body.bytes = self.exactly(usize::try_from(length).unwrap())?,
            Framing::UntilClose => body.bytes = self.rest()?,
            Framing::Chunked => loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    body.trailers = self.trailers()?;
                    break;
                }
                body.bytes.extend(chunk);
            },
        }
        Ok(body)
    }

    /// The next chunk; an empty one is the last, and [`Wire::trailers`] follow it.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = String::from_utf8(self.line()?).expect("the size of a chunk is text");
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("{size:?} is no plain size of a chunk"));
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.exactly(size)?;
        assert_eq!(self.exactly(2)?, b"\r\n", "a chunk ends with a line break");
        Ok(chunk)
    }

    /// What stands between the last chunk and the end of the body.
    pub(crate) fn trailers(&mut self) -> io::Result<Vec<u8>> {
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.extend(line);
            trailers.extend(b"\r\n");
        }
    }

    /// The next so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(count))
    }

    /// What there is; empty when the other end has closed.
    pub(crate) fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Everything until the other end closes.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Reads and forgets so many bytes, however many they are.
    pub(crate) fn skip(&mut self, mut count: u64) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        while count > 0 {
            let read = match self.some_into(&mut buffer[..count.min(256 * 1024) as usize])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            count -= read as u64;
        }
        Ok(())
    }

    /// Reads what there is into a buffer.
    pub(crate) fn some_into(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return self.socket.read(buffer);
        }
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.take(count));
        Ok(count)
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let count = self.socket.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// Where some bytes begin within others.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (line, after) = match find(text, b"\r\n") {
            Some(end) => (&text[..end], Some(&text[end + 2..])),
            None => (text, None),
        };
        rest = after;
        Some(line)
    })
}

fn field(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    assert!(!name.is_empty() && !name.ends_with(b" "), "no name of a field: {:?}", String::from_utf8_lossy(line));
    assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "no value of a field: {value:?}");
    (String::from_utf8(name.to_ascii_lowercase()).expect("names of fields are ASCII"), value.to_vec())
}
