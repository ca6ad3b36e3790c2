//! The server behind Keyward.

use std::path::PathBuf;

/// Where the upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port`; the authority as written, with its port.
    Http(String),
    /// `unix:/path/to.sock`.
    Unix(PathBuf),
}
