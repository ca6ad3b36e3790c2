//! `/v2/scopes`: the tree that keys act in. A scope's id is its path, in which `/` is written `%2F` within a URL.

use serde::Serialize;
use serde_json::Value;

use super::api::{Request, as_record, paging};
use super::envelope::{Answer, Trouble};
use super::input::text;
use super::keys::refused;
use crate::auth::authority::Permission;
use crate::auth::grant::Timestamp;
use crate::auth::scope::Scope;
use crate::manage::{Stored, with_all_above};
use crate::store::record::{Body, Kind, RecordId, ScopeBody, ScopeState};

#[derive(Serialize)]
struct View<'s> {
    id: &'s str,
    state: ScopeState,
    created_time: Timestamp,
}

impl<'s> From<&'s Stored<ScopeBody>> for View<'s> {
    fn from(stored: &'s Stored<ScopeBody>) -> Self {
        Self { id: &stored.id, state: stored.body.state, created_time: stored.body.created_time }
    }
}

/// A page of those that the caller may see.
pub(super) fn list(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    let record = as_record(&mut query);
    query.finish()?;
    let wanted = |id: &str, revision: u64, body: Body| {
        let (scope, body) = body.scope()?;
        let seen = request.caller.authority.may(Permission::ScopesRead, Some(&scope));
        seen.then(|| Stored { id: id.into(), revision, body })
    };
    let (scopes, more) = request.api.index.page(Kind::Scope, &cursor, limit, wanted);
    let next = scopes.last().filter(|_| more).map(|scope| request.next(&scope.id));
    if record {
        return Answer::list(&scopes, next);
    }
    Answer::list(&scopes.iter().map(View::from).collect::<Vec<_>>(), next)
}

fn seen(request: &Request<'_>) -> Result<(Scope, Stored<ScopeBody>), Trouble> {
    let missing = || Trouble::not_found("scope");
    let scope = Scope::parse(&request.id).map_err(|_| missing())?;
    let authority = &request.caller.authority;
    let found = request.api.index.body(&RecordId::scope(&scope));
    let Some((revision, Body::Scope(scope, body))) =
        found.filter(|_| authority.may(Permission::ScopesRead, Some(&scope)))
    else {
        return Err(missing());
    };
    if !authority.may(request.operation.permission, Some(&scope)) {
        return Err(Trouble::forbidden("this scope is outside of what you may change"));
    }
    let stored = Stored { id: scope.to_string().into(), revision, body };
    Ok((scope, stored))
}

/// One scope.
pub(super) fn get(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let record = as_record(&mut query);
    query.finish()?;
    let (_, stored) = seen(request)?;
    let answer = if record { Answer::of(&stored)? } else { Answer::of(&View::from(&stored))? };
    Ok(answer.with_etag(stored.revision))
}

/// Whether the caller may have something act there: what is missing of a scope is made with it, which takes what making it alone
/// would.
pub(super) fn may_make(request: &Request<'_>, scope: Option<&Scope>) -> Result<(), Trouble> {
    let is_missing = |scope: &Scope| request.api.index.body(&RecordId::scope(scope)).is_none();
    let missing = scope.map(with_all_above).unwrap_or_default().into_iter().find(is_missing);
    let may = |missing: Scope| request.caller.authority.may(Permission::ScopesWrite, missing.parent().as_ref());
    if missing.is_none_or(may) {
        Ok(())
    } else {
        Err(Trouble::forbidden("this scope is not there, and not yours to make"))
    }
}

/// Makes a scope.
pub(super) async fn create(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let scope = attributes.required("id", |value: &Value| Scope::parse(text(value)?).map_err(|why| why.to_string()));
    attributes.finish()?;
    let Some(scope) = scope else { return Err(Trouble::not_found("attribute")) };
    // What is made above it must be the caller's to make, too.
    if !request.caller.authority.may(Permission::ScopesWrite, scope.parent().as_ref()) {
        return Err(Trouble::forbidden("you may not make scopes there"));
    }
    let created = request.session().create_scope(&scope).await?;
    let revision = created.scope.revision;
    request.in_force(revision).await;
    Ok(Answer::of(&View::from(&created.scope))?.with_etag(revision).after_change(revision))
}

/// Suspends or resumes a scope.
pub(super) async fn update(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let if_match = request.if_match()?;
    let mut attributes = request.attributes()?;
    let state = attributes.required("state", |value: &Value| match text(value)? {
        "active" => Ok(ScopeState::Active),
        "suspended" => Ok(ScopeState::Suspended),
        _ => Err("must be active or suspended".to_owned()),
    });
    attributes.finish()?;
    let (scope, _) = seen(request)?;
    let Some(state) = state else { return Err(Trouble::not_found("attribute")) };
    let (stored, _) = request
        .session()
        .set_scope_state(&scope, state, if_match)
        .await
        .map_err(|failure| refused(failure, if_match))?;
    request.in_force(stored.revision).await;
    Ok(Answer::of(&View::from(&stored))?.with_etag(stored.revision).after_change(stored.revision))
}
