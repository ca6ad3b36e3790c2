//! What is shown of keys while the replica is behind the store, and when the store cannot be read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Request as Message;
use serde_json::Value;
use tokio::sync::watch;

use crate::admin::api::{Api, Live};
use crate::auth::address::Networks;
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::scope::Scope;
use crate::control::Ask;
use crate::manage::key::NewKey;
use crate::manage::testing::locksmith;
use crate::manage::{Session, Stored};
use crate::replica::{Change, KeyFacts, Replica, Writer};
use crate::store::record::{KeyBody, RecordId, to_json};
use crate::store::sqlite::SqliteStore;
use crate::store::{AnyStore, Change as Put, Commit, Expect, Revision, Store as _};
use crate::telemetry::metrics::Metrics;

/// An API over a store in a folder, with the key of the admin of an organization.
struct Stage {
    folder: tempfile::TempDir,
    api: Api,
    session: Session<Arc<AnyStore>>,
    writer: Writer,
    applied: watch::Sender<Option<Revision>>,
    bearer: String,
}

fn scope(organization: &str) -> Scope {
    Scope::parse(&format!("organization:{organization}")).unwrap()
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let locksmith = Arc::new(locksmith());
        let store = SqliteStore::open_or_create(&folder.path().join("k.db"), locksmith.pepper.check()).unwrap();
        let store = Arc::new(AnyStore::Sqlite(store));
        let now = SystemTime::now().into();
        let session = Session { store: store.clone(), locksmith: locksmith.clone(), actor: "tests".to_owned(), now };
        let (replica, mut writer) = Replica::new(Duration::from_secs(60));
        let applied = watch::Sender::new(None);
        let metrics = Arc::new(Metrics::new().unwrap());
        let live = Arc::new(Live::new(locksmith.clone(), Networks::default()));
        let api = Api::new(store, live, (replica, applied.subscribe()), metrics, None);
        tokio::spawn(api.follow());
        let role = Some("admin".parse().unwrap());
        let id = Some("k0".parse().unwrap());
        let boss = NewKey {
            id,
            scope: Some(scope("acme")),
            role,
            ..NewKey::named("boss".parse().unwrap(), Access::ReadWrite)
        };
        let boss = session.create_key(boss).await.unwrap();
        writer.apply([
            Change::Scope { scope: scope("acme"), active: true },
            Change::Secret {
                digest: boss.secret.digest(&locksmith.pepper),
                key: boss.key.id.clone(),
                not_after: Timestamp::NEVER,
            },
        ]);
        let mut stage =
            Self { bearer: format!("Bearer {}", boss.secret.reveal()), folder, api, session, writer, applied };
        stage.replicate(&boss.key).await;
        stage
    }

    /// A key in the store.
    async fn make(&self, id: &str, name: &str) -> Stored<KeyBody> {
        let id = Some(id.parse().unwrap());
        let new = NewKey { id, scope: Some(scope("acme")), ..NewKey::named(name.parse().unwrap(), Access::ReadWrite) };
        self.session.create_key(new).await.unwrap().key
    }

    /// Lets the replica know a key as it is here.
    async fn replicate(&mut self, key: &Stored<KeyBody>) {
        let facts = KeyFacts {
            name: key.body.name.clone(),
            user: None,
            owner: None,
            parent: None,
            scope: key.body.scope.clone(),
            environment: Environment::Live,
            access: Access::ReadWrite,
            networks: Networks::default(),
            limit: None,
            expires_at: Timestamp::NEVER,
            state: key.body.state,
        };
        self.writer.apply([Change::Key(key.id.clone(), facts)]);
        self.writer.prove(Instant::now());
        let revision = self.session.store.pull(None).await.unwrap().revision;
        self.applied.send_replace(Some(revision));
    }

    /// Changes a key in the store alone.
    async fn put(&self, key: &Stored<KeyBody>, edit: impl FnOnce(&mut KeyBody)) {
        let mut body = key.body.clone();
        edit(&mut body);
        let change = Put { id: RecordId::key(&key.id), expect: Expect::Any, body: Some(to_json(&body)) };
        let detail = Value::Null;
        let commit = Commit { actor: "tests".to_owned(), action: "test", detail, changes: vec![change] };
        self.session.store.commit(commit).await.unwrap();
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        let message = Message::builder().uri(target).header("authorization", &self.bearer);
        let ask = Ask::of(message.body(()).unwrap().into_parts().0, IpAddr::from([127, 0, 0, 1]));
        let page = self.api.answer(ask).await;
        (page.status.as_u16(), serde_json::from_str(&page.body).unwrap())
    }

    async fn names(&self, target: &str) -> Vec<String> {
        let (status, answer) = self.get(target).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// The replica is behind for a moment after each change. What a list shows is what the store has, and who may see that.
#[tokio::test]
async fn what_the_replica_does_not_know_yet_counts_already() {
    let mut stage = Stage::new().await;
    let mut keys = Vec::new();
    for (id, name) in [("k1", "stays"), ("k2", "moves"), ("k3", "ends"), ("k4", "changes its name")] {
        keys.push(stage.make(id, name).await);
        stage.replicate(&keys[keys.len() - 1]).await;
    }
    assert_eq!(stage.names("/v2/keys").await, ["boss", "stays", "moves", "ends", "changes its name"]);
    stage.put(&keys[1], |body| body.scope = Some(scope("other"))).await;
    stage.put(&keys[2], |body| body.state = State::Revoked).await;
    stage.put(&keys[3], |body| body.name = "renamed".to_owned()).await;
    assert_eq!(stage.names("/v2/keys").await, ["boss", "stays", "renamed"]);
    assert_eq!(stage.names("/v2/keys?name=changes").await, Vec::<String>::new());
    assert_eq!(stage.get(&format!("/v2/keys/{}", keys[1].id)).await.0, 404);
    // A page that has become shorter is not the last one.
    let (_, page) = stage.get("/v2/keys?limit=3").await;
    let next = page["links"]["next"].as_str().unwrap();
    assert_eq!(page["result"].as_array().unwrap().len(), 2);
    assert_eq!(stage.names(next.split_once("localhost").unwrap().1).await, ["renamed"]);
}

/// What cannot be read is not empty.
#[tokio::test]
async fn without_the_store_lists_are_503() {
    let stage = Stage::new().await;
    assert_eq!(stage.names("/v2/keys").await, ["boss"]);
    let path = stage.folder.path().join("k.db");
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    for target in ["/v2/keys", "/v2/keys?name=bo", "/v2/keys/k1", "/v2/keys/k1/secrets"] {
        let (status, answer) = stage.get(target).await;
        assert_eq!((status, &answer["result"]), (503, &Value::Null), "{target}: {answer}");
    }
    std::fs::rename(path.with_extension("away"), &path).unwrap();
    assert_eq!(stage.names("/v2/keys").await, ["boss"]);
}
