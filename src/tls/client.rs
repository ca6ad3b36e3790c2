//! Our side of connections that we open to the upstream: whose word is taken for who it is, and our own certificate.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig, InconsistentKeys, RootCertStore};

use super::{Error, pem, provider};

/// Where the roots are, and our own certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The roots of the upstream's certificate; those of the system if there is none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, for upstreams that ask who calls.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ClientFiles {
    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.ca.iter().chain(self.own.iter().flat_map(|(certificate, key)| [certificate, key]))
    }
}

/// The client's side of TLS, as its files were when they were read.
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// Reads the files. `name` is whom the certificate must be for: a host, or an address. `http2` asks for HTTP/2 and
    /// nothing else.
    ///
    /// # Errors
    /// When files cannot be read, do not fit together or are not valid now, or the name is none.
    pub fn load(files: &ClientFiles, name: &str, http2: bool) -> Result<Self, Error> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| Error::NoName)?;
        let roots = match &files.ca {
            Some(path) => pem::authorities(path)?,
            None => system_roots()?,
        };
        let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = versions.map_err(Error::Library)?.with_root_certificates(roots);
        let mut config = match &files.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = pem::certificates(certificate)?;
                if let Some(own) = chain.first() {
                    pem::valid_until(own, certificate, SystemTime::now())?;
                }
                builder.with_client_auth_cert(chain, pem::key(key)?).map_err(|source| match source {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        Error::Mismatch { path: key.clone(), certificate: certificate.clone() }
                    }
                    source => Error::Unfit { path: key.clone(), source },
                })?
            }
        };
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(Self { config: Arc::new(config), name })
    }

    /// Establishes a connection. Takes as long as the server lets it.
    ///
    /// # Errors
    /// When the server leaves, is not who it should be, or speaks no TLS of ours.
    pub async fn connect<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let is_http2 = self.config.alpn_protocols.iter().any(|protocol| protocol == b"h2");
        let stream = TlsConnector::from(self.config.clone()).connect(self.name.clone(), stream).await;
        let stream = stream.map_err(|error| if is_about_protocol(&error) { not_agreed(is_http2) } else { error })?;
        // Old servers of HTTP/1.1 leave the question unanswered.
        if is_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(not_agreed(is_http2));
        }
        Ok(stream)
    }
}

/// Whether the server has ended the handshake because it speaks nothing of what we asked for (RFC 7301 section 3.2).
fn is_about_protocol(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner == Some(&rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))
}

fn not_agreed(is_http2: bool) -> io::Error {
    io::Error::other(if is_http2 {
        "it does not agree to HTTP/2; if it speaks HTTP/1.1, set proxy.upstream_protocol to http1"
    } else {
        "it does not agree to HTTP/1.1; if it speaks HTTP/2, set proxy.upstream_protocol to http2"
    })
}

/// The roots that this machine believes: those of its administrator are among them, which no list that came with the program
/// would know.
fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(Error::NoRoots) } else { Ok(roots) }
}

impl PartialEq for Client {
    /// The same, if its files were read at the same time.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Client {}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.name).finish()
    }
}
