//! `/v2/leaks`: keys that were found where they do not belong. What opens a key is revoked; what opens none is told apart, so
//! that those who search learn which of their findings are keys. Who reports has a role, or signs ([`signed`]).

pub mod signed;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::signed::PublicKeys;
use super::api::{Api, Request};
use super::envelope::{Answer, Trouble};
use super::input::text;
use crate::auth::authority::Permission;
use crate::auth::grant::{State, Timestamp};
use crate::control::Ask;
use crate::manage::{Failure, Mistake, Session, Stored};
use crate::store::record::{Body, KeyBody, RecordId};
use crate::store::{AnyStore, Store as _};

/// The most findings in one report.
const MOST: usize = 100;
/// The same of one that is signed: how many there are is not ours to say, and all of them fit what is read.
const MOST_SIGNED: usize = 1_000;

/// What the config says of reports that are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the public keys are.
    pub keys: PathBuf,
    /// What is done with what they report.
    pub action: Action,
}

/// What is done with a key that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It ends.
    Revoke,
    /// It is marked, and goes on.
    Flag,
}

/// What a finding is.
#[derive(Serialize)]
struct View {
    /// The key that it opened, if the caller may see it.
    id: Option<Box<str>>,
    label: Label,
    /// Why the key still works, if it could not be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// Whether it was a key.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Label {
    TruePositive,
    FalsePositive,
}

/// A finding, as those want to hear of it who sign.
#[derive(Serialize)]
struct Told {
    token_hash: String,
    token_type: String,
    label: Label,
}

/// A value that was found, and where.
struct Finding {
    token: String,
    token_type: String,
    url: Option<String>,
}

/// One who deals with findings.
struct Desk<'d> {
    api: &'d Api,
    session: Session<std::sync::Arc<AnyStore>>,
    action: Action,
    /// Whether a key is one that may be reported.
    may: &'d (dyn Fn(&Stored<KeyBody>) -> bool + Sync),
}

/// Deals with what somebody reports who has a role.
pub(super) async fn report(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let mut attributes = request.attributes()?;
    let findings = attributes.required("leaks", |value| findings(value, MOST, false));
    attributes.finish()?;
    let Some(findings) = findings else {
        return Err(Trouble::invalid(vec![Mistake { field: "leaks".to_owned(), why: "is missing".to_owned() }]));
    };
    let caller = &request.caller;
    let may = |key: &Stored<KeyBody>| {
        caller.reaches(key.body.env) && caller.authority.may(Permission::LeaksWrite, key.body.scope.as_ref())
    };
    let desk = Desk { api: request.api, session: request.session(), action: Action::Revoke, may: &may };
    let (views, last) = desk.deal_with(&findings).await?;
    after(request.api, Answer::of(&views)?, last).await
}

/// Whether a report is to be judged by its signature: the config names keys, and it has no other claim.
pub(super) fn is_signed(api: &Api, ask: &Ask) -> bool {
    let has_key = ["authorization", "x-api-key", "cookie"].iter().any(|name| ask.headers.contains_key(*name));
    api.leaks.is_some() && signed::claims(&ask.headers) && !has_key
}

/// Deals with what somebody reports who signs it: they may report every key.
pub(super) async fn report_signed(api: &Api, ask: &Ask, body: &Bytes, now: Timestamp) -> Result<Answer, Trouble> {
    let Some(Config { keys, action }) = &api.leaks else { return Err(Trouble::not_found("key to judge it by")) };
    if !public_keys(keys).await?.have_signed(&ask.headers, body) {
        let why = "the signature is not that of this report by a key that is known here";
        let trouble = Trouble::new(StatusCode::FORBIDDEN, "bad_signature", why);
        return Err(api.throttled(ask.client.unwrap_or(ask.peer), trouble));
    }
    api.catch_up().await?;
    let not_findings = |why: String| Trouble::new(StatusCode::BAD_REQUEST, "invalid_json", why);
    let value: Value = serde_json::from_slice(body).map_err(|_| not_findings("this is no JSON".to_owned()))?;
    let findings = findings(&value, MOST_SIGNED, true).map_err(not_findings)?;
    let (store, locksmith) = (api.store.clone(), api.locksmith());
    let session = Session { store, locksmith, actor: "signed-report".to_owned(), now };
    let desk = Desk { api, session, action: *action, may: &|_| true };
    let (views, last) = desk.deal_with(&findings).await?;
    if views.iter().any(|view| view.error.is_some()) {
        let why = "some of these keys still work; report them again";
        return Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why).retry_after(60));
    }
    let told = |(finding, view): (Finding, View)| Told {
        token_hash: STANDARD.encode(Sha256::digest(&finding.token)),
        token_type: finding.token_type,
        label: view.label,
    };
    let told: Vec<Told> = findings.into_iter().zip(views).map(told).collect();
    after(api, Answer::of(&told)?.without_envelope(), last).await
}

/// Reads the keys anew each time: they change without us, and reports are rare.
async fn public_keys(path: &Path) -> Result<PublicKeys, Trouble> {
    let read = tokio::fs::read(path).await.map_err(|error| error.to_string());
    read.and_then(|text| PublicKeys::parse(&text).map_err(|error| error.to_string())).map_err(|why| {
        tracing::error!(file = %path.display(), why, "the public keys of those who sign reports cannot be read");
        let why = "the keys that reports are judged by cannot be read at present";
        Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why).retry_after(60)
    })
}

async fn after(api: &Api, answer: Answer, last: Option<u64>) -> Result<Answer, Trouble> {
    match last {
        Some(revision) => {
            api.in_force(revision).await;
            Ok(answer.after_change(revision))
        }
        None => Ok(answer),
    }
}

impl Desk<'_> {
    /// Deals with findings in the order in which they are reported; the revision of the last change comes with what they are.
    async fn deal_with(&self, findings: &[Finding]) -> Result<(Vec<View>, Option<u64>), Failure> {
        let (mut views, mut last) = (Vec::new(), None);
        for Finding { token, url, .. } in findings {
            let Some(key) = self.key_of(token).await? else {
                views.push(View { id: None, label: Label::FalsePositive, error: None });
                continue;
            };
            let reason = url.as_ref().map_or_else(|| "leaked".to_owned(), |url| format!("leaked: {url}"));
            // One that cannot be revoked now keeps nobody from hearing of the others.
            let error = match self.take_back(&key, &reason).await {
                Ok(revision) => {
                    last = last.max(revision);
                    None
                }
                Err(failure) => {
                    tracing::warn!(id = %key.id, %failure, "a key that was reported as leaked cannot be changed");
                    Some("it was not revoked; report it again")
                }
            };
            views.push(View { id: Some(key.id), label: Label::TruePositive, error });
        }
        Ok((views, last))
    }

    /// What is revoked already stays as it is.
    async fn take_back(&self, key: &Stored<KeyBody>, reason: &str) -> Result<Option<u64>, Failure> {
        let changed = match (self.action, key.body.state) {
            (Action::Flag, State::Revoked) => return Ok(None),
            (Action::Flag, State::Active | State::Disabled) => self.session.flag_key(&key.id, reason).await?,
            (Action::Revoke, State::Active | State::Disabled | State::Revoked) => {
                self.session.set_key_state(&key.id, State::Revoked, Some(reason), None).await?
            }
        };
        Ok(Some(changed.key().revision))
    }

    /// The key that a value opens, as far as it may be reported.
    async fn key_of(&self, token: &str) -> Result<Option<Stored<KeyBody>>, Failure> {
        let locksmith = self.api.locksmith();
        let digest = locksmith.format.parse(token.as_bytes()).map(|secret| secret.digest(&locksmith.pepper));
        let Some(id) = digest.map(RecordId::secret) else { return Ok(None) };
        let (_, record) = self.api.store.get(&id).await.map_err(Failure::Store)?;
        let Some(json) = record.and_then(|record| record.body) else { return Ok(None) };
        let Ok(Body::Secret(_, secret)) = Body::parse(&id, &json) else { return Ok(None) };
        match self.session.key(&secret.key).await {
            Ok(key) => Ok(Some(key).filter(|key| (self.may)(key))),
            Err(Failure::NotFound(_) | Failure::LooksLikeValue | Failure::Unreadable(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// Reads a list of findings. Those who sign may say more of them than is known here.
fn findings(value: &Value, most: usize, may_say_more: bool) -> Result<Vec<Finding>, String> {
    let items = value.as_array().filter(|items| (1..=most).contains(&items.len()));
    let items = items.ok_or_else(|| format!("must be a list of 1 to {most} findings"))?;
    items.iter().map(|item| finding(item, may_say_more)).collect()
}

/// As those write it who search public code: `token`, and `type`, `url` and `source` if they like.
fn finding(value: &Value, may_say_more: bool) -> Result<Finding, String> {
    let why = || "findings are objects with a token, and type, url and source if you like".to_owned();
    let fields = value.as_object().ok_or_else(why)?;
    let is_known = |name: &String| ["token", "type", "url", "source"].contains(&name.as_str());
    if !may_say_more && !fields.keys().all(is_known) {
        return Err(why());
    }
    let token = text(fields.get("token").ok_or_else(why)?)?.to_owned();
    let token_type = fields.get("type").and_then(Value::as_str).unwrap_or_default().chars().take(100).collect();
    let url = fields.get("url").filter(|url| !url.is_null()).map(text).transpose()?;
    // An address with the key in it is not for the audit.
    let url = url
        .filter(|url| !url.is_empty() && !url.contains(&token))
        .map(|url| url.chars().filter(|c| !c.is_control()).take(500).collect());
    Ok(Finding { token, token_type, url })
}
