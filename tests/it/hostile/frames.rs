//! What only HTTP/2 can say (rows 9, 29, 40, 41, 43 and 62 to 66): heads that are none, frames out of order, blocks that do not
//! unfold.

use super::super::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, head,
};
use super::http2::{ENDED, connection, stream};
use super::{BAD, BROKEN, Case, Expect, FORGED, Keys, Paths, UNKNOWN};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 32;

/// Fields of a head, in order.
type Fields<'f> = Vec<(&'f str, &'f str)>;

struct Frames<'k> {
    key: &'k str,
    paths: Paths,
    all: Vec<Case>,
}

pub(super) fn cases(keys: &Keys, paths: Paths) -> Vec<Case> {
    let mut frames = Frames { key: &keys.key.value, paths, all: Vec::new() };
    frames.hosts_and_targets();
    frames.bytes_that_end_lines();
    frames.bodies_and_lengths();
    frames.fields_of_http1();
    frames.pseudo_fields();
    frames.trailers();
    frames.out_of_place();
    frames.out_of_order();
    frames.blocks();
    frames.all
}

fn passed(body: &'static str) -> Expect {
    Expect::Passed("/x".to_owned(), body)
}

impl<'k> Frames<'k> {
    fn add(&mut self, row: u8, frames: &[Vec<u8>], expect: Expect) {
        self.all.push(Case { row, sent: connection(frames), expect });
    }

    /// The head of a request that passes.
    fn good(&self) -> Fields<'k> {
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("x-api-key", self.key)]
    }

    /// A request with another value of a field, or with one more.
    fn with(&mut self, row: u8, changes: &[(&str, &str)], expect: Expect) {
        let mut fields: Fields<'_> = self.good();
        for (name, value) in changes {
            match fields.iter_mut().find(|field| field.0 == *name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        self.add(row, &[stream(1, &fields, b"")], expect);
    }

    /// A request with fields behind its own.
    fn plus(&mut self, row: u8, more: &[(&str, &str)], expect: Expect) {
        let fields = [&self.good(), more].concat();
        self.add(row, &[stream(1, &fields, b"")], expect);
    }

    /// The beginning of a POST.
    fn begun(&self, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let mut fields: Fields<'_> = vec![(":method", "POST"), (":scheme", "http"), (":path", path)];
        fields.extend([(":authority", "a"), ("x-api-key", self.key)]);
        fields.extend(more);
        head(0, 1, &block(&fields))
    }

    /// Rows 40, 41 and 43.
    fn hosts_and_targets(&mut self) {
        for path in ["x", "", "a:80", "http://a/x", "http:/x", "://a/x", "\\x", "public/x", "%2fx"] {
            self.with(40, &[(":path", path)], ENDED);
            self.with(40, &[(":path", path), (":method", "OPTIONS"), ("x-api-key", "wrong")], ENDED);
        }
        let unknown = if self.paths == Paths::Lenient { UNKNOWN } else { BAD };
        self.with(40, &[(":path", "*")], BAD);
        self.with(40, &[(":path", "*"), (":method", "OPTIONS"), ("x-api-key", "wrong")], unknown);
        self.with(40, &[(":path", "?a")], Expect::Passed("/?a".to_owned(), ""));
        for host in ["a b", "a, b", "a/b", "a?b", "a#b", "a\\b", "<a>", "\"a\"", "a\tb", "a\u{e9}"] {
            self.with(41, &[(":authority", host)], ENDED);
            self.with(41, &[("host", host)], BAD);
        }
        for host in ["a@b", "u:p@a"] {
            self.with(41, &[(":authority", host)], BAD);
            self.with(41, &[("host", host)], BAD);
        }
        for hosts in [&[("host", "b")][..], &[("host", "a"), ("host", "a")], &[("host", "")], &[("host", "a:80")]] {
            self.plus(41, hosts, BAD);
        }
        let fields: Fields<'_> = self.good().into_iter().filter(|field| field.0 != ":authority").collect();
        self.add(41, &[stream(1, &fields, b"")], BAD);
        self.plus(41, &[("host", "a")], passed(""));
        // Without `:protocol`, CONNECT has no path (RFC 9113 section 8.5).
        for (method, status) in [("CONNECT", 0), ("TRACE", 501)] {
            self.with(43, &[(":method", method)], Expect::Refused(status));
            self.with(43, &[(":method", method), (":path", "/public/x")], Expect::Refused(status));
        }
        for protocol in ["websocket", "connect-udp", FORGED] {
            self.with(43, &[(":method", "CONNECT"), (":protocol", protocol)], ENDED);
            self.with(43, &[(":protocol", protocol)], ENDED);
        }
        self.add(43, &[stream(1, &[(":method", "CONNECT"), (":authority", "a:80"), ("x-api-key", self.key)], b"")], {
            Expect::Refused(501)
        });
    }

    /// Row 62.
    fn bytes_that_end_lines(&mut self) {
        for end in
            ["\r\n", "\n", "\r", "\0", "\r\nx-keyward-user: forged", "\r\n\r\nGET /inner HTTP/1.1\r\nhost: a\r\n\r\n"]
        {
            for name in ["x", "cookie", "content-type", "user-agent", "host", "referer"] {
                self.with(62, &[(name, &format!("a{end}"))], ENDED);
                self.with(62, &[(name, &format!("{end}a"))], ENDED);
            }
            self.with(62, &[(&format!("x{end}"), "a")], ENDED);
            self.with(62, &[(&format!("{end}x"), "a")], ENDED);
            for (name, value) in [(":path", "/x"), (":method", "GET"), (":authority", "a"), (":scheme", "http")] {
                self.with(62, &[(name, &format!("{value}{end}"))], ENDED);
                self.with(62, &[(name, &format!("{end}{value}"))], ENDED);
            }
        }
        for path in ["/x y", "/x\t", " /x", "/x ", "/x\u{7f}", "/x HTTP/1.1", "/\u{1}"] {
            self.with(62, &[(":path", path)], ENDED);
        }
        for name in
            ["a b", "a:b", "Upper", "", "a\u{e9}", "(a)", "a;", "x-keyward-user ", " x", "a/b", "a\u{7f}", "a\t"]
        {
            self.plus(62, &[(name, FORGED)], ENDED);
        }
        for value in ["\u{1}", "\u{8}", "\u{7f}", "a\u{b}b", "a\u{1b}[0m"] {
            self.plus(62, &[("x", value)], ENDED);
        }
        for method in ["G ET", "", "GET /y", "GET\t", "(GET)", "\u{e9}", "GET:"] {
            self.with(62, &[(":method", method)], ENDED);
        }
    }

    /// Row 63.
    fn bodies_and_lengths(&mut self) {
        for (lengths, body) in [
            (&["5"][..], "abc"),
            (&["5"], "abcdefg"),
            (&["0"], "GET /inner HTTP/1.1\r\n\r\n"),
            (&["3", "4"], "abc"),
            (&["4", "3"], "abc"),
            (&["+3"], "abc"),
            (&["-3"], "abc"),
            (&["3, 3"], "abc"),
            (&["3,4"], "abc"),
            (&["0x3"], "abc"),
            (&["3.0"], "abc"),
            (&["3 "], "abc"),
            (&[" 3"], "abc"),
            (&[""], "abc"),
            (&["three"], "abc"),
            (&["18446744073709551619"], "abc"),
            (&["99999999999999999999999"], "abc"),
        ] {
            let fields: Fields<'_> = lengths.iter().map(|length| ("content-length", *length)).collect();
            let begun = self.begun(BROKEN, &fields);
            self.add(63, &[begun.clone(), frame(DATA, END_STREAM, 1, body.as_bytes())], Expect::Broken(0));
            let (one, rest) = body.split_at(1);
            let pieces = [frame(DATA, 0, 1, one.as_bytes()), frame(DATA, END_STREAM, 1, rest.as_bytes())];
            self.add(63, &[vec![begun], pieces.to_vec()].concat(), Expect::Broken(0));
        }
        for length in ["5", "1", "18446744073709551615"] {
            self.plus(63, &[("content-length", length)], ENDED);
        }
        for coding in ["chunked", "identity", "gzip, chunked", "", " chunked"] {
            self.plus(63, &[("transfer-encoding", coding)], ENDED);
            let begun = self.begun(BROKEN, &[("transfer-encoding", coding), ("content-length", "3")]);
            self.add(63, &[begun, frame(DATA, END_STREAM, 1, b"abc")], Expect::Broken(0));
        }
        for name in ["transfer_encoding", "content_length", "transfer.encoding"] {
            let begun = self.begun("/x", &[(name, "chunked")]);
            self.add(63, &[begun, frame(DATA, END_STREAM, 1, b"0\r\n\r\n")], passed("0\r\n\r\n"));
        }
    }

    /// Row 64.
    fn fields_of_http1(&mut self) {
        for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"] {
            for value in ["close", "x-keyward-key-id", "websocket", "h2c", ""] {
                self.plus(64, &[(name, value)], ENDED);
                self.plus(64, &[("x-keyward-key-id", FORGED), (name, value)], ENDED);
            }
        }
        for te in ["gzip", "trailers, gzip", "chunked", ""] {
            self.plus(64, &[("te", te)], ENDED);
        }
        self.plus(64, &[("te", "trailers")], passed(""));
    }

    /// Row 64.
    fn pseudo_fields(&mut self) {
        for (name, value) in
            [(":path", "/y"), (":method", "GET"), (":scheme", "http"), (":authority", "a"), (":status", "200")]
        {
            self.plus(64, &[(name, value)], ENDED);
            let first = [&[(name, value)], &self.good()[..]].concat();
            self.add(64, &[stream(1, &first, b"")], ENDED);
        }
        for name in [":unknown", ":", ":Path", ":path ", "::path", ":host", ":version"] {
            let first = [&[(name, "/y")], &self.good()[..]].concat();
            self.add(64, &[stream(1, &first, b"")], ENDED);
        }
        for missing in [":method", ":scheme", ":path"] {
            let fields: Fields<'_> = self.good().into_iter().filter(|field| field.0 != missing).collect();
            self.add(64, &[stream(1, &fields, b"")], ENDED);
        }
        for place in 1..4 {
            let mut late = self.good();
            late.swap(place, 4);
            self.add(64, &[stream(1, &late, b"")], ENDED);
        }
        for scheme in ["ht tp", "http://a/", "h\u{e9}"] {
            self.with(64, &[(":scheme", scheme)], ENDED);
        }
        for scheme in ["", "1http"] {
            self.with(64, &[(":scheme", scheme)], BAD);
        }
        self.add(64, &[stream(1, &[], b"")], ENDED);
    }

    /// Rows 9 and 29.
    fn trailers(&mut self) {
        let end = |fields: &[(&str, &str)]| head(END_STREAM, 1, &block(fields));
        let data = || frame(DATA, 0, 1, b"abc");
        let key = self.key;
        for (name, value) in [("authorization", &*format!("Bearer {key}")), ("x-api-key", key), ("cookie", key)] {
            let unkeyed =
                head(0, 1, &block(&[(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a")]));
            self.add(9, &[unkeyed, data(), end(&[(name, value)])], UNKNOWN);
        }
        for name in ["x-keyward-key-id", "x_keyward_user", "x-forwarded-for", "authorization", "content-length", "host"]
        {
            let begun = self.begun("/x", &[]);
            self.add(29, &[begun, data(), end(&[(name, FORGED)])], passed("abc"));
        }
        // h2 takes pseudo-fields here, and forgets them.
        for (name, value) in [(":path", "/y"), (":status", "200")] {
            let begun = self.begun("/x", &[]);
            self.add(29, &[begun, data(), end(&[(name, value)])], passed("abc"));
        }
        for (name, value) in [("Upper", "a"), ("a", "b\r\nc"), ("connection", "x")] {
            let begun = self.begun(BROKEN, &[]);
            self.add(29, &[begun, data(), end(&[(name, value)])], Expect::Broken(0));
        }
        let begun = self.begun(BROKEN, &[]);
        self.add(29, &[begun, data(), head(0, 1, &block(&[("a", "b")]))], Expect::Broken(0));
    }

    /// Row 65: frames that may not be there at all, and then a good request.
    fn out_of_place(&mut self) {
        let setting =
            |id: u16, value: u32| frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        let good = stream(1, &self.good(), b"");
        for bad in [
            frame(DATA, 0, 0, b"abc"),
            frame(DATA, END_STREAM, 1, b"abc"),
            frame(HEADERS, END_HEADERS, 0, &block(&self.good())),
            frame(HEADERS, END_HEADERS | END_STREAM, 2, &block(&self.good())),
            frame(HEADERS, END_HEADERS | PADDED, 1, &[255, 0]),
            frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, &[0; 3]),
            frame(PRIORITY, 0, 0, &[0; 5]),
            frame(RST_STREAM, 0, 0, &[0; 4]),
            frame(RST_STREAM, 0, 1, &[0; 4]),
            frame(RST_STREAM, 0, 1, &[0; 3]),
            frame(SETTINGS, 0, 1, &[]),
            frame(SETTINGS, 0, 0, &[0; 5]),
            frame(SETTINGS, 1, 0, &[0; 6]),
            setting(2, 2),
            setting(4, 1 << 31),
            setting(5, 100),
            setting(5, 1 << 24),
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            frame(PING, 0, 0, &[0; 7]),
            frame(PING, 0, 1, &[0; 8]),
            frame(GOAWAY, 0, 1, &[0; 8]),
            frame(GOAWAY, 0, 0, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            frame(CONTINUATION, END_HEADERS, 0, &[]),
            endless(frame(PING, 0, 0, &[])),
            endless(frame(0xfa, 0, 0, &[])),
        ] {
            self.add(65, &[bad, good.clone()], ENDED);
        }
        for nothing in [
            frame(0xfa, 0xff, 0, b"unknown"),
            frame(0xfa, 0, 1, &[]),
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
            setting(99, 99),
            setting(1, 0),
            setting(3, 0),
            frame(PING, 0, 0, &[7; 8]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0xff, 0xff]),
        ] {
            self.add(65, &[nothing, good.clone()], passed(""));
        }
        for beginning in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"] {
            self.all.push(Case { row: 65, sent: [beginning, &good].concat(), expect: ENDED });
        }
        // Settings may come later than first (RFC 9113 section 3.4 leaves it to the server).
        self.all.push(Case {
            row: 65,
            sent: [PREFACE, &frame(PING, 0, 0, &[0; 8]), &good].concat(),
            expect: passed(""),
        });
    }

    /// Row 65: frames at the wrong time.
    fn out_of_order(&mut self) {
        let part = block(&self.good());
        let open = frame(HEADERS, END_STREAM, 1, &part[..20]);
        let rest = frame(CONTINUATION, END_HEADERS, 1, &part[20..]);
        for between in [
            frame(PING, 0, 0, &[0; 8]),
            frame(DATA, 0, 1, b"abc"),
            frame(SETTINGS, 0, 0, &[]),
            frame(0xfa, 0, 0, &[]),
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &part),
            frame(CONTINUATION, END_HEADERS, 3, &part[20..]),
            frame(RST_STREAM, 0, 1, &[0; 4]),
        ] {
            self.add(65, &[open.clone(), between, rest.clone()], ENDED);
        }
        self.add(65, &[open.clone(), rest.clone()], passed(""));
        let bytes: Vec<_> = part[20..].chunks(1).map(|byte| frame(CONTINUATION, 0, 1, byte)).collect();
        // More frames than any head needs.
        let last = frame(CONTINUATION, END_HEADERS, 1, &[]);
        self.add(65, &[&[open][..], &bytes[..3], &[rest_of(&part, 23)]].concat(), passed(""));
        self.add(65, &[vec![frame(HEADERS, END_STREAM, 1, &part[..20])], bytes, vec![last]].concat(), ENDED);
        let broken = self.begun(BROKEN, &[]);
        let begun = || broken.clone();
        let higher = frame(
            HEADERS,
            END_HEADERS,
            3,
            &block(&[&self.good()[..2], &[(":path", BROKEN)], &self.good()[3..]].concat()),
        );
        let overflow = frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
        let padded = frame(DATA, PADDED, 1, &[4, 0]);
        for wrong in [begun(), overflow, padded, frame(WINDOW_UPDATE, 0, 1, &[0; 4])] {
            let frames = [begun(), wrong];
            self.add(65, &frames, Expect::Broken(0));
        }
        let frames = [higher, begun()];
        self.add(65, &frames, Expect::Broken(0));
        // More half-open streams than there may be.
        let streams = (0..300).map(|n| [&begun()[..5], &(2 * n + 1_u32).to_be_bytes(), &begun()[9..]].concat());
        let frames: Vec<_> = streams.collect();
        self.add(65, &frames, Expect::Broken(0));
    }

    /// Row 66: blocks that cannot be unfolded, and those that unfold to too much.
    fn blocks(&mut self) {
        let good = block(&self.good());
        for more in [
            &[0x80][..],
            &[0xbe],
            &[0xff, 0x80, 0x01],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x7f],
            &[0x00, 0x05, b'a'],
            &[0x00, 0x01, b'a', 0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x00, 0x01, b'a', 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x00, 0x01, b'a', 0x82, 0x1f, 0xff],
            &[0x00, 0x01, b'a', 0x81, 0x00],
            &[0x3f, 0xe1, 0xff, 0xff, 0x03],
            &[0x20],
            &[0x40],
        ] {
            let frames = [head(END_STREAM, 1, &[&good, more].concat())];
            self.add(66, &frames, ENDED);
            // It is a new size of the table, which may stand before fields (RFC 7541 section 4.2).
            let expect = if more == [0x20] { passed("") } else { ENDED };
            self.add(66, &[head(END_STREAM, 1, &[more, &good].concat())], expect);
        }
        // A field that is too long ends the stream, too many of them are refused.
        let too_many = || Expect::Refused(431);
        let entry = [&[0x40, 1, b'a', 100][..], &[b'x'; 100]].concat();
        let folded = [good.clone(), entry, vec![0xbe; 10_000]].concat();
        self.add(66, &[head(END_STREAM, 1, &folded)], ENDED);
        self.plus(66, &[("x", &"x".repeat(200_000))], ENDED);
        let many = vec![("a", "b"); 5000];
        self.plus(66, &many, too_many());
        let crumbs = vec![("cookie", "a=b"); 5000];
        self.plus(66, &crumbs, too_many());
        self.with(66, &[(":path", &format!("/{}", "x".repeat(200_000)))], ENDED);
    }
}

/// The end of a block.
fn rest_of(block: &[u8], from: usize) -> Vec<u8> {
    frame(CONTINUATION, END_HEADERS, 1, &block[from..])
}

/// A frame that says it is longer than any may be.
fn endless(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..3].copy_from_slice(&[0xff; 3]);
    frame
}
