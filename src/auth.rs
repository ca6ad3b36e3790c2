//! The decision: may this request pass? Pure: no I/O, no clock, no async, and nothing of ours is imported here.
//!
//! [`authorize`] is the product on one screen. Around it: what was presented ([`credential`]), what a key looks like
//! ([`key`]), how it is looked up ([`digest`], [`grant`]), which rule applies ([`route`]), and what comes of it
//! ([`decision`]).

pub mod address;
pub mod authority;
pub mod credential;
pub mod decision;
pub mod digest;
pub mod grant;
pub mod key;
pub mod limit;
pub mod lineage;
pub mod path;
pub mod query;
pub mod route;
pub mod scope;

use std::net::IpAddr;

use http::{HeaderMap, Method};

use self::credential::{Form, Presented, cleaned_referer};
use self::decision::{Denial, Denied, Permit, Removals};
use self::digest::{Digest, Pepper};
use self::grant::{Access, Environment, Grant, Keys, Timestamp, Unavailable};
use self::key::KeyFormat;
use self::route::{Class, Matched, PathMode, Requirement};
use self::scope::Level;

/// What a decision may know of a request.
pub struct Facts<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its query, as it was sent.
    pub query: Option<&'r str>,
    /// Its headers.
    pub headers: &'r HeaderMap,
    /// The client's address, if it is known: see [`address::client_address`].
    pub client: Option<IpAddr>,
}

/// How secrets are read and looked up in this deployment.
pub struct Locksmith {
    /// What keys look like.
    pub format: KeyFormat,
    /// What goes into their digests.
    pub pepper: Pepper,
}

/// Decides about a request that falls under a route: the one place where a [`Permit`] is made.
///
/// # Errors
/// The first rule that it breaks, in the order: path, one credential, its form, known, live with all that stands behind it,
/// environment, address, class, scope, limit. The last is the one step that is more than a look: what passes has taken
/// one request from the key's limit, and what is denied for anything else has not.
pub fn authorize(
    facts: &Facts<'_>,
    matched: &Matched<'_>,
    locksmith: &Locksmith,
    keys: &impl Keys,
    now: Timestamp,
) -> Result<Permit, Denied> {
    if matched.ambiguous == Some(PathMode::Strict) {
        return Err(Denial::AmbiguousPath.into());
    }
    let mut presented = Presented::find(facts.headers, facts.query, &matched.rule.forms, &locksmith.format);
    if matched.rule.requirement == Requirement::Nothing && matched.ambiguous.is_none() {
        let removals = ours_among(presented, facts.headers, matched, locksmith, keys);
        return Ok(Permit::public(class_of(facts.method, matched), removals));
    }
    let empty_parameters = presented.empty_parameters();
    let credential = presented.exactly_one()?;
    let secret = credential.secret().and_then(|secret| locksmith.format.parse(secret));
    let digest = secret.ok_or(Denial::MalformedCredential)?.digest(&locksmith.pepper);
    let look = || judge(&digest, credential.form, facts, matched, keys, now);
    let mut judged = look();
    while keys.has_turned() {
        judged = look();
    }
    let grant = judged?;
    if let Err(exhausted) = lineage::take(&grant, keys) {
        return Err(Denied { denial: Denial::RateLimited, key: Some(grant.key), exhausted: Some(exhausted) });
    }

    let referer = cleaned_referer(facts.headers, &matched.rule.forms, |_| true);
    let mut removals = Removals { query: empty_parameters, referer, ..Removals::default() };
    removals.add_only(&credential.place, matched.rule.forms.header.as_ref());
    removals.query.sort_unstable_by_key(|range| range.start);
    Ok(Permit::new(grant, digest, credential.form, class_of(facts.method, matched), removals))
}

/// What a secret opens, if the request may have it: all that is only looked at.
fn judge(
    digest: &Digest,
    form: Form,
    facts: &Facts<'_>,
    matched: &Matched<'_>,
    keys: &impl Keys,
    now: Timestamp,
) -> Result<Grant, Denied> {
    let grant = keys.grant(digest).map_err(Denial::from)?.ok_or(Denial::UnknownCredential)?;
    let denied = |denial| Denied { denial, key: Some(grant.key), exhausted: None };
    let grant = lineage::stand(grant, keys, now).map_err(denied)?;
    is_of_environment(&grant, matched.rule.environment).map_err(denied)?;
    if !lineage::allows(&grant, keys, facts.client) {
        return Err(denied(Denial::AddressNotAllowed));
    }
    if grant.access == Access::ReadOnly && class_of(facts.method, matched) == Class::Write {
        return Err(denied(Denial::ReadOnlyKey));
    }
    is_in_scope(&grant, form, matched, keys).map_err(denied)?;
    Ok(grant)
}

/// Until when what a secret was permitted may go on, unless something changes meanwhile: a WebSocket, say, or a long answer.
/// It is the state of the key and of its owners that counts, and from where it may be used, not what was asked for. What
/// cannot be known ends nothing.
///
/// # Errors
/// When it may not go on.
pub fn good_until(
    keys: &impl Keys,
    digest: &Digest,
    client: Option<IpAddr>,
    now: Timestamp,
) -> Result<Timestamp, Denial> {
    match keys.grant(digest) {
        Ok(Some(grant)) => {
            let grant = lineage::stand(grant, keys, now)?;
            let is_allowed = lineage::allows(&grant, keys, client);
            is_allowed.then(|| grant.expires_at.min(grant.not_after)).ok_or(Denial::AddressNotAllowed)
        }
        Ok(None) => Err(Denial::UnknownCredential),
        Err(Unavailable::NotLoaded | Unavailable::Expired) => Ok(now),
    }
}

/// On a public route nothing is judged, but what bears our brand or opens a key goes no further.
fn ours_among(
    presented: Presented<'_>,
    headers: &HeaderMap,
    matched: &Matched<'_>,
    locksmith: &Locksmith,
    keys: &impl Keys,
) -> Removals {
    let opens = |value: &[u8]| {
        let secret = locksmith.format.parse(value)?;
        keys.grant(&secret.digest(&locksmith.pepper)).ok().flatten()
    };
    let is_ours = |value: &[u8]| locksmith.format.bears_brand(value) || opens(value).is_some();
    let referer = cleaned_referer(headers, &matched.rule.forms, is_ours);
    let mut removals = Removals { referer, ..Removals::default() };
    for credential in presented.into_all().filter(|credential| is_ours(credential.bytes())) {
        removals.add(&credential.place, matched.rule.forms.header.as_ref());
    }
    removals
}

fn is_of_environment(grant: &Grant, wanted: Option<Environment>) -> Result<(), Denial> {
    let fits = wanted.is_none_or(|environment| environment == grant.environment);
    fits.then_some(()).ok_or(Denial::WrongEnvironment)
}

fn class_of(method: &Method, matched: &Matched<'_>) -> Class {
    if matched.ambiguous.is_some() { Class::Write } else { matched.rule.class.class(method) }
}

/// Whether the key's scope covers what the path is about, and is of the level that the header named (C9, C10, C24, C25).
///
/// A key that is not bound to a scope acts everywhere. An ambiguous path is outside every scope.
fn is_in_scope(grant: &Grant, form: Form, matched: &Matched<'_>, keys: &impl Keys) -> Result<(), Denial> {
    if grant.scope == grant::ScopeIndex::EVERYWHERE {
        return Ok(());
    }
    let scope = keys.scope(grant.scope).ok_or(Denial::SuspendedScope)?;
    let own_level = scope.step().level;
    let word_fits = !matches!(form, Form::Organization(level) if level != own_level);
    let fits = word_fits
        && matched.ambiguous.is_none()
        && (matched.captured.is_empty() || covers(scope, own_level, matched, keys));
    fits.then_some(()).ok_or(Denial::OutsideScope)
}

/// Every captured id must agree with the scope, and one of them must say that the request is at its level or below. Where
/// only a lower level is named, the tree must know that one node, and have it below the scope.
fn covers(scope: &scope::Scope, own_level: Level, matched: &Matched<'_>, keys: &impl Keys) -> bool {
    let agrees = |step: &scope::Step| scope.id_at(step.level).is_none_or(|id| *id == *step.id);
    let names_own_level = matched.captured.iter().any(|step| step.level == own_level);
    let known_below = || {
        let lower = matched.captured.iter().find(|step| step.level > own_level);
        lower.and_then(|step| keys.scope_of_step(step)).is_some_and(|found| scope.covers(found))
    };
    matched.captured.iter().all(agrees) && (names_own_level || known_below())
}

#[cfg(test)]
mod tests;
