//! What commands do, by a server: each reads what it is about as it is recorded, and changes that or nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::import::Sending;
use super::{Done, Sent, Server, bodies, missing, path_of, query_append};
use crate::auth::authority::BuiltIn;
use crate::auth::grant::{State, Timestamp};
use crate::auth::key::{Brand, KeyFormat, Secret};
use crate::auth::scope::Scope;
use crate::cli::exit::Failure;
use crate::cli::import::Importing;
use crate::cli::place::{Listing, Place};
use crate::manage::key::{Changed, Created, NewKey, Patch};
use crate::manage::password::Password;
use crate::manage::role::NewRole;
use crate::manage::rotate::Rotated;
use crate::manage::scope::CreatedScope;
use crate::manage::usage::KeyUsage;
use crate::manage::user::{NewUser, UserChanged, UserPatch};
use crate::manage::wait::Waited;
use crate::manage::{self, Session, Stored, with_all_above};
use crate::store::AnyStore;
use crate::store::ledger::audit::{Entry, Filter};
use crate::store::ledger::nodes::Node;
use crate::store::record::{
    BindingBody, Body, KeyBody, Kind, RecordId, RoleBody, ScopeBody, ScopeState, SecretBody, Subject, UserBody,
};

impl Server {
    /// A key that may be changed: what is revoked stays as it was.
    async fn living(&self, id: &str) -> Result<Stored<KeyBody>, Failure> {
        let key = Place::key(self, id).await?;
        match key.body.state {
            State::Revoked => Err(manage::Failure::Revoked(RecordId::key(id)).into()),
            State::Active | State::Disabled => Ok(key),
        }
    }

    async fn patched(&self, before: Stored<KeyBody>, patch: &Patch) -> Result<Changed, Failure> {
        let path = path_of(Kind::Key, &before.id)?;
        self.change(Method::PATCH, &path, before.revision, Some(&bodies::patch(patch))).await?;
        let after = Place::key(self, &before.id).await?;
        Ok(Changed::between(&before, after))
    }

    async fn deleted(&self, before: Stored<KeyBody>, parameters: &str) -> Result<(Changed, Value), Failure> {
        let path = format!("{}?{parameters}", path_of(Kind::Key, &before.id)?);
        let done = self.change(Method::DELETE, &path, before.revision, None).await?;
        let after = Place::key(self, &before.id).await?;
        Ok((Changed::between(&before, after), done.result))
    }

    async fn scope(&self, scope: &Scope) -> Result<Stored<ScopeBody>, Failure> {
        let Stored { id, revision, body: (_, body) } = self.one(Kind::Scope, &scope.to_string(), Body::scope).await?;
        Ok(Stored { id, revision, body })
    }

    /// Those of a scope and all above it that are not there, from the top down, as far as the caller may know.
    async fn missing_scopes(&self, scope: Option<&Scope>) -> Result<Vec<Scope>, Failure> {
        let mut absent = Vec::new();
        for scope in scope.map(with_all_above).unwrap_or_default() {
            match self.scope(&scope).await {
                Err(Failure::NotFound(_)) => absent.push(scope),
                Ok(_) | Err(Failure::Failed(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(absent)
    }

    /// A page of the audit, and where the next one begins.
    async fn audit(
        &self,
        how: &str,
        filter: &Filter,
        cursor: Option<&str>,
    ) -> Result<(Value, Option<String>), Failure> {
        let mut target = format!("/v2/audit?{how}");
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        for (name, value) in [
            ("cursor", cursor.map(str::to_owned)),
            ("actor", filter.actor.clone()),
            ("action", filter.action.clone()),
            ("target", filter.target.clone()),
            ("since", time(filter.since)),
            ("until", time(filter.until)),
        ] {
            value.inspect(|value| query_append(&mut target, name, value));
        }
        let page = self.get(&target).await?;
        // A cursor that does not move would be followed for ever.
        let next = page.cursor().filter(|next| cursor != Some(next));
        Ok((page.result, next))
    }

    fn parsed<T: DeserializeOwned>(&self, result: Value) -> Result<T, Failure> {
        serde_json::from_value(result).map_err(|_| self.strange("something that this version cannot read"))
    }

    /// The value that an answer has.
    fn value_of(&self, done: &Done) -> Result<Secret, Failure> {
        let value = done.result["value"].as_str().ok_or_else(|| self.strange("no value"))?;
        Ok(Secret::returned(value))
    }

    fn id_of(&self, done: &Done) -> Result<String, Failure> {
        Ok(done.result["id"].as_str().ok_or_else(|| self.strange("no id"))?.to_owned())
    }
}

fn reason(reason: Option<&str>) -> String {
    let mut parameters = String::new();
    if let Some(reason) = reason {
        crate::auth::query::append(&mut parameters, "reason", reason);
    }
    parameters
}

impl Place for Server {
    type Store = AnyStore;

    fn now(&self) -> Timestamp {
        self.now
    }

    fn session(&self, what: &str) -> Result<&Session<AnyStore>, Failure> {
        Err(Failure::Usage(format!(
            "{what} works on a store alone: run it with --config where the store can be reached"
        )))
    }

    async fn listing(&self) -> Result<Listing, Failure> {
        let keys = self.records(Kind::Key, "&state=all", Body::key).await?;
        // Whoever may not see scopes sees keys as if all of them worked.
        let scopes = match self.scopes().await {
            Err(Failure::Failed(_)) => BTreeMap::new(),
            scopes => scopes?,
        };
        let users = match keys.iter().any(|key| key.body.owner.is_some()) {
            true => self.users().await.ok(),
            false => None,
        };
        Ok(Listing { keys, scopes, users, unreadable: Vec::new() })
    }

    async fn key(&self, id: &str) -> Result<Stored<KeyBody>, Failure> {
        self.one(Kind::Key, id, Body::key).await
    }

    async fn values_of(&self, id: &str) -> Result<Vec<SecretBody>, Failure> {
        let path = format!("{}/secrets?record=true", path_of(Kind::Key, id)?);
        let Value::Array(values) = self.get(&path).await.map_err(|failure| missing(failure, Kind::Key, id))?.result
        else {
            return Err(self.strange("no list"));
        };
        let value = |mut value: Value| {
            // Who uses it is no part of its record.
            if let Value::Object(fields) = &mut value {
                fields.retain(|name, _| !["last_used", "client", "node", "still_used"].contains(&name.as_str()));
            }
            value["key"] = id.into();
            self.parsed(value)
        };
        values.into_iter().map(value).collect()
    }

    async fn create_key(&self, new: NewKey) -> Result<Created, Failure> {
        if let Some(parent) = &new.parent {
            self.living(parent).await?;
        }
        let scopes = self.missing_scopes(new.scope.as_ref()).await?;
        let made = self.post("/v2/keys", &bodies::new_key(&new)).await?;
        let secret = self.value_of(&made)?;
        let key = Place::key(self, &self.id_of(&made)?).await?;
        Ok(Created { key, secret, scopes })
    }

    async fn update_key(&self, id: &str, patch: &Patch) -> Result<Changed, Failure> {
        self.patched(self.living(id).await?, patch).await
    }

    async fn set_key_state(&self, id: &str, state: State, why: Option<&str>) -> Result<Changed, Failure> {
        let before = Place::key(self, id).await?;
        if before.body.state == state {
            return Ok(Changed::No(before));
        }
        if state == State::Revoked {
            return Ok(self.deleted(before, &reason(why)).await?.0);
        }
        let enabled = Some(state == State::Active);
        self.patched(self.living(id).await?, &Patch { enabled, ..Patch::default() }).await
    }

    async fn revoke_everywhere(
        &self,
        id: &str,
        why: Option<&str>,
        limit: Duration,
    ) -> Result<(Changed, Waited), Failure> {
        let before = Place::key(self, id).await?;
        let mut parameters = reason(why);
        crate::auth::query::append(&mut parameters, "wait", "all");
        crate::auth::query::append(
            &mut parameters,
            "timeout",
            &humantime::format_duration(limit).to_string().replace(' ', ""),
        );
        let (changed, waited) = self.deleted(before, &parameters).await?;
        Ok((changed, self.parsed(waited)?))
    }

    async fn rotate_key(&self, id: &str, retire_others_after: Option<Duration>) -> Result<Rotated, Failure> {
        self.living(id).await?;
        let works = |value: &SecretBody| value.not_after.is_none_or(|end| end > self.now());
        let others = self.values_of(id).await?.into_iter().filter(works).count();
        let after = retire_others_after.map(|after| humantime::format_duration(after).to_string());
        let body = after.map_or_else(|| json!({}), |after| json!({ "retire_others_after": after }));
        let made = self.post(&format!("{}/secrets", path_of(Kind::Key, id)?), &body).await?;
        let secret = self.value_of(&made)?;
        Ok(Rotated { key: Place::key(self, id).await?, secret, others })
    }

    async fn delete_key(&self, id: &str, cascade: bool, why: Option<&str>) -> Result<Vec<Box<str>>, Failure> {
        let before = Place::key(self, id).await?;
        if before.body.state == State::Revoked {
            return Err(manage::Failure::NotFound(RecordId::key(id)).into());
        }
        let mut parameters = reason(why);
        crate::auth::query::append(&mut parameters, "cascade", if cascade { "true" } else { "false" });
        crate::auth::query::append(&mut parameters, "list", "true");
        match self.deleted(before, &parameters).await?.1.get_mut("keys") {
            Some(keys) => self.parsed(keys.take()),
            None => Ok(vec![id.into()]),
        }
    }

    async fn look_up_value(&self, id: &str) -> Result<Zeroizing<String>, Failure> {
        let path = format!("{}/value", path_of(Kind::Key, id)?);
        let found = self.ask(Method::POST, &path, vec![], Sent::Nothing, true).await;
        let found = found.map_err(|failure| missing(failure, Kind::Key, id))?;
        Ok(Zeroizing::new(self.value_of(&found)?.reveal().to_owned()))
    }

    fn key_format(&self) -> KeyFormat {
        // Which shapes there are, the server knows.
        KeyFormat::new(Brand::default(), Vec::new())
    }

    fn importing(&self, _: Option<String>) -> impl Importing {
        Sending::new(self)
    }

    async fn scopes(&self) -> Result<BTreeMap<Scope, Stored<ScopeBody>>, Failure> {
        let scopes = self.records(Kind::Scope, "", Body::scope).await?;
        let scope = |Stored { id, revision, body: (scope, body) }| (scope, Stored { id, revision, body });
        Ok(scopes.into_iter().map(scope).collect())
    }

    async fn create_scope(&self, scope: &Scope) -> Result<CreatedScope, Failure> {
        let made = self.missing_scopes(Some(scope)).await?;
        self.post("/v2/scopes", &json!({ "id": scope })).await?;
        Ok(CreatedScope { scope: self.scope(scope).await?, made })
    }

    async fn set_scope_state(&self, scope: &Scope, state: ScopeState) -> Result<(Stored<ScopeBody>, bool), Failure> {
        let before = self.scope(scope).await?;
        if before.body.state == state {
            return Ok((before, false));
        }
        let path = path_of(Kind::Scope, &scope.to_string())?;
        self.change(Method::PATCH, &path, before.revision, Some(&json!({ "state": state }))).await?;
        Ok((self.scope(scope).await?, true))
    }

    async fn users(&self) -> Result<Vec<Stored<UserBody>>, Failure> {
        self.records(Kind::User, "", Body::user).await
    }

    async fn find_user(&self, address_or_id: &str) -> Result<Stored<UserBody>, Failure> {
        if !address_or_id.contains('@') {
            return self.one(Kind::User, address_or_id, Body::user).await;
        }
        let address = address_or_id.trim().to_lowercase();
        let found = self.users().await?.into_iter().find(|user| user.body.email == address);
        found.ok_or_else(|| manage::Failure::NotFound(RecordId::new(Kind::User, &address)).into())
    }

    async fn create_user(&self, new: NewUser) -> Result<UserChanged, Failure> {
        let made = self.post("/v2/users", &bodies::new_user(&new)).await?;
        let secret = self.value_of(&made).ok();
        let user = self.one(Kind::User, &self.id_of(&made)?, Body::user).await?;
        Ok(UserChanged { user, secret, changed: true })
    }

    async fn update_user(&self, id: &str, patch: &UserPatch) -> Result<UserChanged, Failure> {
        let before = self.one(Kind::User, id, Body::user).await?;
        let path = path_of(Kind::User, id)?;
        let done = self.change(Method::PATCH, &path, before.revision, Some(&bodies::user_patch(patch))).await?;
        let secret = self.value_of(&done).ok();
        let user = self.one(Kind::User, id, Body::user).await?;
        let changed = user.body != before.body || secret.is_some();
        Ok(UserChanged { user, secret, changed })
    }

    async fn delete_user(&self, id: &str) -> Result<Vec<Box<str>>, Failure> {
        let before = self.one(Kind::User, id, Body::user).await?;
        let done = self.change(Method::DELETE, &path_of(Kind::User, id)?, before.revision, None).await?;
        self.parsed(done.result["keys"].clone())
    }

    async fn set_password(&self, id: &str, password: Password) -> Result<(), Failure> {
        let before = self.one(Kind::User, id, Body::user).await?;
        let body = json!({ "password": password.reveal() });
        self.change(Method::PATCH, &path_of(Kind::User, id)?, before.revision, Some(&body)).await?;
        Ok(())
    }

    async fn create_link(&self, id: &str, lifetime: Duration) -> Result<Zeroizing<String>, Failure> {
        let body = json!({ "expires_after": humantime::format_duration(lifetime).to_string() });
        let made = self.post(&format!("{}/links", path_of(Kind::User, id)?), &body).await?;
        let ticket = made.result["ticket"].as_str().ok_or_else(|| self.strange("no ticket"))?;
        Ok(Zeroizing::new(ticket.to_owned()))
    }

    async fn roles(&self) -> Result<Vec<Stored<RoleBody>>, Failure> {
        self.records(Kind::Role, "", Body::role).await
    }

    async fn put_role(&self, new: NewRole, replace: bool) -> Result<Stored<RoleBody>, Failure> {
        if replace {
            let before = self.one(Kind::Role, &new.name, Body::role).await?;
            let path = path_of(Kind::Role, &new.name)?;
            self.change(Method::PATCH, &path, before.revision, Some(&bodies::role(&new, false))).await?;
        } else {
            self.post("/v2/roles", &bodies::role(&new, true)).await?;
        }
        self.one(Kind::Role, &new.name, Body::role).await
    }

    async fn delete_role(&self, name: &str) -> Result<(), Failure> {
        let before = self.one(Kind::Role, name, Body::role).await?;
        self.change(Method::DELETE, &path_of(Kind::Role, name)?, before.revision, None).await?;
        Ok(())
    }

    async fn bindings(&self) -> Result<Vec<Stored<BindingBody>>, Failure> {
        self.records(Kind::Binding, "", Body::binding).await
    }

    async fn bind(&self, subject: Subject, role: &str, scope: Option<Scope>) -> Result<Stored<BindingBody>, Failure> {
        if BuiltIn::parse(role).is_none() {
            self.one(Kind::Role, role, Body::role).await?;
        }
        let made = self.post("/v2/bindings", &json!({ "subject": subject, "role": role, "scope": scope })).await?;
        self.one(Kind::Binding, &self.id_of(&made)?, Body::binding).await
    }

    async fn unbind(&self, id: &str) -> Result<Stored<BindingBody>, Failure> {
        let before = self.one(Kind::Binding, id, Body::binding).await?;
        self.change(Method::DELETE, &path_of(Kind::Binding, id)?, before.revision, None).await?;
        Ok(before)
    }

    async fn usage(&self) -> Result<Vec<KeyUsage>, Failure> {
        self.parsed(Value::Array(self.all("/v2/usage", "").await?))
    }

    async fn usage_of(&self, key: &str) -> Result<KeyUsage, Failure> {
        let path = format!("{}/usage?record=true", path_of(Kind::Key, key)?);
        let found = self.get(&path).await.map_err(|failure| missing(failure, Kind::Key, key))?;
        self.parsed(found.result)
    }

    async fn entries(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, Failure> {
        let (mut entries, mut cursor) = (Vec::new(), before.map(|before| before.to_string()));
        while entries.len() < limit {
            let most = (limit - entries.len()).min(super::PAGE);
            let (page, next) = self.audit(&format!("limit={most}"), filter, cursor.as_deref()).await?;
            entries.extend(self.parsed::<Vec<Entry>>(page)?);
            if next.is_none() {
                break;
            }
            cursor = next;
        }
        Ok(entries)
    }

    async fn export(
        &self,
        filter: &Filter,
        after: Option<u64>,
        mut take: impl FnMut(Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut cursor = after.map(|after| after.to_string());
        loop {
            let how = format!("limit={}&order=oldest&chain=true", super::PAGE);
            let (page, next) = self.audit(&how, filter, cursor.as_deref()).await?;
            self.parsed::<Vec<Value>>(page)?.into_iter().try_for_each(&mut take)?;
            if next.is_none() {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn nodes(&self) -> Result<Vec<Node>, Failure> {
        self.parsed(Value::Array(self.all("/v2/nodes", "").await?))
    }

    async fn forget(&self, node: &str) -> Result<(), Failure> {
        let mut path = String::from("/v2/nodes/");
        super::push_segment(&mut path, node);
        self.ask(Method::DELETE, &path, vec![], Sent::Nothing, false).await?;
        Ok(())
    }
}
