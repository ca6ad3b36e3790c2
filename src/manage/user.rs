//! People: accounts, and whether their keys may be used. Each has at most one key of its own, whose id is the user's (B11):
//! giving API access makes it, taking it back refuses it and every other key of theirs at once, since owners are looked up
//! when a key is used.

mod own_key;
mod remove;
mod ticket;

use std::net::IpAddr;

use serde_json::{Value, json};

pub use self::own_key::Proposal;
pub use self::ticket::Ticket;
use super::key::holder::following;
use super::password::{self, Password};
use super::values::{Email, PersonName};
use super::{ATTEMPTS, Failure, Session, Stored, difference, stored};
use crate::auth::grant::Timestamp;
use crate::auth::key::Secret;
use crate::auth::scope::Scope;
use crate::store::record::{
    BindingBody, Body, Kind, PasswordBody, PasswordHash, Record, RecordId, Subject, UniqueBody, UserBody, UserState,
    new_id, to_json,
};
use crate::store::{Change, Commit, CommitError, Expect, Store};

/// What a new user shall be.
#[derive(Debug)]
pub struct NewUser {
    /// Where mail reaches them.
    pub email: Email,
    /// What people call them.
    pub name: Option<PersonName>,
    /// Where the account is kept.
    pub scope: Option<Scope>,
    /// What they sign in with; nothing yet if absent.
    pub password: Option<Password>,
    /// Whether they get a key (B5: not unless somebody says so).
    pub api_access: bool,
    /// A role that they have there from the beginning.
    pub role: Option<Box<str>>,
}

/// What shall change; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct UserPatch {
    /// Where mail reaches them.
    pub email: Option<Email>,
    /// What people call them.
    pub name: Option<Option<PersonName>>,
    /// Where the account is kept.
    pub scope: Option<Option<Scope>>,
    /// Whether they may do anything.
    pub state: Option<UserState>,
    /// Whether their keys work.
    pub api_access: Option<bool>,
    /// What they sign in with.
    pub password: Option<PasswordHash>,
}

/// A user who was made or changed.
pub struct UserChanged {
    /// As they are now.
    pub user: Stored<UserBody>,
    /// The value of the key that they have got with it, which is not shown again.
    pub secret: Option<Secret>,
    /// Whether anything changed.
    pub changed: bool,
}

impl<S: Store> Session<S> {
    /// One user.
    ///
    /// # Errors
    /// When there is none, or the record or the store cannot be read.
    pub async fn user(&self, id: &str) -> Result<Stored<UserBody>, Failure> {
        let record_id = RecordId::new(Kind::User, id);
        let missing = || Failure::NotFound(record_id.clone());
        let record = self.store.get(&record_id).await?.1.ok_or_else(missing)?;
        let Body::User(body) = Body::parse(&record_id, record.body.as_deref().ok_or_else(missing)?)? else {
            return Err(missing());
        };
        Ok(Stored { id: record.id.id, revision: record.revision, body })
    }

    /// The user with an e-mail address, or with an id.
    ///
    /// # Errors
    /// As for [`Session::user`].
    pub async fn find_user(&self, address_or_id: &str) -> Result<Stored<UserBody>, Failure> {
        let Ok(email) = address_or_id.parse::<Email>() else { return self.user(address_or_id).await };
        let reservation = address(&email.0);
        let record = self.store.get(&reservation).await?.1.and_then(|record| record.body);
        match record.map(|json| Body::parse(&reservation, &json)).transpose()? {
            Some(Body::Unique(UniqueBody { holder: Subject::User(id), .. })) => self.user(&id).await,
            Some(_) | None => Err(Failure::NotFound(RecordId::new(Kind::User, &email.0))),
        }
    }

    /// All users, in the order in which they were made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn users(&self) -> Result<Vec<Stored<UserBody>>, Failure> {
        self.of_kind(Kind::User, |record: Record| stored(record, Body::user)).await
    }

    /// Makes a user.
    ///
    /// # Errors
    /// When the e-mail address is taken, or the store cannot be written.
    pub async fn create_user(&self, new: NewUser) -> Result<UserChanged, Failure> {
        let id = new_id(self.now)?;
        let by = Some(self.who().to_owned());
        let body = UserBody {
            email: new.email.0,
            name: new.name.map(|name| name.0),
            scope: new.scope,
            state: UserState::Active,
            api_access: new.api_access,
            password_time: new.password.as_ref().map(|_| self.now),
            created_by: by.clone(),
            created_time: self.now,
            updated_by: by,
            updated_time: self.now,
        };
        let absent = |id, body| Change { id, expect: Expect::Absent, body: Some(body) };
        let scopes = self.missing_scopes(body.scope.as_ref()).await?;
        let mut changes: Vec<Change> = scopes.iter().map(|scope| self.new_scope(scope)).collect();
        changes.push(absent(RecordId::new(Kind::User, &id), to_json(&body)));
        changes.push(reserve(&body.email, &id));
        if let Some(password) = new.password {
            let hash = password::hash(password, &self.locksmith).await?;
            changes.push(self.new_password(&id, hash));
        }
        if let Some(role) = &new.role {
            self.permissions_of(role).await?;
            let (subject, scope) = (Subject::User(id.as_str().into()), body.scope.clone());
            let (created_by, created_time) = (Some(self.who().to_owned()), self.now);
            let binding = BindingBody { subject, role: role.clone(), scope, created_by, created_time };
            changes.push(absent(RecordId::new(Kind::Binding, &new_id(self.now)?), to_json(&binding)));
        }
        let own = if new.api_access { Some(self.own_key(&id, &body)?) } else { None };
        let secret = own.map(|(made, secret)| {
            changes.extend(made);
            secret
        });
        let mut detail = json!({ "target": target(&id), "after": body, "role": new.role });
        if new.role.is_some() {
            detail["escalation"] = Value::Bool(true);
        }
        let commit = self.entry("user.create", [&body.scope], detail, changes);
        let revision = self.store.commit(commit).await.map_err(taken)?.number;
        Ok(UserChanged { user: Stored { id: id.into(), revision, body }, secret, changed: true })
    }

    /// Changes a user; gives them a key when they shall use the API and have none that is not revoked (B6).
    ///
    /// # Errors
    /// When there is no such user, the e-mail address is taken, others keep changing them, or the store cannot be written.
    pub async fn update_user(
        &self,
        id: &str,
        patch: &UserPatch,
        expected: Option<u64>,
    ) -> Result<UserChanged, Failure> {
        let mut attempt = 1;
        loop {
            let before = self.user(id).await?.if_seen_at(&RecordId::new(Kind::User, id), expected)?;
            let mut body = before.body.clone();
            patch.apply(&mut body, self.now);
            let own = if patch.api_access == Some(true) { self.own_key_if_lacking(id, &body).await? } else { None };
            if body == before.body && own.is_none() && patch.password.is_none() {
                return Ok(UserChanged { user: before, secret: None, changed: false });
            }
            body.updated_by = Some(self.who().to_owned());
            body.updated_time = self.now;
            let mut changes = self.changes_of_user(&before, &body).await?;
            changes.extend(patch.password.clone().map(|hash| self.new_password(id, hash)));
            let secret = own.map(|(made, secret)| {
                changes.extend(made);
                secret
            });
            let action = if patch.is_password() { "user.password" } else { "user.update" };
            let mut detail = audit_of(&before, &body);
            if patch.password.is_some() {
                detail["password"] = Value::Bool(true);
            }
            let commit = self.entry(action, [&before.body.scope, &body.scope], detail, changes);
            match self.store.commit(commit).await {
                Ok(revision) => {
                    let user = Stored { id: before.id, revision: revision.number, body };
                    return Ok(UserChanged { user, secret, changed: true });
                }
                Err(CommitError::Conflict(conflict)) if conflict.kind != Kind::Unique && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(taken(error)),
            }
        }
    }

    async fn changes_of_user(&self, before: &Stored<UserBody>, body: &UserBody) -> Result<Vec<Change>, Failure> {
        let moved = body.scope.as_ref().filter(|scope| before.body.scope.as_ref() != Some(scope));
        let scopes = self.missing_scopes(moved).await?;
        let mut changes: Vec<Change> = scopes.iter().map(|scope| self.new_scope(scope)).collect();
        let (id, expect) = (RecordId::new(Kind::User, &before.id), Expect::At(before.revision));
        changes.push(Change { id, expect, body: Some(to_json(body)) });
        if body.email != before.body.email {
            changes.push(Change { id: address(&before.body.email), expect: Expect::Any, body: None });
            changes.push(reserve(&body.email, &before.id));
        }
        if body.email != before.body.email || body.scope != before.body.scope {
            for key in self.keys_of(&before.id).await? {
                let (id, expect) = (RecordId::key(&key.id), Expect::At(key.revision));
                let body = following(&key.body, &before.body, body);
                changes.push(Change { id, expect, body: Some(to_json(&body)) });
            }
        }
        Ok(changes)
    }

    /// Whether a user has something to sign in with but links.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn has_password(&self, id: &str) -> Result<bool, Failure> {
        let stored = self.store.get(&RecordId::new(Kind::Password, id)).await?.1;
        Ok(stored.is_some_and(|record| record.body.is_some()))
    }

    /// Sets what a user signs in with.
    ///
    /// # Errors
    /// When there is no such user, or the store cannot be written.
    pub async fn set_password(&self, id: &str, password: Password) -> Result<(), Failure> {
        let password = Some(password::hash(password, &self.locksmith).await?);
        self.update_user(id, &UserPatch { password, ..UserPatch::default() }, None).await?;
        Ok(())
    }

    /// With the user, so that it fails if they are deleted at the same time.
    fn new_password(&self, id: &str, hash: PasswordHash) -> Change {
        let body = PasswordBody { hash, created_time: self.now };
        Change { id: RecordId::new(Kind::Password, id), expect: Expect::Any, body: Some(to_json(&body)) }
    }

    /// The user with this e-mail address and password, if there is one and they may sign in. It takes as long if not.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn sign_in(&self, email: &str, password: Password) -> Result<Option<Stored<UserBody>>, Failure> {
        let user = match email.parse::<Email>() {
            Ok(Email(email)) => match self.find_user(&email).await {
                Ok(user) => Some(user),
                Err(Failure::NotFound(_)) => None,
                Err(failure) => return Err(failure),
            },
            Err(_) => None,
        };
        let id = user.as_ref().map_or("", |user| &user.id);
        let stored = self.store.get(&RecordId::new(Kind::Password, id)).await?.1.and_then(|record| record.body);
        let stored = match stored.map(|json| Body::parse(&RecordId::new(Kind::Password, id), &json)).transpose()? {
            Some(Body::Password(body)) => Some(body.hash),
            Some(_) | None => None,
        };
        let is_theirs = password::verify(password, stored, &self.locksmith).await?;
        Ok(user.filter(|user| is_theirs && user.body.state == UserState::Active))
    }
}

impl<S: Store> Session<S> {
    /// Takes down that a user has signed in, and from where.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn signed_in(&self, user: &Stored<UserBody>, from: Option<IpAddr>) -> Result<(), Failure> {
        let detail = json!({ "target": target(&user.id), "from": from });
        let entry = self.entry("user.sign_in", [&user.body.scope], detail, Vec::new());
        self.store.commit(Commit { actor: format!("user:{}", user.id), ..entry }).await?;
        Ok(())
    }
}

impl UserPatch {
    /// Whether nobody may do anything after it that they may not do before.
    pub fn only_takes(&self) -> bool {
        let Self { email, name, scope, state, api_access, password } = self;
        let gives = *state == Some(UserState::Active) || *api_access == Some(true) || password.is_some();
        email.is_none() && name.is_none() && scope.is_none() && !gives
    }

    /// Whether it is about the password alone.
    fn is_password(&self) -> bool {
        let Self { email, name, scope, state, api_access, password } = self;
        let rest = email.is_some() || name.is_some() || scope.is_some() || state.is_some() || api_access.is_some();
        password.is_some() && !rest
    }

    fn apply(&self, body: &mut UserBody, now: Timestamp) {
        if let Some(email) = &self.email {
            body.email.clone_from(&email.0);
        }
        if let Some(name) = &self.name {
            body.name = name.as_ref().map(|name| name.0.clone());
        }
        if let Some(scope) = &self.scope {
            body.scope.clone_from(scope);
        }
        if self.state == Some(UserState::Suspended) && body.state == UserState::Active {
            body.password_time = Some(now);
        }
        if self.password.is_some() {
            body.password_time = Some(now);
        }
        body.state = self.state.unwrap_or(body.state);
        body.api_access = self.api_access.unwrap_or(body.api_access);
    }
}

/// The record that holds an address.
fn address(email: &str) -> RecordId {
    RecordId::new(Kind::Unique, &format!("email:{email}"))
}

fn reserve(email: &str, user: &str) -> Change {
    let body = UniqueBody { holder: Subject::User(user.into()), expires_at: None, created_time: None };
    Change { id: address(email), expect: Expect::Absent, body: Some(to_json(&body)) }
}

fn taken(error: CommitError) -> Failure {
    match error {
        CommitError::Conflict(id) if id.kind == Kind::Unique => Failure::Taken(id),
        error => error.into(),
    }
}

fn target(id: &str) -> Value {
    json!({ "kind": "user", "id": id })
}

/// What the audit says of a change. More access than before is marked, since that is what a thief would give.
fn audit_of(before: &Stored<UserBody>, after: &UserBody) -> Value {
    let (mut old, mut new) = difference(&before.body, after);
    // When it was is the time of the entry; whether it was a password is said besides.
    [&mut old, &mut new].into_iter().for_each(|fields| drop(fields.remove("password_time")));
    let mut detail = json!({ "target": target(&before.id), "before": old, "after": new });
    if after.api_access && !before.body.api_access {
        detail["escalation"] = Value::Bool(true);
    }
    let moves_up = |scope: &Scope| after.scope.as_ref().is_none_or(|to| !scope.covers(to));
    if after.api_access && before.body.scope.as_ref().is_some_and(moves_up) {
        detail["escalation"] = Value::Bool(true);
    }
    detail
}

#[cfg(test)]
mod tests;
