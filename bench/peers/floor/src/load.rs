//! Open-loop load: requests fall due at random moments (Poisson) of a fixed mean rate whatever
//! the server does; each is timed from the moment it was due, so waiting for a free connection
//! counts (no coordinated omission).
use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;

pub fn run(port: &str, rate: f64, secs: f64, conns: usize, keyfile: &str) {
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000u64) };
    let reqs: Vec<Vec<u8>> = if keyfile == "-" {
        vec![String::new()]
    } else {
        std::fs::read_to_string(keyfile).expect("keys").lines().map(|l| format!("Authorization: {l}\r\n")).collect()
    }
    .into_iter()
    .map(|auth| {
        format!("GET /v1/objects/123?list=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench/1\r\nAccept: application/xml\r\n{auth}\r\n")
            .into_bytes()
    })
    .collect();
    let ep = unsafe { libc::epoll_create1(0) };
    let socks: Vec<TcpStream> = (0..conns)
        .map(|i| {
            let s = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connect");
            s.set_nodelay(true).unwrap();
            let mut ev = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: i as u64,
            };
            unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, s.as_raw_fd(), &mut ev) };
            s
        })
        .collect();
    let mut idle: Vec<usize> = (0..conns).collect();
    let mut due_of = vec![0f64; conns]; // when the request under way on it was due
    let mut bufs: Vec<Vec<u8>> = vec![Vec::new(); conns];
    let mut queue: VecDeque<f64> = VecDeque::new();
    let mut lat: Vec<u32> = Vec::with_capacity((rate * secs * 1.2) as usize);
    let mut refused: Vec<u32> = Vec::new(); // of lat, those with a 503
    let (mut errors, mut socket_errors, mut sent, mut waited, mut open) =
        (0u64, 0u64, 0usize, 0u64, 0usize);
    let mut has_retry_after = 0usize;
    let mut rng = 0x9E37_79B9_7F4A_7C15u64;
    let mut gap = || {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        -(((rng >> 11) as f64 + 1.0) / 9007199254740993.0).ln() / rate
    };
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut scratch = vec![0u8; 65536];
    let t0 = Instant::now();
    let now = || t0.elapsed().as_secs_f64();
    let mut next = gap();
    loop {
        let t = now();
        if t > secs + 5.0 || (t > secs && open == 0 && queue.is_empty()) {
            break;
        }
        while next <= t && next < secs {
            queue.push_back(next);
            next += gap();
        }
        while let Some(&due) = queue.front() {
            let Some(c) = idle.pop() else { break };
            queue.pop_front();
            if now() - due > 0.001 {
                waited += 1;
            }
            due_of[c] = due;
            sent += 1;
            open += 1;
            if (&socks[c]).write_all(&reqs[sent % reqs.len()]).is_err() {
                socket_errors += 1;
                open -= 1;
            }
        }
        let wait = if next < secs {
            (next - now()).max(0.0)
        } else {
            0.01
        };
        let ts = libc::timespec {
            tv_sec: 0,
            tv_nsec: ((wait.min(0.9)) * 1e9) as i64,
        };
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                ep,
                events.as_mut_ptr(),
                256,
                &ts,
                std::ptr::null::<libc::sigset_t>(),
                8usize,
            )
        };
        for e in 0..n.max(0) as usize {
            let c = events[e].u64 as usize;
            let fd = socks[c].as_raw_fd();
            let n = unsafe {
                libc::recv(
                    fd,
                    scratch.as_mut_ptr().cast(),
                    scratch.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            if n <= 0 {
                if n == 0 {
                    socket_errors += 1;
                    open = open.saturating_sub(1);
                    unsafe { libc::epoll_ctl(ep, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
                }
                continue;
            }
            bufs[c].extend_from_slice(&scratch[..n as usize]);
            let b = &bufs[c];
            let Some(end) = memchr::memmem::find(b, b"\r\n\r\n") else {
                continue;
            };
            let (mut len, mut chunked) = (0usize, false);
            for l in b[..end].split(|x| *x == b'\n').skip(1) {
                if l.len() > 15 && l[..15].eq_ignore_ascii_case(b"content-length:") {
                    len = std::str::from_utf8(&l[15..])
                        .unwrap_or("")
                        .trim()
                        .parse()
                        .unwrap_or(0);
                } else if l.len() > 18 && l[..18].eq_ignore_ascii_case(b"transfer-encoding:") {
                    chunked = true;
                }
            }
            if if chunked {
                !b.ends_with(b"0\r\n\r\n")
            } else {
                b.len() < end + 4 + len
            } {
                continue;
            }
            let took = ((now() - due_of[c]) * 1e6) as u32;
            lat.push(took);
            if b[9] != b'2' {
                errors += 1;
            }
            if b[9..].starts_with(b"503") {
                refused.push(took);
                has_retry_after += usize::from(b[..end].windows(14).any(|w| w.eq_ignore_ascii_case(b"\r\nretry-after:")));
            }
            bufs[c].clear();
            open -= 1;
            idle.push(c);
        }
    }
    let dur = now();
    lat.sort_unstable();
    refused.sort_unstable();
    let of = |lat: &[u32], q: f64| {
        lat.get(((lat.len() as f64 * q) as usize).min(lat.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };
    let p = |q: f64| of(&lat, q);
    println!(
        "JSON {{\"requests\":{},\"duration_us\":{},\"status_errors\":{},\"socket_errors\":{},\"sent_late\":{},\"unfinished\":{},\"p50_us\":{},\"p90_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{},\"refused\":{},\"refused_retry_after\":{},\"refused_p50_us\":{},\"refused_p99_us\":{}}}",
        lat.len(),
        (dur.min(secs) * 1e6) as u64,
        errors,
        socket_errors,
        waited,
        open + queue.len(),
        p(0.5),
        p(0.9),
        p(0.99),
        p(0.999),
        lat.last().copied().unwrap_or(0),
        refused.len(),
        has_retry_after,
        of(&refused, 0.5),
        of(&refused, 0.99)
    );
}
