//! What is sent along: what commands want, in the attributes of the API.

use serde_json::{Map, Value, json};

use crate::auth::grant::Access;
use crate::auth::scope::Scope;
use crate::manage::key::{NewKey, Patch};
use crate::manage::role::NewRole;
use crate::manage::user::{NewUser, UserPatch};

/// A new key. Where nothing is said of a scope it is for everywhere, as in a store; the API would take the caller's.
pub(super) fn new_key(new: &NewKey) -> Value {
    let NewKey { name, tags, recoverable, scope, env, access, ips, .. } = new;
    let ips: Vec<&str> = ips.iter().map(|net| net.0.as_str()).collect();
    let mut body = json!({
        "type": "api", "name": name.0, "permissions": permissions(*access), "ips": ips, "scope": scope, "env": env,
    });
    let mut add = |name: &str, value: Value| body[name] = value;
    if let Some(id) = &new.id {
        add("id", json!(id.0));
    }
    if let Some(user) = &new.user {
        add("user", json!(user.0));
    }
    if let Some(owner) = &new.owner {
        add("owner", json!(owner));
    }
    if let Some(parent) = &new.parent {
        add("parent", json!(parent));
    }
    if !tags.is_empty() {
        add("tags", json!(tags));
    }
    if *recoverable {
        add("recoverable", json!(true));
    }
    if let Some(limit) = new.rate_limit {
        add("rate_limit", json!(limit));
    }
    if let Some(end) = new.expires_at {
        add("expires_at", json!(end));
    }
    if let Some(role) = &new.role {
        add("role", json!(role.0));
    }
    body
}

fn permissions(access: Access) -> &'static [&'static str] {
    match access {
        Access::ReadWrite => &[],
        Access::ReadOnly => &["fetch"],
    }
}

/// What shall change of a key.
pub(super) fn patch(patch: &Patch) -> Value {
    let Patch { name, access, ips, scope, env, rate_limit, expires_at, user, owner, recoverable, enabled } = patch;
    let ips = ips.as_ref().map(|ips| ips.iter().map(|net| net.0.as_str()).collect::<Vec<_>>());
    let user = user.as_ref().map(|user| user.as_ref().map(|user| &user.0));
    object([
        ("name", name.as_ref().map(|name| json!(name.0))),
        ("permissions", access.map(|access| json!(permissions(access)))),
        ("ips", ips.map(|ips| json!(ips))),
        ("scope", scope.as_ref().map(|scope| json!(scope))),
        ("env", env.map(|env| json!(env))),
        ("rate_limit", rate_limit.map(|limit| json!(limit))),
        ("expires_at", expires_at.map(|end| json!(end))),
        ("user", user.map(|user| json!(user))),
        ("owner", owner.as_ref().map(|owner| json!(owner))),
        ("recoverable", recoverable.map(|recoverable| json!(recoverable))),
        ("enabled", enabled.map(|enabled| json!(enabled))),
    ])
}

/// A new user.
pub(super) fn new_user(new: &NewUser) -> Value {
    let NewUser { email, name, scope, password, api_access, role } = new;
    let mut body = json!({ "email": email.0, "scope": scope, "api_access": api_access });
    if let Some(name) = name {
        body["name"] = json!(name.0);
    }
    if let Some(password) = password {
        body["password"] = json!(password.reveal());
    }
    if let Some(role) = role {
        body["role"] = json!(role);
    }
    body
}

/// What shall change of a user.
pub(super) fn user_patch(patch: &UserPatch) -> Value {
    // Passwords are sent by themselves.
    let UserPatch { email, name, scope, state, api_access, password: _ } = patch;
    let name = name.as_ref().map(|name| name.as_ref().map(|name| &name.0));
    object([
        ("email", email.as_ref().map(|email| json!(email.0))),
        ("name", name.map(|name| json!(name))),
        ("scope", scope.as_ref().map(|scope: &Option<Scope>| json!(scope))),
        ("state", state.map(|state| json!(state))),
        ("api_access", api_access.map(|access| json!(access))),
    ])
}

/// What a role shall permit; its name too, where it is new.
pub(super) fn role(role: &NewRole, is_new: bool) -> Value {
    let id = is_new.then(|| json!(role.name));
    let (permissions, observer) = (Some(json!(role.permissions)), Some(json!(role.observer)));
    object([("id", id), ("permissions", permissions), ("observer", observer)])
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let said = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(Map::from_iter(said))
}
