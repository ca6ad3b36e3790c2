//! Not a product: the least work a key-checking HTTP/1.1 proxy can do with plain epoll on
//! one thread (recv, look-up, send, recv, send), to know the floor per proxied request.
//! Whole requests in memory, no timeouts, no trailers, no strict parsing.
//! usage: floor-proxy PORT UPSTREAM_ADDR KEYS_TSV
//!        floor-proxy PORT serve BODY_FILE     a minimal upstream: BODY_FILE for every path;
//!                                             /_echo answers with the request as it arrived
//!        floor-proxy PORT load RATE SECS CONNECTIONS KEYS_FILE|-     open-loop load
mod load;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};

struct Key {
    id: Box<[u8]>,
    ro: bool,
    nets: Option<Box<[(u32, u32)]>>,
}
type Keys = HashMap<Box<[u8]>, Key, ahash::RandomState>;

fn read_keys(path: &str) -> Keys {
    let mut m = Keys::default();
    for line in std::fs::read_to_string(path).expect("keys").lines() {
        let f: Vec<&str> = line.split('\t').collect();
        let nets = (f[3] != "any").then(|| {
            f[3].split(',')
                .map(|c| {
                    let (a, p) = c.split_once('/').unwrap();
                    let p: u32 = p.parse().unwrap();
                    let mask = if p == 0 { 0 } else { u32::MAX << (32 - p) };
                    (u32::from(a.parse::<Ipv4Addr>().unwrap()) & mask, mask)
                })
                .collect()
        });
        m.insert(
            f[0].as_bytes().into(),
            Key {
                id: f[1].as_bytes().into(),
                ro: f[2] == "ro",
                nets,
            },
        );
    }
    m
}

#[derive(Default)]
struct Conn {
    upstream: bool,
    other: i32, // client <-> upstream while a request is under way; -1 otherwise
    ip: u32,
    head: bool,    // the request was a HEAD
    started: bool, // upstream: response head seen
    left: u64,     // upstream: body bytes still to come
    chunked: bool,
    buf: Vec<u8>, // bytes of an unfinished head or request
}

const D401: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\ndenied\n";
const D403: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\ndenied\n";

fn send(fd: i32, b: &[u8]) -> bool {
    let mut off = 0;
    while off < b.len() {
        let n = unsafe {
            libc::send(
                fd,
                b[off..].as_ptr().cast(),
                b.len() - off,
                libc::MSG_NOSIGNAL,
            )
        };
        if n <= 0 {
            return false;
        }
        off += n as usize;
    }
    true
}

struct Proxy {
    ep: i32,
    keys: Keys,
    up: SocketAddrV4,
    conns: Vec<Option<Conn>>,
    idle: Vec<i32>,
    out: Vec<u8>,
}

impl Proxy {
    fn add(&mut self, fd: i32, c: Conn) {
        let one: libc::c_int = 1;
        unsafe {
            libc::setsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                (&one as *const i32).cast(),
                4,
            );
            let mut ev = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: fd as u64,
            };
            libc::epoll_ctl(self.ep, libc::EPOLL_CTL_ADD, fd, &mut ev);
        }
        let i = fd as usize;
        if self.conns.len() <= i {
            self.conns.resize_with(i + 1, || None);
        }
        self.conns[i] = Some(c);
    }

    fn close(&mut self, fd: i32) {
        if let Some(c) = self.conns[fd as usize].take() {
            unsafe { libc::close(fd) };
            if c.upstream {
                self.idle.retain(|x| *x != fd);
            }
            if c.other >= 0 {
                self.close(c.other);
            }
        }
    }

    fn readable(&mut self, fd: i32, scratch: &mut [u8]) {
        let n = unsafe {
            libc::recv(
                fd,
                scratch.as_mut_ptr().cast(),
                scratch.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if n == 0 {
            return self.close(fd);
        }
        if n < 0 {
            let e = std::io::Error::last_os_error();
            if e.kind() != std::io::ErrorKind::WouldBlock {
                self.close(fd);
            }
            return;
        }
        let data = &scratch[..n as usize];
        let c = self.conns[fd as usize].as_mut().unwrap();
        if c.upstream {
            return self.response(fd, data);
        }
        if c.buf.is_empty() && c.other < 0 {
            let used = self.request(fd, data);
            if let Some(c) = self.conns[fd as usize].as_mut() {
                c.buf.extend_from_slice(&data[used..]);
            }
        } else {
            c.buf.extend_from_slice(data);
            self.pending(fd);
        }
    }

    fn pending(&mut self, fd: i32) {
        let Some(c) = self.conns[fd as usize].as_mut() else {
            return;
        };
        if c.other >= 0 || c.buf.is_empty() {
            return;
        }
        let mut b = std::mem::take(&mut c.buf);
        let used = self.request(fd, &b);
        if let Some(c) = self.conns[fd as usize].as_mut() {
            b.drain(..used);
            c.buf = b;
        }
    }

    /// Handles one request if `d` holds all of it; gives the bytes used.
    fn request(&mut self, fd: i32, d: &[u8]) -> usize {
        let Some(end) = memchr::memmem::find(d, b"\r\n\r\n") else {
            return 0;
        };
        let head_len = end + 4;
        let line_end = memchr::memchr(b'\n', d).unwrap() + 1;
        let method = &d[..memchr::memchr(b' ', &d[..line_end]).unwrap_or(0)];
        self.out.clear();
        self.out.extend_from_slice(&d[..line_end]);
        let (mut body, mut auth): (usize, &[u8]) = (0, b"");
        let mut at = line_end;
        while at < end + 2 {
            let next = at + memchr::memchr(b'\n', &d[at..]).unwrap() + 1;
            let line = &d[at..next];
            let colon = memchr::memchr(b':', line).unwrap_or(line.len() - 2);
            let name = &line[..colon];
            let value = || line[colon + 1..line.len() - 2].trim_ascii();
            let drop = match name.len() {
                13 if name.eq_ignore_ascii_case(b"authorization") => {
                    auth = value();
                    true
                }
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    body = std::str::from_utf8(value())
                        .ok()
                        .and_then(|v| v.parse().ok())
                        .unwrap_or(0);
                    false
                }
                8 => name.eq_ignore_ascii_case(b"x-key-id"),
                10 => name.eq_ignore_ascii_case(b"connection"),
                _ => false,
            };
            if !drop {
                self.out.extend_from_slice(line);
            }
            at = next;
        }
        if d.len() < head_len + body {
            return 0;
        }
        let used = head_len + body;
        let c = self.conns[fd as usize].as_mut().unwrap();
        let deny = match auth
            .strip_prefix(b"APIKEY:ORGANIZATION ")
            .and_then(|k| self.keys.get(k))
        {
            None => Some(D401),
            Some(k) => {
                let get = method == b"GET" || method == b"HEAD";
                let ip_ok = k
                    .nets
                    .as_ref()
                    .is_none_or(|l| l.iter().any(|(n, m)| c.ip & m == *n));
                if !ip_ok || (k.ro && !get) {
                    Some(D403)
                } else {
                    self.out.extend_from_slice(b"X-Key-Id: ");
                    self.out.extend_from_slice(&k.id);
                    self.out.extend_from_slice(b"\r\n\r\n");
                    self.out.extend_from_slice(&d[head_len..used]);
                    None
                }
            }
        };
        c.head = method == b"HEAD";
        if let Some(r) = deny {
            if !send(fd, r) {
                self.close(fd);
            }
            return used;
        }
        let up = match self.idle.pop() {
            Some(u) => u,
            None => match TcpStream::connect(self.up) {
                Ok(s) => {
                    let u = s.into_raw_fd();
                    self.add(
                        u,
                        Conn {
                            upstream: true,
                            other: -1,
                            ..Conn::default()
                        },
                    );
                    u
                }
                Err(_) => {
                    self.close(fd);
                    return used;
                }
            },
        };
        let head = method == b"HEAD";
        self.conns[fd as usize].as_mut().unwrap().other = up;
        let u = self.conns[up as usize].as_mut().unwrap();
        (u.other, u.head, u.started, u.left, u.chunked) = (fd, head, false, 0, false);
        if !send(up, &self.out) {
            self.close(up);
        }
        used
    }

    fn response(&mut self, fd: i32, d: &[u8]) {
        let c = self.conns[fd as usize].as_mut().unwrap();
        let client = c.other;
        if client < 0 {
            return self.close(fd);
        }
        let mut whole;
        let mut d = d;
        if !c.started {
            if !c.buf.is_empty() {
                whole = std::mem::take(&mut c.buf);
                whole.extend_from_slice(d);
                d = &whole;
            }
            let Some(end) = memchr::memmem::find(d, b"\r\n\r\n") else {
                c.buf = d.to_vec();
                return;
            };
            c.started = true;
            for line in d[..end].split(|b| *b == b'\n').skip(1) {
                let colon = memchr::memchr(b':', line).unwrap_or(0);
                if colon == 14 && line[..14].eq_ignore_ascii_case(b"content-length") {
                    let v = std::str::from_utf8(&line[15..]).unwrap_or("").trim();
                    c.left = v.parse().unwrap_or(0);
                } else if colon == 17 && line[..17].eq_ignore_ascii_case(b"transfer-encoding") {
                    c.chunked = true;
                }
            }
            if c.head {
                (c.left, c.chunked) = (0, false);
            } else {
                c.left = c.left.saturating_sub((d.len() - end - 4) as u64);
            }
        } else {
            c.left = c.left.saturating_sub(d.len() as u64);
        }
        let done = if c.chunked {
            d.ends_with(b"0\r\n\r\n")
        } else {
            c.left == 0
        };
        if done {
            c.other = -1;
            self.idle.push(fd);
        }
        let ok = send(client, d);
        if done {
            if let Some(cl) = self.conns[client as usize].as_mut() {
                cl.other = -1;
            }
        }
        if !ok {
            self.close(client);
        } else if done {
            self.pending(client);
        }
    }
}

fn serve(port: &str, body_file: &str) -> ! {
    let body = std::fs::read(body_file).expect("body");
    let reply = |ctype: &str, b: &[u8], head: bool| {
        let mut r = format!(
            "HTTP/1.1 200 OK\r\nServer: floor\r\nContent-Type: {ctype}\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n",
            b.len()
        )
        .into_bytes();
        if !head {
            r.extend_from_slice(b);
        }
        r
    };
    let (ok, ok_head) = (
        reply("application/xml", &body, false),
        reply("application/xml", &body, true),
    );
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("bind");
    listener.set_nonblocking(true).unwrap();
    let lfd = listener.as_raw_fd();
    let ep = unsafe { libc::epoll_create1(0) };
    let watch = |fd: i32| unsafe {
        let mut ev = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: fd as u64,
        };
        libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fd, &mut ev);
    };
    watch(lfd);
    let mut conns: Vec<(u64, Vec<u8>)> = Vec::new(); // requests so far, unfinished bytes
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut scratch = vec![0u8; 65536];
    loop {
        let n = unsafe { libc::epoll_wait(ep, events.as_mut_ptr(), 512, -1) };
        for e in 0..n.max(0) as usize {
            let fd = events[e].u64 as i32;
            if fd == lfd {
                while let Ok((s, _)) = listener.accept() {
                    s.set_nodelay(true).ok();
                    let fd = s.into_raw_fd();
                    if conns.len() <= fd as usize {
                        conns.resize_with(fd as usize + 1, Default::default);
                    }
                    conns[fd as usize] = (0, Vec::new());
                    watch(fd);
                }
                continue;
            }
            let n = unsafe {
                libc::recv(
                    fd,
                    scratch.as_mut_ptr().cast(),
                    scratch.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            if n <= 0 {
                if n == 0
                    || std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock
                {
                    unsafe { libc::close(fd) };
                }
                continue;
            }
            let (count, buf) = &mut conns[fd as usize];
            let got = &scratch[..n as usize];
            let d: &[u8] = if buf.is_empty() {
                got
            } else {
                buf.extend_from_slice(got);
                buf
            };
            let mut used = 0;
            let mut alive = true;
            while alive {
                let d = &d[used..];
                let Some(end) = memchr::memmem::find(d, b"\r\n\r\n") else {
                    break;
                };
                let mut len = end + 4;
                if !d.starts_with(b"GET ") && !d.starts_with(b"HEAD ") {
                    for line in d[..end].split(|b| *b == b'\n').skip(1) {
                        if line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:") {
                            let v = std::str::from_utf8(&line[15..]).unwrap_or("").trim();
                            len += v.parse::<usize>().unwrap_or(0);
                        }
                    }
                }
                if d.len() < len {
                    break;
                }
                *count += 1;
                alive = if d.starts_with(b"GET /_echo") {
                    let mut b = format!("connection_requests={count}\n").into_bytes();
                    b.extend_from_slice(&d[..end + 4]);
                    send(fd, &reply("text/plain", &b, false))
                } else if d.starts_with(b"HEAD ") {
                    send(fd, &ok_head)
                } else {
                    send(fd, &ok)
                };
                used += len;
            }
            if !alive {
                unsafe { libc::close(fd) };
                continue;
            }
            let rest = d[used..].to_vec();
            *buf = rest;
        }
    }
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a[2] == "load" {
        let n = |i: usize| a[i].parse::<f64>().expect("number");
        return load::run(&a[1], n(3), n(4), n(5) as usize, &a[6]);
    }
    if a[2] == "serve" {
        serve(&a[1], &a[3]);
    }
    let listener = TcpListener::bind(format!("127.0.0.1:{}", a[1])).expect("bind");
    listener.set_nonblocking(true).unwrap();
    let ep = unsafe { libc::epoll_create1(0) };
    let mut p = Proxy {
        ep,
        keys: read_keys(&a[3]),
        up: a[2].parse().expect("upstream"),
        conns: Vec::new(),
        idle: Vec::new(),
        out: Vec::with_capacity(4096),
    };
    let lfd = listener.as_raw_fd();
    let mut ev = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: lfd as u64,
    };
    unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, lfd, &mut ev) };
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
    let mut scratch = vec![0u8; 65536];
    loop {
        let n = unsafe { libc::epoll_wait(ep, events.as_mut_ptr(), 512, -1) };
        for e in 0..n.max(0) as usize {
            let fd = events[e].u64 as i32;
            if fd == lfd {
                while let Ok((s, from)) = listener.accept() {
                    let ip = match from.ip() {
                        std::net::IpAddr::V4(v) => u32::from(v),
                        _ => 0,
                    };
                    p.add(
                        s.into_raw_fd(),
                        Conn {
                            other: -1,
                            ip,
                            ..Conn::default()
                        },
                    );
                }
            } else if p.conns.get(fd as usize).is_some_and(|c| c.is_some()) {
                p.readable(fd, &mut scratch);
            }
        }
    }
}
