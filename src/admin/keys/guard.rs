//! What a caller may do to keys, beyond what is seen of the permission alone.

use http::StatusCode;

use crate::admin::api::Request;
use crate::admin::caller::held_by;
use crate::admin::envelope::Trouble;
use crate::admin::scopes::may_make;
use crate::auth::authority::Permission;
use crate::auth::grant::{Environment, State};
use crate::auth::scope::Scope;
use crate::manage::authority::View as _;
use crate::manage::values::KeyId;
use crate::manage::{Mistake, Stored};
use crate::store::record::{Subject, UserBody};

/// Whether a key of that world is the caller's to make or to change.
pub(in crate::admin) fn may_touch(request: &Request<'_>, env: Environment) -> Result<(), Trouble> {
    let may = request.caller.reaches(env);
    if may { Ok(()) } else { Err(Trouble::forbidden("a key of the sandbox changes nothing in production")) }
}

/// Whoever gives a key a new value has that value, and so must have all that the key may manage where it acts, or shall act.
pub(in crate::admin) fn may_become(request: &Request<'_>, id: &str, scope: Option<&Scope>) -> Result<(), Trouble> {
    let held = held_by(&Subject::Key(id.into()), &request.api.index).within(scope);
    let includes = request.caller.authority.includes(&held);
    if includes { Ok(()) } else { Err(Trouble::forbidden("this key may manage more than you")) }
}

/// Whether a new key may have that id.
pub(in crate::admin) async fn is_free(request: &Request<'_>, id: Option<&KeyId>) -> Result<(), Trouble> {
    let Some(KeyId(id)) = id else { return Ok(()) };
    if is_kept(request, id).await? {
        return Err(Trouble::new(StatusCode::CONFLICT, "taken", format!("the id {id} is kept for another key")));
    }
    Ok(())
}

/// Whether the caller may let a key act there.
pub(in crate::admin) fn may_move(request: &Request<'_>, id: &str, scope: Option<&Scope>) -> Result<(), Trouble> {
    if !request.caller.authority.may(Permission::KeysWrite, scope) {
        return Err(Trouble::forbidden("you may not move keys to that scope"));
    }
    may_make(request, scope)?;
    may_become(request, id, scope)
}

/// Whether a key that came into being under an id would have what was meant for another: a user's own key has the user's id,
/// and roles may be bound to keys that are gone.
async fn is_kept(request: &Request<'_>, id: &str) -> Result<bool, Trouble> {
    let index = &request.api.index;
    let is_meant = index.stored_user(id).is_some() || !index.bindings(&Subject::Key(id.into())).is_empty();
    Ok(is_meant && request.key(id).await?.is_none())
}

/// Whether the caller may make keys below that one.
pub(in crate::admin) async fn is_in_reach(request: &Request<'_>, parent: &str) -> Result<(), Trouble> {
    let key = request.key(parent).await?.filter(|key| key.body.state != State::Revoked);
    let key = key.filter(|key| request.caller.authority.may(Permission::KeysWrite, key.body.scope.as_ref()));
    let (field, why) = ("parent".to_owned(), "there is no such key, or none that you may change".to_owned());
    key.map(drop).ok_or_else(|| Trouble::invalid(vec![Mistake { field, why }]))
}

/// Whether the caller may let a key act for that user.
pub(in crate::admin) fn may_give_to(request: &Request<'_>, owner: &str) -> Result<(), Trouble> {
    let may = |user: &Stored<UserBody>| request.caller.authority.may(Permission::UsersWrite, user.body.scope.as_ref());
    let (field, why) = ("owner".to_owned(), "there is no such user, or none that you may change".to_owned());
    let user = request.api.index.stored_user(owner).filter(may);
    user.map(drop).ok_or_else(|| Trouble::invalid(vec![Mistake { field, why }]))
}
