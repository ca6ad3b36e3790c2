//! `keyward key update`, `disable`, `enable` and `revoke`: one key, changed against the revision that was read.

use clap::Args;
use serde_json::Value;

use crate::auth::grant::{Access, State, Timestamp};
use crate::auth::scope::Scope;
use crate::cli::console::{Console, Output, printable};
use crate::cli::exit::{Exit, Failure};
use crate::cli::flags::{Env, end};
use crate::cli::place::Place;
use crate::manage::key::{Changed, Patch};
use crate::manage::values::{Expiry, KeyName, Net, RateLimit, UserName};

const EXAMPLES: &str = "\
Examples:
  keyward key update ID --name \"CI of Acme\" --read-only
  keyward key update ID --ip 10.0.0.0/8 --ip 2001:db8::/32
  keyward key update ID --expires 90d --rate-limit 100/1m

A list of networks replaces the one before. A change that lets the key do more is marked in the audit.";

/// What `keyward key update` takes.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, override_usage = "keyward key update [OPTIONS] <ID>")]
pub(crate) struct UpdateArgs {
    /// The key
    id: String,
    #[command(flatten)]
    changes: Changes,
}

/// What can be changed; at least one thing must be.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Changes {
    /// What people call it, 1 to 50 characters
    #[arg(long)]
    name: Option<KeyName>,
    /// Let it only read
    #[arg(long, conflicts_with = "read_write")]
    read_only: bool,
    /// Let it write too
    #[arg(long)]
    read_write: bool,
    /// An address or network that it may be used from, instead of those before
    #[arg(long = "ip", value_name = "NET", value_delimiter = ',', conflicts_with = "any_ip")]
    ips: Vec<Net>,
    /// Let it be used from anywhere
    #[arg(long)]
    any_ip: bool,
    /// Where it acts
    #[arg(long, value_parser = Scope::parse, conflicts_with = "everywhere")]
    scope: Option<Scope>,
    /// Let it act everywhere
    #[arg(long)]
    everywhere: bool,
    /// Its world
    #[arg(long, value_enum)]
    env: Option<Env>,
    /// How often it may be used: 100/1m, 10000/1d; none for as often as it likes
    #[arg(long, value_name = "REQUESTS/TIME")]
    rate_limit: Option<RateLimit>,
    /// When it ends: 90d, 2027-01-31, 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "never_expires")]
    expires: Option<Expiry>,
    /// Let it never end
    #[arg(long)]
    never_expires: bool,
    /// Who it was handed to
    #[arg(long, conflicts_with = "no_user")]
    user: Option<UserName>,
    /// Hand it to nobody
    #[arg(long)]
    no_user: bool,
    /// The user, by id, to whose account it is bound
    #[arg(long, value_name = "USER", conflicts_with = "no_owner")]
    owner: Option<String>,
    /// Bind it to nobody's account
    #[arg(long)]
    no_owner: bool,
    /// Keep its values sealed, from the next one on
    #[arg(long, conflicts_with = "not_recoverable")]
    recoverable: bool,
    /// Keep no value, and forget the one that is kept
    #[arg(long)]
    not_recoverable: bool,
}

impl Changes {
    fn patch(self, now: Timestamp) -> Result<Patch, Failure> {
        let access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let expires_at = self.expires.map(|expiry| end(expiry, now)).transpose()?;
        Ok(Patch {
            name: self.name,
            access: (self.read_only || self.read_write).then_some(access),
            ips: (self.any_ip || !self.ips.is_empty()).then_some(self.ips),
            scope: (self.everywhere || self.scope.is_some()).then_some(self.scope),
            env: self.env.map(Into::into),
            rate_limit: self.rate_limit.map(|limit| limit.0),
            expires_at: (self.never_expires || expires_at.is_some()).then_some(expires_at),
            user: (self.no_user || self.user.is_some()).then_some(self.user),
            owner: (self.no_owner || self.owner.is_some()).then(|| self.owner.map(Into::into)),
            recoverable: (self.recoverable || self.not_recoverable).then_some(self.recoverable),
            enabled: None,
        })
    }
}

/// Changes what a key is.
pub(super) async fn update(
    args: UpdateArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let changed = place.update_key(&args.id, &args.changes.patch(place.now())?).await?;
    tell(&changed, output, console)
}

/// A key's new state.
pub(super) struct StateChange {
    /// The key.
    pub(super) id: String,
    /// What it will be.
    pub(super) state: State,
}

/// Disables or enables a key.
pub(super) async fn set_state(
    StateChange { id, state }: StateChange,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let changed = place.set_key_state(&id, state, None).await?;
    tell(&changed, output, console)
}

fn tell(change: &Changed, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    changed(change, console);
    named(change, output, console)
}

/// Tells what changed.
pub(super) fn changed(change: &Changed, console: &mut Console<'_>) {
    match change {
        Changed::No(key) => console.note(format_args!("key {} is like that already", key.id)),
        Changed::Yes { key, fields } => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} {}", shown(value))).collect();
            console.note(format_args!("key {} changed: {}", key.id, printable(&fields.join(", "))));
        }
    }
}

/// Writes the key as it is now.
pub(super) fn named(change: &Changed, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    match output {
        Output::Table => {}
        Output::Json => console.json(change.key())?,
    }
    Ok(Exit::Ok)
}

/// A field's value in a sentence.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "any".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::testing::Bench;

    #[track_caller]
    fn check(created: &str, updated: &str, expected: Value) {
        let bench = Bench::new();
        bench.create(&format!("--name CI --id k1 {created}"));
        let ran = bench.key(&format!("update k1 {updated}"), Output::Json);
        assert_eq!((ran.code, &ran.json()["updated_by"]), (0, &json!("cli:ann")), "{ran:?}");
        let detail = bench.session.store.commits()[1].detail.clone();
        let escalation = detail.get("escalation").cloned().unwrap_or(Value::Bool(false));
        assert_eq!(json!([detail["before"], detail["after"], escalation]), expected, "{updated}");
    }

    /// Failure 23 among them: what empties a list that narrowed a key widens it.
    #[test]
    fn failure_23_the_audit_has_what_changed_and_whether_it_widens_access() {
        check("", "--name Two", json!([{"name": "CI"}, {"name": "Two"}, false]));
        check("", "--read-only", json!([{"access": "read-write"}, {"access": "read-only"}, false]));
        check("--read-only", "--read-write", json!([{"access": "read-only"}, {"access": "read-write"}, true]));
        check("", "--ip ::1 --ip ::2", json!([{"ips": []}, {"ips": ["::1", "::2"]}, false]));
        check("--ip ::1", "--any-ip", json!([{"ips": ["::1"]}, {"ips": []}, true]));
        check("", "--scope organization:a", json!([{"scope": null}, {"scope": "organization:a"}, false]));
        check("--scope organization:a", "--everywhere", json!([{"scope": "organization:a"}, {"scope": null}, true]));
        check("--user ann", "--no-user", json!([{"user": "ann"}, {"user": null}, false]));
        check("--env test", "--env live", json!([{"env": "test"}, {"env": "live"}, true]));
        check("", "--rate-limit 5/1s", json!([{"rate_limit": null}, {"rate_limit": "5/1s"}, false]));
        check("--rate-limit 5/1s", "--rate-limit none", json!([{"rate_limit": "5/1s"}, {"rate_limit": null}, true]));
        let time = "2027-02-20T12:00:00.000Z";
        check("", "--expires 90d", json!([{"expires_at": null}, {"expires_at": time}, false]));
        check("--expires 90d", "--never-expires", json!([{"expires_at": time}, {"expires_at": null}, true]));
    }

    #[test]
    fn a_change_that_changes_nothing_is_none() {
        let bench = Bench::new();
        bench.create("--name CI --id k1");
        for words in ["update k1 --name CI", "update k1 --any-ip", "update k1 --rate-limit none", "enable k1"] {
            let ran = bench.key(words, Output::Table);
            assert_eq!((ran.code, ran.err.as_str()), (0, "key k1 is like that already\n"), "{words}");
        }
        assert_eq!(bench.session.store.commits().len(), 1);
    }

    #[test]
    fn revoked_is_final() {
        let bench = Bench::new();
        bench.create("--name CI --id k1");
        for (words, code, state) in [
            ("disable k1", 0, "disabled"),
            ("enable k1", 0, "active"),
            ("disable k1", 0, "disabled"),
            ("revoke k1 --reason leaked", 0, "revoked"),
            ("revoke k1", 0, "revoked"),
            ("enable k1", 5, "revoked"),
            ("disable k1", 5, "revoked"),
            ("update k1 --name Two", 5, "revoked"),
            ("rotate k1", 5, "revoked"),
            ("enable k2", 4, "revoked"),
            ("update k2 --name Two", 4, "revoked"),
        ] {
            assert_eq!(bench.key(words, Output::Table).code, code, "{words}");
            assert_eq!(bench.key("show k1", Output::Json).json()["state"], state, "{words}");
        }
        let commits = bench.session.store.commits();
        let (actions, last) = (commits.iter().map(|commit| commit.action).collect::<Vec<_>>(), commits.last().unwrap());
        assert_eq!(actions, ["key.create", "key.disable", "key.enable", "key.disable", "key.revoke"]);
        assert_eq!(last.detail["reason"], "leaked");
    }

    #[test]
    fn a_change_starts_over_when_others_are_quicker() {
        for (conflicts, code) in [(0, 0), (2, 0), (3, 5)] {
            let bench = Bench::new();
            bench.create("--name CI --id k1");
            bench.session.store.fail_commits(conflicts);
            let ran = bench.key("update k1 --name Two", Output::Table);
            assert_eq!(ran.code, code, "{ran:?}");
        }
    }

    #[test]
    fn what_is_told_is_a_sentence() {
        let bench = Bench::new();
        bench.create("--name CI --id k1 --ip ::1");
        let ran = bench.key("update k1 --any-ip --scope organization:a --user bob", Output::Table);
        assert_eq!(
            (ran.out.as_str(), ran.err.as_str()),
            ("", "key k1 changed: ips any, scope organization:a, user bob\n")
        );
    }
}
