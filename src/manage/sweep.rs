//! What nobody needs any more, and would stay for ever: links that were not used in time, what is left of accounts and keys that
//! are gone, uses of values that are gone, processes that have ended. It is cleared away a little at a time.

use serde_json::json;

use super::{Failure, Session};
use crate::auth::digest::Digest;
use crate::auth::grant::State;
use crate::store::ledger::Ledger;
use crate::store::record::{Body, Kind, Record, RecordId, Subject, UniqueBody, UserBody};
use crate::store::{Change, CommitError, Expect, Store};

/// How many things of each sort are looked at in one go.
const PAGE: u32 = 500;
/// How long uses of a value are kept that is gone, in minutes: thirty days.
const KEPT_USES: u64 = 30 * 24 * 60;
/// How long a process that has ended is still shown, in milliseconds.
const KEPT_NODES: u64 = 24 * 60 * 60 * 1000;

/// One who clears away, and where it goes on.
#[derive(Debug)]
pub struct Sweeper {
    walks: [Walk; 4],
    uses: Option<(Box<str>, Digest)>,
}

/// Records of one sort, in the order of their ids.
#[derive(Debug)]
struct Walk {
    kind: Kind,
    /// What their ids begin with.
    prefix: &'static str,
    /// The last one that was looked at.
    after: Box<str>,
}

/// What was cleared away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many records: links, and what is left of accounts and keys.
    pub records: usize,
    /// Of how many values the uses.
    pub uses: usize,
    /// How many processes.
    pub nodes: usize,
}

impl Default for Sweeper {
    fn default() -> Self {
        let walk = |(kind, prefix): (Kind, &'static str)| Walk { kind, prefix, after: prefix.into() };
        let sorts = [(Kind::Password, ""), (Kind::Sealed, ""), (Kind::Unique, "email:"), (Kind::Unique, "link:")];
        Self { walks: sorts.map(walk), uses: None }
    }
}

impl Sweeper {
    /// Looks at some of what there is, and clears away what nobody needs. What is a record goes in one commit, which the audit
    /// tells of; the rest is no part of the history.
    ///
    /// # Errors
    /// When the store cannot be read or written, or keeps no ledger.
    pub async fn step<S: Store + Ledger>(&mut self, session: &Session<S>) -> Result<Swept, Failure> {
        let mut changes = Vec::new();
        for walk in &mut self.walks {
            changes.extend(walk.step(session).await?);
        }
        let records = changes.len();
        if !changes.is_empty() {
            let ids: Vec<String> = changes.iter().map(|change: &Change| change.id.to_string()).collect();
            match session.store.commit(session.entry("store.sweep", [&None], json!({ "gone": ids }), changes)).await {
                // Somebody was quicker, and the rest is still there the next time.
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Swept { records, uses: self.sweep_uses(session).await?, nodes: sweep_nodes(session).await? })
    }

    /// Forgets uses of values that are gone, once that is a while ago.
    async fn sweep_uses<S: Store + Ledger>(&mut self, session: &Session<S>) -> Result<usize, Failure> {
        let before = (session.now.millis() / 60_000).saturating_sub(KEPT_USES);
        let page = session.store.idle_usage(before, self.uses.take(), PAGE).await?;
        if page.len() == PAGE as usize {
            self.uses = page.last().cloned();
        }
        let mut gone = Vec::new();
        for (key, secret) in page {
            let (_, record) = session.store.get(&RecordId::secret(secret)).await?;
            if record.is_none_or(|record| record.body.is_none()) {
                gone.push((key, secret));
            }
        }
        let count = gone.len();
        if count > 0 {
            session.store.drop_usage(gone, before).await?;
        }
        Ok(count)
    }
}

/// Forgets processes that have ended and could not say so.
async fn sweep_nodes<S: Store + Ledger>(session: &Session<S>) -> Result<usize, Failure> {
    let mut nodes = session.store.nodes().await?;
    nodes.retain(|node| !node.may_serve() && node.seen_ms_ago > KEPT_NODES);
    for node in &nodes {
        session.store.forget(&node.id).await?;
    }
    Ok(nodes.len())
}

impl Walk {
    /// The next ones that nobody needs; after the last it begins anew.
    async fn step<S: Store + Ledger>(&mut self, session: &Session<S>) -> Result<Vec<Change>, Failure> {
        let mut page = session.store.kept(self.kind, &self.after, PAGE).await?;
        let is_full = page.len() == PAGE as usize;
        page.retain(|record| record.id.id.starts_with(self.prefix));
        let next = page.last().filter(|_| is_full).map(|record| record.id.id.clone());
        self.after = next.unwrap_or_else(|| self.prefix.into());
        let mut gone = Vec::new();
        for record in page {
            if is_needless(session, &record).await? {
                gone.push(Change { id: record.id, expect: Expect::At(record.revision), body: None });
            }
        }
        Ok(gone)
    }
}

/// Whether nobody can come back to a record. What cannot be read stays: a later version may know why it is there.
async fn is_needless<S: Store + Ledger>(session: &Session<S>, record: &Record) -> Result<bool, Failure> {
    let Some(json) = record.body.as_deref() else { return Ok(false) };
    match Body::parse(&record.id, json) {
        Ok(Body::Password(_)) => Ok(user(session, &record.id.id).await?.is_none()),
        Ok(Body::Sealed(_)) => match session.key(&record.id.id).await {
            Ok(key) => Ok(key.body.state == State::Revoked),
            Err(Failure::NotFound(_) | Failure::LooksLikeValue) => Ok(true),
            Err(Failure::Unreadable(_)) => Ok(false),
            Err(failure) => Err(failure),
        },
        Ok(Body::Unique(UniqueBody { holder: Subject::User(holder), expires_at, created_time })) => {
            if expires_at.is_some_and(|end| end <= session.now) {
                return Ok(true);
            }
            let Some(user) = user(session, &holder).await? else { return Ok(true) };
            Ok(match record.id.id.strip_prefix("email:") {
                Some(email) => user.is_some_and(|user| user.email != email),
                // A link from before a password or a suspension is void.
                None => created_time.is_some() && user.is_some_and(|user| !user.takes_in(created_time)),
            })
        }
        Ok(Body::Unique(UniqueBody { holder: Subject::Key(_), .. })) | Err(_) => Ok(false),
        Ok(Body::Scope(..) | Body::Role(_) | Body::User(_) | Body::Key(_) | Body::Secret(..) | Body::Binding(_)) => {
            Ok(false)
        }
    }
}

/// A user, if there is one; the inner `None` is one that cannot be read.
#[allow(clippy::option_option, reason = "what cannot be read is there all the same")]
async fn user<S: Store>(session: &Session<S>, id: &str) -> Result<Option<Option<UserBody>>, Failure> {
    match session.user(id).await {
        Ok(user) => Ok(Some(Some(user.body))),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(Failure::Unreadable(_)) => Ok(Some(None)),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::auth::grant::Access;
    use crate::auth::grant::Timestamp;
    use crate::manage::key::NewKey;
    use crate::manage::testing::{locksmith, noon};
    use crate::manage::user::NewUser;
    use crate::manage::values::{KeyId, KeyName};
    use crate::store::ledger::usage::Uses;
    use crate::store::ledger::verify::verify;
    use crate::store::sqlite::SqliteStore;

    type Place = Session<SqliteStore>;

    fn minutes(time: Timestamp) -> u32 {
        u32::try_from(time.millis() / 60_000).unwrap()
    }

    fn later(place: &Place, by: Duration) -> Session<&'static str> {
        Session { store: "", locksmith: place.locksmith.clone(), actor: String::new(), now: noon().plus(by) }
    }

    async fn ids(place: &Place, kind: Kind) -> Vec<Box<str>> {
        place.store.kept(kind, "", 99).await.unwrap().into_iter().map(|record| record.id.id).collect()
    }

    async fn end(place: &Place, id: RecordId) {
        let change = Change { id, expect: Expect::Any, body: None };
        place.store.commit(place.entry("test", [&None], json!({}), vec![change])).await.unwrap();
    }

    fn person(email: &str) -> NewUser {
        let password = Some("correct horse battery".parse().unwrap());
        NewUser { email: email.parse().unwrap(), name: None, scope: None, password, api_access: true, role: None }
    }

    #[tokio::test]
    async fn what_nobody_needs_goes_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let (path, locksmith) = (folder.path().join("k.db"), Arc::new(locksmith()));
        let store = SqliteStore::open_or_create(&path, locksmith.pepper.check()).unwrap();
        let mut place = Session { store, locksmith, actor: "tests".to_owned(), now: noon() };
        let ann = place.create_user(person("ann@example.com")).await.unwrap().user.id;
        let bob = place.create_user(person("bob@example.com")).await.unwrap().user.id;
        let id = Some(KeyId("k1".to_owned()));
        let new = NewKey { id, recoverable: true, ..NewKey::named(KeyName("k1".to_owned()), Access::ReadWrite) };
        let key = place.create_key(new).await.unwrap();
        let [long, short, void] = [48, 1, 48].map(|hours| (hours, Duration::from_secs(hours * 3600)));
        place.create_link(&ann, long.1).await.unwrap();
        place.create_link(&ann, short.1).await.unwrap();
        place.create_link(&bob, void.1).await.unwrap();
        // Of a value that is there, of one that is gone, and of one that was used since.
        let there = key.secret.digest(&place.locksmith.pepper);
        let [gone, used] = [1, 2].map(|n| Digest::from_record_id(&format!("{n:032x}")).unwrap());
        let uses = |secret, minute| Uses { key: "k1".into(), secret, count: 1, minute, client: None };
        let minute = minutes(noon());
        let all = vec![uses(there, minute), uses(gone, minute), uses(used, minute + 45 * 24 * 60)];
        place.store.add_usage("n1", all).await.unwrap();

        // All is needed.
        let mut sweeper = Sweeper::default();
        let before = place.store.head().await.unwrap();
        assert_eq!(sweeper.step(&place).await.unwrap(), Swept::default());
        assert!(place.store.head().await.unwrap() == before, "nothing was committed");

        place.now = later(&place, Duration::from_secs(7200)).now;
        // As no command leaves it, but a program that was not ours, or a version that did not know better.
        end(&place, RecordId::new(Kind::User, &bob)).await;
        end(&place, RecordId::key(&bob)).await;
        let swept = sweeper.step(&place).await.unwrap();
        // Bob's password, address, sealed value and link, and Ann's link that has ended.
        assert_eq!(swept, Swept { records: 5, ..Swept::default() });
        assert_eq!(ids(&place, Kind::Password).await, std::slice::from_ref(&ann));
        assert_eq!(ids(&place, Kind::Sealed).await.len(), 2);
        let unique = ids(&place, Kind::Unique).await;
        assert!(unique.len() == 2 && &*unique[0] == "email:ann@example.com", "{unique:?}");
        let entries = crate::store::ledger::testing::newest(&place.store).await;
        assert_eq!((entries.action.as_str(), entries.detail["gone"].as_array().unwrap().len()), ("store.sweep", 5));
        assert!(!entries.detail.to_string().contains("link:"), "{entries:?}");
        assert_eq!(verify(&place.store, None).await.unwrap().breaks, []);

        // What is no record makes no revision.
        let before = place.store.head().await.unwrap();
        place.now = later(&place, Duration::from_secs(40 * 24 * 3600)).now;
        sweeper.step(&place).await.unwrap();
        let left: Vec<_> = place.store.usage(Some("k1")).await.unwrap().into_iter().map(|usage| usage.secret).collect();
        assert!(left.len() == 2 && left.contains(&there) && left.contains(&used));
        assert_eq!(sweeper.step(&place).await.unwrap(), Swept::default());
        // The second of Ann's links has ended meanwhile.
        assert_eq!(place.store.head().await.unwrap().number, before.number + 1);
        assert_eq!(ids(&place, Kind::Unique).await.len(), 1);
    }

    #[tokio::test]
    async fn a_walk_comes_to_everything_a_little_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, locksmith) = (folder.path().join("k.db"), Arc::new(locksmith()));
        let store = SqliteStore::open_or_create(&path, locksmith.pepper.check()).unwrap();
        let place = Session { store, locksmith, actor: "tests".to_owned(), now: noon() };
        let body = r#"{"value":"AAAA","created_time":"2026-11-22T12:00:00.000Z"}"#;
        let sealed = |n| Change {
            id: RecordId::new(Kind::Sealed, &format!("gone{n:04}")),
            expect: Expect::Absent,
            body: Some(body.into()),
        };
        let changes = (0..1_200).map(sealed).collect();
        place.store.commit(place.entry("test", [&None], json!({}), changes)).await.unwrap();
        let mut sweeper = Sweeper::default();
        let mut swept = Vec::new();
        for _ in 0..4 {
            swept.push(sweeper.step(&place).await.unwrap().records);
        }
        assert_eq!(swept, [500, 500, 200, 0]);
        assert_eq!(ids(&place, Kind::Sealed).await.len(), 0);
    }
}
