//! The file store against the laws, and against the ways in which files come and go.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::auth::digest::Pepper;
use crate::store::conformance::{
    Fixture, Model, Put, assert_lawful, commit_of, into_model, key, pull, records, secret, update,
};

/// A folder whose files are written by somebody else.
struct Place {
    folder: TempDir,
    model: Model,
    write: fn(&Path, &Model),
    /// What the store is opened on, below the folder.
    opened: &'static str,
}

impl Place {
    fn new(opened: &'static str, write: fn(&Path, &Model)) -> Self {
        let place = Self { folder: TempDir::new().unwrap(), model: Model::new(), write, opened };
        (place.write)(&place.path(), &place.model);
        place
    }

    /// One file that is replaced by a rename.
    fn single() -> Self {
        Self::new("keys.json", |path, model| {
            let new = path.with_file_name(".new");
            fs::write(&new, document(model)).unwrap();
            fs::rename(new, path).unwrap();
        })
    }

    /// A folder that is mounted as Kubernetes mounts a Secret: visible names are links into `..data`, which is itself a
    /// link that is swapped.
    fn mounted() -> Self {
        Self::new("mount", mount)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(self.opened)
    }
}

impl Fixture for Place {
    type Store = FileStore;

    fn open(&self) -> FileStore {
        FileStore::new(&self.path(), check(1))
    }

    async fn apply(&mut self, puts: &[Put]) {
        update(&mut self.model, puts);
        (self.write)(&self.path(), &self.model);
    }
}

fn mount(path: &Path, model: &Model) {
    fs::create_dir_all(path).unwrap();
    let version = (0..).map(|n| format!("..version-{n}")).find(|name| !path.join(name).exists()).unwrap();
    let old = fs::read_link(path.join("..data")).ok();
    fs::create_dir(path.join(&version)).unwrap();
    let (some, rest) = model.iter().map(|(id, body)| (id.clone(), body.clone())).partition(|(id, _)| *id.id > *"k2");
    fs::write(path.join(&version).join("a.json"), document(&some)).unwrap();
    // JSON is YAML too.
    fs::write(path.join(&version).join("b.yaml"), document(&rest)).unwrap();
    symlink(&version, path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    match old {
        // A removed version may be one that is being read.
        Some(old) => fs::remove_dir_all(path.join(old)).unwrap(),
        None => ["a.json", "b.yaml"].iter().for_each(|name| {
            symlink(Path::new("..data").join(name), path.join(name)).unwrap();
        }),
    }
}

fn document(model: &Model) -> String {
    let body = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let records: Vec<_> =
        model.iter().map(|(id, text)| json!({ "kind": id.kind, "id": id.id, "body": body(text) })).collect();
    serde_json::to_string_pretty(&json!({ "records": records })).unwrap()
}

fn document_of(puts: &[Put]) -> String {
    let mut model = Model::new();
    update(&mut model, puts);
    document(&model)
}

fn check(pepper: u8) -> PepperCheck {
    Pepper::from_hex(&format!("{pepper:02x}").repeat(32)).unwrap().check()
}

async fn everything(store: &FileStore) -> Model {
    into_model(records(pull(store, None, true).await.unwrap()).await.unwrap())
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), future).await.expect("this should take no time")
}

async fn is_quiet(store: &FileStore) -> bool {
    timeout(Duration::from_millis(300), store.changed(None)).await.is_err()
}

#[tokio::test]
async fn it_obeys_the_laws() {
    assert_lawful(Place::single).await;
    assert_lawful(Place::mounted).await;
}

/// Failure 10. A watch on the file itself would see the first swap alone.
#[tokio::test]
async fn failure_10_every_swap_of_a_mount_is_heard() {
    let mut place = Place::mounted();
    let store = place.open();
    let mut since = store.pull(None).await.unwrap().revision;
    assert!(is_quiet(&store).await, "reading is no news");
    for name in ["one", "two", "three"] {
        place.apply(&[key("k1", name)]).await;
        soon(store.changed(Some(since))).await;
        let pull = pull(&store, Some(since), true).await.unwrap();
        assert_eq!(pull.revision.number, since.number + 1);
        since = pull.revision;
        assert_eq!(everything(&store).await, place.model);
        assert!(is_quiet(&store).await, "one swap is one change");
    }
}

/// Failure 10, as the design has it that was not taken: the file is watched and not the folder that it is in. It is watched where
/// it was, and there nothing happens any more after the first swap.
#[tokio::test]
async fn failure_10_who_watches_the_file_hears_of_the_first_swap_alone() {
    use notify::{EventKind, RecursiveMode, Watcher};
    let mut place = Place::mounted();
    let (count, heard) = tokio::sync::watch::channel(0_usize);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            count.send_modify(|count| *count += 1);
        }
    })
    .unwrap();
    for name in ["a.json", "b.yaml"] {
        watcher.watch(&place.path().join(name), RecursiveMode::NonRecursive).unwrap();
    }
    let mut swaps = Vec::new();
    for name in ["one", "two", "three"] {
        let before = *heard.borrow();
        place.apply(&[key("k1", name), key("k9", name)]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        swaps.push(*heard.borrow() > before);
    }
    assert_eq!(swaps, [true, false, false]);
}

/// Failure 11. To a store that takes what cannot be read for no keys, all of them would be gone.
#[tokio::test]
async fn failure_11_whatever_happens_to_a_file_is_an_error_until_it_is_good_again() {
    let place = Place::single();
    let (path, store) = (place.path(), place.open());
    let good = document_of(&[key("k1", "CI"), secret(1, "k1")]);
    fs::write(&path, &good).unwrap();
    let revision = store.pull(None).await.unwrap().revision;
    let bad: [(&str, &dyn Fn(), &str); 6] = [
        ("truncated", &|| fs::write(&path, &good[..good.len() / 2]).unwrap(), "cut off"),
        ("emptied", &|| fs::write(&path, "").unwrap(), "it is empty"),
        ("no JSON", &|| fs::write(&path, "{ records: [] }").unwrap(), "line 1 column 3 is not JSON"),
        ("deleted", &|| fs::remove_file(&path).unwrap(), "No such file"),
        (
            "a rename onto it",
            &|| {
                fs::write(path.with_extension("new"), "{}").unwrap();
                fs::rename(path.with_extension("new"), &path).unwrap();
            },
            "the document has no list `records`",
        ),
        ("not UTF-8", &|| fs::write(&path, b"{\"records\":[\xff]}").unwrap(), "UTF-8"),
    ];
    for (what, happen, expected) in bad {
        happen();
        soon(store.changed(Some(revision))).await;
        let error = store.pull(Some(revision)).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("keys.json"), "{what}: {error}");
        assert!(store.get(&RecordId::key("k1")).await.is_err(), "{what}");
        fs::write(&path, &good).unwrap();
        soon(store.changed(Some(revision))).await;
        let recovered = pull(&store, Some(revision), false).await.unwrap();
        assert_eq!(recovered.revision, revision, "{what}");
    }
}

#[tokio::test]
async fn failure_11_a_folder_that_went_and_came_back_is_heard_again() {
    let place = Place::new("conf", |path, model| {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("keys.yml"), document(model)).unwrap();
    });
    let store = place.open();
    let since = store.pull(None).await.unwrap().revision;
    for round in 0..3 {
        fs::remove_dir_all(place.path()).unwrap();
        soon(store.changed(Some(since))).await;
        assert!(store.pull(Some(since)).await.unwrap_err().to_string().contains("No such file"));
        fs::create_dir(place.path()).unwrap();
        assert!(store.pull(Some(since)).await.unwrap_err().to_string().contains("has no .json"));
        // The poll has found the new folder; from now on it is watched.
        let puts = [key("k1", &format!("round {round}"))];
        fs::write(place.path().join("keys.yml"), document_of(&puts)).unwrap();
        soon(store.changed(Some(since))).await;
        assert_eq!(everything(&store).await.values().next(), puts[0].1.as_ref());
    }
}

#[tokio::test]
async fn other_white_space_is_no_news() {
    let place = Place::single();
    let store = place.open();
    let puts = [key("k1", "CI"), secret(1, "k1")];
    fs::write(place.path(), document_of(&puts)).unwrap();
    let since = store.pull(None).await.unwrap().revision;
    fs::write(place.path(), document_of(&puts).replace('\n', "\n\n")).unwrap();
    let pull = pull(&store, Some(since), false).await.unwrap();
    assert_eq!(pull.revision, since);
    assert!(records(pull).await.unwrap().is_empty());
}

#[tokio::test]
async fn yaml_is_read_like_json() {
    let place = Place::new("keys.yaml", |path, _| {
        let text = format!(
            "# Reviewed by operations.\npepper_check: {}\nrecords:\n- kind: key\n  id: k1\n  body:\n    \
             {{name: CI, env: live, access: read-only, state: active, created_by: null, created_time: 2026-01-01, \
             updated_by: null, updated_time: 2026-01-01T00:00:00.000Z}}\n- kind: secret\n  \
             id: 4297C3DA985BECFC784A268DFAB43EF1\n  body: {{key: k1, created_time: 2026-01-01}}\n- kind: secret\n  \
             id: 00000000000000000000000000001e10\n  body: {{key: k1, created_time: 2026-01-01}}\n",
            check(1).to_hex()
        );
        fs::write(path, text).unwrap();
    });
    let model = everything(&place.open()).await;
    let ids: Vec<_> = model.keys().map(|id| &*id.id).collect();
    assert_eq!(ids, ["k1", "00000000000000000000000000001e10", "4297c3da985becfc784a268dfab43ef1"]);
    assert!(model.values().next().unwrap().contains(r#""name":"CI""#));
    let wrong = FileStore::new(&place.path(), check(2)).pull(None).await;
    assert!(matches!(wrong, Err(StoreError::WrongPepper { .. })));
}

#[tokio::test]
async fn a_store_without_keys_must_say_so() {
    for (name, text, fine) in [
        ("keys.json", r#"{"records":[]}"#, true),
        ("keys.yaml", "records: []", true),
        ("keys", "records: []", true),
        ("keys", r#"{"records":[]}"#, true),
        ("keys.json", "", false),
        ("keys.yaml", "# nothing\n", false),
        ("keys.yaml", "records:\n", false),
        ("keys.json", "{}", false),
        ("keys.json", "[]", false),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let pull = FileStore::new(&path, check(1)).pull(None).await;
        assert_eq!(pull.is_ok(), fine, "{text}: {pull:?}");
    }
}

#[tokio::test]
async fn hidden_and_other_files_are_no_part_of_it() {
    let place = Place::mounted();
    for name in [".hidden.json", "README.md", "keys.json~", "..2026.json"] {
        fs::write(place.path().join(name), "not for us").unwrap();
    }
    fs::create_dir(place.path().join("folder.json")).unwrap();
    assert_eq!(everything(&place.open()).await.len(), 0);
    // A link to nowhere is a file that is missing, and what it had may be a restriction.
    symlink("..data/c.json", place.path().join("c.json")).unwrap();
    let error = place.open().pull(None).await.unwrap_err().to_string();
    assert!(error.contains("c.json: No such file"), "{error}");
}

#[tokio::test]
async fn mistakes_are_named_with_their_place_and_without_what_is_there() {
    let body = r#"{"name":"CI","env":"live","access":"read-only","state":"active","created_by":null,
        "created_time":"2026-01-01","updated_by":null,"updated_time":"2026-01-01"}"#;
    let keys = |body: &str| format!(r#"{{"records":[{{"kind":"key","id":"k1","body":{body}}}]}}"#);
    let hidden = "deadbeefdeadbeefdeadbeefdeadbeef";
    for (text, expected) in [
        (keys(&body.replace("read-only", hidden)), "key k1 cannot be read: its field `access` is wrong or unknown"),
        (keys(&body.replace("\"name\"", "\"quota\":1,\"name\"")), "key k1 cannot be read: its field `quota` is"),
        (keys(&body.replace("\"env\":\"live\",", "")), "key k1 cannot be read: it has no field `env`"),
        (keys(&body.replace("\"env\"", "\"access\":\"read-write\",\"env\"")), "records[0].body is wrong"),
        (keys("7"), "records[0].body is wrong"),
        (keys(body).replace("\"k1\"", "[]"), "line 1 column 32: records[0].id is wrong"),
        (keys(body).replace("\"key\"", &format!("\"{hidden}\"")), "records[0].kind is wrong"),
        (keys(body).replace("\"kind\":\"key\",", ""), "records[0] has no field `kind`"),
        (keys(body).replace("\"kind\"", "\"note\":1,\"kind\""), "records[0].note is wrong or unknown"),
        (keys(body).replace("{\"records\"", "{\"pepper_check\":\"beef\",\"records\""), "pepper_check is not 64 hex"),
        (keys(body) + "{}", "something follows the document"),
        (
            format!(r#"{{"records":[{{"kind":"secret","id":"{hidden}","body":{{"key":true}}}}]}}"#),
            "a secret cannot be read: its field `key` is",
        ),
    ] {
        for name in ["keys.json", "keys.yaml"] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join(name);
            fs::write(&path, &text).unwrap();
            let error = FileStore::new(&path, check(1)).pull(None).await.expect_err(expected).to_string();
            assert!(error.contains(name) && !error.contains("dead"), "{error}");
            // YAML knows lines only, and has words of its own for what follows.
            let expected = expected.rsplit(": records").next().unwrap_or(expected);
            assert!(name == "keys.yaml" && text.ends_with("{}") || error.contains(expected), "{error}\n{expected}");
        }
    }
}

#[tokio::test]
async fn a_record_that_is_there_twice_is_refused_with_both_places() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.json"), document_of(&[key("k1", "CI"), secret(0xdead, "k1")])).unwrap();
    fs::write(folder.path().join("b.json"), document_of(&[key("k1", "CI")])).unwrap();
    fs::write(folder.path().join("c.json"), document_of(&[secret(0xdead, "k1")]).replace("dead", "DEAD")).unwrap();
    for (removed, named, places) in
        [("none", "key k1 is", ["a.json", "b.json"]), ("b.json", "a secret is", ["a.json", "c.json"])]
    {
        let _ = fs::remove_file(folder.path().join(removed));
        let error = FileStore::new(folder.path(), check(1)).pull(None).await.unwrap_err().to_string();
        assert!(error.contains(named) && places.iter().all(|place| error.contains(place)), "{error}");
        assert!(!error.to_lowercase().contains("dead"), "{error}");
    }
}

#[tokio::test]
async fn it_is_written_by_others_only() {
    let place = Place::single();
    let refused = place.open().commit(commit_of(&[key("k1", "CI")])).await.unwrap_err();
    assert!(matches!(refused, CommitError::ReadOnly(_)));
    assert!(refused.to_string().contains("keyward key create --record"), "{refused}");
}

/// Failure 11. Who takes what can be parsed takes half of a file for all of it: YAML that was cut off is YAML.
#[tokio::test]
async fn failure_11_half_of_a_file_may_parse_and_say_that_keys_are_gone() {
    let lines: Vec<String> = (1..=3).map(|n| format!("- {{ kind: key, id: k{n} }}\n")).collect();
    let parsed = |text: &str| serde_yaml::from_str::<Vec<serde_json::Value>>(text).map(|all| all.len()).ok();
    assert_eq!(
        (parsed(&lines.concat()), parsed(&lines[..2].concat())),
        (Some(3), Some(2)),
        "one is gone, and nothing is wrong"
    );
    // As it is: what does not say all that it must is an error, and the replica keeps what it has.
    let mut place = Place::single();
    place.apply(&[key("k1", "one"), key("k2", "two"), secret(1, "k1")]).await;
    let (store, whole) = (place.open(), fs::read(place.path()).unwrap());
    assert!(store.pull(None).await.is_ok());
    for end in [0, 1, whole.len() / 2, whole.len() - 2] {
        fs::write(place.path(), &whole[..end]).unwrap();
        assert!(store.pull(None).await.is_err(), "cut at {end}");
    }
    fs::write(place.path(), &whole).unwrap();
    assert!(store.pull(None).await.is_ok());
}
