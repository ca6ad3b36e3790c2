//! Who calls the API: the key that is presented is judged as on the proxy, and what it may do follows from the roles that it is
//! bound to. A key without a role may do nothing here (default deny): one that opens the upstream cannot make others.

use std::time::{Instant, SystemTime};

use http::Method;
use http::header::HeaderName;

use super::index::Index;
use super::operation::Operation;
use crate::auth::authority::{Authority, Permission, Permissions};
use crate::auth::credential::Forms;
use crate::auth::decision::{Denial, Denied};
use crate::auth::grant::{Environment, Keys, ScopeIndex, Timestamp};
use crate::auth::route::{Class, ClassRule, Matched, Requirement, Rule};
use crate::auth::scope::Scope;
use crate::auth::{Facts, Locksmith, authorize};
use crate::control::Ask;
use crate::manage::authority::{View as _, authority_of, permissions_of};
use crate::replica::Replica;
use crate::store::record::Subject;

/// Somebody who may be answered.
pub(super) struct Caller {
    /// As the audit names them.
    pub(super) actor: String,
    /// Who they are.
    pub(super) subject: Subject,
    /// Where they act; everywhere if absent.
    pub(super) scope: Option<Scope>,
    /// What they may do.
    pub(super) authority: Authority,
    /// When they signed in; absent where a key was sent.
    pub(super) signed_in: Option<Timestamp>,
    /// Their world: who comes from the sandbox changes nothing outside of it.
    pub(super) env: Environment,
}

impl Caller {
    /// Whether they may change what is of that world.
    pub(super) fn reaches(&self, env: Environment) -> bool {
        match self.env {
            Environment::Live => true,
            Environment::Test => env == Environment::Test,
        }
    }
}

/// What is left of authority in the sandbox: to look, and to change keys, of which there are some in the sandbox. People, roles
/// and scopes are those of production.
fn in_sandbox(authority: &Authority) -> Authority {
    let keys = Permissions::of(&[Permission::KeysWrite, Permission::LeaksWrite]);
    authority.looking().or(authority.and(&Authority::new(keys, None)))
}

/// A key that is good, before anybody has looked what it may do.
pub(super) struct GoodKey {
    id: Box<str>,
    scope: Option<Scope>,
    env: Environment,
}

impl GoodKey {
    /// Who it is.
    pub(super) fn caller(self, index: &Index, now: Timestamp) -> Caller {
        let (subject, env) = (Subject::Key(self.id), self.env);
        let mut authority = authority_of(&subject, index, now);
        if env == Environment::Test {
            authority = in_sandbox(&authority);
        }
        Caller { actor: subject.to_string(), subject, scope: self.scope, authority, signed_in: None, env }
    }
}

/// A key may come in every form that a header has, but for Basic, which browsers send along by themselves, from other sites'
/// pages too. Not in the query: what is there, is logged and remembered.
fn rule(operation: &Operation) -> Rule {
    let forms = Forms {
        organization: true,
        bearer: true,
        basic: false,
        bare: true,
        header: Some(HeaderName::from_static("x-api-key")),
        query: None,
    };
    // What everybody may is as harmless as what it does.
    let looks = Permissions::ALL.looking().has(operation.permission) || *operation.method == Method::GET;
    let class = if looks { Class::Read } else { Class::Write };
    Rule { requirement: Requirement::Key, class: ClassRule::Always(class), environment: None, forms }
}

/// Finds out who asks, and notes whose key it is even where it is not good.
///
/// # Errors
/// When that is nobody, or cannot be known.
pub(super) fn authenticate(
    ask: &Ask,
    operation: &Operation,
    locksmith: &Locksmith,
    replica: &Replica,
    whose: &mut Option<String>,
) -> Result<GoodKey, Denied> {
    let (view, now) = (replica.view(Instant::now()), Timestamp::from(SystemTime::now()));
    let facts = Facts { method: &ask.method, query: None, headers: &ask.headers, client: ask.client };
    let rule = rule(operation);
    let matched = Matched { index: 0, rule: &rule, captured: Vec::new(), ambiguous: None };
    let decision = authorize(&facts, &matched, locksmith, &view, now);
    let key = match &decision {
        Ok(permit) => permit.grant().map(|grant| grant.key),
        Err(denied) => denied.key,
    };
    *whose = key.map(|key| view.names(key).id.to_owned());
    let permit = decision?;
    let grant = permit.grant().ok_or(Denial::MissingCredential)?;
    let scope = if grant.scope == ScopeIndex::EVERYWHERE { None } else { view.scope(grant.scope).cloned() };
    if scope.is_none() && grant.scope != ScopeIndex::EVERYWHERE {
        return Err(Denial::SuspendedScope.into());
    }
    Ok(GoodKey { id: view.names(grant.key).id.into(), scope, env: grant.environment })
}

/// All that somebody's roles would give, whether or not they may use it now: who may change them must have it too, or could
/// become them.
pub(super) fn held_by(subject: &Subject, index: &Index) -> Authority {
    let held = index.bindings(subject).into_iter();
    let held = held.map(|binding| Authority::new(permissions_of(&binding.role, index), binding.scope));
    held.fold(Authority::NONE, Authority::or)
}
