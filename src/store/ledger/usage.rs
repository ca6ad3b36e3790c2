//! How often keys were used, and when last, by each of their values: so that it shows during a rotation who still has the
//! old one.

use std::net::IpAddr;

use serde::Serialize;

use crate::auth::digest::Digest;
use crate::auth::grant::Timestamp;

/// Uses of one value of a key that were not counted yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Uses {
    /// The key.
    pub key: Box<str>,
    /// The value.
    pub secret: Digest,
    /// Requests that it was good for.
    pub count: u64,
    /// When the last of them came, in minutes since 1970.
    pub minute: u32,
    /// Where it came from, if that is known.
    pub client: Option<IpAddr>,
}

/// What is known of the uses of one value of a key.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The key.
    pub key: Box<str>,
    /// The value; never shown.
    #[serde(skip)]
    pub secret: Digest,
    /// Requests that it was good for, since they are counted.
    pub count: u64,
    /// When it was used last, to the minute.
    pub last_used: Timestamp,
    /// The node that let the last of them pass.
    pub node: String,
    /// Where that came from, if it is known.
    pub client: Option<String>,
}

/// The time of a minute that is counted from 1970.
pub fn time_of(minute: u64) -> Timestamp {
    Timestamp::from_millis(minute.saturating_mul(60_000))
}
