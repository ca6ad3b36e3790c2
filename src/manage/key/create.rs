//! A new key: its record, its first value and the scopes it needs, in one commit, or as records that something else stores.

use serde_json::{Value, json};

use super::target;
use crate::auth::Locksmith;
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::key::Secret;
use crate::auth::limit::Limit;
use crate::auth::scope::Scope;
use crate::manage::values::{KeyId, KeyName, Net, RoleName, UserName};
use crate::manage::{ATTEMPTS, Failure, Session, Stored, who, with_all_above};
use crate::store::record::{
    BindingBody, KeyBody, KeyType, Kind, RecordId, ScopeBody, ScopeState, SecretBody, Subject, new_id, to_json,
};
use crate::store::{Change, Commit, CommitError, Expect, Store};

/// What a new key shall be.
pub struct NewKey {
    /// Its id, if it must be a certain one.
    pub id: Option<KeyId>,
    /// What people call it.
    pub name: KeyName,
    /// Who it is handed to.
    pub user: Option<UserName>,
    /// The user whose account it is bound to.
    pub owner: Option<Box<str>>,
    /// The key above it.
    pub parent: Option<Box<str>>,
    /// Words by which people find it.
    pub tags: Vec<String>,
    /// Whether its value is kept sealed, and may be looked up again.
    pub recoverable: bool,
    /// Where it acts; everywhere if absent.
    pub scope: Option<Scope>,
    /// Its world.
    pub env: Environment,
    /// What it may do.
    pub access: Access,
    /// Where it may be used from; anywhere if empty.
    pub ips: Vec<Net>,
    /// How often it may be used.
    pub rate_limit: Option<Limit>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// What it may manage, within its scope; nothing if absent.
    pub role: Option<RoleName>,
}

impl NewKey {
    /// A key with a name and nothing else that is special about it.
    pub fn named(name: KeyName, access: Access) -> Self {
        Self {
            id: None,
            name,
            user: None,
            owner: None,
            parent: None,
            tags: Vec::new(),
            recoverable: false,
            scope: None,
            env: Environment::Live,
            access,
            ips: Vec::new(),
            rate_limit: None,
            expires_at: None,
            role: None,
        }
    }
}

/// A key that is made and not stored yet.
pub struct Draft {
    /// Its id.
    pub id: String,
    /// What it will be.
    pub body: KeyBody,
    /// Its value.
    pub secret: Secret,
    secret_body: SecretBody,
    binding: Option<(String, BindingBody)>,
}

/// A key that was made.
pub struct Created {
    /// The key.
    pub key: Stored<KeyBody>,
    /// Its value, which nobody will see again.
    pub secret: Secret,
    /// The scopes that were made for it, from the top down.
    pub scopes: Vec<Scope>,
}

impl Draft {
    /// Makes a key that is not stored.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn new(new: NewKey, locksmith: &Locksmith, actor: &str, now: Timestamp) -> Result<Self, Failure> {
        let id = new.id.map_or_else(|| new_id(now), |id| Ok(id.0))?;
        let secret = locksmith.format.generate(new.env)?;
        let body = KeyBody {
            name: new.name.0,
            key_type: KeyType::Api,
            owner: new.owner,
            parent: new.parent,
            tags: new.tags,
            recoverable: new.recoverable,
            user: new.user.map(|user| user.0),
            scope: new.scope,
            env: new.env,
            access: new.access,
            ips: new.ips.into_iter().map(|net| net.0).collect(),
            rate_limit: new.rate_limit,
            expires_at: new.expires_at,
            state: State::Active,
            created_by: Some(who(actor).to_owned()),
            created_time: now,
            updated_by: Some(who(actor).to_owned()),
            updated_time: now,
        };
        let hint = locksmith.format.hint(secret.reveal()).map(str::to_owned);
        let secret_body = SecretBody { key: id.clone(), hint, shape: None, not_after: None, created_time: now };
        let binding = new.role.map(|role| Ok((new_id(now)?, binding(&id, role, &body))));
        let binding = binding.transpose().map_err(|error: getrandom::Error| error)?;
        Ok(Self { id, body, secret, secret_body, binding })
    }

    /// The changes that make the key, owners before what they own.
    fn changes(&self, locksmith: &Locksmith, scopes: impl Iterator<Item = Change>) -> Vec<Change> {
        let absent = |id, body| Change { id, expect: Expect::Absent, body: Some(body) };
        let key = absent(RecordId::key(&self.id), to_json(&self.body));
        let secret = absent(RecordId::secret(self.secret.digest(&locksmith.pepper)), to_json(&self.secret_body));
        let binding = self.binding.iter().map(|(id, body)| absent(RecordId::new(Kind::Binding, id), to_json(body)));
        scopes.chain([key, secret]).chain(binding).collect()
    }

    /// All records that the key needs, its scopes included, for stores that something else writes.
    pub fn records(&self, locksmith: &Locksmith) -> Vec<Value> {
        let scopes = self.body.scope.as_ref().map(with_all_above).unwrap_or_default();
        let state = ScopeBody { state: ScopeState::Active, created_time: self.body.created_time };
        let scopes = scopes.iter().map(|scope| json!({ "kind": Kind::Scope, "id": scope, "body": state }));
        let digest = self.secret.digest(&locksmith.pepper).to_record_id();
        let key = json!({ "kind": Kind::Key, "id": self.id, "body": self.body });
        let secret = json!({ "kind": Kind::Secret, "id": digest, "body": self.secret_body });
        let binding = self.binding.iter().map(|(id, body)| json!({ "kind": Kind::Binding, "id": id, "body": body }));
        scopes.chain([key, secret]).chain(binding).collect()
    }
}

/// What lets a key manage what is in its scope.
fn binding(id: &str, role: RoleName, key: &KeyBody) -> BindingBody {
    BindingBody {
        subject: Subject::Key(id.into()),
        role: role.0,
        scope: key.scope.clone(),
        created_by: key.created_by.clone(),
        created_time: key.created_time,
    }
}

impl<S: Store> Session<S> {
    /// Makes a key, and the scopes that it lacks.
    ///
    /// # Errors
    /// When its id is taken, or the store cannot be written.
    pub async fn create_key(&self, new: NewKey) -> Result<Created, Failure> {
        let mut draft = Draft::new(new, &self.locksmith, &self.actor, self.now)?;
        self.settle_holder(None, &mut draft.body).await?;
        if let Some((_, binding)) = &mut draft.binding {
            binding.scope.clone_from(&draft.body.scope);
        }
        if let Some((_, binding)) = &draft.binding {
            self.permissions_of(&binding.role).await?;
        }
        self.check_parent(&draft.body).await?;
        let mut attempt = 1;
        let (revision, scopes) = loop {
            let scopes = self.missing_scopes(draft.body.scope.as_ref()).await?;
            match self.store.commit(self.creation(&draft, &scopes)?).await {
                Ok(revision) => break (revision.number, scopes),
                Err(CommitError::Conflict(id)) if id.kind == Kind::Key => return Err(Failure::Taken(id)),
                Err(CommitError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        };
        let Draft { id, body, secret, secret_body: _, binding: _ } = draft;
        Ok(Created { key: Stored { id: id.into(), revision, body }, secret, scopes })
    }

    fn creation(&self, draft: &Draft, scopes: &[Scope]) -> Result<Commit, Failure> {
        let names: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        let mut detail = json!({ "target": target(&draft.id), "after": draft.body, "created_scopes": names });
        if let Some((id, binding)) = &draft.binding {
            detail["escalation"] = Value::Bool(true);
            detail["binding"] = json!({ "id": id, "role": binding.role, "scope": binding.scope });
        }
        let changes = self.changes_of_draft(draft, scopes)?;
        Ok(self.entry("key.create", [&draft.body.scope], detail, changes))
    }

    /// The changes that make a key and the scopes that it lacks; its value is sealed if it shall be looked up again.
    pub(in crate::manage) fn changes_of_draft(&self, draft: &Draft, scopes: &[Scope]) -> Result<Vec<Change>, Failure> {
        let mut changes = draft.changes(&self.locksmith, scopes.iter().map(|scope| self.new_scope(scope)));
        if draft.body.recoverable {
            changes.push(self.sealing(&draft.id, &draft.secret)?);
        }
        Ok(changes)
    }
}
