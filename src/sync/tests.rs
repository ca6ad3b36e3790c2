//! What a pull does with what it is told.

use std::sync::Mutex;

use tokio::sync::mpsc;

use super::*;
use crate::auth::grant::Keys;
use crate::replica::Replica;
use crate::store::record::RecordId;
use crate::store::{Commit, CommitError, Pull};

/// A store with one secret of one key, which first tells of it and then of so much news.
struct Chatty {
    news: usize,
    /// Since when it was asked, each time.
    asked: Arc<Mutex<Vec<Option<u64>>>>,
}

const DIGEST: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
const KEY: &str = r#"{"name":"one","env":"live","access":"read-write","state":"active","created_time":"2026-11-22T12:00:00Z","updated_time":"2026-11-22T12:00:00Z"}"#;
const SECRET: &str = r#"{"key":"k1","created_time":"2026-11-22T12:00:00Z"}"#;

fn record(id: RecordId, body: &str) -> Record {
    Record { id, revision: 1, body: Some(body.into()) }
}

impl Store for Chatty {
    async fn pull(&self, since: Option<Revision>) -> Result<Pull, StoreError> {
        self.asked.lock().unwrap().push(since.map(|since| since.number));
        let number = since.map_or(7, |since| since.number + 1);
        let key = record(RecordId::key("k1"), KEY);
        let secret = record(RecordId::new(Kind::Secret, DIGEST), SECRET);
        let gone = |n| Record { id: RecordId::key(&format!("g{n}")), revision: 8, body: None };
        let all = if since.is_none() { vec![key, secret] } else { (0..self.news).map(gone).collect() };
        let (sender, records) = mpsc::channel(all.len().max(1));
        all.chunks(1_000).for_each(|batch| sender.try_send(Ok(batch.to_vec())).unwrap());
        let revision = Revision { number, chain: [9; 32] };
        let records = Records::from_channel(records);
        Ok(Pull { revision, full: since.is_none(), now: Timestamp::from_millis(1), records })
    }

    async fn changed(&self, _: Option<Revision>) {}

    async fn get(&self, _: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        unreachable!("a replica asks for no single record")
    }

    async fn commit(&self, _: Commit) -> Result<Revision, CommitError> {
        unreachable!("a replica changes nothing")
    }
}

#[tokio::test]
async fn news_that_is_too_long_is_read_as_a_whole() {
    for (news, expected, asked) in [
        (0, Pulled::Unchanged, &[None, Some(7)][..]),
        (LONGEST_DELTA, Pulled::Delta, &[None, Some(7)]),
        (LONGEST_DELTA + 1, Pulled::Full, &[None, Some(7), None]),
    ] {
        let (replica, writer) = Replica::new(Duration::from_secs(60));
        let store = Chatty { news, asked: Arc::default() };
        let log = store.asked.clone();
        let (_poll, poll) = watch::channel(Duration::from_secs(1));
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut sync = Sync::new(store, writer, poll, metrics.clone(), Lifecycle::default());
        assert_eq!((sync.pull().await.unwrap(), sync.pull().await.unwrap()), (Pulled::Full, expected), "{news}");
        assert_eq!(*log.lock().unwrap(), asked, "{news}");
        let digest = crate::auth::digest::Digest::from_record_id(DIGEST).unwrap();
        assert!(replica.view(Instant::now()).grant(&digest).unwrap().is_some());
        assert_eq!(metrics.sync.resyncs.get(), 0, "the store knew the revision");
    }
}
