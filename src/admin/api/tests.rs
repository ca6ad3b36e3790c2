//! Who may make the API know anything, and when it says that it does not.

use http::Request as Message;

use super::*;
use crate::auth::address::Networks;
use crate::manage::testing::locksmith;
use crate::replica::Writer;
use crate::store::sqlite::SqliteStore;

/// An API over an empty store, its replica, and what the replica has come to.
fn stage(folder: &std::path::Path) -> (Api, Writer, watch::Sender<Option<Revision>>) {
    let locksmith = Arc::new(locksmith());
    let store = SqliteStore::open_or_create(&folder.join("keyward.db"), locksmith.pepper.check()).unwrap();
    let (replica, writer) = Replica::new(Duration::from_secs(60));
    let applied = watch::Sender::new(None);
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Arc::new(AnyStore::Sqlite(store));
    let live = Arc::new(Live::new(locksmith, Networks::default()));
    (Api::new(store, live, (replica, applied.subscribe()), metrics, None), writer, applied)
}

async fn status(api: &Api, method: &str, path: &str, header: (&str, &str)) -> u16 {
    let message = Message::builder().method(method).uri(path).header(header.0, header.1);
    let ask = Ask::of(message.body(()).unwrap().into_parts().0, IpAddr::from([127, 0, 0, 1]));
    api.answer(ask).await.status.as_u16()
}

/// Lists are three times what the replica needs: nobody who has no good key makes a process hold them.
#[tokio::test]
async fn whoever_has_no_good_key_or_cookie_has_nothing_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let (api, mut writer, _applied) = stage(folder.path());
    writer.prove(std::time::Instant::now());
    let following = tokio::spawn(api.follow());
    for (method, path, header, expected) in [
        ("GET", "/v2/keys", ("accept", "*/*"), 401),
        ("GET", "/v2/keys", ("x-api-key", "kw_live_nothing"), 401),
        ("GET", "/v2/keys", ("cookie", "keyward=nothing"), 401),
        ("POST", "/v2/session", ("content-type", "application/json"), 400),
    ] {
        assert_eq!(status(&api, method, path, header).await, expected, "{method} {path} {header:?}");
    }
    assert!(!following.is_finished());
    let loaded = tokio::select! {
        biased;
        () = api.index.reached(0) => true,
        () = ready(()) => false,
    };
    assert!(!loaded, "the index was loaded");
}

/// A cookie is worth no more than a key: nobody is known from what is too old, or not there yet.
#[tokio::test]
async fn a_cookie_is_503_where_a_key_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let (api, mut writer, applied) = stage(folder.path());
    let following = tokio::spawn(api.follow());
    let now = SystemTime::now().into();
    let cookie = api.begin("ann", now).unwrap();
    let header = ("cookie", cookie.split(';').next().unwrap());
    assert_eq!(status(&api, "GET", "/v2/me", header).await, 503, "nothing was read yet");
    writer.prove(std::time::Instant::now());
    assert_eq!(status(&api, "GET", "/v2/me", header).await, 401, "there is no such user");
    applied.send_replace(Some(Revision { number: 99, chain: [0; 32] }));
    assert_eq!(status(&api, "GET", "/v2/me", header).await, 503, "the index is behind");
    writer.prove_aged(Duration::from_secs(61));
    assert_eq!(status(&api, "GET", "/v2/me", header).await, 503, "the replica is too old");
    assert!(!following.is_finished());
}
