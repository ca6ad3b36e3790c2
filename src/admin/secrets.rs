//! `/v2/keys/{id}/secrets` and `/v2/keys/identify`: the values that open keys. Each is shown once, when it is made.

use serde::Serialize;
use serde_json::json;

use super::api::Request;
use super::envelope::{Answer, Trouble};
use super::input::{parsed, text};
use super::keys::{View, precondition_failed, seen, seen_or_recorded};
use crate::auth::authority::Permission;
use crate::auth::grant::{State, Timestamp};
use crate::manage::usage::ValueUsage;
use crate::manage::values::Grace;
use crate::manage::{ATTEMPTS, Failure, StoredSecret};
use crate::store::record::SecretBody;

/// What is shown of a value.
#[derive(Serialize)]
struct SecretView {
    hint: Option<String>,
    shape: Option<String>,
    created_time: Timestamp,
    not_after: Option<Timestamp>,
    last_used: Option<Timestamp>,
    client: Option<String>,
    node: Option<String>,
    still_used: bool,
}

/// What is known of a key's values, and who uses them: what is worth knowing before an old one ends.
pub(super) async fn list(request: &Request<'_>) -> Result<Answer, Trouble> {
    let key = seen_or_recorded(request).await?;
    let secrets = request.secrets_of(&key.id).await?;
    let usage = request.session().usage_of_values(&key.id, &secrets).await?;
    let view = |(StoredSecret { body, .. }, usage): (StoredSecret, ValueUsage)| {
        let SecretBody { hint, shape, created_time, not_after, .. } = body;
        let ValueUsage { last_used, client, node, still_used, .. } = usage;
        SecretView { hint, shape, created_time, not_after, last_used, client, node, still_used }
    };
    let secrets: Vec<SecretView> = secrets.into_iter().zip(usage).map(view).collect();
    Answer::list(&secrets, None)
}

/// A new value; the others end when the request says, or go on.
pub(super) async fn create(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let if_match = request.if_match()?;
    let mut grace = None;
    if request.has_body() {
        let mut attributes = request.attributes()?;
        grace = attributes.nullable("retire_others_after", parsed::<Grace>).flatten();
        attributes.finish()?;
    }
    let end = grace.map(|grace| request.now.plus(grace.0));
    let mut attempt = 1;
    let rotated = loop {
        let key = seen(request).await?;
        if if_match.is_some_and(|expected| expected != key.revision) {
            return Err(precondition_failed());
        }
        let others = request.secrets_of(&request.id).await?;
        match request.session().rotate_key_beside(key, &others, end).await {
            Ok(rotated) => break rotated,
            Err(Failure::Outrun(_)) if if_match.is_some() => return Err(precondition_failed()),
            Err(Failure::Outrun(_)) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(failure) => return Err(failure.into()),
        }
    };
    let revision = rotated.key.revision;
    request.in_force(revision).await;
    let view = View::of(&rotated.key.id, &rotated.key.body).with_value(rotated.secret.reveal());
    Ok(Answer::of(&view)?.with_etag(revision).after_change(revision))
}

/// The value of a key that keeps it; that it was looked up is in the audit before it is shown.
pub(super) async fn look_up(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let key = seen(request).await?;
    let value = request.session().look_up_value(&key.id).await?;
    Answer::of(&json!({ "id": key.id, "value": value.as_str() }))
}

/// The key that a whole value opens, for support and for values that were found somewhere.
pub(super) async fn identify(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let locksmith = request.api.locksmith();
    let digest = attributes.required("value", |value| {
        Ok(locksmith.format.parse(text(value)?.as_bytes()).map(|secret| secret.digest(&locksmith.pepper)))
    });
    attributes.finish()?;
    let key = match digest.flatten() {
        Some(digest) => request.key_of(digest).await?,
        None => None,
    };
    let key = key.filter(|key| key.body.state != State::Revoked);
    let key = key.filter(|key| request.caller.authority.may(Permission::KeysRead, key.body.scope.as_ref()));
    let key = key.ok_or_else(|| Trouble::not_found("key"))?;
    Ok(Answer::of(&View::of(&key.id, &key.body))?.with_etag(key.revision))
}
