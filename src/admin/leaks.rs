//! `/v2/leaks`: keys that were found where they do not belong. What opens a key is revoked; what opens none is told apart, so
//! that those who search learn which of their findings are keys.

use serde::Serialize;
use serde_json::Value;

use super::api::Request;
use super::envelope::{Answer, Trouble};
use super::input::text;
use crate::auth::authority::Permission;
use crate::auth::grant::State;
use crate::manage::Mistake;

/// The most findings in one report.
const MOST: usize = 100;

/// What a finding is.
#[derive(Serialize)]
struct View {
    /// The key that it opened, if the caller may see it.
    id: Option<Box<str>>,
    label: &'static str,
    /// Why the key still works, if it could not be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// A value that was found, and where.
struct Finding {
    token: String,
    url: Option<String>,
}

/// Revokes what was found, in the order in which it is reported.
pub(super) async fn report(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let findings = attributes.required("leaks", |value| {
        let items = value.as_array().filter(|items| (1..=MOST).contains(&items.len()));
        let items = items.ok_or_else(|| format!("must be a list of 1 to {MOST} findings"))?;
        items.iter().map(finding).collect::<Result<Vec<Finding>, String>>()
    });
    attributes.finish()?;
    let Some(findings) = findings else {
        return Err(Trouble::invalid(vec![Mistake { field: "leaks".to_owned(), why: "is missing".to_owned() }]));
    };
    let (mut views, mut last) = (Vec::new(), None);
    for Finding { token, url } in findings {
        let Some(id) = key_of(request, &token).await? else {
            views.push(View { id: None, label: "false_positive", error: None });
            continue;
        };
        let reason = url.map_or_else(|| "leaked".to_owned(), |url| format!("leaked: {url}"));
        // One that cannot be revoked now keeps nobody from hearing of the others.
        let error = match request.session().set_key_state(&id, State::Revoked, Some(&reason), None).await {
            Ok(changed) => {
                last = last.max(Some(changed.key().revision));
                None
            }
            Err(failure) => {
                tracing::warn!(%id, %failure, "a key that was reported as leaked cannot be revoked");
                Some("it was not revoked; report it again")
            }
        };
        views.push(View { id: Some(id), label: "true_positive", error });
    }
    let answer = Answer::of(&views)?;
    match last {
        Some(revision) => {
            request.in_force(revision).await;
            Ok(answer.after_change(revision))
        }
        None => Ok(answer),
    }
}

/// The key that a value opens, as far as the caller may report it.
async fn key_of(request: &Request<'_>, token: &str) -> Result<Option<Box<str>>, Trouble> {
    let (locksmith, caller) = (&request.api.locksmith, &request.caller);
    let Some(secret) = locksmith.format.parse(token.as_bytes()) else { return Ok(None) };
    let key = request.key_of(secret.digest(&locksmith.pepper)).await?.filter(|key| {
        caller.reaches(key.body.env) && caller.authority.may(Permission::LeaksWrite, key.body.scope.as_ref())
    });
    Ok(key.map(|key| key.id))
}

/// As those write it who search public code: `token`, and `type`, `url` and `source` if they like.
fn finding(value: &Value) -> Result<Finding, String> {
    let why = || "findings are objects with a token, and type, url and source if you like".to_owned();
    let fields = value.as_object().ok_or_else(why)?;
    if !fields.keys().all(|name| ["token", "type", "url", "source"].contains(&name.as_str())) {
        return Err(why());
    }
    let token = text(fields.get("token").ok_or_else(why)?)?.to_owned();
    let url = fields.get("url").map(text).transpose()?;
    // An address with the key in it is not for the audit.
    let url = url
        .filter(|url| !url.is_empty() && !url.contains(&token))
        .map(|url| url.chars().filter(|c| !c.is_control()).take(500).collect());
    Ok(Finding { token, url })
}
