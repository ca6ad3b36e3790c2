//! Keeps the replica up with the store.

use std::time::Duration;

/// How the replica is kept up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long to wait for a hint before looking anyway.
    pub poll_interval: Duration,
    /// How old the last successful pull may be before every key is answered with 503.
    pub max_staleness: Duration,
}
