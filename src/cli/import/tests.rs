//! Whole imports, from a file to a store in memory.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::cli::testing::{Bench, MemoryStore, Ran, block_on, locksmith, remember};
use crate::manage::import::{BATCH, Terms};
use crate::store::record::{Body, KeyBody, Kind, RecordId};

/// A folder with an input, and a store.
struct Place {
    folder: tempfile::TempDir,
    bench: Bench,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), bench: Bench::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn import(&self, name: &str, text: &str) -> Ran {
        fs::write(self.path(name), text).unwrap();
        self.bench.key(&format!("import --input {}", self.path(name).display()), Output::Json)
    }

    #[track_caller]
    fn rejects(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    #[track_caller]
    fn key(&self, id: &str) -> KeyBody {
        block_on(self.bench.session.key(id)).unwrap().body
    }
}

#[track_caller]
fn counts(ran: &Ran, imported: u64, unchanged: u64, rejected: u64) {
    let json = ran.json();
    let numbers = ["imported", "unchanged", "rejected"].map(|name| json[name].as_u64().unwrap());
    assert_eq!(numbers, [imported, unchanged, rejected], "{ran:?}");
    assert_eq!(ran.code, if rejected > 0 { 6 } else { 0 });
    assert_eq!(json["rejects"].is_string(), rejected > 0);
}

const A: &str = "7e14204fcce1e00152b4";
const B: &str = "0123456789abcdef0123";

#[test]
fn the_three_formats_say_the_same() {
    let scope = "organization:acme/project:p1";
    let columns = ["value", "id", "name", "access", "ips", "scope", "env", "expires", "user", "rate_limit"];
    let fields = [A, "k1", "CI", "ro", "10.0.0.0/8, ::1", scope, "test", "2027-01-31", "ann", "100/60s"];
    let csv = format!("{}\n\"{}\"\n", columns.join(","), fields.join("\",\""));
    let tsv = format!("{}\n{}\n", columns.join("\t"), fields.join("\t"));
    let json = json!({
        "value": A, "id": "k1", "name": "CI", "access": "read-only", "ips": ["10.0.0.0/8", "::1"], "scope": scope,
        "env": "test", "expires": "2027-01-31T00:00:00Z", "user": "ann", "rate_limit": "100/1m",
    });
    let json = format!("{json}\n");
    for (name, text) in [("k.csv", csv), ("k.tsv", tsv), ("k.jsonl", json)] {
        let place = Place::new();
        counts(&place.import(name, &text), 1, 0, 0);
        let key = serde_json::to_value(place.key("k1")).unwrap();
        let expected = json!({
            "name": "CI", "type": "api", "user": "ann", "scope": scope, "env": "test", "access": "read-only",
            "ips": ["10.0.0.0/8", "::1"], "rate_limit": "100/1m", "expires_at": "2027-01-31T00:00:00.000Z", "state": "active",
            "created_by": "cli:ann", "created_time": "2026-11-22T12:00:00.000Z",
            "updated_by": "cli:ann", "updated_time": "2026-11-22T12:00:00.000Z",
        });
        assert_eq!(key, expected, "{name}");
        let scopes = place.bench.session.store.records().iter().filter(|record| record.id.kind == Kind::Scope).count();
        assert_eq!(scopes, 2);
    }
}

#[test]
fn what_a_row_leaves_out_has_its_default() {
    let place = Place::new();
    let own = "kw_test_4Zq8mT1yJc6Kx0PnWv3LbR7dHs9GfE2uAi3YRHqB";
    counts(&place.import("k.csv", &format!("value,id,ips\n{A},k1,any\n{own},k2,\n{B},,\n")), 3, 0, 0);
    let (foreign, own) = (place.key("k1"), place.key("k2"));
    assert_eq!((foreign.name.as_str(), foreign.env.label(), foreign.access.label()), ("k1", "live", "read-write"));
    assert_eq!((foreign.ips.len(), own.env.label()), (0, "test"));
    let records = place.bench.session.store.records();
    let secrets: Vec<_> = records
        .iter()
        .filter_map(|record| match Body::parse(&record.id, record.body.as_deref()?).unwrap() {
            Body::Secret(_, body) => Some((body.key, body.hint, body.shape)),
            _ => None,
        })
        .collect();
    assert!(secrets.contains(&("k1".to_owned(), None, Some("cablecast".to_owned()))), "{secrets:?}");
    assert!(secrets.contains(&("k2".to_owned(), Some("4Zq8mT1y".to_owned()), None)), "{secrets:?}");
}

#[test]
fn a_hash_of_another_system_opens_the_same_key() {
    let place = Place::new();
    let hash = crate::auth::digest::hex(&<sha2::Sha256 as sha2::Digest>::digest(A));
    counts(&place.import("k.csv", &format!("sha256,id\n{hash},k1\n")), 1, 0, 0);
    let digest = locksmith().format.parse(A.as_bytes()).unwrap().digest(&locksmith().pepper);
    assert!(place.bench.session.store.records().iter().any(|record| record.id == RecordId::secret(digest)));
    // The value itself is the same one, later.
    counts(&place.import("v.csv", &format!("value,id\n{A},k1\n")), 0, 1, 0);
}

#[test]
fn bad_rows_are_put_aside_with_their_reasons() {
    let rows = [
        (format!("{A},k1,CI,rw,,,,,"), None),
        (format!("{A},k2,CI,rw,,,,,"), Some("its value is that of line 2 too")),
        (format!("{B},k1,CI,rw,,,,,"), Some("its `id` is that of line 2 too")),
        (",k3,CI,rw,,,,,".to_owned(), Some("it has no `value` and no `sha256`")),
        (
            "hunter2,k3,CI,rw,,,,,".to_owned(),
            Some("its value has none of the forms that `keys.shapes` in the config declares"),
        ),
        ("kw_live_broken,k3,CI,rw,,,,,".to_owned(), Some("its value begins like one of our own keys and is none")),
        (format!("{B},k 3,CI,rw,,,,,"), Some("`id` must be 1 to 64 of A-Z a-z 0-9 . _ - and no word of the API")),
        (
            format!("{B},k3,{},rw,,,,,", "x".repeat(51)),
            Some("`name` must be 1 to 50 characters on one line, none of them hidden"),
        ),
        (format!("{B},k3,CI,all,,,,,"), Some("`access` must be rw, ro, read-write or read-only")),
        (
            format!("{B},k3,CI,rw,\"::1,home\",,,,"),
            Some("`ips` must be addresses and networks between commas, or `any`"),
        ),
        (format!("{B},k3,CI,rw,,acme,,,"), Some("`scope` must be a path such as organization:acme/project:p1")),
        (format!("{B},k3,CI,rw,,,prod,,"), Some("`env` must be live or test")),
        (format!("{B},k3,CI,rw,,,,90d,"), Some("`expires` must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z")),
        (format!("{B},{B},CI,rw,,,,,"), Some("its value is also its id, name or user, and those are shown and logged")),
        (
            "kw_test_4Zq8mT1yJc6Kx0PnWv3LbR7dHs9GfE2uAi3YRHqB,k3,CI,rw,,,live,,".to_owned(),
            Some("`env` is not the one in its value"),
        ),
        (format!("{B},k3"), Some("the header has 9 columns and it has 2")),
        (format!("\"{B},k3,CI,rw,,,,,"), Some("a quote is not closed; a row is one line")),
        (format!("{B},k3,CI,rw,,,,,"), None),
    ];
    let place = Place::new();
    let header = "value,id,name,access,ips,scope,env,expires,user";
    let text: String = rows.iter().map(|(row, _)| format!("{row}\n")).collect();
    let ran = place.import("k.csv", &format!("{header}\n{text}"));
    counts(&ran, 2, 0, 16);
    assert!(ran.err.starts_with("imported 2, unchanged 0, rejected 16 (see "), "{ran:?}");
    let rejects = place.rejects("k.csv.rejected");
    let mut lines = rejects.lines();
    assert_eq!(lines.next(), Some("line,reason,value,id,name,access,ips,scope,env,expires,user"));
    for ((row, reason), line) in
        rows.iter().zip(2..).filter_map(|((row, reason), line)| Some(((row, (*reason)?), line)))
    {
        let reason = if reason.contains(',') { format!("\"{reason}\"") } else { reason.to_owned() };
        assert_eq!(lines.next(), Some(format!("{line},{reason},{row}").as_str()));
    }
    for secret in [A, B, "hunter2", "kw_live_broken"] {
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{ran:?}");
    }
}

#[test]
fn a_limit_is_read_or_the_row_put_aside() {
    let place = Place::new();
    let other = "abcdefabcdefabcdefab";
    let ran = place.import("k.csv", &format!("value,id,rate_limit\n{A},k1,none\n{B},k2,5/1s\n{other},k3,0/1s\n"));
    counts(&ran, 2, 0, 1);
    let limit = |id| place.key(id).rate_limit.map(|limit| limit.to_string());
    assert_eq!((limit("k1"), limit("k2").as_deref()), (None, Some("5/1s")));
    assert!(place.rejects("k.csv.rejected").contains("`rate_limit`: write from 1 to 1000000 requests"));
    counts(&place.import("k.csv", &format!("value,id,rate_limit\n{B},k2,6/1s\n")), 0, 0, 1);
    assert!(place.rejects("k.csv.rejected").contains("with other settings: rate_limit"));
}

#[test]
fn a_file_can_be_imported_again() {
    let place = Place::new();
    let text = format!("value,id,name,ips\n{A},k1,CI,::1\n{B},,,\n");
    counts(&place.import("k.csv", &text), 2, 0, 0);
    counts(&place.import("k.csv", &text), 0, 2, 0);
    // What was revoked since stays so, and is no difference.
    place.bench.key("revoke k1", Output::Table);
    counts(&place.import("k.csv", &text), 0, 2, 0);
    assert_eq!(place.key("k1").state.label(), "revoked");
    let other = "abcdefabcdefabcdefab";
    let text = format!("value,id,name,ips\n{A},k1,Two,\n{B},k9,,\n{other},k3,,\n");
    counts(&place.import("k.csv", &text), 1, 0, 2);
    let rejects = place.rejects("k.csv.rejected");
    let reasons: Vec<&str> = rejects.lines().skip(1).collect();
    assert!(reasons[0].starts_with("2,\"its value is that of key k1, with other settings: name, ips\","), "{rejects}");
    assert!(reasons[1].contains("with other settings: id\","), "{rejects}");
    counts(&place.import("k.csv", "value,id\nfedcbafedcbafedcbafe,k3\n"), 0, 0, 1);
    let rejects = place.rejects("k.csv.rejected");
    assert!(rejects.contains("2,its `id` is that of a key with another value,fedcbafedcbafedcbafe,k3\n"), "{rejects}");
}

#[test]
fn a_corrected_file_of_rejected_rows_can_be_imported() {
    for (name, text) in [
        ("k.csv", format!("value,id,access\n{A},k1,all\n")),
        ("k.tsv", format!("value\tid\taccess\n{A}\tk1\tall\n")),
        ("k.json", format!("{{\"value\":\"{A}\",\"id\":\"k1\",\"access\":\"all\"}}\n")),
    ] {
        let place = Place::new();
        counts(&place.import(name, &text), 0, 0, 1);
        let rejected = format!("{name}.rejected");
        let corrected = place.rejects(&rejected).replace("all", "ro");
        counts(&place.import(&rejected, &corrected), 1, 0, 0);
        assert_eq!(place.key("k1").access.label(), "read-only");
    }
}

#[test]
fn rows_are_committed_in_batches_with_their_audit() {
    let place = Place::new();
    let rows: String = (0..BATCH + 2).map(|i| format!("{i:020x},k{i}\n")).collect();
    let text = format!("value,id\n{rows}");
    counts(&place.import("k.csv", &text), 5_002, 0, 0);
    let commits = place.bench.session.store.commits();
    assert_eq!((commits.len(), commits[0].action, commits[0].changes.len()), (2, "key.import", 10_000));
    let detail = json!({ "file": "k.csv", "lines": [5_002, 5_003], "keys": ["k5000", "k5001"], "scopes": [null], "created_scopes": [] });
    assert_eq!(commits[1].detail, detail);
    assert_eq!(place.bench.session.store.gets(), 0, "nothing is asked for by name when all is new");
    // Again: the first batch is asked for by name, the rest is known by then.
    counts(&place.import("k.csv", &text), 0, 5_002, 0);
    assert_eq!(place.bench.session.store.gets(), 10_000);
}

#[test]
fn what_is_known_of_a_store_is_what_its_records_say() {
    let place = Place::new();
    let rows: String = (0..BATCH).map(|i| format!("{i:020x},k{i},,\n")).collect();
    let tail = format!("{A},k-a,CI,::1\n{B},k-b,,\nabcdefabcdefabcdefab,,Named,\n00000000000000ffffff,,,\n");
    counts(&place.import("k.csv", &format!("value,id,name,ips\n{rows}{tail}")), 5_004, 0, 0);
    counts(&place.import("k.csv", &format!("value,id,name,ips\n{rows}{tail}")), 0, 5_004, 0);
    let gets = place.bench.session.store.gets();
    let other = format!("{A},k-a,CI,::2\n{B},k-b,B,\nabcdefabcdefabcdefab,k-c,Named,\n00000000000000ffffff,,Named,\n");
    counts(&place.import("k.csv", &format!("value,id,name,ips\n{rows}{other}")), 0, 5_000, 4);
    assert_eq!(place.bench.session.store.gets() - gets, 10_000 + 8);
    let rejects = place.rejects("k.csv.rejected");
    for (line, columns) in rejects.lines().skip(1).zip(["ips", "name", "id", "name"]) {
        assert!(line.contains(&format!("with other settings: {columns}")), "{line}");
    }
}

#[test]
fn an_import_starts_over_when_others_are_quicker() {
    for (conflicts, code) in [(2, 0), (3, 5)] {
        let place = Place::new();
        place.bench.session.store.fail_commits(conflicts);
        assert_eq!(place.import("k.csv", &format!("value\n{A}\n")).code, code);
    }
}

#[test]
fn ctrl_c_stops_between_batches() {
    let bench = Bench::new();
    let text = format!("value\n{A}\n");
    let run = |console: &mut Console<'_>| {
        let path = PathBuf::from("/nowhere/k.csv");
        let source = begin(text.as_bytes(), &path, &bench.session.locksmith.format).unwrap();
        let rejects = Rejects::of(&path, None, source.format, source.layout.clone()).unwrap();
        let interrupt = Interrupt::of(Arc::new(AtomicBool::new(true)));
        let terms = Terms { file: None, scope: None, against: Box::new(|_, _| None) };
        let importer: Importer<'_, MemoryStore> = Importer::new(&bench.session, terms);
        let import = Import { source, importer, rejects, progress: Progress::Silent, interrupt };
        block_on(import.run(Output::Table, console))
    };
    let ran = remember(run);
    assert_eq!(ran.code, 130);
    assert_eq!(ran.err, "imported 0, unchanged 0, rejected 0\ninterrupted after line 1; the same command goes on\n");
}

#[test]
fn what_cannot_be_imported_at_all_is_a_usage_error() {
    let place = Place::new();
    for (text, code) in [("value,ip\n", 2), ("", 2), ("[1]", 2)] {
        assert_eq!(place.import("k.csv", text).code, code, "{text}");
    }
    assert_eq!(place.bench.key("import --input /nowhere/k.csv", Output::Table).code, 1);
}

/// The upstream is told of the user that a row names: nobody's keys say that they are somebody else's.
#[test]
fn a_row_does_not_take_the_address_of_an_account() {
    let place = Place::new();
    let email = "ann@example.com".parse().unwrap();
    let (name, scope, password, role) = (None, None, None, None);
    let ann = crate::manage::user::NewUser { email, name, scope, password, api_access: false, role };
    block_on(place.bench.session.create_user(ann)).unwrap();
    let rows = format!("value,id,user\n{A},k1,Ann@example.com\n{B},k2,bob@example.com\n");
    counts(&place.import("k.csv", &rows), 1, 0, 1);
    assert!(place.rejects("k.csv.rejected").contains("the address of an account"));
    assert_eq!(place.key("k2").user.as_deref(), Some("bob@example.com"));
}
