//! A real Icecast, as tests/icecast/icecast.xml.in describes it, and a source that feeds it numbered lines.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Client, PATIENCE, Response, request, until};
use crate::tools::{self, Program};

/// The password of Icecast's own administrator.
pub(super) const ADMIN_PASSWORD: &str = "admin-of-icecast";
const SOURCE_PASSWORD: &str = "source-of-icecast";
/// The page by which we see what state it is in.
pub(super) const PROBE: &str = "/status-json.xsl";
/// Debian's nobody and nogroup: root is refused.
const NOBODY: u32 = 65534;

/// A running Icecast.
pub(super) struct Radio {
    program: Program,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Radio {
    /// Starts it on a free port, and waits until it answers.
    #[track_caller]
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("icecast.xml");
        let template = include_str!("../../icecast/icecast.xml.in");
        let config = template.replace("@PORT@", "0").replace("@ADMIN_PASSWORD@", ADMIN_PASSWORD);
        fs::write(&file, config.replace("@SOURCE_PASSWORD@", SOURCE_PASSWORD)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let mut command = Command::new("icecast2");
        command.arg("-c").arg(&file).stdin(Stdio::null());
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut program = Program::start(&mut command);
        let mut port = None;
        until("Icecast listens", || {
            assert!(!program.has_ended(), "Icecast has ended: {}", program.err());
            port = tools::listening_port(program.id());
            port.is_some()
        });
        let radio = Self { program, address: (Ipv4Addr::LOCALHOST, port.unwrap()).into(), _folder: folder };
        // It answers before it knows who it is.
        until("Icecast answers", || radio.get(PROBE, &[]).text().contains("radio.example.org"));
        radio
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it says to those who ask it directly.
    #[track_caller]
    pub(super) fn get(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        Client::connect(self.address).exchange(&request("GET", target, fields, b""))
    }

    /// All that it has logged, every request with its whole target among it.
    pub(super) fn log(&self) -> String {
        self.program.out() + &self.program.err()
    }

    /// Feeds `/live` until the source is dropped, and waits until listeners would hear it.
    #[track_caller]
    pub(super) fn feed(&self) -> Source {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let basic = STANDARD.encode(format!("source:{SOURCE_PASSWORD}"));
        let head = format!("PUT /live HTTP/1.0\r\nAuthorization: Basic {basic}\r\nContent-Type: audio/mpeg\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 15];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.0 200 OK");
        let ended = Arc::<AtomicBool>::default();
        let source = Source(ended.clone());
        thread::spawn(move || {
            for number in 0_u32.. {
                // The pace of a radio: Icecast drops listeners that fall behind, and sources that are silent.
                if number % 100 == 0 {
                    thread::sleep(Duration::from_millis(20));
                }
                if ended.load(SeqCst) || writeln!(socket, "{}", line(number)).is_err() {
                    return;
                }
            }
        });
        until("Icecast has the mount", || self.get(PROBE, &[]).text().contains("/live"));
        source
    }
}

/// A source of a stream. Dropping it ends the stream.
pub(super) struct Source(Arc<AtomicBool>);

impl Drop for Source {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn line(number: u32) -> String {
    format!("line {number:08}")
}

/// How many lines of the stream there are in this part of it, one after another and without a gap.
#[track_caller]
pub(super) fn lines_in_order(stream: &str) -> usize {
    // The first and the last may have been cut.
    let whole: Vec<&str> = stream.split('\n').skip(1).collect();
    let whole = whole.split_last().map_or(&[][..], |(_, whole)| whole);
    let first = whole.first().and_then(|line| line.strip_prefix("line ")?.parse().ok());
    let first: u32 = first.unwrap_or_else(|| panic!("no numbered line: {stream:?}"));
    for (number, found) in (first..).zip(whole) {
        assert_eq!(*found, line(number));
    }
    whole.len()
}
