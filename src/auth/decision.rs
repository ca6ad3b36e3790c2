//! The two outcomes of a decision. A denial is expected, not an error; what the client hears of it and what the log hears
//! are different things.

use std::ops::Range;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::credential::{Form, Place};
use super::digest::Digest;
use super::grant::{Grant, KeyIndex, Unavailable};
use super::limit::Exhausted;
use super::route::Class;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// Nothing was presented.
    MissingCredential,
    /// It cannot be a key, or not in the form it was presented in.
    MalformedCredential,
    /// No key has it.
    UnknownCredential,
    /// The key was revoked.
    RevokedCredential,
    /// The key is disabled.
    DisabledCredential,
    /// The key, or this secret of it, has ended.
    ExpiredCredential,
    /// The key's scope, or one above it, is suspended or gone.
    SuspendedScope,
    /// The key's owner is suspended or gone.
    SuspendedUser,
    /// A key above it does not work any more.
    DeadParent,
    /// Two or more credentials.
    AmbiguousCredential,
    /// A path that servers read differently.
    AmbiguousPath,
    /// The key's allowlist lacks the client's address.
    AddressNotAllowed,
    /// A read-only key on a request of class `write`.
    ReadOnlyKey,
    /// The request is about something outside the key's scope.
    OutsideScope,
    /// A key of the other environment.
    WrongEnvironment,
    /// The key's owner may not use the API (B5, B7).
    NoApiAccess,
    /// The key was used as often as its limit allows.
    RateLimited,
    /// The replica has not been loaded yet.
    ReplicaNotLoaded,
    /// The replica is older than `max_staleness`.
    ReplicaExpired,
}

/// What follows from a denial.
pub struct Terms {
    /// The status of the answer.
    pub status: StatusCode,
    /// What the client is told. Unknown, revoked and malformed keys look alike from outside.
    pub public_code: &'static str,
    /// What metrics and logs are told.
    pub label: &'static str,
    /// Whether a `WWW-Authenticate` challenge goes with it.
    pub challenge: bool,
}

impl Denial {
    /// All of them, in order of declaration: the series of metrics and the tables of answers are made for each.
    pub const ALL: [Self; 19] = [
        Self::MissingCredential,
        Self::MalformedCredential,
        Self::UnknownCredential,
        Self::RevokedCredential,
        Self::DisabledCredential,
        Self::ExpiredCredential,
        Self::SuspendedScope,
        Self::SuspendedUser,
        Self::DeadParent,
        Self::AmbiguousCredential,
        Self::AmbiguousPath,
        Self::AddressNotAllowed,
        Self::ReadOnlyKey,
        Self::OutsideScope,
        Self::WrongEnvironment,
        Self::NoApiAccess,
        Self::RateLimited,
        Self::ReplicaNotLoaded,
        Self::ReplicaExpired,
    ];

    /// The one table of what each denial means.
    pub const fn terms(self) -> Terms {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const WHO: StatusCode = StatusCode::UNAUTHORIZED;
        const NO: StatusCode = StatusCode::FORBIDDEN;
        const SLOWER: StatusCode = StatusCode::TOO_MANY_REQUESTS;
        const LATER: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        let (status, public_code, label) = match self {
            Self::MissingCredential => (WHO, "missing_credential", "missing_credential"),
            Self::MalformedCredential => (WHO, "invalid_credential", "malformed_credential"),
            Self::UnknownCredential => (WHO, "invalid_credential", "unknown_credential"),
            Self::RevokedCredential => (WHO, "invalid_credential", "revoked_credential"),
            Self::DisabledCredential => (WHO, "invalid_credential", "disabled_credential"),
            Self::ExpiredCredential => (WHO, "invalid_credential", "expired_credential"),
            Self::SuspendedScope => (WHO, "invalid_credential", "suspended_scope"),
            Self::SuspendedUser => (WHO, "invalid_credential", "suspended_user"),
            Self::DeadParent => (WHO, "invalid_credential", "dead_parent"),
            Self::AmbiguousCredential => (BAD, "ambiguous_credential", "ambiguous_credential"),
            Self::AmbiguousPath => (BAD, "ambiguous_path", "ambiguous_path"),
            Self::AddressNotAllowed => (NO, "address_not_allowed", "address_not_allowed"),
            Self::ReadOnlyKey => (NO, "read_only_key", "read_only_key"),
            Self::OutsideScope => (NO, "outside_scope", "outside_scope"),
            Self::WrongEnvironment => (NO, "wrong_environment", "wrong_environment"),
            Self::NoApiAccess => (NO, "no_api_access", "no_api_access"),
            Self::RateLimited => (SLOWER, "rate_limited", "rate_limited"),
            Self::ReplicaNotLoaded => (LATER, "unavailable", "replica_not_loaded"),
            Self::ReplicaExpired => (LATER, "unavailable", "replica_expired"),
        };
        Terms { status, public_code, label, challenge: status.as_u16() == WHO.as_u16() }
    }

    /// What metrics and logs call it.
    pub const fn label(self) -> &'static str {
        self.terms().label
    }
}

impl From<Unavailable> for Denial {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NotLoaded => Self::ReplicaNotLoaded,
            Unavailable::Expired => Self::ReplicaExpired,
        }
    }
}

/// A denial, and the key that was refused where it is known: its id helps those who read the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub denial: Denial,
    /// Whose.
    pub key: Option<KeyIndex>,
    /// The limit, where that is why.
    pub exhausted: Option<Exhausted>,
}

impl From<Denial> for Denied {
    fn from(denial: Denial) -> Self {
        Self { denial, key: None, exhausted: None }
    }
}

/// The proof that a request may be forwarded. Only [`super::authorize`] makes one, and nothing is forwarded without.
#[must_use]
pub struct Permit {
    grant: Option<Grant>,
    digest: Option<Digest>,
    form: Option<Form>,
    class: Class,
    removals: Removals,
}

impl Permit {
    /// For the holder of a secret.
    pub(super) fn new(grant: Grant, digest: Digest, form: Form, class: Class, removals: Removals) -> Self {
        Self { grant: Some(grant), digest: Some(digest), form: Some(form), class, removals }
    }

    /// For anyone.
    pub(super) fn public(class: Class, removals: Removals) -> Self {
        Self { grant: None, digest: None, form: None, class, removals }
    }

    /// By which secret it was obtained: see [`super::good_until`].
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What was presented; `None` on routes that need no key.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// How it was presented.
    pub fn form(&self) -> Option<Form> {
        self.form
    }

    /// What the request does to the upstream.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What must not reach the upstream.
    pub fn into_removals(self) -> Removals {
        self.removals
    }
}

/// Which lines and bytes of a request are its credential. Nearly always one line of one header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// The name of the key header, where lines of it are removed.
    pub header_name: Option<HeaderName>,
    /// Lines of `Authorization`, in order.
    pub authorization: Lines,
    /// Lines of the key header, in order.
    pub header: Lines,
    /// Ranges of the query, in order.
    pub query: Vec<Range<usize>>,
    /// The lines of `Referer` that stay, where one had a credential in its query (B29).
    pub referer: Option<Vec<HeaderValue>>,
}

/// A set of lines of one header.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Lines {
    /// None of them.
    #[default]
    None,
    /// All of them: nearly always the only one.
    All,
    /// These, in order.
    Some(Vec<usize>),
}

impl Lines {
    fn add(&mut self, line: usize) {
        match self {
            Self::None => *self = Self::Some(vec![line]),
            Self::All => {}
            Self::Some(lines) => lines.push(line),
        }
    }
}

impl Removals {
    /// The only credential goes, and with it the header that it stands in: nothing else of ours can be in it.
    pub(super) fn add_only(&mut self, place: &Place, header: Option<&HeaderName>) {
        match place {
            Place::Authorization(_) => self.authorization = Lines::All,
            Place::Header(_) => {
                self.header_name = header.cloned();
                self.header = Lines::All;
            }
            Place::Query(range) => self.query.push(range.clone()),
        }
    }

    /// One of several goes.
    pub(super) fn add(&mut self, place: &Place, header: Option<&HeaderName>) {
        match place {
            Place::Authorization(line) => self.authorization.add(*line),
            Place::Header(line) => {
                self.header_name = header.cloned();
                self.header.add(*line);
            }
            Place::Query(range) => self.query.push(range.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_revoked_and_malformed_keys_look_alike_from_outside() {
        use Denial::{
            DeadParent, DisabledCredential, ExpiredCredential, MalformedCredential, RevokedCredential, SuspendedScope,
            SuspendedUser, UnknownCredential,
        };
        let alike = [
            UnknownCredential,
            MalformedCredential,
            RevokedCredential,
            DisabledCredential,
            ExpiredCredential,
            SuspendedScope,
            SuspendedUser,
            DeadParent,
        ];
        for denial in alike {
            let terms = denial.terms();
            assert_eq!((terms.status.as_u16(), terms.public_code, terms.challenge), (401, "invalid_credential", true));
        }
    }

    #[test]
    fn what_cannot_be_known_is_never_401() {
        for unavailable in [Unavailable::NotLoaded, Unavailable::Expired] {
            let terms = Denial::from(unavailable).terms();
            assert_eq!((terms.status.as_u16(), terms.challenge), (503, false));
        }
    }

    #[test]
    fn every_denial_is_listed_in_its_place_with_a_label_of_its_own() {
        let labels: std::collections::HashSet<_> = Denial::ALL.iter().map(|d| d.label()).collect();
        assert_eq!(labels.len(), Denial::ALL.len());
        assert!(Denial::ALL.iter().enumerate().all(|(at, denial)| *denial as usize == at));
    }
}
