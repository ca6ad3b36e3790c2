//! Where a change is made: in a store that this machine reaches, or by a server's management API. Commands are written once, for
//! either; what only a store can do is asked of [`Place::session`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use super::exit::Failure;
use super::import::Importing;
use crate::auth::grant::{State, Timestamp};
use crate::auth::key::KeyFormat;
use crate::auth::scope::Scope;
use crate::manage::import::{Importer, Terms};
use crate::manage::key::{Changed, Created, NewKey, Patch};
use crate::manage::password::Password;
use crate::manage::role::NewRole;
use crate::manage::rotate::Rotated;
use crate::manage::scope::CreatedScope;
use crate::manage::usage::KeyUsage;
use crate::manage::user::{NewUser, UserChanged, UserPatch};
use crate::manage::wait::{Waited, applied_everywhere};
use crate::manage::{Session, Stored, with_all_above};
use crate::store::Store;
use crate::store::ledger::Ledger;
use crate::store::ledger::audit::{self, Entry, Filter, Order};
use crate::store::ledger::nodes::Node;
use crate::store::record::{
    BindingBody, KeyBody, RoleBody, ScopeBody, ScopeState, SecretBody, Subject, UserBody, UserState,
};

/// Keys, and what says whether they work.
pub(super) struct Listing {
    /// The keys, in the order of their ids.
    pub(super) keys: Vec<Stored<KeyBody>>,
    /// The scopes, those above before those below.
    pub(super) scopes: BTreeMap<Scope, Stored<ScopeBody>>,
    /// The users in the order of their ids, if any key has an owner and who asks may see users.
    pub(super) users: Option<Vec<Stored<UserBody>>>,
    /// What could not be read, and why.
    pub(super) unreadable: Vec<String>,
}

impl Listing {
    /// A key, if who asks may see it.
    pub(super) fn key(&self, id: &str) -> Option<&KeyBody> {
        let at = self.keys.binary_search_by(|key| (*key.id).cmp(id)).ok()?;
        self.keys.get(at).map(|key| &key.body)
    }

    /// Whether an owner's keys can work at all; where users are not seen, as if they did.
    pub(super) fn may_own(&self, owner: &str) -> bool {
        let is_good = |user: &UserBody| user.state == UserState::Active && user.api_access;
        let found = |users: &Vec<Stored<UserBody>>| {
            let at = users.binary_search_by(|user| (*user.id).cmp(owner)).ok();
            at.and_then(|at| users.get(at)).is_some_and(|user| is_good(&user.body))
        };
        self.users.as_ref().is_none_or(found)
    }

    /// Whether a key without a scope, or within this one, can work at all.
    pub(super) fn is_active(&self, scope: Option<&Scope>) -> bool {
        let works = |scope: &Scope| self.scopes.get(scope).is_some_and(|s| s.body.state == ScopeState::Active);
        scope.is_none_or(|scope| with_all_above(scope).iter().all(works))
    }
}

/// What commands do, wherever it is done. Every method fails as the store or the server says.
pub(super) trait Place {
    /// The store, if that is where it is done.
    type Store: Store + Ledger;

    /// When it is done.
    fn now(&self) -> Timestamp;

    /// The store itself, for what a server does not do: `what` is that.
    fn session(&self, what: &str) -> Result<&Session<Self::Store>, Failure>;

    async fn listing(&self) -> Result<Listing, Failure>;
    async fn key(&self, id: &str) -> Result<Stored<KeyBody>, Failure>;
    /// What may be shown of a key's values, in the order in which they were made.
    async fn values_of(&self, id: &str) -> Result<Vec<SecretBody>, Failure>;
    async fn create_key(&self, new: NewKey) -> Result<Created, Failure>;
    async fn update_key(&self, id: &str, patch: &Patch) -> Result<Changed, Failure>;
    async fn set_key_state(&self, id: &str, state: State, reason: Option<&str>) -> Result<Changed, Failure>;
    /// The same for the end of a key, and waits until that holds everywhere, or so long.
    async fn revoke_everywhere(
        &self,
        id: &str,
        reason: Option<&str>,
        limit: Duration,
    ) -> Result<(Changed, Waited), Failure>;
    async fn rotate_key(&self, id: &str, retire_others_after: Option<Duration>) -> Result<Rotated, Failure>;
    /// Returns the keys that are gone.
    async fn delete_key(&self, id: &str, cascade: bool, reason: Option<&str>) -> Result<Vec<Box<str>>, Failure>;
    async fn look_up_value(&self, id: &str) -> Result<Zeroizing<String>, Failure>;
    /// How keys look, as far as that is known here.
    fn key_format(&self) -> KeyFormat;
    /// Brings keys in; the file is for the audit.
    fn importing(&self, file: Option<String>) -> impl Importing;

    async fn scopes(&self) -> Result<BTreeMap<Scope, Stored<ScopeBody>>, Failure>;
    async fn create_scope(&self, scope: &Scope) -> Result<CreatedScope, Failure>;
    async fn set_scope_state(&self, scope: &Scope, state: ScopeState) -> Result<(Stored<ScopeBody>, bool), Failure>;

    async fn users(&self) -> Result<Vec<Stored<UserBody>>, Failure>;
    async fn find_user(&self, address_or_id: &str) -> Result<Stored<UserBody>, Failure>;
    async fn create_user(&self, new: NewUser) -> Result<UserChanged, Failure>;
    async fn update_user(&self, id: &str, patch: &UserPatch) -> Result<UserChanged, Failure>;
    /// Returns the keys that went with them.
    async fn delete_user(&self, id: &str) -> Result<Vec<Box<str>>, Failure>;
    async fn set_password(&self, id: &str, password: Password) -> Result<(), Failure>;
    /// Returns the ticket of the link.
    async fn create_link(&self, id: &str, lifetime: Duration) -> Result<Zeroizing<String>, Failure>;

    async fn roles(&self) -> Result<Vec<Stored<RoleBody>>, Failure>;
    async fn put_role(&self, new: NewRole, replace: bool) -> Result<Stored<RoleBody>, Failure>;
    async fn delete_role(&self, name: &str) -> Result<(), Failure>;
    async fn bindings(&self) -> Result<Vec<Stored<BindingBody>>, Failure>;
    async fn bind(&self, subject: Subject, role: &str, scope: Option<Scope>) -> Result<Stored<BindingBody>, Failure>;
    async fn unbind(&self, id: &str) -> Result<Stored<BindingBody>, Failure>;

    async fn usage(&self) -> Result<Vec<KeyUsage>, Failure>;
    async fn usage_of(&self, key: &str) -> Result<KeyUsage, Failure>;
    /// The newest entries of the audit that are wanted, from before a revision.
    async fn entries(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, Failure>;
    /// Hands out entries of the audit as they are exported, the oldest first.
    async fn export(
        &self,
        filter: &Filter,
        after: Option<u64>,
        take: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure>;
    async fn nodes(&self) -> Result<Vec<Node>, Failure>;
    async fn forget(&self, node: &str) -> Result<(), Failure>;
}

impl<S: Store + Ledger> Place for Session<S> {
    type Store = S;

    fn now(&self) -> Timestamp {
        self.now
    }

    fn session(&self, _: &str) -> Result<&Self, Failure> {
        Ok(self)
    }

    async fn listing(&self) -> Result<Listing, Failure> {
        let everything = self.everything().await?;
        let owned = everything.keys.iter().any(|key| key.body.owner.is_some());
        let users = if owned { Some(self.users().await?) } else { None };
        Ok(Listing { keys: everything.keys, scopes: everything.scopes, users, unreadable: everything.unreadable })
    }

    async fn key(&self, id: &str) -> Result<Stored<KeyBody>, Failure> {
        Ok(self.key(id).await?)
    }

    async fn values_of(&self, id: &str) -> Result<Vec<SecretBody>, Failure> {
        Ok(self.secrets_of(id).await?.into_iter().map(|secret| secret.body).collect())
    }

    async fn create_key(&self, new: NewKey) -> Result<Created, Failure> {
        Ok(self.create_key(new).await?)
    }

    async fn update_key(&self, id: &str, patch: &Patch) -> Result<Changed, Failure> {
        Ok(self.update_key(id, patch, None).await?)
    }

    async fn set_key_state(&self, id: &str, state: State, reason: Option<&str>) -> Result<Changed, Failure> {
        Ok(self.set_key_state(id, state, reason, None).await?)
    }

    async fn revoke_everywhere(
        &self,
        id: &str,
        reason: Option<&str>,
        limit: Duration,
    ) -> Result<(Changed, Waited), Failure> {
        let changed = self.set_key_state(id, State::Revoked, reason, None).await?;
        let waited = applied_everywhere(&self.store, changed.key().revision, limit).await?;
        Ok((changed, waited))
    }

    async fn rotate_key(&self, id: &str, retire_others_after: Option<Duration>) -> Result<Rotated, Failure> {
        Ok(self.rotate_key(id, retire_others_after.map(|after| self.now.plus(after))).await?)
    }

    async fn delete_key(&self, id: &str, cascade: bool, reason: Option<&str>) -> Result<Vec<Box<str>>, Failure> {
        Ok(self.delete_key(id, (cascade, reason), None).await?)
    }

    async fn look_up_value(&self, id: &str) -> Result<Zeroizing<String>, Failure> {
        Ok(self.look_up_value(id).await?)
    }

    fn key_format(&self) -> KeyFormat {
        self.locksmith.format.clone()
    }

    fn importing(&self, file: Option<String>) -> impl Importing {
        // Whoever has the store and the pepper may make any key.
        Importer::new(self, Terms { file, scope: None, against: Box::new(|_, _| None) })
    }

    async fn scopes(&self) -> Result<BTreeMap<Scope, Stored<ScopeBody>>, Failure> {
        Ok(self.everything().await?.scopes)
    }

    async fn create_scope(&self, scope: &Scope) -> Result<CreatedScope, Failure> {
        Ok(self.create_scope(scope).await?)
    }

    async fn set_scope_state(&self, scope: &Scope, state: ScopeState) -> Result<(Stored<ScopeBody>, bool), Failure> {
        Ok(self.set_scope_state(scope, state, None).await?)
    }

    async fn users(&self) -> Result<Vec<Stored<UserBody>>, Failure> {
        Ok(self.users().await?)
    }

    async fn find_user(&self, address_or_id: &str) -> Result<Stored<UserBody>, Failure> {
        Ok(self.find_user(address_or_id).await?)
    }

    async fn create_user(&self, new: NewUser) -> Result<UserChanged, Failure> {
        Ok(self.create_user(new).await?)
    }

    async fn update_user(&self, id: &str, patch: &UserPatch) -> Result<UserChanged, Failure> {
        Ok(self.update_user(id, patch, None).await?)
    }

    async fn delete_user(&self, id: &str) -> Result<Vec<Box<str>>, Failure> {
        Ok(self.delete_user(id, None).await?)
    }

    async fn set_password(&self, id: &str, password: Password) -> Result<(), Failure> {
        Ok(self.set_password(id, password).await?)
    }

    async fn create_link(&self, id: &str, lifetime: Duration) -> Result<Zeroizing<String>, Failure> {
        Ok(Zeroizing::new(self.create_link(id, lifetime).await?.reveal().to_owned()))
    }

    async fn roles(&self) -> Result<Vec<Stored<RoleBody>>, Failure> {
        Ok(self.roles().await?)
    }

    async fn put_role(&self, new: NewRole, replace: bool) -> Result<Stored<RoleBody>, Failure> {
        Ok(self.put_role(new, replace, None).await?)
    }

    async fn delete_role(&self, name: &str) -> Result<(), Failure> {
        Ok(self.delete_role(name, None).await?)
    }

    async fn bindings(&self) -> Result<Vec<Stored<BindingBody>>, Failure> {
        Ok(self.bindings().await?)
    }

    async fn bind(&self, subject: Subject, role: &str, scope: Option<Scope>) -> Result<Stored<BindingBody>, Failure> {
        Ok(self.bind(subject, role, scope).await?)
    }

    async fn unbind(&self, id: &str) -> Result<Stored<BindingBody>, Failure> {
        Ok(self.unbind(id, None).await?)
    }

    async fn usage(&self) -> Result<Vec<KeyUsage>, Failure> {
        Ok(self.usage().await?)
    }

    async fn usage_of(&self, key: &str) -> Result<KeyUsage, Failure> {
        Ok(self.usage_of(key).await?)
    }

    async fn entries(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        let take = |entry, _: &_| {
            entries.push(entry);
            Ok::<_, Failure>(entries.len() < limit)
        };
        if limit > 0 {
            audit::read(&self.store, Order::NewestFirst, before, filter, take).await?;
        }
        Ok(entries)
    }

    async fn export(
        &self,
        filter: &Filter,
        after: Option<u64>,
        mut take: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let take = |_: Entry, line: &audit::Line| take(line.exported()).map(|()| true);
        audit::read(&self.store, Order::OldestFirst, after, filter, take).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, Failure> {
        Ok(self.store.nodes().await?)
    }

    async fn forget(&self, node: &str) -> Result<(), Failure> {
        Ok(self.store.forget(node).await?)
    }
}
