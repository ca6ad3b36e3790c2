//! Reports of leaked keys that are signed, as GitHub sends them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

use super::*;

/// One who signs.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap())
    }

    /// The file that GitHub gives out.
    fn file(&self, identifier: &str) -> String {
        let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        let prefix: Vec<u8> = (0..26).map(|at| u8::from_str_radix(&prefix[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let der = STANDARD.encode([&prefix[..], self.0.public_key().as_ref()].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &der[..64], &der[64..]);
        json!({ "public_keys": [{ "key_identifier": identifier, "key": pem, "is_current": true }] }).to_string()
    }

    fn sign(&self, body: &str) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), body.as_bytes()).unwrap())
    }
}

fn stage(signer: &Signer, action: &str) -> Stage {
    let upstream = Upstream::start();
    let leaks = format!("{{ leaks: {{ keys: github.json, action: {action} }} }}");
    let site = Site::new(upstream.address(), &format!("admin: {leaks}"));
    site.write("github.json", &signer.file("k-1"));
    let admin = site.create_key(&["--role", "admin", "--name", "admin"]);
    let read_only = admin.clone();
    Stage { upstream, keyward: site.serve(), admin, read_only }
}

fn reported(stage: &Stage, signer: &Signer, identifier: &str, body: &str) -> Response {
    let signature = signer.sign(body);
    let fields = [
        ("Content-Type", "application/json"),
        ("Github-Public-Key-Identifier", identifier),
        ("Github-Public-Key-Signature", &signature),
    ];
    stage.send("POST", "/v2/leaks", &fields, body.as_bytes())
}

fn finding(token: &str) -> Value {
    json!({ "token": token, "type": "keyward_key", "url": "https://github.com/a/b/blob/c/d.yml", "source": "content" })
}

#[test]
fn what_is_signed_is_believed_and_ends_keys() {
    let signer = Signer::new();
    let stage = stage(&signer, "revoke");
    let (leaked, other) = (stage.create("leaked", json!({})), stage.create("other", json!({})));
    let none = "kw_live_0000000000000000000000000000000000000000";
    let body = json!([finding(&leaked.value), finding(none)]).to_string();
    // Whoever has only the headers, or another key, does nothing.
    for (who, identifier) in [(&Signer::new(), "k-1"), (&signer, "k-2")] {
        assert_eq!(refusal(&reported(&stage, who, identifier, &body)), (403, vec!["bad_signature".to_owned()]));
    }
    let signature = signer.sign(&body);
    let changed = body.replace(&leaked.value, &other.value);
    let fields = [("Github-Public-Key-Identifier", "k-1"), ("Github-Public-Key-Signature", signature.as_str())];
    assert_eq!(stage.send("POST", "/v2/leaks", &fields, changed.as_bytes()).status, 403);
    assert_eq!(stage.send("GET", "/v2/keys", &fields, b"").status, 401, "it is for reports alone");
    assert_eq!((stage.opens(&leaked), stage.opens(&other)), (200, 200));

    let answer = reported(&stage, &signer, "k-1", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hash = |token: &str| STANDARD.encode(Sha256::digest(token));
    let told =
        |token: &str, label: &str| json!({ "token_hash": hash(token), "token_type": "keyward_key", "label": label });
    assert_eq!(answer.json(), json!([told(&leaked.value, "true_positive"), told(none, "false_positive")]));
    assert_eq!((stage.opens(&leaked), stage.opens(&other)), (401, 200));
    let entries = stage.result("GET", "/v2/audit?action=key.revoke", "");
    assert_eq!(entries[0]["actor"], "signed-report");
    assert_eq!(entries[0]["detail"]["reason"], "leaked: https://github.com/a/b/blob/c/d.yml");
    // It may come again.
    assert_eq!(reported(&stage, &signer, "k-1", &body).status, 200);
    for body in ["", "{}", "[]", "[{}]", "[1]"] {
        assert_eq!(reported(&stage, &signer, "k-1", body).status, 400, "{body}");
    }
    // The file may change while the program runs.
    let next = Signer::new();
    stage.keyward.site.write("github.json", &next.file("k-2"));
    assert_eq!(reported(&stage, &signer, "k-1", &body).status, 403);
    assert_eq!(reported(&stage, &next, "k-2", &body).status, 200);
    stage.keyward.site.write("github.json", "{}");
    assert_eq!(reported(&stage, &next, "k-2", &body).status, 503);
}

#[test]
fn where_the_config_says_so_keys_are_marked_and_go_on() {
    let signer = Signer::new();
    let stage = stage(&signer, "flag");
    let leaked = stage.create("leaked", json!({ "tags": ["radio"] }));
    let body = json!([finding(&leaked.value)]).to_string();
    for _ in 0..2 {
        assert_eq!(reported(&stage, &signer, "k-1", &body).status, 200);
    }
    assert_eq!(stage.opens(&leaked), 200);
    assert_eq!(stage.result("GET", &format!("/v2/keys/{}", leaked.id), "")["tags"], json!(["radio", "leaked"]));
    let entries = stage.result("GET", "/v2/audit?action=key.leaked", "");
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
    // Those who have a role end it all the same.
    let report = json!({ "leaks": [finding(&leaked.value)] }).to_string();
    assert_eq!(stage.result("POST", "/v2/leaks", &report)[0]["label"], "true_positive");
    assert_eq!(stage.opens(&leaked), 401);
}

#[test]
fn without_keys_in_the_config_nobody_is_believed() {
    let stage = Stage::new();
    let body = json!([finding(&stage.admin.value)]).to_string();
    assert_eq!(reported(&stage, &Signer::new(), "k-1", &body).status, 401);
    assert_eq!(stage.opens(&stage.admin), 200);
}

#[test]
fn a_file_that_has_no_keys_is_found_at_the_start() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "admin: { leaks: { keys: github.json } }");
    site.write("github.json", "[]");
    let checked = site.command(&["check"]).output().unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(
        checked.status.code() == Some(3) && said.contains("admin.leaks.keys") && said.contains("public_keys"),
        "{said}"
    );
}

/// Behind a proxy that is trusted each client counts by itself: one that fails shuts nobody else out.
#[test]
fn clients_behind_a_trusted_proxy_are_told_apart_on_the_admin_port() {
    let stage = Stage::with("proxy: { trusted_proxies: [127.0.0.0/8] }");
    let inside = stage.create("inside", json!({ "ips": ["192.0.2.7"], "role": "admin" }));
    let ask = |value: &str, from: &str| {
        let bearer = format!("Bearer {value}");
        stage.send("GET", "/v2/keys", &[("Authorization", &bearer), ("X-Forwarded-For", from)], b"").status
    };
    assert_eq!((ask(&inside.value, "192.0.2.7"), ask(&inside.value, "192.0.2.8")), (200, 403));
    let refused: Vec<u16> = (0..25).map(|_| ask("kw_live_wrong", "198.51.100.1")).collect();
    assert!(refused.starts_with(&[401; 20]) && refused.ends_with(&[429]), "{refused:?}");
    assert_eq!(ask("kw_live_wrong", "198.51.100.2"), 401);
    // Without a proxy that is trusted, the header says nothing.
    let plain = Stage::new();
    let bearer = format!("Bearer {}", plain.create("inside", json!({ "ips": ["192.0.2.7"], "role": "admin" })).value);
    let fields = [("Authorization", bearer.as_str()), ("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(plain.send("GET", "/v2/keys", &fields, b"").status, 403);
}
