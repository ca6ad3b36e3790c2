//! The last step of a decision, by itself: only what passes everything else takes from the key's limit. And what becomes of
//! what has begun.

use std::cell::Cell;

use super::credential::Forms;
use super::digest::Digest;
use super::grant::{
    KeyIndex, Lineage, ParentIndex, RestrictionsIndex, ScopeIndex, Standing, State, TallyIndex, Unavailable, UserIndex,
};
use super::key::{Alphabet, Brand, Shape};
use super::limit::{Exhausted, Limit};
use super::route::{ClassRule, Pattern, RequestTarget, Routes, Rule};
use super::scope::{Scope, Step};
use super::*;

const SECRET: &str = "7e14204fcce1e00152b4";
const NOW: Timestamp = Timestamp::from_millis(1_000);

/// One key, and a limit of one request.
struct OneKey {
    grant: Cell<Grant>,
    /// What it is in a moment.
    soon: Cell<Option<Grant>>,
    left: Cell<u32>,
    asked: Cell<u32>,
}

impl Keys for OneKey {
    fn has_turned(&self) -> bool {
        let soon = self.soon.take();
        soon.inspect(|grant| self.grant.set(*grant)).is_some()
    }

    fn grant(&self, _digest: &Digest) -> Result<Option<Grant>, Unavailable> {
        Ok(Some(self.grant.get()))
    }

    fn scope(&self, _index: ScopeIndex) -> Option<&Scope> {
        None
    }

    fn scope_of_step(&self, _step: &Step) -> Option<&Scope> {
        None
    }

    fn is_active(&self, index: ScopeIndex) -> bool {
        index == ScopeIndex::EVERYWHERE
    }

    fn standing(&self, _user: UserIndex) -> Standing {
        Standing::Suspended
    }

    fn parent(&self, _index: ParentIndex) -> Option<Grant> {
        None
    }

    fn allows(&self, restrictions: RestrictionsIndex, _address: Option<IpAddr>) -> bool {
        restrictions == RestrictionsIndex::NONE
    }

    fn take(&self, _grant: &Grant) -> Result<(), Exhausted> {
        self.asked.set(self.asked.get() + 1);
        let limit = Limit::new(1, 60).unwrap();
        let left = self.left.get().checked_sub(1).ok_or(Exhausted { limit, retry_after: 60 })?;
        self.left.set(left);
        Ok(())
    }
}

/// A key that may do everything, once.
fn one_key(change: impl FnOnce(&mut Grant)) -> OneKey {
    let mut grant = Grant {
        key: KeyIndex(0),
        scope: ScopeIndex::EVERYWHERE,
        restrictions: RestrictionsIndex::NONE,
        lineage: Lineage::NONE,
        tally: TallyIndex::NONE,
        expires_at: Timestamp::NEVER,
        not_after: Timestamp::NEVER,
        access: Access::ReadWrite,
        environment: Environment::Live,
        state: State::Active,
        is_limited: true,
    };
    change(&mut grant);
    OneKey { grant: Cell::new(grant), soon: Cell::new(None), left: Cell::new(1), asked: Cell::new(0) }
}

/// Decides about a POST with the key.
fn decide(keys: &OneKey, path: &str) -> Result<(), Denied> {
    let header = Some(http::HeaderName::from_static("x-api-key"));
    let forms = Forms { organization: false, bearer: false, basic: false, bare: false, header, query: None };
    let environment = Some(Environment::Live);
    let rule = |requirement| Rule { requirement, class: ClassRule::Method, environment, forms: forms.clone() };
    let public = (Pattern::parse("/public", &[], vec![]).unwrap(), rule(Requirement::Nothing));
    let routes = Routes::new(vec![public], rule(Requirement::Key), PathMode::Strict);
    let shape = Shape { name: "cablecast".into(), length: 20, alphabet: Alphabet::Hex };
    let format = KeyFormat::new(Brand::parse("kw").unwrap(), vec![shape]);
    let locksmith = Locksmith { format, pepper: Pepper::from_hex(&"5a".repeat(32)).unwrap() };
    let (method, uri, mut headers) = (Method::POST, path.parse().unwrap(), HeaderMap::new());
    headers.insert("x-api-key", http::HeaderValue::from_static(SECRET));
    let matched = routes.find(&RequestTarget { method: &method, uri: &uri, headers: &headers });
    let facts = Facts { method: &method, query: None, headers: &headers, client: None };
    authorize(&facts, &matched, &locksmith, keys, NOW).map(|_permit| ())
}

#[test]
fn r14_what_is_denied_takes_nothing_from_the_limit() {
    let nowhere = RestrictionsIndex(0);
    for (key, denial) in [
        (one_key(|grant| grant.state = State::Revoked), Denial::RevokedCredential),
        (one_key(|grant| grant.state = State::Disabled), Denial::DisabledCredential),
        (one_key(|grant| grant.expires_at = NOW), Denial::ExpiredCredential),
        (one_key(|grant| grant.scope = ScopeIndex(7)), Denial::SuspendedScope),
        (one_key(|grant| grant.environment = Environment::Test), Denial::WrongEnvironment),
        (one_key(|grant| grant.restrictions = nowhere), Denial::AddressNotAllowed),
        (one_key(|grant| grant.access = Access::ReadOnly), Denial::ReadOnlyKey),
    ] {
        let denied = decide(&key, "/a").unwrap_err();
        assert_eq!((denied.denial, denied.exhausted, key.asked.get()), (denial, None, 0), "{denial:?}");
    }
    let key = one_key(|_| ());
    assert_eq!((decide(&key, "/public"), key.asked.get()), (Ok(()), 0), "nor does a public route");
}

#[test]
fn what_was_never_true_at_once_decides_nothing() {
    let key = one_key(|_| ());
    key.soon.set(Some(Grant { state: State::Revoked, ..key.grant.get() }));
    let denied = decide(&key, "/a").unwrap_err();
    assert_eq!((denied.denial, key.asked.get()), (Denial::RevokedCredential, 0), "it has looked again");
}

#[test]
fn the_limit_comes_last_and_says_when_to_come_again() {
    let key = one_key(|_| ());
    assert_eq!(decide(&key, "/a"), Ok(()));
    let denied = decide(&key, "/a").unwrap_err();
    assert_eq!((denied.denial, denied.key), (Denial::RateLimited, Some(KeyIndex(0))));
    assert_eq!(denied.exhausted.map(|exhausted| exhausted.retry_after), Some(60));

    let key = one_key(|grant| grant.is_limited = false);
    assert_eq!([decide(&key, "/a"), decide(&key, "/a")], [Ok(()), Ok(())]);
    assert_eq!(key.asked.get(), 0, "a key without a limit is not even asked for one");
}

#[test]
fn what_has_begun_goes_on_as_long_as_the_key_is_good() {
    let good = |key: &OneKey| good_until(key, &Digest::from_record_id(&"5a".repeat(16)).unwrap(), None, NOW);
    let (soon, later) = (Timestamp::from_millis(2_000), Timestamp::from_millis(3_000));
    for (key, expected) in [
        (one_key(|_| ()), Ok(Timestamp::NEVER)),
        (one_key(|grant| (grant.expires_at, grant.not_after) = (later, soon)), Ok(soon)),
        (one_key(|grant| (grant.expires_at, grant.not_after) = (soon, later)), Ok(soon)),
        (one_key(|grant| grant.not_after = NOW), Err(Denial::ExpiredCredential)),
        (one_key(|grant| grant.expires_at = NOW), Err(Denial::ExpiredCredential)),
        (one_key(|grant| grant.state = State::Revoked), Err(Denial::RevokedCredential)),
        (one_key(|grant| grant.state = State::Disabled), Err(Denial::DisabledCredential)),
        (one_key(|grant| grant.scope = ScopeIndex(7)), Err(Denial::SuspendedScope)),
        (one_key(|grant| grant.restrictions = RestrictionsIndex(0)), Err(Denial::AddressNotAllowed)),
        // It was judged when it began.
        (one_key(|grant| grant.access = Access::ReadOnly), Ok(Timestamp::NEVER)),
    ] {
        assert_eq!((good(&key), key.asked.get()), (expected, 0));
    }
}
