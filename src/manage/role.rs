//! Roles, and who has them where. Whether whoever asks may hand a role on is for those who know who asks: nobody may whose own
//! [`Authority`](crate::auth::authority::Authority) does not include what the role gives.

use serde_json::json;

use super::authority::of_record;
use super::{Failure, Mistake, Session, Stored, stored};
use crate::auth::authority::{BuiltIn, Permission, Permissions};
use crate::auth::scope::Scope;
use crate::store::record::{BindingBody, Body, Kind, Record, RecordId, RoleBody, Subject, is_key_id, new_id, to_json};
use crate::store::{Change, Expect, Store};

/// What a role shall permit.
#[derive(Clone, Debug)]
pub struct NewRole {
    /// Its name, which is its id.
    pub name: String,
    /// What it permits.
    pub permissions: Vec<Permission>,
    /// Whether only what looks counts of them.
    pub observer: bool,
}

fn is_built_in() -> Failure {
    let why = "this role is built in and cannot be changed";
    Failure::Invalid(vec![Mistake { field: "name".to_owned(), why: why.to_owned() }])
}

impl<S: Store> Session<S> {
    /// One role that is not built in.
    ///
    /// # Errors
    /// When there is none, or the record or the store cannot be read.
    pub async fn role(&self, name: &str) -> Result<Stored<RoleBody>, Failure> {
        let id = RecordId::new(Kind::Role, name);
        let missing = || Failure::NotFound(id.clone());
        let record = self.store.get(&id).await?.1.ok_or_else(missing)?;
        let Body::Role(body) = Body::parse(&id, record.body.as_deref().ok_or_else(missing)?)? else {
            return Err(missing());
        };
        Ok(Stored { id: record.id.id, revision: record.revision, body })
    }

    /// What a role permits, built in or not.
    ///
    /// # Errors
    /// As for [`Session::role`].
    pub async fn permissions_of(&self, role: &str) -> Result<Permissions, Failure> {
        match BuiltIn::parse(role) {
            Some(role) => Ok(role.permissions()),
            None => Ok(of_record(&self.role(role).await?.body)),
        }
    }

    /// Makes a role, or puts another in its place.
    ///
    /// # Errors
    /// When its name cannot be one, is taken, or the store cannot be written.
    pub async fn put_role(
        &self,
        new: NewRole,
        replace: bool,
        expected: Option<u64>,
    ) -> Result<Stored<RoleBody>, Failure> {
        let wrong = |why: &str| Failure::Invalid(vec![Mistake { field: "name".to_owned(), why: why.to_owned() }]);
        if !is_key_id(&new.name) {
            return Err(wrong("names of roles are 1 to 64 of A-Z a-z 0-9 . _ -"));
        }
        if BuiltIn::parse(&new.name).is_some() {
            return Err(is_built_in());
        }
        let id = RecordId::new(Kind::Role, &new.name);
        let before = if replace { Some(self.role(&new.name).await?.if_seen_at(&id, expected)?) } else { None };
        let mut permissions = new.permissions;
        permissions.sort_unstable();
        permissions.dedup();
        let by = Some(self.who().to_owned());
        let (created_by, created_time) = before
            .as_ref()
            .map_or((by.clone(), self.now), |role| (role.body.created_by.clone(), role.body.created_time));
        let (updated_by, updated_time) = (by, self.now);
        let observer = new.observer;
        let body = RoleBody { permissions, observer, created_by, created_time, updated_by, updated_time };
        let widens = before.as_ref().is_some_and(|before| {
            let (old, now) = (of_record(&before.body), of_record(&body));
            old.and(now) != now
        });
        let detail = json!({
            "target": { "kind": "role", "id": new.name },
            "before": before.as_ref().map(|role| &role.body),
            "after": body,
            "escalation": widens,
        });
        let (action, expect) = match &before {
            Some(before) => ("role.update", Expect::At(before.revision)),
            None => ("role.create", Expect::Absent),
        };
        let changes = vec![Change { id: id.clone(), expect, body: Some(to_json(&body)) }];
        let committed = self.store.commit(self.entry(action, [&None], detail, changes)).await;
        match committed.map_err(Failure::from) {
            Ok(revision) => Ok(Stored { id: new.name.into(), revision: revision.number, body }),
            Err(Failure::Outrun(_)) if before.is_none() => Err(Failure::Taken(id)),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes a role, and takes it from all who have it.
    ///
    /// # Errors
    /// When there is no such role, or the store cannot be written.
    pub async fn delete_role(&self, name: &str, expected: Option<u64>) -> Result<(), Failure> {
        if BuiltIn::parse(name).is_some() {
            return Err(is_built_in());
        }
        let role = self.role(name).await?.if_seen_at(&RecordId::new(Kind::Role, name), expected)?;
        let bindings = self.bindings().await?;
        let ids: Vec<&str> = bindings.iter().filter(|b| *b.body.role == *name).map(|b| &*b.id).collect();
        let gone = |kind, id: &str, revision| {
            let expect = Expect::At(revision);
            Change { id: RecordId::new(kind, id), expect, body: None }
        };
        let mut changes = vec![gone(Kind::Role, name, role.revision)];
        let bound = bindings.iter().filter(|binding| *binding.body.role == *name);
        changes.extend(bound.map(|binding| gone(Kind::Binding, &binding.id, binding.revision)));
        let detail = json!({ "target": { "kind": "role", "id": name }, "before": role.body, "bindings": ids });
        self.store.commit(self.entry("role.delete", [&None], detail, changes)).await?;
        Ok(())
    }

    /// All bindings, in the order in which they were made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn bindings(&self) -> Result<Vec<Stored<BindingBody>>, Failure> {
        self.of_kind(Kind::Binding, |record: Record| stored(record, Body::binding)).await
    }

    /// All roles that are not built in, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn roles(&self) -> Result<Vec<Stored<RoleBody>>, Failure> {
        self.of_kind(Kind::Role, |record: Record| stored(record, Body::role)).await
    }

    /// Gives somebody a role within a scope.
    ///
    /// # Errors
    /// When there is no such subject, role or scope, they have it there already, or the store cannot be written.
    pub async fn bind(
        &self,
        subject: Subject,
        role: &str,
        scope: Option<Scope>,
    ) -> Result<Stored<BindingBody>, Failure> {
        match &subject {
            Subject::User(id) => drop(self.user(id).await?),
            Subject::Key(id) => drop(self.key(id).await?),
        }
        self.permissions_of(role).await?;
        if let Some(scope) = &scope {
            self.scope(scope).await?;
        }
        let (created_by, created_time) = (Some(self.who().to_owned()), self.now);
        let body = BindingBody { subject, role: role.into(), scope, created_by, created_time };
        let same = |other: &&Stored<BindingBody>| {
            other.body.subject == body.subject && other.body.role == body.role && other.body.scope == body.scope
        };
        if let Some(there) = self.bindings().await?.iter().find(same) {
            return Err(Failure::Taken(RecordId::new(Kind::Binding, &there.id)));
        }
        let id = new_id(self.now)?;
        let target = json!({ "kind": "binding", "id": id });
        let detail = json!({ "target": target, "after": body, "escalation": true });
        let changes =
            vec![Change { id: RecordId::new(Kind::Binding, &id), expect: Expect::Absent, body: Some(to_json(&body)) }];
        let commit = self.entry("binding.create", [&body.scope], detail, changes);
        let revision = self.store.commit(commit).await?.number;
        Ok(Stored { id: id.into(), revision, body })
    }

    /// Takes a role from somebody.
    ///
    /// # Errors
    /// When there is no such binding, or the store cannot be written.
    pub async fn unbind(&self, id: &str, expected: Option<u64>) -> Result<Stored<BindingBody>, Failure> {
        let record_id = RecordId::new(Kind::Binding, id);
        let missing = || Failure::NotFound(record_id.clone());
        let record = self.store.get(&record_id).await?.1.ok_or_else(missing)?;
        let Body::Binding(body) = Body::parse(&record_id, record.body.as_deref().ok_or_else(missing)?)? else {
            return Err(missing());
        };
        if expected.is_some_and(|expected| expected != record.revision) {
            return Err(Failure::Outrun(record_id));
        }
        let detail = json!({ "target": { "kind": "binding", "id": id }, "before": body });
        let changes = vec![Change { id: record_id.clone(), expect: Expect::At(record.revision), body: None }];
        self.store.commit(self.entry("binding.delete", [&body.scope], detail, changes)).await?;
        Ok(Stored { id: record.id.id, revision: record.revision, body })
    }
}
