//! `keyward key list` and `keyward key show`: what is known of keys. Never a digest, and of a value only its hint.

use serde::Serialize;

use crate::auth::grant::{State, Timestamp};
use crate::auth::lineage::DEEPEST;
use crate::cli::console::{Console, Output, printable};
use crate::cli::exit::{Exit, Failure};
use crate::cli::place::{Listing, Place};
use crate::manage::Stored;
use crate::store::record::{BindingBody, KeyBody, SecretBody, Subject};

/// Shows all keys.
pub(super) async fn all(place: &impl Place, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let listing = place.listing().await?;
    match output {
        Output::Json => console.json_array(listing.keys.iter())?,
        Output::Table => {
            let headers = ["ID", "NAME", "STATE", "ACCESS", "ENV", "SCOPE", "IPS", "LIMIT", "EXPIRES", "CREATED"];
            console.table(headers, listing.keys.iter().map(|key| row(key, &listing, place.now())))?;
        }
    }
    for why in &listing.unreadable {
        console.note(format_args!("warning: {}; it grants nothing", printable(why)));
    }
    Ok(Exit::Ok)
}

fn row(key: &Stored<KeyBody>, listing: &Listing, now: Timestamp) -> [String; 10] {
    let body = &key.body;
    [
        key.id.to_string(),
        printable(&body.name),
        standing(body, listing, now).to_owned(),
        body.access.label().to_owned(),
        body.env.label().to_owned(),
        scope(body),
        addresses(&body.ips),
        limit(body),
        expiry(body),
        minutes(body.created_time),
    ]
}

/// Whether a key works now, and if not, why: it stops with every key above it.
fn standing(body: &KeyBody, listing: &Listing, now: Timestamp) -> &'static str {
    let own = by_itself(body, listing, now);
    let parent = |body: &&KeyBody| body.parent.as_deref().and_then(|id| listing.key(id));
    // As deep as keys may stand above one another, and once more.
    let mut above = std::iter::successors(parent(&body), parent).take(DEEPEST + 1);
    let is_stopped = above.any(|above| by_itself(above, listing, now) != State::Active.label());
    if own == State::Active.label() && is_stopped { "parent stopped" } else { own }
}

/// The same for a key without those above it. An expiry, a suspended scope or owner is no state of the key's own.
fn by_itself(body: &KeyBody, listing: &Listing, now: Timestamp) -> &'static str {
    match body.state {
        State::Disabled | State::Revoked => body.state.label(),
        State::Active if body.expires_at.is_some_and(|end| end <= now) => "expired",
        State::Active if !listing.is_active(body.scope.as_ref()) => "suspended",
        State::Active if body.owner.as_ref().is_some_and(|owner| !listing.may_own(owner)) => "owner stopped",
        State::Active => body.state.label(),
    }
}

fn scope(body: &KeyBody) -> String {
    body.scope.as_ref().map_or_else(|| "everywhere".to_owned(), ToString::to_string)
}

fn limit(body: &KeyBody) -> String {
    body.rate_limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

fn expiry(body: &KeyBody) -> String {
    body.expires_at.map_or_else(|| "never".to_owned(), minutes)
}

/// The first networks of a list; the rest is counted.
fn addresses(ips: &[String]) -> String {
    match ips {
        [] => "any".to_owned(),
        [first] => printable(first),
        [first, second] => printable(&format!("{first},{second}")),
        [first, second, rest @ ..] => printable(&format!("{first},{second},+{}", rest.len())),
    }
}

/// A time to the minute, which is what fits into a column.
fn minutes(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{}Z", text.get(.."2027-01-31T12:00".len()).unwrap_or(&text))
}

/// What is shown of a value.
#[derive(Serialize)]
struct SecretView<'s> {
    hint: Option<&'s str>,
    shape: Option<&'s str>,
    created_time: Timestamp,
    not_after: Option<Timestamp>,
}

impl<'s> From<&'s SecretBody> for SecretView<'s> {
    fn from(body: &'s SecretBody) -> Self {
        Self {
            hint: body.hint.as_deref(),
            shape: body.shape.as_deref(),
            created_time: body.created_time,
            not_after: body.not_after,
        }
    }
}

/// Shows one key.
pub(super) async fn one(
    id: &str,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct WithSecrets<'k> {
        #[serde(flatten)]
        key: &'k Stored<KeyBody>,
        secrets: Vec<SecretView<'k>>,
    }
    let key = place.key(id).await?;
    let secrets = place.values_of(id).await?;
    let secrets = secrets.iter().map(SecretView::from).collect();
    match output {
        Output::Json => console.json(&WithSecrets { key: &key, secrets })?,
        Output::Table => {
            let state = standing(&key.body, &place.listing().await?, place.now());
            // Who may not see them is told of none.
            let bindings = place.bindings().await.unwrap_or_default();
            let of_key = |binding: &&Stored<BindingBody>| binding.body.subject == Subject::Key(key.id.clone());
            let roles: Vec<&str> = bindings.iter().filter(of_key).map(|binding| &*binding.body.role).collect();
            details(&key, state, &roles, &secrets, console)?;
        }
    }
    Ok(Exit::Ok)
}

/// A key as lines of `field  value`, then its values as a table.
fn details(
    key: &Stored<KeyBody>,
    state: &str,
    roles: &[&str],
    secrets: &[SecretView<'_>],
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let body = &key.body;
    let or_dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), printable);
    let all = |words: &str| if words.is_empty() { "-".to_owned() } else { printable(words) };
    let who = |name: &Option<String>, time| format!("{time} by {}", or_dash(name.as_deref()));
    for (field, value) in [
        ("id", key.id.to_string()),
        ("name", printable(&body.name)),
        ("state", state.to_owned()),
        ("access", body.access.label().to_owned()),
        ("env", body.env.label().to_owned()),
        ("scope", scope(body)),
        ("ips", if body.ips.is_empty() { "any".to_owned() } else { printable(&body.ips.join(", ")) }),
        ("rate limit", limit(body)),
        ("user", or_dash(body.user.as_deref())),
        ("owner", or_dash(body.owner.as_deref())),
        ("parent", or_dash(body.parent.as_deref())),
        ("roles", all(&roles.join(", "))),
        ("tags", all(&body.tags.join(", "))),
        ("recoverable", if body.recoverable { "yes" } else { "no" }.to_owned()),
        ("expires", body.expires_at.map_or_else(|| "never".to_owned(), |time| time.to_string())),
        ("created", who(&body.created_by, body.created_time)),
        ("updated", who(&body.updated_by, body.updated_time)),
        ("revision", key.revision.to_string()),
    ] {
        console.line(format_args!("{field:12}{value}"))?;
    }
    console.line("")?;
    let row = |secret: &SecretView<'_>| {
        let end = secret.not_after.map_or_else(|| "with the key".to_owned(), |time| time.to_string());
        [or_dash(secret.hint), or_dash(secret.shape), secret.created_time.to_string(), end]
    };
    console.table(["HINT", "SHAPE", "CREATED", "ENDS"], secrets.iter().map(row))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::testing::{Bench, locksmith};
    use crate::store::record::UserState;

    #[test]
    fn a_table_says_whether_keys_work() {
        let bench = Bench::new();
        bench.create("--name CI --id a --read-only --ip 10.0.0.0/8 --env test --rate-limit 5/60s --expires 2027-01-31");
        bench.create("--name Two --id b --ip ::1,::2,::3,::4");
        bench.create("--name Three --id c --scope organization:acme/project:p1");
        bench.key("disable b", Output::Table);
        bench.scope("suspend organization:acme", Output::Table);
        let out = bench.key("list", Output::Table).out;
        let cells: Vec<Vec<&str>> =
            out.lines().map(|line| line.split("  ").filter(|c| !c.is_empty()).collect()).collect();
        let (scope, created) = ("organization:acme/project:p1", "2026-11-22T12:00Z");
        let header = ["ID", "NAME", "STATE", "ACCESS", "ENV", "SCOPE", "IPS", "LIMIT", "EXPIRES", "CREATED"];
        let a = [
            "a",
            "CI",
            "active",
            "read-only",
            "test",
            "everywhere",
            "10.0.0.0/8",
            "5/1m",
            "2027-01-31T00:00Z",
            created,
        ];
        let b = ["b", "Two", "disabled", "read-write", "live", "everywhere", "::1,::2,+2", "none", "never", created];
        let c = ["c", "Three", "suspended", "read-write", "live", scope, "any", "none", "never", created];
        assert_eq!(
            cells.iter().map(|row| row.iter().map(|c| c.trim()).collect()).collect::<Vec<Vec<_>>>(),
            [header, a, b, c]
        );
        let list = bench.key("list", Output::Json).json();
        assert_eq!(list.as_array().map(Vec::len), Some(3));
        assert_eq!((&list[2]["id"], &list[2]["state"]), (&"c".into(), &"active".into()));
        assert_eq!(Bench::new().key("list", Output::Json).out, "[]\n");
    }

    #[test]
    fn an_expired_key_is_shown_as_such() {
        let mut bench = Bench::new();
        bench.create("--name CI --id a --expires 1h");
        bench.session.now = bench.session.now.plus(std::time::Duration::from_secs(3600));
        assert!(bench.key("list", Output::Table).out.contains("expired"));
    }

    #[test]
    fn a_key_that_stops_with_another_or_with_its_owner_is_shown_as_such() {
        let bench = Bench::new();
        bench.create("--name above --id a --tag one --recoverable --role admin");
        bench.create("--name below --id b --parent a");
        bench.create("--name lower --id c --parent b");
        let state = |id: &str| {
            let shown = bench.key(&format!("show {id}"), Output::Table).out;
            let listed = bench.key("list", Output::Table).out;
            let state = shown.lines().find_map(|line| line.strip_prefix("state       ")).unwrap().to_owned();
            let row = listed.lines().find(|line| line.starts_with(&format!("{id} "))).unwrap();
            assert!(row.contains(&format!("  {state}  ")), "{row} {state}");
            state
        };
        assert_eq!(["a", "b", "c"].map(state), ["active"; 3]);
        let shown = bench.key("show a", Output::Table).out;
        for line in ["roles       admin", "tags        one", "recoverable yes", "parent      -", "owner       -"] {
            assert!(shown.contains(&format!("{line}\n")), "{line}: {shown}");
        }
        assert!(bench.key("show c", Output::Table).out.contains("parent      b\n"));
        bench.key("disable a", Output::Table);
        assert_eq!(["a", "b", "c"].map(state), ["disabled", "parent stopped", "parent stopped"]);
    }

    #[test]
    fn a_key_of_somebody_who_may_not_use_the_api_does_not_work() {
        let (bench, mut body) = (Bench::new(), crate::manage::testing::key_body("CI"));
        let mut ann = crate::manage::testing::user_body("ann@example.com");
        body.owner = Some("u1".into());
        for (access, state, expected) in [
            (true, UserState::Active, "active"),
            (false, UserState::Active, "owner stopped"),
            (true, UserState::Suspended, "owner stopped"),
        ] {
            (ann.api_access, ann.state) = (access, state);
            let users = Some(vec![Stored { id: "u1".into(), revision: 1, body: ann.clone() }]);
            let listing = Listing { keys: vec![], scopes: BTreeMap::default(), users, unreadable: vec![] };
            assert_eq!(standing(&body, &listing, bench.session.now), expected);
        }
    }

    #[test]
    fn of_a_value_only_the_hint_is_shown() {
        let bench = Bench::new();
        let json = bench.key("create --name CI --id k1 --ip ::1", Output::Json).json();
        let value = json["value"].as_str().unwrap();
        let digest = locksmith().format.parse(value.as_bytes()).unwrap().digest(&locksmith().pepper).to_record_id();
        for output in [Output::Table, Output::Json] {
            let out = bench.key("show k1", output).out;
            assert!(out.contains(&value[8..16]) && !out.contains(&value[8..17]) && !out.contains(&digest), "{out}");
        }
        let shown = bench.key("show k1", Output::Json).json();
        assert_eq!(shown["secrets"].as_array().map(Vec::len), Some(1));
        assert_eq!((&shown["name"], &shown["revision"]), (&"CI".into(), &1.into()));
        let ran = bench.key("show k2", Output::Table);
        assert_eq!((ran.code, ran.err.as_str()), (4, "no key k2; `keyward key list` shows all"));
        let ran = bench.key(&format!("show {value}"), Output::Table);
        assert!(ran.code == 4 && !ran.err.contains(value), "{ran:?}");
    }

    #[test]
    fn names_give_no_orders_to_a_terminal() {
        assert_eq!(addresses(&["\u{1b}[2J".to_owned()]), "\u{fffd}[2J");
    }
}
