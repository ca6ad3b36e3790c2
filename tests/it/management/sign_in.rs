//! People: signing in, and what everybody may see to themselves.

use std::io::Write;
use std::process::Stdio;

use super::*;
use crate::support::until;

const PASSWORD: &str = "correct horse battery";

/// What a browser on our own page sends along.
const OWN_PAGE: (&str, &str) = ("Sec-Fetch-Site", "same-origin");

impl Stage {
    /// A user with a password, made on the command line, and with what else is given.
    fn user(&self, email: &str, options: &[&str]) -> Value {
        let words = [&["user", "create", "--email", email, "--password-stdin", "--output", "json"], options].concat();
        let mut command = self.keyward.site.command(&words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn sign_in(&self, body: &Value) -> Response {
        self.send("POST", "/v2/session", &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Signs in, and gives the cookie.
    fn cookie(&self, email: &str, password: &str) -> String {
        let mut answer = None;
        until("the user is known", || {
            let response = self.sign_in(&json!({ "email": email, "password": password }));
            let done = response.status == 200;
            answer = Some(response);
            done
        });
        let cookie = answer.unwrap().value("set-cookie").unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    }

    /// Asks as somebody who has signed in, from our own page.
    fn by_cookie(&self, cookie: &str, method: &str, target: &str, body: &str) -> Response {
        let fields = [("Cookie", cookie), OWN_PAGE, ("Content-Type", "application/json")];
        let count = if body.is_empty() { 2 } else { 3 };
        self.send(method, target, &fields[..count], body.as_bytes())
    }
}

#[test]
fn v1_c23_who_signs_in_sees_the_own_account_and_signs_out() {
    let stage = Stage::new();
    let ann = stage.user("ann@example.com", &[]);
    let cookie = stage.cookie("Ann@Example.com", PASSWORD);
    until("the account is seen", || stage.by_cookie(&cookie, "GET", "/v2/me", "").status == 200);
    let me = stage.by_cookie(&cookie, "GET", "/v2/me", "").json();
    assert_eq!((&me["result"]["id"], &me["result"]["email"]), (&ann["id"], &json!("ann@example.com")));
    let named = stage.by_cookie(&cookie, "PATCH", "/v2/me", r#"{"name":"Ann"}"#);
    assert_eq!((named.status, &named.json()["result"]["name"]), (200, &json!("Ann")));
    // Nothing else is hers, and nothing of it makes her more.
    assert_eq!(stage.by_cookie(&cookie, "GET", "/v2/keys", "").status, 403);
    assert_eq!(stage.by_cookie(&cookie, "PATCH", "/v2/me", r#"{"api_access":true}"#).status, 400);
    assert_eq!(stage.by_cookie(&cookie, "POST", "/v2/me/key/value", "").status, 403, "B8");
    let out = stage.by_cookie(&cookie, "DELETE", "/v2/session", "");
    assert!(out.status == 200 && out.value("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(stage.by_cookie(&cookie, "GET", "/v2/me", "").status, 401);
}

#[test]
fn nobody_learns_who_has_an_account_and_nobody_tries_for_ever() {
    let stage = Stage::new();
    stage.user("ann@example.com", &[]);
    stage.cookie("ann@example.com", PASSWORD);
    let answers = ["ann@example.com", "nobody@example.com", "what is this"].map(|email| {
        let response = stage.sign_in(&json!({ "email": email, "password": "wrong" }));
        (response.status, response.text())
    });
    assert!(answers[0].0 == 401 && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let statuses: Vec<u16> =
        (0..10).map(|_| stage.sign_in(&json!({ "email": "ann@example.com", "password": "wrong" })).status).collect();
    assert_eq!((statuses[0], statuses[9]), (401, 429));
    let audit = stage.result("GET", "/v2/audit?action=user.sign_in", "");
    assert_eq!(
        (audit.as_array().map(Vec::len), &audit[0]["detail"]["from"]),
        (Some(1), &json!("127.0.0.1")),
        "{audit}"
    );
    let who = audit[0]["detail"]["target"]["id"].as_str().unwrap();
    assert_eq!(audit[0]["actor"], json!(format!("user:{who}")), "who signs in is who is taken down");
    let limited = stage.sign_in(&json!({ "email": "ann@example.com", "password": PASSWORD }));
    assert!(limited.status == 429 && limited.value("retry-after").is_some());
}

#[test]
fn who_has_come_by_a_link_sets_the_first_password() {
    let stage = Stage::new();
    stage.result("POST", "/v2/users", r#"{"email":"ann@example.com"}"#);
    let link = stage.keyward.site.run(&["user", "link", "ann@example.com"]);
    let ticket = String::from_utf8(link.stdout).unwrap().trim().to_owned();
    let came = stage.sign_in(&json!({ "ticket": ticket }));
    assert_eq!(came.status, 200, "{}", came.text());
    let cookie = came.value("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let set = |cookie: &str, more: Value| {
        let mut body = more;
        body["password"] = json!(PASSWORD);
        stage.by_cookie(cookie, "PATCH", "/v2/me", &body.to_string())
    };
    let short = stage.by_cookie(&cookie, "PATCH", "/v2/me", r#"{"password":"short"}"#);
    assert_eq!(refusal(&short), (400, vec!["invalid_attribute".to_owned()]));
    let done = set(&cookie, json!({}));
    assert_eq!(done.status, 200, "{}", done.text());
    // With it she signs in; from now on, whoever changes it must know it.
    let cookie = stage.cookie("ann@example.com", PASSWORD);
    let bare = set(&cookie, json!({}));
    assert!(bare.status == 400 && bare.text().contains("current_password"), "{}", bare.text());
    assert_eq!(set(&cookie, json!({ "current_password": "wrong" })).status, 403);
    assert_eq!(set(&cookie, json!({ "current_password": PASSWORD })).status, 200);
}

#[test]
fn what_a_browser_sends_by_itself_changes_nothing_for_other_sites() {
    let stage = Stage::new();
    stage.user("root@example.com", &["--admin"]);
    let cookie = stage.cookie("root@example.com", PASSWORD);
    until("the role is known", || stage.by_cookie(&cookie, "GET", "/v2/keys", "").status == 200);
    let key = json!({ "type": "api", "name": "by cookie", "permissions": [], "ips": [] }).to_string();
    let json = ("Content-Type", "application/json");
    for (field, status) in [
        (("Sec-Fetch-Site", "cross-site"), 403),
        (("Sec-Fetch-Site", "same-site"), 403),
        (("Origin", "https://evil.example"), 403),
        (("X-Other", "1"), 403),
        (("X-Keyward-Request", "1"), 200),
        (OWN_PAGE, 200),
    ] {
        let response = stage.send("POST", "/v2/keys", &[("Cookie", &cookie), json, field], key.as_bytes());
        assert_eq!(response.status, status, "{field:?}: {}", response.text());
    }
    // An admin by cookie is one by key: what was made is there for both.
    assert!(stage.ask("GET", "/v2/keys", "").text().contains("by cookie"));
}

#[test]
fn b9_b12_b13_b14_the_own_key_is_looked_up_and_made_anew() {
    let stage = Stage::new();
    let ann = stage.user("ann@example.com", &["--api-access"]);
    let old = Key { id: ann["id"].as_str().unwrap().to_owned(), value: ann["value"].as_str().unwrap().to_owned() };
    let cookie = stage.cookie("ann@example.com", PASSWORD);
    until("the key works", || stage.opens(&old) == 200);
    let looked = stage.by_cookie(&cookie, "POST", "/v2/me/key/value", "").json();
    assert_eq!(looked["result"]["value"], old.value.as_str());
    let proposed = stage.by_cookie(&cookie, "POST", "/v2/me/key", "{}").json()["result"].take();
    let new = Key { id: old.id.clone(), value: proposed["value"].as_str().unwrap().to_owned() };
    assert_eq!((stage.opens(&old), stage.opens(&new)), (200, 401), "B13: it does not count yet");
    let confirmed = json!({ "value": proposed["value"], "confirmation": proposed["confirmation"] }).to_string();
    assert_eq!(stage.by_cookie(&cookie, "POST", "/v2/me/key", &confirmed).status, 200);
    assert_eq!((stage.opens(&old), stage.opens(&new)), (401, 200), "B14");
    assert_eq!(stage.by_cookie(&cookie, "POST", "/v2/me/key", &confirmed).status, 403);
}

#[test]
fn another_password_signs_everybody_else_out_and_so_does_suspension() {
    let stage = Stage::new();
    stage.user("ann@example.com", &[]);
    let [first, second] = [(); 2].map(|()| stage.cookie("ann@example.com", PASSWORD));
    assert_ne!(first, second);
    until("the account is seen", || stage.by_cookie(&first, "GET", "/v2/me", "").status == 200);
    let wrong = r#"{"password":"another one, please","current_password":"wrong"}"#;
    assert_eq!(stage.by_cookie(&first, "PATCH", "/v2/me", wrong).status, 403);
    let right = json!({ "password": "another one, please", "current_password": PASSWORD }).to_string();
    let changed = stage.by_cookie(&first, "PATCH", "/v2/me", &right);
    assert_eq!(changed.status, 200, "{}", changed.text());
    let fresh = changed.value("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for (cookie, status) in [(&first, 401), (&second, 401), (&fresh, 200)] {
        assert_eq!(stage.by_cookie(cookie, "GET", "/v2/me", "").status, status);
    }
    stage.keyward.site.json(&["user", "suspend", "ann@example.com"]);
    until("the cookie is refused", || stage.by_cookie(&fresh, "GET", "/v2/me", "").status == 401);
    // And stays so: whoever was let back in signs in anew.
    stage.keyward.site.json(&["user", "activate", "ann@example.com"]);
    let body = json!({ "email": "ann@example.com", "password": "another one, please" });
    until("she may sign in again", || stage.sign_in(&body).status == 200);
    assert_eq!(stage.by_cookie(&fresh, "GET", "/v2/me", "").status, 401);
}

#[test]
fn a_one_time_link_lets_in_once() {
    let stage = Stage::new();
    stage.user("root@example.com", &["--admin"]);
    let link = stage.keyward.site.run(&["user", "link", "root@example.com"]);
    let ticket = String::from_utf8(link.stdout).unwrap().trim().to_owned();
    assert_eq!(stage.sign_in(&json!({ "ticket": ticket })).status, 200);
    assert_eq!(stage.sign_in(&json!({ "ticket": ticket })).status, 401);
}

#[test]
fn c3_b15_whoever_signs_in_makes_keys_without_having_one() {
    let stage = Stage::new();
    let scope = "organization:acme";
    stage.user("ann@example.com", &["--admin", "--scope", scope]);
    stage.user("bob@example.com", &["--scope", scope]);
    let new = r#"{"type":"api","name":"Example","permissions":["fetch"],"ips":[]}"#;
    let bob = stage.cookie("bob@example.com", PASSWORD);
    assert_eq!(stage.by_cookie(&bob, "POST", "/v2/keys", new).status, 403, "C2");
    let ann = stage.cookie("ann@example.com", PASSWORD);
    let made = stage.by_cookie(&ann, "POST", "/v2/keys", new);
    assert_eq!(made.status, 200, "{}", made.text());
    let made = &made.json()["result"];
    assert_eq!(made["scope"], json!(scope), "C3: a key of the organization");
    let [id, value] = ["id", "value"].map(|name| made[name].as_str().unwrap().to_owned());
    let key = Key { id, value };
    assert_eq!(stage.opens(&key), 200);
    let listed = stage.by_cookie(&ann, "GET", "/v2/keys", "");
    assert!(listed.text().contains(&key.id) && !listed.text().contains(&key.value));
    // B15: where the upstream is, there is no key API, unless the config says so: the path is the upstream's.
    assert_eq!(stage.keyward.with_key(&stage.admin, "GET", "/v2/keys").status, 200);
    assert_eq!(stage.upstream.take().len(), 1);
}

/// Each look at the own key is in the audit, and none is given again to somebody from whom it was taken back.
#[test]
fn b9_a_look_at_the_own_key_is_never_given_again_from_memory() {
    let stage = Stage::new();
    let ann = stage.user("ann@example.com", &["--api-access"]);
    let id = ann["id"].as_str().unwrap();
    let cookie = stage.cookie("ann@example.com", PASSWORD);
    let look = || {
        let fields = [("Cookie", cookie.as_str()), OWN_PAGE, ("Idempotency-Key", "a")];
        stage.send("POST", "/v2/me/key/value", &fields, b"").status
    };
    until("she is known", || look() == 200);
    let looks =
        || stage.result("GET", &format!("/v2/audit?target={id}&limit=1000"), "").to_string().matches("look").count();
    let before = looks();
    assert_eq!((look(), looks() > before), (200, true));
    stage.result("PATCH", &format!("/v2/users/{id}"), r#"{"api_access":false}"#);
    assert_eq!(look(), 403);
}

/// Whoever signs in has a new token, whatever the browser had before: one that somebody else has put there opens nothing, and
/// the one of the last time neither.
#[test]
fn signing_in_gives_a_new_token_and_ends_the_one_that_was_there() {
    let stage = Stage::new();
    stage.user("ann@example.com", &[]);
    let me = |cookie: &str| stage.by_cookie(cookie, "GET", "/v2/me", "").status;
    let again = |cookie: &str| {
        let body = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
        let fields = [("Cookie", cookie), OWN_PAGE, ("Content-Type", "application/json")];
        let answer = stage.send("POST", "/v2/session", &fields, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.value("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    };
    let first = stage.cookie("ann@example.com", PASSWORD);
    until("the account is seen", || me(&first) == 200);
    let second = again(&first);
    assert_ne!(first, second);
    assert_eq!((me(&first), me(&second)), (401, 200));
    let planted = format!("keyward={}", "A".repeat(43));
    let third = again(&planted);
    assert_ne!(planted, third);
    assert_eq!((me(&planted), me(&third)), (401, 200));
    // A link is a way to sign in like any other.
    let link = stage.keyward.site.run(&["user", "link", "ann@example.com"]);
    let ticket = json!({ "ticket": String::from_utf8(link.stdout).unwrap().trim() }).to_string();
    let fields = [("Cookie", third.as_str()), OWN_PAGE, ("Content-Type", "application/json")];
    let answer = stage.send("POST", "/v2/session", &fields, ticket.as_bytes());
    let fourth = answer.value("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!((me(&third), me(&fourth)), (401, 200));
}
