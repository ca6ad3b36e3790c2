//! What a look-up yields: a small copy of everything a decision about one secret needs.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::Digest;
use super::limit::Exhausted;
use super::scope::Scope;

/// A point in time, in milliseconds since 1970 UTC; prints as RFC 3339 with milliseconds (seed V11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than everything: what never expires expires then.
    pub const NEVER: Self = Self(u64::MAX);

    /// From milliseconds since 1970 UTC.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970 UTC.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Reads RFC 3339 in UTC, such as `2027-01-31T12:00:00Z`, or a date alone.
    pub fn parse(text: &str) -> Option<Self> {
        let whole = if text.len() == "2027-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
        humantime::parse_rfc3339(&whole).ok().map(Self::from)
    }

    /// That much later.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    /// A clock before 1970 reads as 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 9999-12-31T23:59:59.999Z is the last time that RFC 3339 can write.
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(253_402_300_799_999));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a time such as 2027-01-31T12:00:00.000Z"))
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Everything in its scope.
    ReadWrite,
    /// Only requests of class `read`.
    ReadOnly,
}

impl Access {
    /// As in records, headers and output.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
        }
    }
}

/// Which of the two worlds a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Environment {
    /// Production.
    Live,
    /// Sandbox.
    Test,
}

impl Environment {
    /// As in keys, records, headers and output.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// The state of a key. Expiry is no state: it is compared with the clock at each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Works.
    Active,
    /// Refused until it is enabled again.
    Disabled,
    /// Refused for good.
    Revoked,
}

impl State {
    /// As in records and output.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

/// Where the replica keeps a key's id and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIndex(pub u32);

/// Where the replica keeps a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeIndex(pub u32);

impl ScopeIndex {
    /// No scope: the key acts everywhere.
    pub const EVERYWHERE: Self = Self(u32::MAX);
}

/// Where the replica keeps an allowlist and a limit; keys with the same two share one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestrictionsIndex(pub u32);

impl RestrictionsIndex {
    /// No list: any address (seed V16). And no limit.
    pub const NONE: Self = Self(u32::MAX);
}

/// Where the replica keeps a user's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIndex(pub NonZero<u32>);

/// Where the replica keeps what the keys below a key need to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentIndex(pub NonZero<u32>);

/// What stands behind a key: most have nothing there, and need not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The user whose account it is bound to.
    pub owner: Option<UserIndex>,
    /// The key that it was made below.
    pub parent: Option<ParentIndex>,
}

impl Lineage {
    /// Nobody and nothing.
    pub const NONE: Self = Self { owner: None, parent: None };
}

/// What a user's keys may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The user may use the API.
    Good,
    /// Nobody has allowed it, or somebody has taken it back (B5, B7).
    NoApiAccess,
    /// The user is suspended, or not there.
    Suspended,
}

/// Where the replica counts how often a secret is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TallyIndex(pub u32);

impl TallyIndex {
    /// Nowhere: of what no secret opens, nothing is counted.
    pub const NONE: Self = Self(u32::MAX);
}

/// What one secret opens. A copy is handed out, so no lock is held while a request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The key that the secret belongs to.
    pub key: KeyIndex,
    /// The key's scope.
    pub scope: ScopeIndex,
    /// The addresses it may come from, and how often.
    pub restrictions: RestrictionsIndex,
    /// What stands behind the key.
    pub lineage: Lineage,
    /// Where the uses of the secret are counted.
    pub tally: TallyIndex,
    /// When the key ends.
    pub expires_at: Timestamp,
    /// When this secret ends: it may be retired before its key.
    pub not_after: Timestamp,
    /// What the key may do.
    pub access: Access,
    /// The world it belongs to.
    pub environment: Environment,
    /// Its state.
    pub state: State,
    /// Whether a limit is among its restrictions: most keys have none, and need not look.
    pub is_limited: bool,
}

/// Why nothing can be known about any key now: answered with 503, never 401, since clients throw keys away on 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No pull has succeeded since the start.
    NotLoaded,
    /// The last successful pull is older than `max_staleness`.
    Expired,
}

/// The replica, as a decision sees it.
pub trait Keys {
    /// What the secret with this digest opens.
    ///
    /// # Errors
    /// When the replica is not loaded, or too old to be believed.
    fn grant(&self, digest: &Digest) -> Result<Option<Grant>, Unavailable>;
    /// A scope, `None` for a dangling one.
    fn scope(&self, index: ScopeIndex) -> Option<&Scope>;
    /// The one scope whose last step this is, `None` if there is none or more than one.
    fn scope_of_step(&self, step: &super::scope::Step) -> Option<&Scope>;
    /// Whether the scope and all above it exist and are active.
    fn is_active(&self, index: ScopeIndex) -> bool;
    /// What the keys of a user may count on.
    fn standing(&self, user: UserIndex) -> Standing;
    /// What a key that others were made below may do; `None` for one that is not there.
    fn parent(&self, index: ParentIndex) -> Option<Grant>;
    /// Whether the allowlist has the address. An address that is not known is on none but the list of any.
    fn allows(&self, restrictions: RestrictionsIndex, address: Option<IpAddr>) -> bool;
    /// Takes one request, at the moment that this view is of, from what the key's limit still gives.
    ///
    /// # Errors
    /// When that is nothing.
    fn take(&self, grant: &Grant) -> Result<(), Exhausted>;
    /// Whether, since this view was made or was asked this, something was given after something else was taken away: what was
    /// looked up before and what was looked up afterwards may never have been true together.
    fn has_turned(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_stays_small() {
        assert_eq!(size_of::<Grant>(), 48, "a million keys have a million of them");
    }

    #[test]
    fn times_are_read_and_written_as_rfc_3339() {
        for (text, expected) in [
            ("2021-01-01T12:00:00.000Z", Some("2021-01-01T12:00:00.000Z")),
            ("2021-01-01T12:00:00Z", Some("2021-01-01T12:00:00.000Z")),
            ("2021-01-01", Some("2021-01-01T00:00:00.000Z")),
            ("2021-13-01", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), expected, "{text}");
        }
        assert_eq!(Timestamp::NEVER.to_string(), "9999-12-31T23:59:59.999Z");
    }
}
