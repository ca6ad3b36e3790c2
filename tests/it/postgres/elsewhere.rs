//! Another database behind the same URL: after a restore into a new one, or because a name leads elsewhere. Nobody who runs it may
//! find out by what their customers say.

use super::*;

/// What was followed stays in force where the other database is none of ours, and is given up where it is, not without a word.
#[test]
fn another_database_behind_the_same_url_is_not_followed_in_silence() {
    if postgres::is_lacking() {
        return;
    }
    let upstream = Upstream::start();
    let at = |database: &Database| {
        let config = format!("store: {:?}\nsync: {{ poll: 200ms, max_staleness: 1m }}", database.url("kw", ""));
        Site::new(upstream.address(), &config)
    };
    let made = |pepper: Option<&str>| {
        let database = Database::new();
        let site = at(&database);
        pepper.into_iter().for_each(|pepper| site.write("keyward.pepper", &pepper.repeat(32)));
        site.init();
        let key = site.create_key(&["--role", "admin"]);
        (database, key)
    };
    let (mut ours, key) = made(None);
    let (mut bare, (mut foreign, _), (mut restored, other)) = (Database::new(), made(Some("6b")), made(None));
    let keyward = at(&ours).serve();
    let listed = |key: &Key| keyward.manage(key, "GET", "/v2/keys", "").status;
    until("the key is known", || keyward.status_with(&key) == 200);
    let resyncs = || keyward.metric("keyward_resyncs_total");
    assert_eq!((listed(&key), resyncs()), (200, 0.0));

    // One without tables, and one of somebody else's: nothing is known, and nothing is changed.
    for (database, said) in [(&mut bare, "no tables of Keyward yet"), (&mut foreign, "another pepper")] {
        database.swap_names(&mut ours);
        until("the store cannot be read", || keyward.metric("keyward_store_up") == 0.0);
        let trouble = || keyward.ops_page("/readyz?verbose").text();
        until("it is said why", || trouble().contains(said));
        assert_eq!((keyward.status_with(&key), keyward.status_with(&other), resyncs()), (200, 401, 0.0), "{said}");
        let refused = keyward.manage(&key, "POST", "/v2/keys", r#"{"type":"api","name":"n","permissions":[]}"#);
        assert_eq!(refused.status, 503, "{}", refused.text());
        database.swap_names(&mut ours);
        until("the store can be read again", || keyward.metric("keyward_store_up") == 1.0);
        assert_eq!((keyward.status_with(&key), resyncs()), (200, 0.0), "it is the one that was followed");
    }

    // One that could be ours: it is read from the beginning, and whoever reads the log or the metrics hears of it.
    restored.swap_names(&mut ours);
    let line = keyward.wait_for_line(
        "the store does not know the revision that was followed: it is another one, or an older backup, and was read anew",
    );
    assert_eq!(line["level"], "WARN", "{line}");
    until("it counts", || resyncs() == 1.0);
    until("nothing is left of the other one", || {
        keyward.status_with(&key) == 401 && keyward.status_with(&other) == 200
    });
    until("those who manage see no other either", || (listed(&key), listed(&other)) == (401, 200));
    let keys = keyward.manage(&other, "GET", "/v2/keys", "").json();
    assert_eq!(keys["result"].as_array().map(Vec::len), Some(1), "{keys}");
    restored.swap_names(&mut ours);
    until("it is back", || keyward.status_with(&key) == 200 && resyncs() == 2.0);
    assert_eq!(keyward.status_with(&other), 401);
}
