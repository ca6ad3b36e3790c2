//! One key, changed against the revision that was read: what it is, or whether it works.

use serde_json::{Map, Value, json};

use super::parent::mistake;
use super::target;
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::limit::Limit;
use crate::auth::scope::Scope;
use crate::manage::values::{KeyName, Net, UserName};
use crate::manage::{ATTEMPTS, Failure, Session, Stored, difference, escalation};
use crate::store::record::{KeyBody, Kind, RecordId, to_json};
use crate::store::{Change, CommitError, Expect, Store};

/// By what people find the keys that were found.
const LEAKED: &str = "leaked";

/// What shall change; what is absent stays. What a key may lack is given as an option of its own: `Some(None)` takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// What people call it.
    pub name: Option<KeyName>,
    /// What it may do.
    pub access: Option<Access>,
    /// Where it may be used from, instead of all before; anywhere if empty.
    pub ips: Option<Vec<Net>>,
    /// Where it acts.
    pub scope: Option<Option<Scope>>,
    /// Its world.
    pub env: Option<Environment>,
    /// How often it may be used.
    pub rate_limit: Option<Option<Limit>>,
    /// When it ends.
    pub expires_at: Option<Option<Timestamp>>,
    /// Who it was handed to.
    pub user: Option<Option<UserName>>,
    /// The user whose account it is bound to.
    pub owner: Option<Option<Box<str>>>,
    /// Whether its values are kept, sealed, from the next one on; if not, the one that is kept goes.
    pub recoverable: Option<bool>,
    /// Whether it works. A patch revokes nothing: that is final, and has an action of its own in the audit.
    pub enabled: Option<bool>,
}

impl Patch {
    fn apply(&self, body: &mut KeyBody) {
        if let Some(name) = &self.name {
            body.name.clone_from(&name.0);
        }
        if let Some(access) = self.access {
            body.access = access;
        }
        if let Some(ips) = &self.ips {
            body.ips = ips.iter().map(|net| net.0.clone()).collect();
        }
        if let Some(scope) = &self.scope {
            body.scope.clone_from(scope);
        }
        if let Some(env) = self.env {
            body.env = env;
        }
        if let Some(limit) = self.rate_limit {
            body.rate_limit = limit;
        }
        if let Some(end) = self.expires_at {
            body.expires_at = end;
        }
        if let Some(user) = &self.user {
            body.user = user.as_ref().map(|user| user.0.clone());
        }
        if let Some(owner) = &self.owner {
            body.owner.clone_from(owner);
        }
        if let Some(recoverable) = self.recoverable {
            body.recoverable = recoverable;
        }
        if let Some(enabled) = self.enabled {
            body.state = if enabled { State::Active } else { State::Disabled };
        }
    }
}

/// What became of a change.
pub enum Changed {
    /// It was made.
    Yes {
        /// The key as it is now.
        key: Stored<KeyBody>,
        /// The fields that changed, as they are now.
        fields: Map<String, Value>,
    },
    /// The key was like that already.
    No(Stored<KeyBody>),
}

impl Changed {
    /// What became of a key that was so, and is so now.
    pub fn between(before: &Stored<KeyBody>, key: Stored<KeyBody>) -> Self {
        let (_, fields) = difference(&before.body, &key.body);
        if fields.is_empty() { Self::No(key) } else { Self::Yes { key, fields } }
    }

    /// The key as it is now.
    pub fn key(&self) -> &Stored<KeyBody> {
        match self {
            Self::Yes { key, .. } | Self::No(key) => key,
        }
    }
}

impl<S: Store> Session<S> {
    /// Changes what a key is; with `expected`, only if that revision was the last to touch it.
    ///
    /// # Errors
    /// When there is no such key, it is revoked, others keep changing it, or the store cannot be written.
    pub async fn update_key(&self, id: &str, patch: &Patch, expected: Option<u64>) -> Result<Changed, Failure> {
        let edit = |body: &mut KeyBody| {
            refuse_revoked(id, body)?;
            // The own key of a user is called as they are, and is theirs.
            if patch.owner.is_some() && body.owner.as_deref() == Some(id) {
                return Err(mistake("owner", "this is the user's own key, and stays theirs"));
            }
            patch.apply(body);
            Ok(())
        };
        self.change_key(id, ("key.update", None), expected, edit).await
    }

    /// Disables, enables or revokes a key; the reason is for the audit.
    ///
    /// # Errors
    /// As for [`Session::update_key`]; a key that is revoked can be revoked again, which changes nothing.
    pub async fn set_key_state(
        &self,
        id: &str,
        state: State,
        reason: Option<&str>,
        expected: Option<u64>,
    ) -> Result<Changed, Failure> {
        let action = match state {
            State::Active => "key.enable",
            State::Disabled => "key.disable",
            State::Revoked => "key.revoke",
        };
        let edit = |body: &mut KeyBody| {
            if state != State::Revoked {
                refuse_revoked(id, body)?;
            }
            body.state = state;
            Ok(())
        };
        self.change_key(id, (action, reason), expected, edit).await
    }

    /// Marks a key as found where it does not belong: it gets a tag, and the audit says where it was found.
    ///
    /// # Errors
    /// As for [`Session::update_key`].
    pub async fn flag_key(&self, id: &str, reason: &str) -> Result<Changed, Failure> {
        let edit = |body: &mut KeyBody| {
            refuse_revoked(id, body)?;
            if !body.tags.iter().any(|tag| tag == LEAKED) {
                body.tags.push(LEAKED.to_owned());
            }
            Ok(())
        };
        self.change_key(id, ("key.leaked", Some(reason)), None, edit).await
    }

    /// Changes a key: reads it, edits it, and writes it if nobody was quicker, else starts over.
    async fn change_key(
        &self,
        id: &str,
        (action, reason): (&'static str, Option<&str>),
        expected: Option<u64>,
        edit: impl Fn(&mut KeyBody) -> Result<(), Failure> + Send + Sync,
    ) -> Result<Changed, Failure> {
        let mut attempt = 1;
        loop {
            let before = self.key(id).await?;
            if expected.is_some_and(|expected| expected != before.revision) {
                return Err(Failure::Outrun(RecordId::key(id)));
            }
            let mut body = before.body.clone();
            edit(&mut body)?;
            self.settle_holder(Some(&before.body), &mut body).await?;
            if body == before.body {
                return Ok(Changed::No(before));
            }
            body.updated_by = Some(self.who().to_owned());
            body.updated_time = self.now;
            let (detail, fields) = audit_of(&before, &body, reason);
            let changes = self.changes_of(&before, &body).await?;
            match self.store.commit(self.entry(action, [&before.body.scope, &body.scope], detail, changes)).await {
                Ok(revision) => {
                    let key = Stored { id: before.id, revision: revision.number, body };
                    return Ok(Changed::Yes { key, fields });
                }
                Err(CommitError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The changes that give a key another body, and make its scope if that is new.
    async fn changes_of(&self, before: &Stored<KeyBody>, body: &KeyBody) -> Result<Vec<Change>, Failure> {
        let moved = body.scope.as_ref().filter(|scope| before.body.scope.as_ref() != Some(scope));
        let scopes = self.missing_scopes(moved).await?;
        let mut changes: Vec<Change> = scopes.iter().map(|scope| self.new_scope(scope)).collect();
        let (id, expect) = (RecordId::key(&before.id), Expect::At(before.revision));
        changes.push(Change { id, expect, body: Some(to_json(body)) });
        // What can never be used again is kept for nobody to look up.
        if before.body.recoverable && (!body.recoverable || body.state == State::Revoked) {
            let id = RecordId::new(Kind::Sealed, &before.id);
            changes.push(Change { id, expect: Expect::Any, body: None });
        }
        Ok(changes)
    }
}

/// What is revoked stays as it was.
pub(in crate::manage) fn refuse_revoked(id: &str, body: &KeyBody) -> Result<(), Failure> {
    match body.state {
        State::Active | State::Disabled => Ok(()),
        State::Revoked => Err(Failure::Revoked(RecordId::key(id))),
    }
}

/// What the audit says of a change, and the fields that changed as they will be.
fn audit_of(before: &Stored<KeyBody>, after: &KeyBody, reason: Option<&str>) -> (Value, Map<String, Value>) {
    let (old, new) = difference(&before.body, after);
    let mut detail = json!({ "target": target(&before.id), "before": old, "after": new });
    if escalation::widens(&before.body, after) {
        detail["escalation"] = Value::Bool(true);
    }
    if let Some(reason) = reason {
        detail["reason"] = reason.into();
    }
    (detail, new)
}
