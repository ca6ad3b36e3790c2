//! `/v2/audit`, `/v2/usage` and `/v2/nodes`: who changed what, how often keys are used, and who follows the store. What belongs to an organization is seen by those
//! who may see that organization's (C20, C24); what belongs to nobody in particular, by those of the whole domain.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::api::{Request, paging};
use super::envelope::{Answer, Trouble};
use super::input::truth;
use super::keys::seen_or_recorded;
use crate::auth::authority::Permission;
use crate::auth::grant::Timestamp;
use crate::auth::scope::Scope;
use crate::manage::Failure;
use crate::manage::usage::KeyUsage;
use crate::replica::KeyEntry;
use crate::store::ledger::Ledger as _;
use crate::store::ledger::audit::{self, Entry, Filter, Line, Order, hex};

/// The most lines that one request is searched for in; the next goes on where it ended, also where nothing was found.
const MOST_LINES: usize = 10_000;

/// The most keys that one request looks at for how often they were used, and how many are read together at least.
const MOST_USED: usize = 10_000;
const USED_TOGETHER: usize = 200;

/// A page of the audit, the newest first unless said otherwise; a cursor is the revision of the last line before it.
pub(super) async fn audit(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let after = query.take("cursor", |text| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "take it from links.next".to_owned()),
    });
    let (limit, _) = paging(&mut query);
    let text = |text: &str| Ok(text.to_owned());
    let time = |text: &str| Timestamp::parse(text).ok_or_else(|| "write 2027-01-31T12:00:00Z".to_owned());
    let (actor, action) = (query.take("actor", text), query.take("action", text));
    let (target, since, until) = (query.take("target", text), query.take("since", time), query.take("until", time));
    let order = query.take("order", |text| match text {
        "newest" => Ok(Order::NewestFirst),
        "oldest" => Ok(Order::OldestFirst),
        _ => Err("write newest or oldest".to_owned()),
    });
    let chain = query.take("chain", truth).unwrap_or(false);
    query.finish()?;
    // The chain goes on over what others did, and says so much of it.
    if chain && !request.caller.authority.may(Permission::AuditRead, None) {
        return Err(Trouble::forbidden("the chain is for those who may read the audit of the whole domain"));
    }
    let (filter, mut entries) = (Filter { actor, action, target, since, until }, Vec::new());
    let (mut looked_at, mut more) = (0, None);
    let mut last = None;
    let take = |entry: Entry, line: &Line| {
        let revision = entry.revision;
        if filter.wants(&entry) && may_see(request, &entry) {
            // One more than is shown tells that there are more.
            if entries.len() == limit {
                more = last;
                return Ok::<_, Failure>(false);
            }
            entries.push(if chain { line.exported() } else { json!(entry) });
        }
        last = Some(revision);
        looked_at += 1;
        more = last.filter(|_| looked_at == MOST_LINES);
        Ok(more.is_none())
    };
    let store = &request.api.store;
    audit::read(store, order.unwrap_or(Order::NewestFirst), after.flatten(), &Filter::default(), take).await?;
    let next = more.map(|last| request.next(&last.to_string()));
    Answer::list(&entries, next)
}

/// Whether the caller may see an entry: every scope that it concerns must be among those whose audit the caller may see. One that
/// does not say is of the whole domain.
fn may_see(request: &Request<'_>, entry: &Entry) -> bool {
    let authority = &request.caller.authority;
    let may = |scope: &Value| {
        let scope = scope.as_str().and_then(|text| Scope::parse(text).ok());
        authority.may(Permission::AuditRead, scope.as_ref())
    };
    match entry.detail.get("scopes").and_then(Value::as_array) {
        Some(scopes) if !scopes.is_empty() => scopes.iter().all(may),
        Some(_) | None => authority.may(Permission::AuditRead, None),
    }
}

/// A page of the keys that were used, by their ids. Where few of them are the caller's to see, it may be short, or empty, and the
/// next one goes on where it ended.
pub(super) async fn usage(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    query.finish()?;
    let (authority, session) = (&request.caller.authority, request.session());
    let may = |key: KeyEntry<'_>| authority.may(Permission::UsageRead, key.scope);
    let (mut usage, mut after, mut looked_at) = (Vec::<KeyUsage>::new(), Box::<str>::from(cursor), 0);
    let next = loop {
        let used = session.usage_after(&after, limit.saturating_add(1).max(USED_TOGETHER)).await?;
        let Some(last) = used.last().map(|usage| usage.key.clone()) else { break None };
        looked_at += used.len();
        request.api.index.with_keys(|keys| {
            usage.extend(used.into_iter().filter(|usage| keys.find(&usage.key).is_some_and(may)));
        });
        if usage.len() > limit {
            usage.truncate(limit);
            break usage.last().map(|usage| usage.key.clone());
        }
        if looked_at >= MOST_USED {
            break Some(last);
        }
        after = last;
    };
    Answer::list(&usage, next.map(|last| request.next(&last)))
}

/// How often each value of a key was used, and who still has an old one.
pub(super) async fn usage_of(request: &Request<'_>) -> Result<Answer, Trouble> {
    let key = seen_or_recorded(request).await?;
    let secrets = request.secrets_of(&key.id).await?;
    Answer::of(&request.session().usage_by(&key.id, &secrets).await?)
}

/// A page of the processes that follow the store, by their ids: they are called as the machines are, which is for those of the
/// whole domain; others only tell them apart.
pub(super) async fn nodes(request: &Request<'_>) -> Result<Answer, Trouble> {
    let mut query = request.query();
    let (limit, cursor) = paging(&mut query);
    query.finish()?;
    let mut nodes = request.api.store.nodes().await.map_err(Failure::from)?;
    if !request.caller.authority.may(request.operation.permission, None) {
        nodes.iter_mut().for_each(|node| node.id = fingerprint(&node.id));
    }
    nodes.retain(|node| node.id > cursor);
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    let more = nodes.len() > limit;
    nodes.truncate(limit);
    let next = nodes.last().filter(|_| more).map(|node| request.next(&node.id));
    Answer::list(&nodes, next)
}

fn fingerprint(node: &str) -> String {
    Sha256::digest(node).first_chunk::<8>().map(|start| hex(start)).unwrap_or_default()
}

/// Forgets a process, so that nobody waits for it: nobody at all, so that this is for those of the whole domain.
pub(super) async fn forget(request: &Request<'_>) -> Result<Answer, Trouble> {
    request.query().finish()?;
    let nodes = request.api.store.nodes().await.map_err(Failure::from)?;
    if !nodes.iter().any(|node| node.id == request.id) {
        return Err(Trouble::not_found("node"));
    }
    if !request.caller.authority.may(request.operation.permission, None) {
        return Err(Trouble::forbidden("processes are forgotten by those who may change the keys of the whole domain"));
    }
    request.api.store.forget(&request.id).await.map_err(Failure::from)?;
    Answer::of(&json!({}))
}
