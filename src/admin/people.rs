//! `/v2/users` and `/v2/roles`: who there is, and what roles permit. Nobody hands on what they do not have themselves, and nobody
//! changes who may do more.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::api::{Request, as_record, paging};
use super::caller::held_by;
use super::envelope::{Answer, Trouble};
use super::input::{boolean, list as strings, parsed, text};
use super::keys::{may_move, precondition_failed, refused, scope};
use super::scopes::may_make;
use crate::auth::authority::{Authority, BuiltIn, Permission, Permissions};
use crate::auth::grant::{State, Timestamp};
use crate::auth::key::Secret;
use crate::auth::scope::Scope;
use crate::manage::authority::permissions_of;
use crate::manage::password::{Password, hash};
use crate::manage::role::NewRole;
use crate::manage::user::{NewUser, UserChanged, UserPatch};
use crate::manage::values::{Email, PersonName, RoleName};
use crate::manage::{Failure, Mistake, Stored};
use crate::store::record::{Body, Kind, RecordId, RoleBody, Subject, UserBody, UserState};

/// How long a link is good if nothing is said, and at most.
const LINK: Duration = Duration::from_secs(60 * 60);
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Serialize)]
struct UserView<'u> {
    id: &'u str,
    email: &'u str,
    name: Option<&'u str>,
    state: UserState,
    api_access: bool,
    scope: Option<&'u Scope>,
    /// Absent where a change was made, and they cannot be read afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<KeyOfUser>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'u str>,
    created_by: Option<&'u str>,
    created_time: Timestamp,
    updated_by: Option<&'u str>,
    updated_time: Timestamp,
}

/// A key beside the name of its user (B10): of its values what may be shown.
#[derive(Serialize)]
struct KeyOfUser {
    id: Box<str>,
    name: String,
    state: State,
    hints: Vec<String>,
}

/// The keys of some users that the caller may see, but for those that are no more.
async fn keys_of(request: &Request<'_>, users: &HashSet<&str>) -> Result<HashMap<Box<str>, Vec<KeyOfUser>>, Trouble> {
    let mut keys = request.keys_owned_by(users).await?;
    keys.retain(|Stored { body, .. }| {
        body.state != State::Revoked && request.caller.authority.may(Permission::KeysRead, body.scope.as_ref())
    });
    let mut secrets = request.secrets_by_key(&keys.iter().map(|key| &*key.id).collect()).await?;
    let mut found: HashMap<Box<str>, Vec<KeyOfUser>> = HashMap::new();
    for Stored { id, body, .. } in keys {
        let hints = secrets.remove(&id).unwrap_or_default().into_iter().filter_map(|secret| secret.body.hint).collect();
        let of_user = found.entry(body.owner.unwrap_or_default()).or_default();
        of_user.push(KeyOfUser { id, name: body.name, state: body.state, hints });
    }
    Ok(found)
}

impl<'u> UserView<'u> {
    fn of(id: &'u str, body: &'u UserBody, keys: Option<Vec<KeyOfUser>>) -> Self {
        Self {
            keys,
            id,
            email: &body.email,
            name: body.name.as_deref(),
            state: body.state,
            api_access: body.api_access,
            scope: body.scope.as_ref(),
            value: None,
            created_by: body.created_by.as_deref(),
            created_time: body.created_time,
            updated_by: body.updated_by.as_deref(),
            updated_time: body.updated_time,
        }
    }
}

/// Users with their keys.
async fn views<'u>(request: &Request<'_>, users: &'u [Stored<UserBody>]) -> Result<Vec<UserView<'u>>, Trouble> {
    let mut keys = keys_of(request, &users.iter().map(|user| &*user.id).collect()).await?;
    let view = |user: &'u Stored<UserBody>| {
        UserView::of(&user.id, &user.body, Some(keys.remove(&user.id).unwrap_or_default()))
    };
    Ok(users.iter().map(view).collect())
}

/// A page of the users that the caller may see.
pub(super) async fn list_users(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    let record = as_record(&mut query);
    query.finish()?;
    let wanted = |id: &str, revision: u64, body: Body| {
        let body = body.user()?;
        let seen = request.caller.authority.may(Permission::UsersRead, body.scope.as_ref());
        seen.then(|| Stored { id: id.into(), revision, body })
    };
    let (users, more) = request.api.index.page(Kind::User, &cursor, limit, wanted);
    let next = users.last().filter(|_| more).map(|user| request.next(&user.id));
    if record {
        return Answer::list(&users, next);
    }
    Answer::list(&views(request, &users).await?, next)
}

fn seen_user(request: &Request<'_>) -> Result<Stored<UserBody>, Trouble> {
    let authority = &request.caller.authority;
    let found = request.api.index.stored_user(&request.id);
    let user = found.filter(|user| authority.may(Permission::UsersRead, user.body.scope.as_ref()));
    let user = user.ok_or_else(|| Trouble::not_found("user"))?;
    let permission = request.operation.permission;
    if permission == Permission::UsersRead {
        return Ok(user);
    }
    if !authority.may(permission, user.body.scope.as_ref()) {
        return Err(Trouble::forbidden("this user is outside of what you may change"));
    }
    Ok(user)
}

/// Whoever changes somebody could become them, and so must have all that they have.
fn may_become(request: &Request<'_>, user: &Stored<UserBody>) -> Result<(), Trouble> {
    let held = held_by(&Subject::User(user.id.clone()), &request.api.index);
    let includes = request.caller.authority.includes(&held);
    if includes { Ok(()) } else { Err(Trouble::forbidden("this user may do more than you")) }
}

/// Whoever only takes away must have, as with keys, all that the user has where the account is kept. Not what they have elsewhere:
/// else a role that somebody else has given would shield a user from those who look after the account.
fn may_take_from(request: &Request<'_>, user: &Stored<UserBody>) -> Result<(), Trouble> {
    let held = held_by(&Subject::User(user.id.clone()), &request.api.index).within(user.body.scope.as_ref());
    let includes = request.caller.authority.includes(&held);
    if includes { Ok(()) } else { Err(Trouble::forbidden("this user may do more than you")) }
}

/// One user.
pub(super) async fn get_user(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let record = as_record(&mut query);
    query.finish()?;
    let user = seen_user(request)?;
    if record {
        return Ok(Answer::of(&user)?.with_etag(user.revision));
    }
    let keys = keys_of(request, &HashSet::from([&*user.id])).await?.remove(&user.id);
    Ok(Answer::of(&UserView::of(&user.id, &user.body, Some(keys.unwrap_or_default())))?.with_etag(user.revision))
}

async fn changed(request: &Request<'_>, changed: UserChanged) -> Result<Answer, Trouble> {
    let UserChanged { user, secret, .. } = changed;
    request.in_force(user.revision).await;
    // It is done, and a value is shown this once, whatever else can be said.
    let keys = keys_of(request, &HashSet::from([&*user.id])).await.ok();
    let keys = keys.map(|mut keys| keys.remove(&user.id).unwrap_or_default());
    let view = UserView { value: secret.as_ref().map(Secret::reveal), ..UserView::of(&user.id, &user.body, keys) };
    Ok(Answer::of(&view)?.with_etag(user.revision).after_change(user.revision))
}

/// Makes a user, who may do nothing by API unless that is said (B5).
pub(super) async fn create_user(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let email = attributes.required("email", parsed::<Email>);
    let name = attributes.nullable("name", parsed::<PersonName>).flatten();
    let scope = attributes.nullable("scope", scope);
    let api_access = attributes.optional("api_access", boolean).unwrap_or(false);
    let role = attributes.nullable("role", parsed::<RoleName>).flatten();
    let password = attributes.optional("password", parsed::<Password>);
    attributes.finish()?;
    let Some(email) = email else { return Err(Trouble::not_found("attribute")) };
    let scope = scope.unwrap_or_else(|| request.caller.scope.clone());
    if !request.caller.authority.may(Permission::UsersWrite, scope.as_ref()) {
        return Err(Trouble::forbidden("you may not make users there"));
    }
    may_make(request, scope.as_ref())?;
    if api_access {
        may_give_access(request, scope.as_ref())?;
    }
    if let Some(role) = &role {
        may_hand_on(request, &role.0, scope.as_ref())?;
    }
    let role = role.map(|role| role.0);
    let new = NewUser { email, name, scope, password, api_access, role };
    let made = request.session().create_user(new).await?;
    changed(request, made).await
}

/// Changes a user.
pub(super) async fn update_user(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    if attributes.is_empty() {
        return Err(Trouble::new(StatusCode::BAD_REQUEST, "nothing_to_change", "send one attribute at least"));
    }
    let password = attributes.optional("password", parsed::<Password>);
    let mut patch = UserPatch {
        password: None,
        email: attributes.optional("email", parsed),
        name: attributes.nullable("name", parsed),
        scope: attributes.nullable("scope", scope),
        state: attributes.optional("state", |value: &Value| match text(value)? {
            "active" => Ok(UserState::Active),
            "suspended" => Ok(UserState::Suspended),
            _ => Err("must be active or suspended".to_owned()),
        }),
        api_access: attributes.optional("api_access", boolean),
    };
    attributes.finish()?;
    let user = seen_user(request)?;
    let takes = patch.only_takes() && password.is_none();
    if takes { may_take_from(request, &user) } else { may_become(request, &user) }?;
    if let Some(scope) = &patch.scope
        && !request.caller.authority.may(Permission::UsersWrite, scope.as_ref())
    {
        return Err(Trouble::forbidden("you may not move users there"));
    }
    if let Some(scope) = &patch.scope {
        may_make(request, scope.as_ref())?;
        may_move_keys_of(request, &user, scope.as_ref()).await?;
    }
    if patch.api_access == Some(true) {
        may_give_access(request, patch.scope.as_ref().unwrap_or(&user.body.scope).as_ref())?;
    }
    let seen = request.if_match()?;
    if let Some(password) = password {
        patch.password = Some(hash(password, &request.api.locksmith()).await?);
    }
    let made = request.session().update_user(&user.id, &patch, seen).await.map_err(|failure| refused(failure, seen))?;
    changed(request, made).await
}

/// Whether the caller may let a user's keys act there, which move along.
async fn may_move_keys_of(
    request: &Request<'_>,
    user: &Stored<UserBody>,
    scope: Option<&Scope>,
) -> Result<(), Trouble> {
    let keys = request.keys_owned_by(&HashSet::from([&*user.id])).await?;
    let mut keys = keys.iter().filter(|key| key.body.state != State::Revoked);
    keys.try_for_each(|key| may_move(request, &key.id, scope))
}

/// Whether the caller may let somebody use the API, who then has a key there.
fn may_give_access(request: &Request<'_>, scope: Option<&Scope>) -> Result<(), Trouble> {
    if request.caller.authority.may(Permission::KeysWrite, scope) {
        return Ok(());
    }
    Err(Trouble::forbidden("with API access comes a key, and you may not make keys there"))
}

/// Deletes a user, and all keys of theirs.
pub(super) async fn delete_user(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let user = seen_user(request)?;
    may_become(request, &user)?;
    let seen = request.if_match()?;
    let deleted = request.session().delete_user(&user.id, seen).await;
    let keys = deleted.map_err(|failure| refused(failure, seen))?;
    let answer = gone(request, &RecordId::new(Kind::User, &user.id)).await?;
    Ok(Answer { result: json!({ "keys": keys }).to_string(), ..answer })
}

/// Makes a link by which a user signs in once: how somebody comes in for the first time, or again.
pub(super) async fn create_link(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let lifetime = attributes.optional("expires_after", |value: &Value| {
        let lifetime = humantime::parse_duration(text(value)?).ok().filter(|lifetime| *lifetime <= LONGEST_LINK);
        lifetime.ok_or_else(|| "write a time such as 1h, of 7 days at most".to_owned())
    });
    attributes.finish()?;
    let user = seen_user(request)?;
    may_become(request, &user)?;
    let lifetime = lifetime.unwrap_or(LINK);
    let ticket = request.session().create_link(&user.id, lifetime).await?;
    Answer::of(&json!({ "ticket": ticket.reveal(), "expires_at": request.now.plus(lifetime) }))
}

/// The answer to a deletion, once it is in force.
pub(super) async fn gone(request: &Request<'_>, id: &RecordId) -> Result<Answer, Trouble> {
    use crate::store::Store as _;
    let (revision, _) = request.api.store.get(id).await.map_err(Failure::Store)?;
    request.in_force(revision.number).await;
    Ok(Answer::of(&json!({}))?.after_change(revision.number))
}

/// Whether the caller has all that a role gives within a scope.
pub(super) fn may_hand_on(request: &Request<'_>, role: &str, scope: Option<&Scope>) -> Result<(), Trouble> {
    let index = &*request.api.index;
    if BuiltIn::parse(role).is_none() && index.body(&RecordId::new(Kind::Role, role)).is_none() {
        let (field, why) = ("role".to_owned(), "there is no such role".to_owned());
        return Err(Trouble::invalid(vec![Mistake { field, why }]));
    }
    let given = Authority::new(permissions_of(role, index), scope.cloned());
    if request.caller.authority.includes(&given) {
        return Ok(());
    }
    Err(Trouble::forbidden("nobody gives what they do not have: this role permits more than yours, or somewhere else"))
}

#[derive(Serialize)]
struct RoleView<'r> {
    id: &'r str,
    permissions: Vec<Permission>,
    observer: bool,
    built_in: bool,
    created_by: Option<&'r str>,
    created_time: Option<Timestamp>,
    updated_by: Option<&'r str>,
    updated_time: Option<Timestamp>,
}

impl<'r> RoleView<'r> {
    fn of(id: &'r str, body: &'r RoleBody) -> Self {
        Self {
            id,
            permissions: body.permissions.clone(),
            observer: body.observer,
            built_in: false,
            created_by: body.created_by.as_deref(),
            created_time: Some(body.created_time),
            updated_by: body.updated_by.as_deref(),
            updated_time: Some(body.updated_time),
        }
    }

    fn built_in(role: BuiltIn) -> Self {
        let (permissions, observer) = (role.permissions().iter().collect(), role == BuiltIn::Observer);
        let (by, time) = (None, None);
        Self {
            id: role.name(),
            permissions,
            observer,
            built_in: true,
            created_by: by,
            created_time: time,
            updated_by: by,
            updated_time: time,
        }
    }
}

/// All roles: those that are built in come on the first page.
pub(super) fn list_roles(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    let record = as_record(&mut query);
    query.finish()?;
    let wanted = |id: &str, revision: u64, body: Body| Some(Stored { id: id.into(), revision, body: body.role()? });
    let (roles, more) = request.api.index.page(Kind::Role, &cursor, limit, wanted);
    let next = roles.last().filter(|_| more).map(|role| request.next(&role.id));
    if record {
        return Answer::list(&roles, next);
    }
    let first = BuiltIn::ALL.into_iter().filter(|_| cursor.is_empty());
    let views = first.map(RoleView::built_in);
    let views = views.chain(roles.iter().map(|role| RoleView::of(&role.id, &role.body)));
    Answer::list(&views.collect::<Vec<_>>(), next)
}

fn seen_role(request: &Request<'_>) -> Result<Stored<RoleBody>, Trouble> {
    if BuiltIn::parse(&request.id).is_some() && request.operation.permission == Permission::RolesWrite {
        let (field, why) = ("id".to_owned(), "this role is built in and cannot be changed".to_owned());
        return Err(Trouble::invalid(vec![Mistake { field, why }]));
    }
    let found = request.api.index.body(&RecordId::new(Kind::Role, &request.id));
    let role = found
        .and_then(|(revision, body)| Some(Stored { id: request.id.as_str().into(), revision, body: body.role()? }));
    role.ok_or_else(|| Trouble::not_found("role"))
}

/// One role.
pub(super) fn get_role(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let record = as_record(&mut query);
    query.finish()?;
    // What is built in is no record.
    if let Some(role) = BuiltIn::parse(&request.id).filter(|_| !record) {
        return Answer::of(&RoleView::built_in(role));
    }
    let role = seen_role(request)?;
    let answer = if record { Answer::of(&role)? } else { Answer::of(&RoleView::of(&role.id, &role.body))? };
    Ok(answer.with_etag(role.revision))
}

/// Roles hold everywhere, so that they are for those whose own authority does.
fn may_write_roles(request: &Request<'_>, permissions: &[Permission]) -> Result<(), Trouble> {
    let authority = &request.caller.authority;
    let given = Authority::new(Permissions::of(permissions), None);
    if authority.may(Permission::RolesWrite, None) && authority.includes(&given) {
        return Ok(());
    }
    Err(Trouble::forbidden("roles are made by those who may do everywhere what the roles permit"))
}

fn permission(value: &Value) -> Result<Vec<Permission>, String> {
    let names: Vec<String> = strings(value)?;
    let known = |name: String| {
        let known = Permission::ALL.map(Permission::label).join(", ");
        Permission::parse(&name).ok_or_else(|| format!("there are these permissions: {known}"))
    };
    names.into_iter().map(known).collect()
}

/// Makes a role.
pub(super) async fn create_role(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let name = attributes.required("id", parsed::<RoleName>);
    let permissions = attributes.required("permissions", permission);
    let observer = attributes.optional("observer", boolean).unwrap_or(false);
    attributes.finish()?;
    let (Some(name), Some(permissions)) = (name, permissions) else { return Err(Trouble::not_found("attribute")) };
    put_role(request, NewRole { name: name.0.into(), permissions, observer }, None).await
}

/// Changes a role, for all who have it.
pub(super) async fn update_role(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    if attributes.is_empty() {
        return Err(Trouble::new(StatusCode::BAD_REQUEST, "nothing_to_change", "send one attribute at least"));
    }
    let permissions = attributes.optional("permissions", permission);
    let observer = attributes.optional("observer", boolean);
    attributes.finish()?;
    let role = seen_role(request)?;
    // What it permits now is taken from somebody, as what it will permit is given.
    may_write_roles(request, &role.body.permissions)?;
    let new = NewRole {
        name: role.id.into(),
        permissions: permissions.unwrap_or(role.body.permissions),
        observer: observer.unwrap_or(role.body.observer),
    };
    put_role(request, new, Some(role.revision)).await
}

/// Writes a role; one that takes the place of what was read at a revision does so only there: what is kept of it may have been
/// taken away meanwhile.
async fn put_role(request: &Request<'_>, new: NewRole, read_at: Option<u64>) -> Result<Answer, Trouble> {
    may_write_roles(request, &new.permissions)?;
    let seen = request.if_match()?.filter(|_| read_at.is_some());
    if seen.is_some() && seen != read_at {
        return Err(precondition_failed());
    }
    let put = request.session().put_role(new, read_at.is_some(), read_at).await;
    let role = put.map_err(|failure| refused(failure, seen))?;
    request.in_force(role.revision).await;
    Ok(Answer::of(&RoleView::of(&role.id, &role.body))?.with_etag(role.revision).after_change(role.revision))
}

/// Deletes a role, and takes it from all who have it.
pub(super) async fn delete_role(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let role = seen_role(request)?;
    may_write_roles(request, &role.body.permissions)?;
    let seen = request.if_match()?;
    request.session().delete_role(&role.id, seen).await.map_err(|failure| refused(failure, seen))?;
    gone(request, &RecordId::new(Kind::Role, &role.id)).await
}
