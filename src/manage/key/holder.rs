//! Whom a key says that it acts for, which the upstream is told. A key of an account says that account's address and acts where
//! it is kept, whoever asks for something else; no other key says the address of an account.

use super::parent::mistake;
use crate::manage::values::Email;
use crate::manage::{Failure, Session};
use crate::store::Store;
use crate::store::record::{KeyBody, UserBody};

impl<S: Store> Session<S> {
    /// Makes what a key says of its holder true, if it is new or that is what changes.
    pub(super) async fn settle_holder(&self, before: Option<&KeyBody>, key: &mut KeyBody) -> Result<(), Failure> {
        let holder = |key: &KeyBody| (key.owner.clone(), key.user.clone(), key.scope.clone());
        if before.is_some_and(|before| holder(before) == holder(key)) {
            return Ok(());
        }
        let Some(owner) = &key.owner else {
            // What it said was the account's.
            if before.is_some_and(|before| before.owner.is_some() && before.user == key.user) {
                key.user = None;
            }
            return self.is_nobodys_address(key.user.as_deref()).await;
        };
        let owner = match self.user(owner).await {
            Ok(owner) => owner.body,
            Err(Failure::NotFound(_)) => return Err(mistake("owner", "there is no such user")),
            Err(failure) => return Err(failure),
        };
        let is_told = before.map_or(key.user.is_some(), |before| before.user != key.user);
        if is_told && key.user.as_deref() != Some(&*owner.email) {
            return Err(mistake("user", "a key of an account says the address of that account"));
        }
        key.user = Some(owner.email);
        let fits = |key: &KeyBody| match (&owner.scope, &key.scope) {
            (None, _) => true,
            (Some(whole), Some(part)) => whole.covers(part),
            (Some(_), None) => false,
        };
        let is_wider = owner.scope.as_ref().is_some_and(|own| key.scope.as_ref().is_none_or(|scope| scope.covers(own)));
        if is_wider {
            key.scope.clone_from(&owner.scope);
        }
        if fits(key) { Ok(()) } else { Err(mistake("scope", "a key of an account acts where the account is kept")) }
    }

    /// Whether a name is not that of an account.
    async fn is_nobodys_address(&self, user: Option<&str>) -> Result<(), Failure> {
        let Some(Ok(Email(email))) = user.map(str::parse::<Email>) else { return Ok(()) };
        match self.find_user(&email).await {
            Err(Failure::NotFound(_)) => Ok(()),
            Ok(_) => {
                Err(mistake("user", "this is the address of an account, and said by the keys of that account alone"))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// A key of an account after the account has changed: where it acted where the account was kept, or would be outside, it moves
/// along.
pub(in crate::manage) fn following(key: &KeyBody, before: &UserBody, after: &UserBody) -> KeyBody {
    let covered = after.scope.as_ref().is_none_or(|whole| key.scope.as_ref().is_some_and(|part| whole.covers(part)));
    let moves = before.scope != after.scope && (key.scope == before.scope || !covered);
    let scope = if moves { after.scope.clone() } else { key.scope.clone() };
    KeyBody { user: Some(after.email.clone()), scope, ..key.clone() }
}
