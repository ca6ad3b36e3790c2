//! The commands of Vidbeo's documents as they stand there, with another host and another key, and the answers that they give.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use super::Stage;
use crate::tools;

/// The five commands, in the order in which they make sense.
const CREATE: &str = r#"curl \
-g \
-H "Authorization: Bearer YOUR-API-KEY" \
-H "Content-Type: application/json" \
-X POST \
-d '{"type":"api", "name": "Example", "permissions": [], "ips": ["1.2.3.4"]}' \
"https://api.vidbeo.com/v2/keys""#;
const LIST: &str = r#"curl \
-H "Authorization: Bearer YOUR-API-KEY" \
"https://api.vidbeo.com/v2/keys""#;
const GET: &str = r#"curl \
-H "Authorization: Bearer YOUR-API-KEY" \
"https://api.vidbeo.com/v2/keys/abcde12345abcde12345a""#;
const PATCH: &str = r#"curl \
-g \
-H "Authorization: Bearer YOUR-API-KEY" \
-H "Content-Type: application/json" \
-X PATCH \
-d '{"name":"New name"}' \
"https://api.vidbeo.com/v2/keys/abcde12345abcde12345a""#;
const DELETE: &str = r#"curl \
-H "Authorization: Bearer YOUR-API-KEY" \
-X DELETE \
"https://api.vidbeo.com/v2/keys/abcde12345abcde12345a""#;

/// Runs a command of the documents against us, and gives what it prints.
#[track_caller]
fn run((stage, host): (&Stage, SocketAddr), command: &str, id: &str) -> String {
    let line = command
        .replace("https://api.vidbeo.com", &format!("http://{host}"))
        .replace("YOUR-API-KEY", &stage.admin.value);
    let line = line.replace("abcde12345abcde12345a", id);
    let ended = tools::run(Command::new("sh").args(["-c", &line]).env("no_proxy", "*"));
    assert!(ended.status.success(), "{line}: {ended:?}");
    ended.out
}

/// Every field that a documented answer has, in its order: two texts are alike if their fields are, and what stands for an
/// id, a time or a value is one.
#[track_caller]
fn compare(got: &str, documented: &str) -> Value {
    let names = |text: &str| -> Vec<String> {
        text.split('"')
            .skip(1)
            .step_by(2)
            .zip(text.split('"').skip(2).step_by(2))
            .filter(|(_, after)| after.trim_start().starts_with(':'))
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    assert_eq!(names(got), names(documented), "{got}");
    let (got, documented): (Value, Value) =
        (serde_json::from_str(got).unwrap(), serde_json::from_str(documented).unwrap());
    same("", &got, &documented);
    got
}

#[track_caller]
fn same(name: &str, got: &Value, documented: &Value) {
    match (name, got, documented) {
        ("id", Value::String(got), _) => assert!(is_id(got), "{name}: {got}"), // V10
        ("created_by" | "updated_by", Value::String(got), _) => assert!(!got.is_empty(), "{name}: {got}"), // V17
        ("created_time" | "updated_time", Value::String(got), Value::String(documented)) => {
            assert_eq!(shape(got), shape(documented), "{name}"); // V11
        }
        ("value", Value::String(got), _) => assert!(got.starts_with("kw_live_"), "a value"),
        (_, Value::Object(got), Value::Object(documented)) => {
            documented.iter().for_each(|(name, documented)| same(name, &got[name], documented));
        }
        (_, Value::Array(got), Value::Array(documented)) => {
            assert_eq!(got.len(), documented.len(), "{name}");
            got.iter().zip(documented).for_each(|(got, documented)| same(name, got, documented));
        }
        (_, got, documented) => assert_eq!(got, documented, "{name}"),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 21 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A time with each digit as 0.
fn shape(time: &str) -> String {
    time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

#[test]
fn v2_to_v11_v22_to_v24_the_documented_commands_give_the_documented_answers() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let stage = Stage::with("admin: { mount: /v2 }");
    for host in [stage.keyward.admin(), stage.keyward.proxy] {
        documented_answers(&stage, host);
    }
    stage.upstream.expect_nothing();
}

/// Runs all of them against one listener, and leaves nothing behind.
#[track_caller]
fn documented_answers(stage: &Stage, host: SocketAddr) {
    let key = |name: &str, value: &str, ips: &str| {
        format!(
            r#"{{"id": "abcde12345abcde12345a","name": "{name}","type": "api","permissions": [],"ips": [{ips}],{value}
            "created_by": "abcde12345abcde1234a","created_time": "2021-02-01T00:00:00.000Z",
            "updated_by": "abcde12345abcde12345a","updated_time": "2021-02-01T00:00:00.000Z"}}"#
        )
    };
    let one = |result: &str| format!(r#"{{"success": true,"result": {result},"links": null,"errors": []}}"#);
    let value = r#""value": "THE-NEW-API-KEY","#;
    let made = compare(&run((stage, host), CREATE, ""), &one(&key("Example", value, r#""1.2.3.4""#)));
    let made = &made["result"];
    let (id, value) = (made["id"].as_str().unwrap(), made["value"].as_str().unwrap());
    assert_eq!((&made["created_by"], &made["updated_by"]), (&json!(stage.admin.id), &json!(stage.admin.id)));

    let got = run((stage, host), GET, id);
    compare(&got, &one(&key("Example", "", r#""1.2.3.4""#)));
    let list = run((stage, host), LIST, "");
    let (admin, looks) = (key("admin", "", ""), key("looks", "", "").replace("[]", r#"["fetch"]"#));
    let looks = looks.replacen(r#""ips": ["fetch"]"#, r#""ips": []"#, 1);
    let listed = [admin, looks, key("Example", "", r#""1.2.3.4""#)].join(",");
    compare(&list, &format!(r#"{{"success": true,"result": [{listed}],"links": {{}},"errors": []}}"#));
    let patched = compare(&run((stage, host), PATCH, id), &one(&key("New name", "", r#""1.2.3.4""#)));
    assert!(patched["result"]["updated_time"].as_str() >= made["updated_time"].as_str());
    for answer in [&got, &list] {
        assert!(!answer.contains(value), "a value is shown once");
    }
    compare(&run((stage, host), DELETE, id), &one("{}"));
    assert_eq!(stage.ask("GET", &format!("/v2/keys/{id}"), "").status, 404);
}
