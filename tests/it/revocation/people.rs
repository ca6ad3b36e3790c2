//! Keys lean on people and on other keys: one change of those counts for all of them (failure 20).

use std::process::Stdio;

use super::*;

/// A user who may use the API, and the key that comes with it.
fn user(keyward: &Keyward, email: &str) -> Key {
    let made = keyward.site.json(&["user", "create", "--email", email, "--api-access"]);
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    let key = Key { id: text("id"), value: text("value") };
    time_until(keyward, &key.value, 401, 200);
    key
}

#[test]
fn b4_b5_b6_b7_a_users_keys_work_as_long_as_an_admin_lets_them() {
    let (upstream, keyward) = serve("");
    let made = keyward.site.json(&["user", "create", "--email", "bob@example.com"]);
    assert_eq!((made["api_access"].as_bool(), made.get("value")), (Some(false), None), "B5: not by default");
    let given = keyward.site.json(&["user", "update", "bob@example.com", "--api-access"]);
    let value = given["value"].as_str().unwrap();
    time_until(&keyward, value, 401, 200);
    upstream.take();

    let other = user(&keyward, "ann@example.com");
    for (words, refusal) in [
        (["user", "update", "bob@example.com", "--no-api-access"].as_slice(), 403),
        (&["user", "suspend", "bob@example.com"], 401),
    ] {
        keyward.site.json(words);
        time_until(&keyward, value, 200, refusal);
        upstream.take();
        let (mut client, mut others) = (keyward.connect(), keyward.connect());
        assert_eq!(status(&mut client, value), refusal);
        upstream.expect_nothing();
        assert_eq!(status(&mut others, &other.value), 200);
        upstream.take();
        let back = if refusal == 403 {
            vec!["update", "bob@example.com", "--api-access"]
        } else {
            vec!["activate", "bob@example.com"]
        };
        let back = keyward.site.json(&[&["user"][..], &back].concat());
        assert!(back.get("value").is_none(), "B11: there is one key, and it is still there");
        time_until(&keyward, value, refusal, 200);
    }
    keyward.site.run(&["user", "delete", "bob@example.com"]);
    time_until(&keyward, value, 200, 401);
}

#[test]
fn failure_20_one_change_of_a_user_or_a_parent_ends_all_that_lean_on_it() {
    let (_upstream, keyward) = serve("");
    let owner = user(&keyward, "ann@example.com");
    let child = working_key(&keyward, &["--parent", &owner.id]);
    let grandchild = working_key(&keyward, &["--parent", &child.id]);
    let all = [&owner, &child, &grandchild];
    let are_all = |before: u16, after: u16| all.map(|key| time_until(&keyward, &key.value, before, after));
    for (words, refusal) in [
        (["user", "suspend", "ann@example.com"].as_slice(), 401),
        (&["user", "activate", "ann@example.com"], 200),
        (&["user", "update", "ann@example.com", "--no-api-access"], 403),
        (&["user", "update", "ann@example.com", "--api-access"], 200),
        (&["key", "update", &owner.id, "--ip", "1.2.3.4"], 403),
        (&["key", "update", &owner.id, "--any-ip"], 200),
    ] {
        let before = status(&mut keyward.connect(), &grandchild.value);
        keyward.site.json(words);
        are_all(before, refusal);
    }
    keyward.site.json(&["key", "update", &owner.id, "--read-only"]);
    let post = |key: &Key| keyward.with_key(key, "POST", "/orgs/acme/x").status;
    let began = Instant::now();
    while all.iter().any(|key| post(key) != 403) {
        assert!(began.elapsed() < LATEST);
    }
    keyward.site.json(&["key", "disable", &child.id]);
    time_until(&keyward, &grandchild.value, 200, 401);
    assert_eq!(status(&mut keyward.connect(), &owner.value), 200);
}

/// Whoever has lost the last admin, and every password, gets in from the command line.
#[test]
fn the_last_admin_is_made_again_on_the_store_itself() {
    let (_upstream, keyward) = serve("");
    let made = keyward.site.json(&["user", "create", "--email", "root@example.com", "--admin"]);
    let bindings = keyward.site.json(&["binding", "list"]);
    assert_eq!(bindings[0]["role"], "admin");
    assert_eq!(bindings[0]["subject"], format!("user:{}", made["id"].as_str().unwrap()));
    let link = keyward.site.run(&["user", "link", "root@example.com"]);
    assert!(link.status.success() && link.stdout.len() > 40, "{link:?}");
    let mut command = keyward.site.command(&["user", "password", "root@example.com"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"correct horse battery\n").unwrap();
    assert!(child.wait().unwrap().success());
}
