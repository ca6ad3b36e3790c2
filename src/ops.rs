//! For kubelet and Prometheus.

use std::net::SocketAddr;

/// What the config says of the ops listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
}
