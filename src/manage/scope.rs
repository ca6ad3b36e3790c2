//! Scopes: made with what is missing above them, suspended and resumed.

use serde_json::{Value, json};

use super::{ATTEMPTS, Failure, Session, Stored};
use crate::auth::scope::Scope;
use crate::store::record::{Body, RecordId, ScopeBody, ScopeState, to_json};
use crate::store::{Change, CommitError, Expect, Store};

/// A scope that was made.
pub struct CreatedScope {
    /// The scope.
    pub scope: Stored<ScopeBody>,
    /// All that were made, from the top down.
    pub made: Vec<Scope>,
}

impl<S: Store> Session<S> {
    /// One scope.
    ///
    /// # Errors
    /// When there is none, or its record or the store cannot be read.
    pub async fn scope(&self, scope: &Scope) -> Result<Stored<ScopeBody>, Failure> {
        let missing = || Failure::NotFound(RecordId::scope(scope));
        let (_, record) = self.store.get(&RecordId::scope(scope)).await?;
        let record = record.ok_or_else(missing)?;
        let Body::Scope(_, body) = Body::parse(&record.id, record.body.as_deref().ok_or_else(missing)?)? else {
            return Err(missing());
        };
        Ok(Stored { id: record.id.id, revision: record.revision, body })
    }

    /// Makes a scope, and what is missing above it.
    ///
    /// # Errors
    /// When it is there already, or the store cannot be written.
    pub async fn create_scope(&self, scope: &Scope) -> Result<CreatedScope, Failure> {
        let made = self.missing_scopes(Some(scope)).await?;
        if made.last() != Some(scope) {
            return Err(Failure::Taken(RecordId::scope(scope)));
        }
        let names: Vec<String> = made.iter().map(Scope::to_string).collect();
        let detail = json!({ "target": target(scope), "created_scopes": names });
        let changes = made.iter().map(|scope| self.new_scope(scope)).collect();
        let entry = self.entry("scope.create", [&Some(scope.clone())], detail, changes);
        let revision = self.store.commit(entry).await?.number;
        let body = ScopeBody { state: ScopeState::Active, created_time: self.now };
        Ok(CreatedScope { scope: Stored { id: scope.to_string().into(), revision, body }, made })
    }

    /// Suspends or resumes a scope; says how it is now, and whether that was new.
    ///
    /// # Errors
    /// When there is no such scope, others keep changing it, or the store cannot be written.
    pub async fn set_scope_state(
        &self,
        scope: &Scope,
        state: ScopeState,
        expected: Option<u64>,
    ) -> Result<(Stored<ScopeBody>, bool), Failure> {
        let mut attempt = 1;
        loop {
            let stored = self.scope(scope).await?.if_seen_at(&RecordId::scope(scope), expected)?;
            if stored.body.state == state {
                return Ok((stored, false));
            }
            let body = ScopeBody { state, ..stored.body.clone() };
            let (before, after) = (stored.body.state, state);
            let detail = json!({ "target": target(scope), "before": { "state": before }, "after": { "state": after } });
            let (id, expect) = (RecordId::scope(scope), Expect::At(stored.revision));
            let changes = vec![Change { id, expect, body: Some(to_json(&body)) }];
            match self.store.commit(self.entry(action(state), [&Some(scope.clone())], detail, changes)).await {
                Ok(revision) => return Ok((Stored { revision: revision.number, body, ..stored }, true)),
                Err(CommitError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn target(scope: &Scope) -> Value {
    json!({ "kind": "scope", "id": scope })
}

const fn action(state: ScopeState) -> &'static str {
    match state {
        ScopeState::Active => "scope.resume",
        ScopeState::Suspended => "scope.suspend",
    }
}
