//! `/v2/keys`: the attributes of the seed come first and always, ours only where they say something, so that a key that is made
//! as the seed says looks exactly as it says.

mod guard;

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use self::guard::may_move;
use self::guard::{is_free, is_in_reach, may_become, may_give_to, may_touch};
use super::api::{Request, as_record, paging};
use super::envelope::{Answer, Trouble};
use super::input::{Attributes, boolean, list as strings, parsed, text, truth};
use super::key_records::{KeyPage, Traits};
use super::people::may_hand_on;
use super::scopes::may_make;
use crate::auth::address::Networks;
use crate::auth::authority::Permission;
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::limit::Limit;
use crate::auth::scope::Scope;
use crate::manage::key::{NewKey, Patch};
use crate::manage::values::{Expiry, KeyId, KeyName, Net, RoleName, Tag, UserName};
use crate::manage::wait::{Waited, applied_everywhere};
use crate::manage::{ATTEMPTS, Failure, Stored};
use crate::store::Store as _;
use crate::store::record::{KeyBody, RecordId, Subject};

/// How long a deletion may wait for others at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A key, as it is answered.
#[derive(Serialize)]
pub(super) struct View<'k> {
    id: &'k str,
    name: &'k str,
    #[serde(rename = "type")]
    key_type: &'static str,
    permissions: &'static [&'static str],
    ips: &'k [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'k str>,
    created_by: Option<&'k str>,
    created_time: Timestamp,
    updated_by: Option<&'k str>,
    updated_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'k Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Environment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'k str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'k str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recoverable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'k str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'k [String],
}

impl<'k> View<'k> {
    /// A key without its value.
    pub(super) fn of(id: &'k str, body: &'k KeyBody) -> Self {
        Self {
            id,
            name: &body.name,
            key_type: "api",
            permissions: match body.access {
                Access::ReadWrite => &[],
                Access::ReadOnly => &["fetch"],
            },
            ips: &body.ips,
            value: None,
            created_by: body.created_by.as_deref(),
            created_time: body.created_time,
            updated_by: body.updated_by.as_deref(),
            updated_time: body.updated_time,
            state: (body.state != State::Active).then_some(body.state),
            scope: body.scope.as_ref(),
            env: (body.env != Environment::Live).then_some(body.env),
            expires_at: body.expires_at,
            rate_limit: body.rate_limit,
            user: body.user.as_deref(),
            owner: body.owner.as_deref(),
            recoverable: body.recoverable,
            parent: body.parent.as_deref(),
            tags: &body.tags,
        }
    }

    /// With its value, once (V24).
    pub(super) fn with_value(self, value: &'k str) -> Self {
        Self { value: Some(value), ..self }
    }
}

/// Which keys are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Live,
    Revoked,
    All,
}

/// A page of those that the caller may see.
pub(super) async fn list(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    let listed = query.take("state", |text| match text {
        "live" => Ok(Listed::Live),
        "revoked" => Ok(Listed::Revoked),
        "all" => Ok(Listed::All),
        _ => Err("write live, revoked or all".to_owned()),
    });
    let record = as_record(&mut query);
    let name = query.take("name", |text| Ok(text.to_owned()));
    let within = query.take("scope", |text| Scope::parse(text).map_err(|why| why.to_string()));
    query.finish()?;
    let (listed, authority) = (listed.unwrap_or(Listed::Live), &request.caller.authority);
    let wanted = |key: &Traits<'_>| {
        (listed == Listed::All || (key.state == State::Revoked) == (listed == Listed::Revoked))
            && name.as_deref().is_none_or(|part| contains(key.name, part))
            && within.as_ref().is_none_or(|within| key.scope.is_some_and(|scope| within.covers(scope)))
            && authority.may(Permission::KeysRead, key.scope)
    };
    let KeyPage { keys, next } = request.keys((&cursor, limit), wanted).await?;
    let next = next.map(|last| request.next(&last));
    if record {
        return Answer::list(&keys, next);
    }
    Answer::list(&keys.iter().map(|key| View::of(&key.id, &key.body)).collect::<Vec<_>>(), next)
}

/// Whether a text has a part, in capitals or not.
fn contains(text: &str, part: &str) -> bool {
    let part = part.as_bytes();
    // Few have both ends, and only those are compared.
    let (Some(first), Some(last)) = (part.first(), part.last()) else { return true };
    text.as_bytes().windows(part.len()).any(|here| {
        let ends = here.first().zip(here.last());
        ends.is_some_and(|(a, b)| a.eq_ignore_ascii_case(first) && b.eq_ignore_ascii_case(last))
            && here.eq_ignore_ascii_case(part)
    })
}

/// The key that a request is about. What the caller may not see is not there; what is revoked is not there any more.
pub(super) async fn seen(request: &Request<'_>) -> Result<Stored<KeyBody>, Trouble> {
    let authority = &request.caller.authority;
    let key = request.key(&request.id).await?.filter(|key| key.body.state != State::Revoked);
    let key = key.filter(|key| authority.may(Permission::KeysRead, key.body.scope.as_ref()));
    let key = key.ok_or_else(|| Trouble::not_found("key"))?;
    if !authority.may(request.operation.permission, key.body.scope.as_ref()) {
        return Err(Trouble::forbidden("this key is outside of what you may change"));
    }
    if request.operation.permission == Permission::KeysWrite {
        may_touch(request, key.body.env)?;
        may_become(request, &key.id, key.body.scope.as_ref())?;
    }
    Ok(key)
}

/// The same for those who only look: where records are wanted, what is revoked is one, too.
pub(super) async fn seen_or_recorded(request: &Request<'_>) -> Result<Stored<KeyBody>, Trouble> {
    let mut query = request.query();
    let record = as_record(&mut query);
    query.finish()?;
    if record { recorded(request).await } else { seen(request).await }
}

async fn recorded(request: &Request<'_>) -> Result<Stored<KeyBody>, Trouble> {
    let may = |key: &Stored<KeyBody>| {
        let scope = key.body.scope.as_ref();
        [Permission::KeysRead, request.operation.permission].map(|it| request.caller.authority.may(it, scope))
            == [true; 2]
    };
    request.key(&request.id).await?.filter(may).ok_or_else(|| Trouble::not_found("key"))
}

/// One key.
pub(super) async fn get(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let record = as_record(&mut query);
    query.finish()?;
    if record {
        let key = recorded(request).await?;
        return Ok(Answer::of(&key)?.with_etag(key.revision));
    }
    let key = seen(request).await?;
    Ok(Answer::of(&View::of(&key.id, &key.body))?.with_etag(key.revision))
}

/// Makes a key.
pub(super) async fn create(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    attributes.required("type", api);
    let name = attributes.required("name", parsed::<KeyName>);
    let access = attributes.required("permissions", access);
    let ips = attributes.optional("ips", strings::<Net>).unwrap_or_default();
    let scope = attributes.nullable("scope", scope);
    let env = attributes.optional("env", env);
    let expires_at = attributes.nullable("expires_at", |value| end(value, request.now)).flatten();
    let rate_limit = attributes.nullable("rate_limit", parsed::<Limit>).flatten();
    let user = attributes.nullable("user", parsed::<UserName>).flatten();
    let parent = attributes.nullable("parent", |value| text(value).map(Box::<str>::from)).flatten();
    let owner = attributes.nullable("owner", |value| text(value).map(Box::<str>::from)).flatten();
    let tags = attributes.optional("tags", strings::<Tag>).unwrap_or_default();
    let id = attributes.optional("id", parsed::<KeyId>);
    let role = attributes.optional("role", parsed::<RoleName>);
    let recoverable = attributes.optional("recoverable", boolean).unwrap_or(false);
    attributes.finish()?;
    let (Some(name), Some(access)) = (name, access) else { return Err(Trouble::not_found("attribute")) };
    // Where nothing is said, the key acts where the key does that makes it.
    let scope = scope.unwrap_or_else(|| request.caller.scope.clone());
    if !request.caller.authority.may(Permission::KeysWrite, scope.as_ref()) {
        let place = scope.map_or_else(|| "everywhere".to_owned(), |scope| scope.to_string());
        return Err(Trouble::forbidden(format!("you may not make keys for {place}")));
    }
    may_make(request, scope.as_ref())?;
    if let Some(parent) = &parent {
        is_in_reach(request, parent).await?;
    }
    if let Some(role) = &role {
        may_hand_on(request, &role.0, scope.as_ref())?;
    }
    if let Some(owner) = &owner {
        may_give_to(request, owner)?;
    }
    is_free(request, id.as_ref()).await?;
    // In the world of the key that makes it, too.
    let env = env.unwrap_or(request.caller.env);
    may_touch(request, env)?;
    let tags = tags.into_iter().map(|tag| tag.0).collect();
    let new = NewKey {
        id,
        user,
        owner,
        parent,
        tags,
        recoverable,
        scope,
        env,
        ips,
        rate_limit,
        expires_at,
        role,
        ..NewKey::named(name, access)
    };
    let created = request.session().create_key(new).await?;
    request.in_force(created.key.revision).await;
    let view = View::of(&created.key.id, &created.key.body).with_value(created.secret.reveal());
    Ok(Answer::of(&view)?.with_etag(created.key.revision).after_change(created.key.revision))
}

/// Changes a key.
pub(super) async fn update(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let force = query.take("force", truth);
    query.finish()?;
    let if_match = request.if_match()?;
    let mut attributes = request.attributes()?;
    if attributes.is_empty() {
        let why = "send one attribute at least, such as {\"name\":\"New name\"}";
        return Err(Trouble::new(StatusCode::BAD_REQUEST, "nothing_to_change", why));
    }
    let patch = patch(&mut attributes, request.now);
    attributes.finish()?;
    if let Some(Some(owner)) = &patch.owner {
        may_give_to(request, owner)?;
    }
    if !force.unwrap_or(false) && locks_out(request, &patch) {
        let why = "these `ips` do not have the address that you call from, so that your key could not take this back; \
                   add ?force=true if that is meant";
        return Err(Trouble::new(StatusCode::CONFLICT, "would_lock_out", why));
    }
    let mut attempt = 1;
    let changed = loop {
        let key = seen(request).await?;
        if let Some(env) = patch.env {
            may_touch(request, env)?;
        }
        if let Some(scope) = &patch.scope {
            may_move(request, &key.id, scope.as_ref())?;
        }
        let expected = if_match.unwrap_or(key.revision);
        match request.session().update_key(&request.id, &patch, Some(expected)).await {
            Ok(changed) => break changed,
            Err(Failure::Outrun(_)) if if_match.is_some() => return Err(precondition_failed()),
            Err(Failure::Outrun(_)) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(failure) => return Err(failure.into()),
        }
    };
    let key = changed.key();
    request.in_force(key.revision).await;
    Ok(Answer::of(&View::of(&key.id, &key.body))?.with_etag(key.revision).after_change(key.revision))
}

/// Why a change was not made, to a caller who may have wanted to know of others.
pub(super) fn refused(failure: Failure, if_match: Option<u64>) -> Trouble {
    match failure {
        Failure::Outrun(_) if if_match.is_some() => precondition_failed(),
        failure => failure.into(),
    }
}

/// Somebody else was quicker than the caller, who wanted to know.
pub(super) fn precondition_failed() -> Trouble {
    let why = "it has changed since; get it again, and look whether your change still makes sense";
    Trouble::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", why)
}

fn patch(attributes: &mut Attributes, now: Timestamp) -> Patch {
    attributes.optional("type", api);
    Patch {
        name: attributes.optional("name", parsed),
        access: attributes.optional("permissions", access),
        ips: attributes.optional("ips", strings),
        scope: attributes.nullable("scope", scope),
        env: attributes.optional("env", env),
        rate_limit: attributes.nullable("rate_limit", parsed),
        expires_at: attributes.nullable("expires_at", |value| end(value, now)),
        user: attributes.nullable("user", parsed),
        owner: attributes.nullable("owner", |value| text(value).map(Box::from)),
        recoverable: attributes.optional("recoverable", boolean),
        enabled: attributes.optional("enabled", boolean),
    }
}

/// Whether the caller could not take a change back that is about its own key (V31).
fn locks_out(request: &Request<'_>, patch: &Patch) -> bool {
    let Some(ips) = patch.ips.as_ref().filter(|ips| !ips.is_empty()) else { return false };
    let networks = Networks::parse(ips.iter().map(|net| net.0.as_str()));
    request.caller.subject == Subject::Key(request.id.as_str().into())
        && networks.is_ok_and(|networks| !request.client.is_some_and(|client| networks.contains(client)))
}

/// Deletes a key: it is revoked, which is final, and is seen no more (V23, V34). Its record stays, for the audit, and so that
/// its value cannot come back.
pub(super) async fn delete(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let reason = query.take("reason", |text| {
        let fits = (1..=200).contains(&text.chars().count()) && !text.contains(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err("write 1 to 200 characters".to_owned()) }
    });
    let cascade = query.take("cascade", truth).unwrap_or(false);
    let list = query.take("list", truth).unwrap_or(false);
    let waits = query.take("wait", |text| if text == "all" { Ok(()) } else { Err("write all".to_owned()) });
    let limit = query.take("timeout", |text| {
        let timeout = humantime::parse_duration(text).ok().filter(|timeout| *timeout <= LONGEST_WAIT);
        timeout.ok_or_else(|| format!("write a time such as 2s, of {LONGEST_WAIT:?} at most"))
    });
    let wait = waits.map(|()| limit.unwrap_or(Duration::from_secs(2)));
    query.finish()?;
    let if_match = request.if_match()?;
    // Whoever has heard that it does not hold everywhere yet asks again.
    if wait.is_some()
        && let Some(revision) = revoked_at(request).await
    {
        return deleted(request, revision, wait).await;
    }
    // Who may not delete it learns nothing of what is below; and what others have just made there is known before it is asked for.
    seen(request).await?;
    let (head, _) = request.api.store.get(&RecordId::key(&request.id)).await.map_err(Failure::Store)?;
    request.in_force(head.number).await;
    if request.api.index.has_keys_below(&request.id) {
        return delete_family(request, (cascade, list), reason.as_deref(), wait).await;
    }
    let mut attempt = 1;
    let changed = loop {
        let key = seen(request).await?;
        let expected = if_match.unwrap_or(key.revision);
        let session = request.session();
        match session.set_key_state(&request.id, State::Revoked, reason.as_deref(), Some(expected)).await {
            Ok(changed) => break changed,
            Err(Failure::Outrun(_)) if if_match.is_some() => return Err(precondition_failed()),
            Err(Failure::Outrun(_)) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(failure) => return Err(failure.into()),
        }
    };
    deleted(request, changed.key().revision, wait).await
}

/// The revision that ended a key, if it has ended and the caller might have ended it.
async fn revoked_at(request: &Request<'_>) -> Option<u64> {
    recorded(request).await.ok().filter(|key| key.body.state == State::Revoked).map(|key| key.revision)
}

/// Answers when a deletion is in force here, or, if that is wanted, everywhere.
async fn deleted(request: &Request<'_>, revision: u64, wait: Option<Duration>) -> Result<Answer, Trouble> {
    request.in_force(revision).await;
    let Some(limit) = wait else { return Ok(Answer::of(&json!({}))?.after_change(revision)) };
    let waited = match applied_everywhere(&request.api.store, revision, limit).await {
        Ok(waited) => waited,
        // It is deleted all the same, and nothing else may be said of it.
        Err(error) => {
            tracing::warn!(%error, "cannot find out where a deletion is in force");
            return Ok(Answer::of(&json!({}))?.after_change(revision).not_everywhere());
        }
    };
    // Processes are called as the machines are, which is nothing for tenants: they hear how many.
    let may_know = request.caller.authority.may(request.operation.permission, None);
    let is_everywhere = waited.is_everywhere();
    let waited = if may_know { waited } else { Waited { laggards: Vec::new(), ..waited } };
    let answer = Answer::of(&waited)?.after_change(revision);
    Ok(if is_everywhere { answer } else { answer.not_everywhere() })
}

/// Deletes a key with all below it, if that is meant.
async fn delete_family(
    request: &Request<'_>,
    (cascade, list): (bool, bool),
    reason: Option<&str>,
    wait: Option<Duration>,
) -> Result<Answer, Trouble> {
    let key = seen(request).await?;
    let if_match = request.if_match()?;
    let gone = request.session().delete_key(&key.id, (cascade, reason), if_match).await;
    let gone = gone.map_err(|failure| refused(failure, if_match))?;
    let (revision, _) = request.api.store.get(&RecordId::key(&key.id)).await.map_err(Failure::Store)?;
    let answer = deleted(request, revision.number, wait).await?;
    Ok(if list { answer.saying("keys", &gone) } else { answer })
}

fn api(value: &Value) -> Result<(), String> {
    if text(value)? == "api" { Ok(()) } else { Err("must be \"api\"".to_owned()) }
}

/// `[]` is read-write, `["fetch"]` read-only (V15, V28).
fn access(value: &Value) -> Result<Access, String> {
    let why = || "must be [] (read and write) or [\"fetch\"] (read-only)".to_owned();
    match value.as_array().ok_or_else(why)?.as_slice() {
        [] => Ok(Access::ReadWrite),
        [only] if only == "fetch" => Ok(Access::ReadOnly),
        _ => Err(why()),
    }
}

/// Reads a scope.
pub(super) fn scope(value: &Value) -> Result<Scope, String> {
    Scope::parse(text(value)?).map_err(|error| error.to_string())
}

fn env(value: &Value) -> Result<Environment, String> {
    match text(value)? {
        "live" => Ok(Environment::Live),
        "test" => Ok(Environment::Test),
        _ => Err("must be live or test".to_owned()),
    }
}

fn end(value: &Value, now: Timestamp) -> Result<Timestamp, String> {
    parsed::<Expiry>(value)?.after(now).map_err(|passed| passed.to_string())
}
