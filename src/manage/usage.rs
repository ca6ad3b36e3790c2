//! How often keys are used, by each of their values: what is worth knowing before an old value ends.

use serde::{Deserialize, Serialize};

use super::{Failure, Session, StoredSecret};
use crate::auth::grant::Timestamp;
use crate::store::Store;
use crate::store::ledger::usage::Usage;
use crate::store::ledger::{Ledger, LedgerError};

/// The uses of a key, by its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    /// The key.
    pub key: Box<str>,
    /// Requests that it was good for, with values that are gone too.
    pub count: u64,
    /// When it was used last, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Its values, the oldest first, where one key was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<ValueUsage>,
}

/// The uses of one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueUsage {
    /// What may be shown of it.
    pub hint: Option<String>,
    /// When it was made.
    pub created_time: Timestamp,
    /// When it ends, if before its key.
    pub not_after: Option<Timestamp>,
    /// Requests that it was good for.
    pub count: u64,
    /// When it was used last, to the minute.
    pub last_used: Option<Timestamp>,
    /// The node that let the last of them pass.
    pub node: Option<String>,
    /// Where that came from, if it is known.
    pub client: Option<String>,
    /// Whether it was used after a newer value was there: somebody has not changed over.
    pub still_used: bool,
}

impl KeyUsage {
    fn of(key: &str, usage: &[Usage]) -> Self {
        let (count, last_used) = (usage.iter().map(|u| u.count).sum(), usage.iter().map(|u| u.last_used).max());
        Self { key: key.into(), count, last_used, secrets: Vec::new() }
    }
}

/// Uses that are in the order of their keys, by these.
fn by_key(usage: &[Usage]) -> Vec<KeyUsage> {
    usage.chunk_by(|a, b| a.key == b.key).map(|of_key| KeyUsage::of(&of_key[0].key, of_key)).collect()
}

/// The uses of some values of one key, the oldest first.
fn by_value(secrets: &[StoredSecret], usage: &[Usage]) -> Vec<ValueUsage> {
    let newest = secrets.last().map(|secret| secret.body.created_time);
    let value = |secret: &StoredSecret| {
        let used = usage.iter().find(|usage| usage.secret == secret.digest);
        let made = secret.body.created_time;
        // Uses are known to the minute: one in which the newer value was made tells nothing.
        let later = |newest: Timestamp| used.is_some_and(|used| made < newest && used.last_used > newest);
        ValueUsage {
            hint: secret.body.hint.clone(),
            created_time: made,
            not_after: secret.body.not_after,
            count: used.map_or(0, |used| used.count),
            last_used: used.map(|used| used.last_used),
            node: used.map(|used| used.node.clone()),
            client: used.and_then(|used| used.client.clone()),
            still_used: newest.is_some_and(later),
        }
    };
    secrets.iter().map(value).collect()
}

impl<S: Store + Ledger> Session<S> {
    /// The uses of one key, by its values.
    ///
    /// # Errors
    /// When there is no such key, or the store cannot be read or keeps no usage.
    pub async fn usage_of(&self, id: &str) -> Result<KeyUsage, Failure> {
        let key = self.key(id).await?;
        let secrets = self.secrets_of(&key.id).await?;
        self.usage_by(&key.id, &secrets).await
    }

    /// The same of values that have been read already.
    ///
    /// # Errors
    /// When the store cannot be read or keeps no usage.
    pub async fn usage_by(&self, key: &str, secrets: &[StoredSecret]) -> Result<KeyUsage, Failure> {
        let usage = self.store.usage(Some(key)).await?;
        Ok(KeyUsage { secrets: by_value(secrets, &usage), ..KeyUsage::of(key, &usage) })
    }

    /// The same, each value by itself. Of stores that keep no usage nothing is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn usage_of_values(&self, id: &str, secrets: &[StoredSecret]) -> Result<Vec<ValueUsage>, Failure> {
        let usage = match self.store.usage(Some(id)).await {
            Err(LedgerError::None(_)) => Vec::new(),
            usage => usage?,
        };
        Ok(by_value(secrets, &usage))
    }

    /// The uses of all keys that were used, by their ids.
    ///
    /// # Errors
    /// When the store cannot be read or keeps no usage.
    pub async fn usage(&self) -> Result<Vec<KeyUsage>, Failure> {
        Ok(by_key(&self.store.usage(None).await?))
    }

    /// The same of the keys that follow an id: of so many of them at most.
    ///
    /// # Errors
    /// As for [`Session::usage`].
    pub async fn usage_after(&self, key: &str, keys: usize) -> Result<Vec<KeyUsage>, Failure> {
        Ok(by_key(&self.store.usage_after(key, keys).await?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manage::testing::{locksmith, noon};
    use crate::store::ledger::usage::Uses;
    use crate::store::record::{KeyBody, RecordId, SecretBody, to_json};
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Change, Commit, Expect};

    fn noon_minute() -> u32 {
        u32::try_from(noon().millis() / 60_000).unwrap()
    }

    #[tokio::test]
    async fn whoever_has_not_changed_over_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let locksmith = Arc::new(locksmith());
        let store = SqliteStore::open_or_create(&folder.path().join("k.db"), locksmith.pepper.check()).unwrap();
        let body: KeyBody = crate::manage::testing::key_body("CI");
        let mut changes = vec![Change { id: RecordId::key("k1"), expect: Expect::Absent, body: Some(to_json(&body)) }];
        let mut digests = Vec::new();
        for (n, made) in [(1, noon()), (2, noon().plus(std::time::Duration::from_secs(600)))] {
            let secret = locksmith.format.generate(body.env).unwrap();
            let digest = secret.digest(&locksmith.pepper);
            let hint = Some(format!("value{n}"));
            let secret = SecretBody { key: "k1".into(), hint, shape: None, not_after: None, created_time: made };
            changes.push(Change { id: RecordId::secret(digest), expect: Expect::Absent, body: Some(to_json(&secret)) });
            digests.push(digest);
        }
        let detail = serde_json::Value::Null;
        store.commit(Commit { actor: "tests".into(), action: "test", detail, changes }).await.unwrap();
        let session = Session { store, locksmith, actor: "tests".into(), now: noon() };
        let uses = |secret: usize, after: u32| Uses {
            key: "k1".into(),
            secret: digests[secret],
            count: 1,
            minute: noon_minute() + after,
            client: None,
        };
        let mut counts = Vec::new();
        // Before the new value was made, in the minute in which it was, and after.
        for (secret, after) in [(0, 9), (0, 10), (1, 11), (0, 11)] {
            session.store.add_usage("a", vec![uses(secret, after)]).await.unwrap();
            let usage = session.usage_of("k1").await.unwrap();
            let still: Vec<bool> = usage.secrets.iter().map(|value| value.still_used).collect();
            counts.push((usage.count, still));
        }
        let no = vec![false, false];
        assert_eq!(counts, [(1, no.clone()), (2, no.clone()), (3, no), (4, vec![true, false])]);
        assert!(matches!(session.usage_of("k2").await, Err(Failure::NotFound(_))));
        assert_eq!(session.usage().await.unwrap()[0].count, 4);
    }
}
