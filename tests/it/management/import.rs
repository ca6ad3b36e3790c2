//! Keys of another system by the API: the same rows by the same rules as on the command line, and nobody makes keys that way
//! where they could not make one by one.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Stage, refusal};
use crate::support::{Client, Key, Response};

const SHAPES: &str = "keys: { shapes: [{ name: legacy, length: 20, alphabet: hex }] }";
const A: &str = "7e14204fcce1e00152b4";
const B: &str = "0123456789abcdef0123";

impl Stage {
    #[track_caller]
    fn import(&self, by: &Key, media_type: &str, rows: &str) -> Response {
        let fields = [("Authorization", by.bearer()), ("Content-Type", media_type.to_owned())];
        let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.send("POST", "/v2/keys/import", &fields, rows.as_bytes())
    }

    /// How many were imported, unchanged and rejected, and the lines of these with their reasons.
    #[track_caller]
    fn imported(&self, by: &Key, media_type: &str, rows: &str) -> ([u64; 3], Vec<(u64, String)>) {
        let response = self.import(by, media_type, rows);
        assert_eq!(response.status, 200, "{}", response.text());
        for value in [A, B] {
            assert!(!response.text().contains(value), "{}", response.text());
        }
        let result = &response.json()["result"];
        let counts = ["imported", "unchanged", "rejected"].map(|name| result[name].as_u64().unwrap());
        assert_eq!(response.value("keyward-revision").is_some(), counts[0] > 0);
        let rejection = |row: &Value| (row["line"].as_u64().unwrap(), row["reason"].as_str().unwrap().to_owned());
        (counts, result["rejections"].as_array().unwrap().iter().map(rejection).collect())
    }
}

fn key(id: &str, value: &str) -> Key {
    Key { id: id.to_owned(), value: value.to_owned() }
}

#[test]
fn keys_of_another_system_come_in_by_the_rules_of_the_command_line() {
    let stage = Stage::with(SHAPES);
    let rows = format!("value,id,access,user\n{A},a,ro,ann\n{B}0,b,rw,\n{B},c,rx,\n");
    let (counts, rejections) = stage.imported(&stage.admin, "text/csv; charset=utf-8", &rows);
    assert_eq!((counts, rejections.iter().map(|(line, _)| *line).collect()), ([1, 0, 2], vec![3, 4]));
    assert!(rejections[0].1.contains("`keys.shapes`") && rejections[1].1.contains("`access`"), "{rejections:?}");
    assert_eq!(stage.opens(&key("a", A)), 200, "it is in force when the answer comes");
    let made = stage.result("GET", "/v2/keys/a", "");
    assert_eq!((&made["permissions"], &made["user"]), (&json!(["fetch"]), &json!("ann")));
    assert_eq!(made["created_by"], json!(stage.admin.id), "V17");
    // The same again changes nothing, and neither does a second value under the same id.
    assert_eq!(stage.imported(&stage.admin, "text/csv", &rows).0, [0, 1, 2]);
    let (counts, rejections) =
        stage.imported(&stage.admin, "application/x-ndjson", &format!("{{\"value\":{B:?},\"id\":\"a\"}}"));
    assert_eq!((counts, rejections[0].0), ([0, 0, 1], 1));
    assert_eq!(stage.imported(&stage.admin, "text/tab-separated-values", &format!("id\tvalue\nc\t{B}")).0, [1, 0, 0]);
    // All of it is what the command line would have made.
    stage.keyward.site.write("keys.csv", &format!("value,id,access,user\n{A},a,ro,ann\n{B},c,rw,\n"));
    let again = stage.keyward.site.json(&["key", "import", "--input", "keys.csv"]);
    assert_eq!(again["unchanged"], json!(2));
    let audit = stage.keyward.site.json(&["audit", "list", "--action", "key.import"]);
    assert_eq!(
        (&audit[1]["detail"]["keys"], &audit[1]["actor"]),
        (&json!(["a"]), &json!(format!("key:{}", stage.admin.id)))
    );
}

#[test]
fn what_is_refused_is_told_a_thousand_times_and_counted_beyond() {
    let stage = Stage::with(SHAPES);
    let rows = format!("value\n{}{A}\n", "x\n".repeat(12_000));
    let (counts, rejections) = stage.imported(&stage.admin, "text/csv", &rows);
    assert_eq!((counts, rejections.len(), rejections[999].0), ([1, 0, 12_000], 1_000, 1_001));
}

/// What keys look like is said in the config: the API follows it as the proxy does.
#[test]
fn another_config_changes_what_the_api_takes_for_keys_and_makes() {
    let stage = Stage::new();
    let reload = |config: &str| {
        stage.keyward.site.configure(stage.upstream.address(), config);
        assert_eq!(stage.keyward.reload().status, 200);
    };
    let rows = format!("value\tid\n{A}\ta");
    let import = || stage.imported(&stage.admin, "text/tab-separated-values", &rows).0;
    let asks = || stage.keyward.manage(&key("a", A), "GET", "/v2/keys", "").status;
    assert_eq!(import(), [0, 0, 1]);
    reload(SHAPES);
    assert_eq!((import(), stage.opens(&key("a", A)), asks()), ([1, 0, 0], 200, 403), "it is known, and has no role");
    assert!(stage.create("ours", json!({})).value.starts_with("kw_live_"));
    reload("");
    assert_eq!((stage.opens(&key("a", A)), asks()), (401, 401));
    // What bears the old brand is no key of ours any more, the admin's included.
    reload("keys: { brand: door }");
    assert_eq!((stage.opens(&stage.admin), stage.ask("GET", "/v2/keys", "").status), (401, 401));
}

#[test]
fn what_is_no_list_of_keys_is_refused_as_a_whole() {
    let stage = Stage::with(SHAPES);
    for (media_type, rows, status, code) in [
        ("application/json", "{}", 415, "unsupported_media_type"),
        ("text/csv", "", 400, "invalid_rows"),
        ("text/csv", "value,colour\n", 400, "invalid_rows"),
        ("application/x-ndjson", "[1]", 400, "invalid_rows"),
    ] {
        let response = stage.import(&stage.admin, media_type, rows);
        assert_eq!(refusal(&response), (status, vec![code.to_owned()]), "{media_type}");
    }
    let head = format!(
        "POST /v2/keys/import HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: text/csv\r\nContent-Length: 5000000\r\n\r\n",
        stage.admin.bearer()
    );
    let too_large = Client::connect(stage.keyward.admin()).exchange(head.as_bytes());
    assert_eq!(refusal(&too_large), (413, vec!["too_large".to_owned()]));
    let large: String = (0..20_000).map(|n| format!("{n:064x},k{n}\n")).collect();
    let (counts, _) = stage.imported(&stage.admin, "text/csv", &format!("sha256,id\n{large}"));
    assert_eq!(counts, [20_000, 0, 0]);
    let audit = stage.keyward.site.json(&["audit", "list", "--action", "key.import"]);
    assert_eq!(audit.as_array().unwrap().len(), 4, "a commit for each batch of 5,000");
}

#[test]
fn c2_c18_keys_are_imported_where_their_importer_may_make_keys() {
    let stage = Stage::with(SHAPES);
    let acme = stage.keyward.site.create_key(&["--role", "admin", "--scope", "organization:acme"]);
    let user = stage.result("POST", "/v2/users", r#"{"email":"ann@example.com","scope":"organization:acme"}"#);
    let user = user["id"].as_str().unwrap();
    assert_eq!(stage.import(&stage.read_only, "text/csv", "value\n").status, 403, "V5");
    let sha = |n: u8| format!("{n:064x}");
    let rows = [
        "sha256,id,scope",
        &format!("{},mine,", sha(1)),
        &format!("{},below,organization:acme/project:p1", sha(2)),
        &format!("{},theirs,organization:other", sha(3)),
        &format!("{},{user},", sha(4)),
    ];
    let (counts, rejections) = stage.imported(&acme, "text/csv", &rows.join("\n"));
    assert_eq!(counts, [2, 0, 2], "{rejections:?}");
    assert!(
        rejections[0].1.contains("may not make keys") && rejections[1].1.contains("that of a user"),
        "{rejections:?}"
    );
    assert_eq!(rejections.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(
        stage.result("GET", "/v2/keys/mine", "")["scope"],
        json!("organization:acme"),
        "as the key that made it"
    );
    // Of a key elsewhere nobody learns anything but that there is one.
    stage.imported(&stage.admin, "text/csv", &format!("sha256,id,scope\n{},hidden,organization:other\n", sha(6)));
    let (_, rejections) = stage.imported(&acme, "text/csv", &format!("sha256,name\n{},other name\n", sha(6)));
    assert!(!rejections[0].1.contains("hidden"), "{rejections:?}");
    // The organization's admins see it in their audit, and not what others did.
    let seen = stage.keyward.manage(&acme, "GET", "/v2/audit?action=key.import", "").json();
    assert_eq!(seen["result"].as_array().unwrap().len(), 1, "{seen}");
}

/// What was imported is in force when the answer comes, and is seen, though that takes a moment for each key.
#[test]
fn an_import_is_answered_when_it_is_in_force() {
    let stage = Stage::with(SHAPES);
    for round in 0..3_u32 {
        let value = format!("{:020x}", 0xabc_0000 + round);
        let hash: String = Sha256::digest(&value).iter().map(|byte| format!("{byte:02x}")).collect();
        let rows: String = (0..1_500).map(|n| format!("{:064x},k{round}-{n}\n", n + round * 10_000)).collect();
        stage.imported(&stage.admin, "text/csv", &format!("sha256,id\n{rows}{hash},last{round}\n"));
        assert_eq!(stage.opens(&key("last", &value)), 200);
        stage.result("GET", &format!("/v2/keys/last{round}"), "");
    }
}

/// Who makes keys alone makes no scopes with them, and who comes from the sandbox brings nothing into production.
#[test]
fn nothing_comes_in_by_a_list_that_would_not_come_in_one_by_one() {
    let stage = Stage::with(SHAPES);
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:acme"}"#);
    stage.result("POST", "/v2/roles", r#"{"id":"clerk","permissions":["keys:read","keys:write"]}"#);
    let bound = |name: &str, more: Value, role: &str| {
        let key = stage.create(name, more);
        let body = json!({ "subject": format!("key:{}", key.id), "role": role });
        stage.result("POST", "/v2/bindings", &body.to_string());
        key
    };
    let clerk = bound("clerk", json!({}), "clerk");
    let rows = format!(
        "value,id,scope\n{A},a,organization:acme\n{B},b,organization:acme/project:new\n{B},c,organization:new\n"
    );
    let (counts, rejections) = stage.imported(&clerk, "text/csv", &rows);
    assert_eq!((counts, rejections.iter().map(|(line, _)| *line).collect()), ([1, 0, 2], vec![3, 4]));
    assert!(rejections.iter().all(|(_, why)| why.contains("you may not make it")), "{rejections:?}");
    assert_eq!(stage.result("GET", "/v2/scopes", "").as_array().map(Vec::len), Some(1));
    let sandbox = bound("sandbox", json!({ "env": "test" }), "admin");
    let refused = stage.import(&sandbox, "text/csv", &format!("value,id\n{B},b\n"));
    assert_eq!(refusal(&refused), (403, vec!["forbidden".to_owned()]));
    assert_eq!((stage.opens(&key("a", A)), stage.opens(&key("b", B))), (200, 401));
}
