//! `/v2/bindings`: who has which role, and where. Nobody hands on what they do not have, nor to whom they do not see.

use serde::Serialize;
use serde_json::Value;

use super::api::{Request, as_record, paging};
use super::envelope::{Answer, Trouble};
use super::input::{parsed, text};
use super::keys::{refused, scope};
use super::people::{gone, may_hand_on};
use crate::auth::authority::Permission;
use crate::auth::grant::{State, Timestamp};
use crate::auth::scope::Scope;
use crate::manage::values::RoleName;
use crate::manage::{Failure, Stored};
use crate::store::record::{BindingBody, Body, Kind, RecordId, Subject};

#[derive(Serialize)]
struct BindingView<'b> {
    id: &'b str,
    subject: &'b Subject,
    role: &'b str,
    scope: Option<&'b Scope>,
    created_by: Option<&'b str>,
    created_time: Timestamp,
}

impl<'b> From<&'b Stored<BindingBody>> for BindingView<'b> {
    fn from(Stored { id, body, .. }: &'b Stored<BindingBody>) -> Self {
        let (scope, created_by) = (body.scope.as_ref(), body.created_by.as_deref());
        Self { id, subject: &body.subject, role: &body.role, scope, created_by, created_time: body.created_time }
    }
}

/// A page of who has which role, as far as the caller may see.
pub(super) fn list(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    let subject =
        query.take("subject", |text| Subject::parse(text).ok_or_else(|| "write user:ID or key:ID".to_owned()));
    let record = as_record(&mut query);
    query.finish()?;
    let wanted = |id: &str, revision: u64, body: Body| {
        let body = body.binding()?;
        let asked_for = subject.as_ref().is_none_or(|subject| *subject == body.subject);
        let seen = asked_for && request.caller.authority.may(Permission::BindingsRead, body.scope.as_ref());
        seen.then(|| Stored { id: id.into(), revision, body })
    };
    let (bindings, more) = request.api.index.page(Kind::Binding, &cursor, limit, wanted);
    let next = bindings.last().filter(|_| more).map(|binding| request.next(&binding.id));
    if record {
        return Answer::list(&bindings, next);
    }
    Answer::list(&bindings.iter().map(BindingView::from).collect::<Vec<_>>(), next)
}

/// Where somebody acts whom the caller may see. Who may not be seen is not there.
async fn scope_of(request: &Request<'_>, subject: &Subject) -> Result<Option<Scope>, Trouble> {
    let (found, permission, id) = match subject {
        Subject::User(id) => {
            let scope = request.api.index.stored_user(id).map(|user| user.body.scope);
            (scope, Permission::UsersRead, RecordId::new(Kind::User, id))
        }
        Subject::Key(id) => {
            let key = request.key(id).await?.filter(|key| key.body.state != State::Revoked);
            (key.map(|key| key.body.scope), Permission::KeysRead, RecordId::key(id))
        }
    };
    let seen = found.filter(|scope| request.caller.authority.may(permission, scope.as_ref()));
    seen.ok_or_else(|| Failure::NotFound(id).into())
}

/// Gives somebody a role: where they act themselves, if nothing is said.
pub(super) async fn create(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let subject = attributes.required("subject", |value: &Value| {
        Subject::parse(text(value)?).ok_or_else(|| "must be user:ID or key:ID".to_owned())
    });
    let role = attributes.required("role", parsed::<RoleName>);
    let scope = attributes.nullable("scope", scope);
    attributes.finish()?;
    let (Some(subject), Some(role)) = (subject, role) else { return Err(Trouble::not_found("attribute")) };
    let theirs = scope_of(request, &subject).await?;
    let scope = scope.unwrap_or(theirs);
    if !request.caller.authority.may(Permission::BindingsWrite, scope.as_ref()) {
        return Err(Trouble::forbidden("you may not give roles there"));
    }
    may_hand_on(request, &role.0, scope.as_ref())?;
    let binding = request.session().bind(subject, &role.0, scope).await?;
    request.in_force(binding.revision).await;
    Ok(Answer::of(&BindingView::from(&binding))?.with_etag(binding.revision).after_change(binding.revision))
}

fn seen(request: &Request<'_>) -> Result<Stored<BindingBody>, Trouble> {
    let authority = &request.caller.authority;
    let found = request.api.index.body(&RecordId::new(Kind::Binding, &request.id));
    let found = found
        .and_then(|(revision, body)| Some(Stored { id: request.id.as_str().into(), revision, body: body.binding()? }));
    let found = found.filter(|binding| authority.may(Permission::BindingsRead, binding.body.scope.as_ref()));
    found.ok_or_else(|| Trouble::not_found("binding"))
}

/// One binding.
pub(super) fn get(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let record = as_record(&mut query);
    query.finish()?;
    let binding = seen(request)?;
    let answer = if record { Answer::of(&binding)? } else { Answer::of(&BindingView::from(&binding))? };
    Ok(answer.with_etag(binding.revision))
}

/// Takes a role from somebody.
pub(super) async fn delete(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let binding = seen(request)?;
    if !request.caller.authority.may(Permission::BindingsWrite, binding.body.scope.as_ref()) {
        return Err(Trouble::forbidden("you may not take roles there"));
    }
    may_hand_on(request, &binding.body.role, binding.body.scope.as_ref())?;
    let seen = request.if_match()?;
    request.session().unbind(&binding.id, seen).await.map_err(|failure| refused(failure, seen))?;
    gone(request, &RecordId::new(Kind::Binding, &binding.id)).await
}
