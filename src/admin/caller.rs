//! Who calls the API: the key that is presented is judged as on the proxy, and what it may do follows from the roles that it is
//! bound to. A key without a role may do nothing here (default deny): one that opens the upstream cannot make others.

use std::time::{Instant, SystemTime};

use http::header::HeaderName;

use super::index::Index;
use super::operation::Operation;
use crate::auth::authority::Permission;
use crate::auth::credential::Forms;
use crate::auth::decision::{Denial, Denied};
use crate::auth::grant::{Access, Environment, Keys, ScopeIndex, Timestamp};
use crate::auth::route::{Class, ClassRule, Matched, Requirement, Rule};
use crate::auth::scope::Scope;
use crate::auth::{Facts, Locksmith, authorize};
use crate::control::Ask;
use crate::replica::Replica;
use crate::store::record::{Body, Kind, Subject};

/// Somebody who may be answered.
pub(super) struct Caller {
    /// As the audit names them.
    pub(super) actor: String,
    /// The id of the key that was presented.
    pub(super) key: Box<str>,
    /// Where that key acts; everywhere if absent.
    pub(super) scope: Option<Scope>,
    /// What they may do.
    pub(super) authority: Authority,
}

/// What somebody may do, and where.
pub(super) struct Authority {
    grants: Vec<(Vec<Permission>, Option<Scope>)>,
}

impl Authority {
    /// Of a key: the roles that it is bound to, within its own scope, and only to look if it is read-only.
    fn of_key(key: &str, access: Access, scope: Option<&Scope>, index: &Index) -> Self {
        let subject = Subject::Key(key.into());
        let bound = |_: &str, _: u64, body: Body| match body {
            Body::Binding(binding) if binding.subject == subject => Some(binding),
            _ => None,
        };
        let (bindings, _) = index.page(Kind::Binding, "", usize::MAX, bound);
        let grant = |binding: crate::store::record::BindingBody| {
            let mut permissions = permissions_of(&binding.role, index);
            if access == Access::ReadOnly {
                permissions.retain(|permission| looks(*permission));
            }
            let within = narrower(binding.scope, scope.cloned())?;
            Some((permissions, within))
        };
        Self { grants: bindings.into_iter().filter_map(grant).collect() }
    }

    /// Whether something may be done to what is in a scope; in none, for what belongs to the whole domain.
    pub(super) fn may(&self, permission: Permission, scope: Option<&Scope>) -> bool {
        let covers = |within: &Option<Scope>| {
            within.as_ref().is_none_or(|within| scope.is_some_and(|scope| within.covers(scope)))
        };
        permission == Permission::Own
            || self.grants.iter().any(|(permissions, within)| permissions.contains(&permission) && covers(within))
    }

    /// Whether it may be done to anything at all.
    pub(super) fn may_somewhere(&self, permission: Permission) -> bool {
        permission == Permission::Own || self.grants.iter().any(|(permissions, _)| permissions.contains(&permission))
    }
}

fn looks(permission: Permission) -> bool {
    permission == Permission::Own || permission.label().ends_with(":read")
}

/// The narrower of two scopes, of which one must be within the other.
fn narrower(one: Option<Scope>, other: Option<Scope>) -> Option<Option<Scope>> {
    match (one, other) {
        (None, scope) | (scope, None) => Some(scope),
        (Some(one), Some(other)) if one.covers(&other) => Some(Some(other)),
        (Some(one), Some(other)) if other.covers(&one) => Some(Some(one)),
        (Some(_), Some(_)) => None,
    }
}

fn permissions_of(role: &str, index: &Index) -> Vec<Permission> {
    match role {
        "admin" => Permission::ALL.to_vec(),
        "observer" => {
            let seen = |permission: &Permission| looks(*permission) && *permission != Permission::AuditRead;
            Permission::ALL.into_iter().filter(seen).collect()
        }
        "member" => vec![Permission::Own],
        _ => match index.body(&crate::store::record::RecordId::new(Kind::Role, role)) {
            Some((_, Body::Role(body))) => {
                body.permissions.into_iter().filter(|permission| !body.observer || looks(*permission)).collect()
            }
            _ => Vec::new(),
        },
    }
}

/// A key may come in every form that a header has. Not in the query: what is there, is logged and remembered.
fn rule(operation: &Operation) -> Rule {
    let forms = Forms {
        organization: true,
        bearer: true,
        basic: true,
        bare: true,
        header: Some(HeaderName::from_static("x-api-key")),
        query: None,
    };
    let class = if looks(operation.permission) { Class::Read } else { Class::Write };
    Rule { requirement: Requirement::Key, class: ClassRule::Always(class), environment: None::<Environment>, forms }
}

/// Finds out who asks.
///
/// # Errors
/// When that is nobody, or cannot be known.
pub(super) fn authenticate(
    ask: &Ask,
    operation: &Operation,
    locksmith: &Locksmith,
    replica: &Replica,
    index: &Index,
) -> Result<Caller, Denied> {
    let view = replica.view(Instant::now());
    let facts = Facts { method: &ask.method, query: None, headers: &ask.headers, client: Some(ask.peer) };
    let rule = rule(operation);
    let matched = Matched { index: 0, rule: &rule, captured: Vec::new(), ambiguous: None };
    let permit = authorize(&facts, &matched, locksmith, &view, Timestamp::from(SystemTime::now()))?;
    let grant = permit.grant().ok_or(Denial::MissingCredential)?;
    if !index.is_loaded() {
        return Err(Denial::ReplicaNotLoaded.into());
    }
    let key: Box<str> = view.names(grant.key).id.into();
    let scope = if grant.scope == ScopeIndex::EVERYWHERE { None } else { view.scope(grant.scope).cloned() };
    if scope.is_none() && grant.scope != ScopeIndex::EVERYWHERE {
        return Err(Denial::SuspendedScope.into());
    }
    let authority = Authority::of_key(&key, grant.access, scope.as_ref(), index);
    Ok(Caller { actor: format!("key:{key}"), key, scope, authority })
}
