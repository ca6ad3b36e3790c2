//! Our side of connections that clients open: certificate, key, and whose certificates clients may have. It is made anew
//! whenever a file has changed; connections that are open go on with what they began with.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::{Error, pem, provider};

/// Where certificate and key are, and what is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The roots of clients' certificates, and whether each client must have one. `None` asks for none.
    pub client_ca: Option<(PathBuf, ClientAuth)>,
}

impl ServerFiles {
    /// All of them.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(self.client_ca.iter().map(|(path, _)| path))
    }
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// All must.
    Required,
    /// Those that have one must have a good one.
    Optional,
}

/// The server's side of TLS, as its files were when they were read.
pub struct Server {
    acceptor: TlsAcceptor,
    valid_until: SystemTime,
}

/// A connection that has been established.
pub struct Accepted<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// Whether both sides agreed on HTTP/2.
    pub is_http2: bool,
}

impl Server {
    /// Reads the files. `http2` offers HTTP/2 beside HTTP/1.1.
    ///
    /// # Errors
    /// When they cannot be read, do not fit together, or are not valid now.
    pub fn load(files: &ServerFiles, http2: bool) -> Result<Self, Error> {
        let chain = pem::certificates(&files.certificate)?;
        let valid_until = match chain.first() {
            Some(own) => pem::valid_until(own, &files.certificate, SystemTime::now())?,
            None => return Err(Error::Missing { path: files.certificate.clone(), wanted: "certificate" }),
        };
        let key = pem::key(&files.key)?;
        let unfit = |source| Error::Unfit { path: files.certificate.clone(), source };
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(unfit)?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some((path, auth)) => builder.with_client_cert_verifier(verifier(path.clone(), *auth)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::Mismatch { path: files.key.clone(), certificate: files.certificate.clone() }
            }
            // What is wrong with the certificate alone was found above.
            source => Error::Unfit { path: files.key.clone(), source },
        })?;
        let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().copied().map(<[u8]>::to_vec).collect();
        // Clients keep their sessions themselves, so that any number of them can come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new().map_err(unfit)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), valid_until })
    }

    /// Until when the certificate is valid.
    pub fn valid_until(&self) -> SystemTime {
        self.valid_until
    }

    /// Establishes a connection. Takes as long as the client lets it.
    ///
    /// # Errors
    /// When the client leaves, or no connection comes about; it has been told why then.
    pub async fn accept<S>(&self, stream: S) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Accepted { stream, is_http2 })
    }
}

fn verifier(path: PathBuf, auth: ClientAuth) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Error> {
    let roots = Arc::new(pem::authorities(&path)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| match error {
        VerifierBuilderError::NoRootAnchors => Error::Missing { path, wanted: "certificate" },
        other => Error::Unfit { path, source: rustls::Error::General(other.to_string()) },
    })
}
