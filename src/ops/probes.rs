//! Probes that are passed on: kubelet cannot reach a server that listens on loopback alone, as it should behind Keyward.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use crate::control::Page;

/// For a whole probe. Kubelet's own limit is shorter by default.
const LIMIT: Duration = Duration::from_secs(10);

/// A server on this machine. Only such a one is asked: whoever reaches the ops listener needs no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalServer {
    /// A host that is loopback, and its port.
    Loopback(String),
    /// A socket in the file system.
    Socket(PathBuf),
}

impl LocalServer {
    /// A host and its port, if the host is loopback.
    pub fn loopback(authority: &str) -> Option<Self> {
        let (host, _) = authority.rsplit_once(':')?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_local = address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback());
        is_local.then(|| Self::Loopback(authority.to_owned()))
    }

    async fn status_of(&self, path: &PathAndQuery) -> io::Result<StatusCode> {
        match self {
            Self::Loopback(authority) => get(TcpStream::connect(authority).await?, authority, path).await,
            Self::Socket(socket) => get(UnixStream::connect(socket).await?, "localhost", path).await,
        }
    }
}

/// What may be asked of the server behind, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Who is asked.
    pub server: LocalServer,
    /// By path on the ops listener, the path there.
    pub paths: BTreeMap<String, PathAndQuery>,
}

impl Probes {
    /// The answer to a probe, of which only the status is passed on; `None` where there is no such probe.
    pub(super) async fn page(&self, name: &str) -> Option<Page> {
        let path = self.paths.get(name)?;
        Some(match tokio::time::timeout(LIMIT, self.server.status_of(path)).await {
            Ok(Ok(status)) => Page::text(status, format!("the server behind answered {}\n", status.as_u16())),
            Ok(Err(error)) => {
                tracing::debug!(%error, probe = name, "the server behind did not answer a probe");
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "the server behind gave no answer\n")
            }
            Err(_) => Page::text(StatusCode::GATEWAY_TIMEOUT, "the server behind did not answer in time\n"),
        })
    }
}

async fn get<S>(socket: S, host: &str, path: &PathAndQuery) -> io::Result<StatusCode>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    TokioIo<S>: Read + Write,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    let request = Request::get(path.as_str()).header(HOST, host).header(CONNECTION, "close").body(String::new());
    let exchange = sender.send_request(request.map_err(io::Error::other)?);
    tokio::select! {
        biased;
        response = exchange => Ok(response.map_err(io::Error::other)?.status()),
        Err(error) = connection => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for (authority, local) in [
            ("127.0.0.1:80", true),
            ("127.8.9.1:80", true),
            ("[::1]:80", true),
            ("localhost:9000", true),
            ("LocalHost:9000", true),
            ("app:80", false),
            ("localhost.example:80", false),
            ("10.0.0.1:80", false),
            ("169.254.169.254:80", false),
            ("0.0.0.0:80", false),
            ("[::ffff:10.0.0.1]:80", false),
        ] {
            assert_eq!(LocalServer::loopback(authority).is_some(), local, "{authority}");
        }
    }
}
