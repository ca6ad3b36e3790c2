//! What is handed out once and brought back once: links by which somebody signs in without a password.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;
use zeroize::Zeroizing;

use super::target;
use crate::auth::Locksmith;
use crate::auth::digest::Purpose;
use crate::manage::{Failure, Session, Stored};
use crate::store::record::{Body, Kind, RecordId, Subject, UniqueBody, UserBody, to_json};
use crate::store::{Change, Commit, CommitError, Expect, Store};

const USED: Failure = Failure::BadTicket("the link was used, has ended, or never was one; ask for another");

/// What a one-time link contains. It is printed once.
pub struct Ticket(Zeroizing<String>);

impl Ticket {
    /// The text of it, for the link.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A mark that nobody can make who has only the store.
pub(super) fn mark(locksmith: &Locksmith, parts: &[&[u8]]) -> hmac::Tag {
    hmac::sign(&key(locksmith), &message(parts))
}

/// Whether it is the mark of these parts.
pub(super) fn is_mark(locksmith: &Locksmith, parts: &[&[u8]], mark: &[u8]) -> bool {
    hmac::verify(&key(locksmith), &message(parts), mark).is_ok()
}

fn key(locksmith: &Locksmith) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*locksmith.pepper.key_for(Purpose::Tickets))
}

/// Each part after its length: no two lists of parts are the same bytes.
fn message(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let part = |part: &&[u8]| [&(part.len() as u64).to_be_bytes(), *part].concat();
    Zeroizing::new(parts.iter().flat_map(part).collect())
}

/// The record of a ticket. The store does not have what is in the link.
fn record(locksmith: &Locksmith, ticket: &str) -> RecordId {
    let tag = mark(locksmith, &[b"link", ticket.as_bytes()]);
    RecordId::new(Kind::Unique, &format!("link:{}", URL_SAFE_NO_PAD.encode(tag)))
}

impl<S: Store> Session<S> {
    /// Makes a link by which a user signs in once.
    ///
    /// # Errors
    /// When there is no such user, or the store cannot be written.
    pub async fn create_link(&self, user: &str, lifetime: Duration) -> Result<Ticket, Failure> {
        let holder = self.user(user).await?;
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        let ticket = Ticket(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)));
        let expires_at = Some(self.now.plus(lifetime));
        let body = UniqueBody { holder: Subject::User(user.into()), expires_at, created_time: Some(self.now) };
        let id = record(&self.locksmith, ticket.reveal());
        let changes = vec![Change { id, expect: Expect::Absent, body: Some(to_json(&body)) }];
        let detail = json!({ "target": target(user), "expires_at": expires_at });
        self.store.commit(self.entry("user.link", [&holder.body.scope], detail, changes)).await?;
        Ok(ticket)
    }

    /// Takes a link back: the user whom it signs in. It does so once, and not after the user's next password or suspension.
    ///
    /// # Errors
    /// When it is not good, or the store cannot be written.
    pub async fn redeem_link(&self, ticket: &str) -> Result<Stored<UserBody>, Failure> {
        let id = record(&self.locksmith, ticket);
        let record = self.store.get(&id).await?.1.ok_or(USED)?;
        let Body::Unique(body) = Body::parse(&id, record.body.as_deref().ok_or(USED)?)? else { return Err(USED) };
        let Subject::User(id_of_user) = &body.holder else { return Err(USED) };
        let user = match self.user(id_of_user).await {
            Ok(user) if body.expires_at.is_some_and(|end| end > self.now) && user.body.takes_in(body.created_time) => {
                user
            }
            Ok(_) | Err(Failure::NotFound(_)) => return Err(USED),
            Err(failure) => return Err(failure),
        };
        let detail = json!({ "target": target(&user.id) });
        let changes = vec![Change { id, expect: Expect::At(record.revision), body: None }];
        let entry = self.entry("user.link_used", [&user.body.scope], detail, changes);
        let commit = Commit { actor: format!("user:{}", user.id), ..entry };
        match self.store.commit(commit).await {
            Ok(_) => Ok(user),
            Err(CommitError::Conflict(_)) => Err(USED),
            Err(error) => Err(error.into()),
        }
    }
}
