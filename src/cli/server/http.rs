//! One question to a server and its answer: over TLS, or in the clear to this machine. What was lost on the way is told apart
//! from what never began.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::exit::Failure;
use crate::tls;

/// For a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// For an answer, its end included; the longest that a server waits for others is 30 s.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer: a thousand keys with all that they can have are a tenth of it.
const LONGEST: usize = 64 << 20;

/// A server, and the way to it.
pub(super) struct Way {
    host: String,
    port: u16,
    authority: HeaderValue,
    /// What stands before the paths of the API.
    before: String,
    tls: Option<tls::Client>,
    /// Whether whoever answers must be this machine.
    only_here: bool,
    authorization: HeaderValue,
    /// As people know it.
    pub(super) name: String,
}

/// A question.
pub(super) struct Question<'q> {
    pub(super) method: Method,
    /// Path and query, as the API knows them.
    pub(super) target: String,
    pub(super) fields: Vec<(HeaderName, String)>,
    /// What is sent along, and the media type that it is of.
    pub(super) body: Option<(&'static str, &'q str)>,
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
pub(super) enum Lost {
    /// Nothing was asked.
    NoConnection(String),
    /// It may have been heard.
    NoAnswer(String),
}

impl Way {
    /// The way to a URL. The key is presented with every question.
    pub(super) fn new(url: &str, ca: Option<&Path>, allow_http: bool, key: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Usage(format!("--server: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("must be a URL such as https://keys.example.com"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong(
                "must be https:// (or http:// on this machine) and a host, such as https://keys.example.com",
            ));
        };
        if authority.as_str().contains('@') || uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong("must be a URL without a user and a query; the key is in KEYWARD_API_KEY or --key-file"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (is_https, only_here) = (scheme == "https", scheme == "http" && !allow_http);
        if only_here && !is_here(&host) {
            return Err(wrong(
                "by http:// the key would be read by everybody on the way; use https://, or --allow-http if nobody is there",
            ));
        }
        if ca.is_some() && !is_https {
            return Err(Failure::Usage("--ca is for https:// only".to_owned()));
        }
        let files = tls::ClientFiles { ca: ca.map(Path::to_owned), own: None };
        let tls = is_https.then(|| tls::Client::load(&files, &host, false)).transpose();
        let tls = tls.map_err(|error| Failure::Usage(format!("--ca: {error}")))?;
        let before = uri.path().trim_end_matches('/');
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| Failure::Usage("the API key has characters that no key has".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("has no host"))?,
            before: before.strip_suffix("/v2").unwrap_or(before).to_owned(),
            name: format!("{scheme}://{authority}{before}"),
            host,
            tls,
            only_here,
            authorization,
        })
    }

    /// Asks.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Reply, Lost> {
        let connected = timeout(CONNECT, self.connect()).await;
        let connection =
            connected.unwrap_or_else(|_| Err("it does not answer".to_owned())).map_err(Lost::NoConnection)?;
        let request = self.request(question).map_err(Lost::NoConnection)?;
        let exchanged = timeout(ANSWER, exchange(connection, request)).await;
        exchanged.unwrap_or_else(|_| Err("it did not answer in time".to_owned())).map_err(Lost::NoAnswer)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
        // Where only this machine is meant, a name may not lead elsewhere.
        let addresses = found.into_iter().filter(|address| !self.only_here || address.ip().is_loopback());
        let mut why = "its name leads nowhere".to_owned();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => return self.secured(socket).await,
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    async fn secured(&self, socket: TcpStream) -> Result<Box<dyn Stream>, String> {
        let _ = socket.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Box::new(socket)) };
        match tls.connect(socket).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!("it is not who it should be: {error}; --ca FILE names whom to believe")),
        }
    }

    fn request(&self, question: &Question<'_>) -> Result<Request<String>, String> {
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(format!("{}{}", self.before, question.target))
            .header(HOST, self.authority.clone())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(USER_AGENT, concat!("keyward/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        for (name, value) in &question.fields {
            request = request.header(name, value);
        }
        if let Some((media_type, _)) = question.body {
            request = request.header(CONTENT_TYPE, media_type);
        }
        request.body(question.body.map_or("", |(_, body)| body).to_owned()).map_err(|error| error.to_string())
    }
}

/// What bytes come and go on.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Whether a host is this machine by its name alone.
fn is_here(host: &str) -> bool {
    host.parse::<IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

async fn exchange(stream: Box<dyn Stream>, request: Request<String>) -> Result<Reply, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        Ok(Reply { status: parts.status, headers: parts.headers, body: read(body).await? })
    };
    let answered = answered.await;
    connection.abort();
    answered
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame.map_err(|error| format!("its answer broke off: {error}"))?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > LONGEST {
            return Err("its answer does not end".to_owned());
        }
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(url: &str, allow_http: bool) -> Result<Way, String> {
        Way::new(url, None, allow_http, "kw_live_x").map_err(|failure| failure.to_string())
    }

    #[test]
    fn keys_go_in_the_clear_to_this_machine_alone() {
        for (url, fits) in [
            ("http://127.0.0.1:8081", true),
            ("http://[::1]:8081", true),
            ("http://localhost", true),
            ("http://192.0.2.1", false),
            ("http://keys.example.com", false),
            ("http://localhost.example.com", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(
                way(url, false).map(|_| ()).map_err(|why| why.contains("--allow-http")),
                if fits { Ok(()) } else { Err(true) },
                "{url}"
            );
            assert!(way(url, true).is_ok(), "{url}");
        }
        for url in ["", "keys.example.com", "ftp://h", "http://ann:secret@localhost", "http://localhost?x", "http://"] {
            let why = way(url, true).map(|_| ()).unwrap_err();
            assert!(why.starts_with("--server: must be ") && !why.contains("secret"), "{url}: {why}");
        }
    }

    #[test]
    fn the_prefix_of_a_mount_may_be_given_with_or_without_its_end() {
        for (url, before) in [
            ("http://localhost", ""),
            ("http://localhost/", ""),
            ("http://localhost/v2", ""),
            ("http://localhost/manage", "/manage"),
            ("http://localhost/manage/v2/", "/manage"),
        ] {
            assert_eq!(way(url, false).unwrap().before, before, "{url}");
        }
    }
}
