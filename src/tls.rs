//! TLS, by rustls: certificates from PEM files, and what both sides of a connection may do.
//!
//! A leaf: it knows files and sockets, and nothing of requests or of where an option stands. TLS 1.2 and 1.3, no early data (what is
//! sent in it can be replayed), no renegotiation.

mod client;
mod pem;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use self::client::{Client, ClientFiles};
pub use self::server::{Accepted, ClientAuth, Server, ServerFiles};

/// Why files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file has no PEM block of the kind that is wanted, or none that is whole.
    #[error("{path} has no {wanted} in PEM form (-----BEGIN …-----)")]
    Missing {
        /// Which.
        path: PathBuf,
        /// What it ought to hold.
        wanted: &'static str,
    },
    /// The key needs a passphrase, and there is nobody to ask.
    #[error("{path} is encrypted; write it without a passphrase: openssl pkey -in {path} -out PLAIN")]
    Encrypted {
        /// Which.
        path: PathBuf,
    },
    /// The key is for another certificate.
    #[error("{path} is not the key of the certificate in {certificate}")]
    Mismatch {
        /// The key.
        path: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// The certificate's time is over.
    #[error("{path} has expired: it was valid until {until}", until = time(*until))]
    Expired {
        /// Which.
        path: PathBuf,
        /// Until when it was valid.
        until: SystemTime,
    },
    /// The certificate's time has not come.
    #[error("{path} is not valid yet: it will be from {from}", from = time(*from))]
    NotYetValid {
        /// Which.
        path: PathBuf,
        /// From when it will be.
        from: SystemTime,
    },
    /// What a file holds is not what it should be.
    #[error("{path} cannot be used: {source}")]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Without a file of roots, the machine's are needed.
    #[error("this machine has no root certificates; name a file with those of the upstream")]
    NoRoots,
    /// Whom a certificate must be for is no host and no address.
    #[error("is no name that a certificate can be for: a host or an address")]
    NoName,
    /// The library refuses what it was asked for.
    #[error("TLS cannot be used: {0}")]
    Library(rustls::Error),
}

impl Error {
    /// The file that is wrong, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { path, .. }
            | Self::Missing { path, .. }
            | Self::Encrypted { path }
            | Self::Mismatch { path, .. }
            | Self::Expired { path, .. }
            | Self::NotYetValid { path, .. }
            | Self::Unfit { path, .. } => Some(path),
            Self::NoRoots | Self::NoName | Self::Library(_) => None,
        }
    }
}

fn time(time: SystemTime) -> humantime::Rfc3339Timestamp {
    // The printer knows four digits of a year.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.min(last))
}

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
