//! For those who run Keyward.

use std::net::SocketAddr;

/// What the config says of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
}
