//! `keyward key create`: a key, its first value and the scopes it needs, in one commit, or printed for files that
//! something else writes.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Locksmith;
use crate::auth::grant::{Access, Timestamp};
use crate::auth::scope::Scope;
use crate::cli::console::{Console, Output, printable};
use crate::cli::exit::{Exit, Failure};
use crate::cli::flags::{Env, end};
use crate::cli::place::Place;
use crate::manage::Stored;
use crate::manage::key::{Draft, NewKey};
use crate::manage::values::{Expiry, KeyId, KeyName, Net, RateLimit, RoleName, Tag, UserName};
use crate::store::record::KeyBody;

const EXAMPLES: &str = "\
Examples:
  keyward key create --name CI
  keyward key create --name Monitoring --read-only --ip 10.0.0.0/8 --expires 90d
  keyward key create --name Acme --scope organization:acme/project:p1 --output json
  keyward key create --name admin --role admin
  K=$(keyward key create --name CI)

The value is printed once, on stdout alone. It cannot be shown again: only a digest of it is stored.";

/// What `keyward key create` takes.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// What people call it, 1 to 50 characters
    #[arg(long)]
    name: KeyName,
    /// Let it only read
    #[arg(long)]
    read_only: bool,
    /// An address or network that it may be used from; any if none is given
    #[arg(long = "ip", value_name = "NET", value_delimiter = ',')]
    ips: Vec<Net>,
    /// Where it acts; everywhere if not given
    #[arg(long, value_parser = Scope::parse)]
    scope: Option<Scope>,
    /// Its world
    #[arg(long, value_enum, default_value = "live")]
    env: Env,
    /// How often it may be used: 100/1m, 10000/1d; as often as it likes if not given
    #[arg(long, value_name = "REQUESTS/TIME")]
    rate_limit: Option<RateLimit>,
    /// When it ends: 90d, 2027-01-31, 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<Expiry>,
    /// Who it is handed to, where the upstream wants to know users
    #[arg(long)]
    user: Option<UserName>,
    /// What it may manage by the API, within its scope: admin (all), observer (look), member (see keys), or a role of
    /// your own; nothing if not given
    #[arg(long)]
    role: Option<RoleName>,
    /// A key above it: the new one never may more, and stops working with it
    #[arg(long, value_name = "ID")]
    parent: Option<KeyId>,
    /// The user, by id, to whose account it is bound: it works while they may use the API
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// A word by which people find it; may be given several times
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<Tag>,
    /// Keep its value sealed, so that it may be looked up again
    #[arg(long, conflicts_with = "record")]
    recoverable: bool,
    /// Its id, if it must be a certain one
    #[arg(long)]
    id: Option<KeyId>,
    /// Print the records and write nothing: for stores of files
    #[arg(long)]
    pub(crate) record: bool,
}

impl CreateArgs {
    fn key(self, now: Timestamp) -> Result<NewKey, Failure> {
        Ok(NewKey {
            id: self.id,
            name: self.name,
            user: self.user,
            owner: self.owner.map(Into::into),
            parent: self.parent.map(|parent| parent.0.into()),
            tags: self.tags.into_iter().map(|tag| tag.0).collect(),
            recoverable: self.recoverable,
            scope: self.scope,
            env: self.env.into(),
            access: if self.read_only { Access::ReadOnly } else { Access::ReadWrite },
            ips: self.ips,
            rate_limit: self.rate_limit.and_then(|limit| limit.0),
            expires_at: self.expires.map(|expiry| end(expiry, now)).transpose()?,
            role: self.role,
        })
    }
}

/// Makes a key in the store.
pub(crate) async fn run(
    args: CreateArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    console.must_be_heard()?;
    let created = place.create_key(args.key(place.now())?).await?;
    for scope in &created.scopes {
        console.note(format_args!("scope {scope} created"));
    }
    let key = created.key;
    console.note(format_args!("key {} created: {}", key.id, printable(&key.body.name)));
    print_value(&key, created.secret.reveal(), output, console)?;
    Ok(Exit::Ok)
}

/// Prints a new value of a key. It is stored by now, so if nobody takes the value, that must be told.
pub(super) fn print_value(
    key: &Stored<KeyBody>,
    value: &str,
    output: Output,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct WithValue<'k> {
        #[serde(flatten)]
        key: &'k Stored<KeyBody>,
        value: &'k str,
    }
    let written = match output {
        Output::Table => console.line(value),
        Output::Json => console.json(&WithValue { key, value }),
    };
    written.and_then(|()| console.flush()).map_err(|why| {
        let id = &key.id;
        Failure::Failed(format!(
            "key {id} has a new value that was not printed: {why}; `keyward key rotate {id}` makes another"
        ))
    })?;
    if key.body.recoverable {
        console.note(format_args!("`keyward key reveal {}` shows the value again.", key.id));
    } else {
        console.note("This is the only time that the value is shown.");
    }
    Ok(())
}

/// Makes a key and prints its records instead of storing them.
pub(crate) fn record(
    args: CreateArgs,
    locksmith: &Locksmith,
    (actor, now): (&str, Timestamp),
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Document<'d> {
        pepper_check: &'d str,
        records: &'d [Value],
    }
    #[derive(Serialize)]
    struct WithRecords<'d> {
        id: &'d str,
        #[serde(flatten)]
        body: &'d KeyBody,
        value: &'d str,
        #[serde(flatten)]
        document: Document<'d>,
    }
    let draft = Draft::new(args.key(now)?, locksmith, actor, now)?;
    let records = draft.records(locksmith);
    let document = Document { pepper_check: &locksmith.pepper.check().to_hex(), records: &records };
    let value = draft.secret.reveal();
    match output {
        Output::Table => {
            console.line(value)?;
            console.line("")?;
            console.pretty_json(&document)?;
        }
        Output::Json => console.json(&WithRecords { id: &draft.id, body: &draft.body, value, document })?,
    }
    console.flush()?;
    console.note(
        "Nothing was stored. Put these records where the store reads; a record that is there already is left out.",
    );
    console.note("This is the only time that the value is shown; the records do not contain it.");
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::*;
    use crate::cli::key::KeyCommand;
    use crate::cli::testing::{Bench, block_on, key_command, locksmith, noon};
    use crate::store::record::{Body, Kind, RecordId};

    #[test]
    fn stdout_has_the_value_alone() {
        let bench = Bench::new();
        let ran = bench.key("create --name CI --scope organization:acme/project:p1 --id k1", Output::Table);
        assert_eq!(ran.code, 0);
        let value = ran.out.strip_suffix('\n').unwrap();
        assert!(bench.session.locksmith.format.parse(value.as_bytes()).is_some(), "{}", ran.out);
        assert_eq!(
            ran.err,
            "scope organization:acme created\nscope organization:acme/project:p1 created\nkey k1 created: CI\n\
             This is the only time that the value is shown.\n"
        );
    }

    #[test]
    fn one_commit_makes_everything_and_its_audit_has_no_secret() {
        let bench = Bench::new();
        let words = "create --name CI --read-only --ip 10.0.0.0/8,::1 --scope organization:acme --env test --user ann \
                     --rate-limit 100/60s --expires 90d";
        let ran = bench.key(words, Output::Json);
        let (json, commits) = (ran.json(), bench.session.store.commits());
        let value = json["value"].as_str().unwrap();
        assert!(value.starts_with("kw_test_"), "{value}");
        assert_eq!(commits.len(), 1);
        let kinds: Vec<Kind> = commits[0].changes.iter().map(|change| change.id.kind).collect();
        assert_eq!(kinds, [Kind::Scope, Kind::Key, Kind::Secret]);
        assert_eq!((commits[0].action, commits[0].actor.as_str()), ("key.create", "cli:ann"));
        let digest = &commits[0].changes[2].id.id;
        let detail = commits[0].detail.to_string();
        assert!(!detail.contains(value) && !detail.contains(&**digest) && detail.contains("read-only"), "{detail}");
        for (field, expected) in [
            ("revision", json!(1)),
            ("name", json!("CI")),
            ("access", json!("read-only")),
            ("ips", json!(["10.0.0.0/8", "::1"])),
            ("scope", json!("organization:acme")),
            ("env", json!("test")),
            ("user", json!("ann")),
            ("rate_limit", json!("100/1m")),
            ("expires_at", json!("2027-02-20T12:00:00.000Z")),
            ("state", json!("active")),
            ("created_by", json!("cli:ann")),
        ] {
            assert_eq!(json[field], expected, "{field}");
        }
    }

    #[test]
    fn what_is_there_already_is_not_overwritten() {
        let bench = Bench::new();
        bench.create("--name a --id k1");
        let ran = bench.key("create --name b --id k1", Output::Table);
        assert_eq!((ran.code, ran.out.as_str()), (5, ""));
        assert_eq!(ran.err, "key k1 is there already; `keyward key show k1` shows it");
        // A scope is there already: it is used.
        bench.create("--name c --scope organization:acme");
        let ran = bench.key("create --name d --scope organization:acme", Output::Table);
        assert!(ran.code == 0 && !ran.err.contains("scope"), "{ran:?}");
        // Somebody else makes the scope at the same time.
        bench.session.store.fail_commits(2);
        assert_eq!(bench.key("create --name e --scope organization:new", Output::Table).code, 0);
        bench.session.store.fail_commits(3);
        assert_eq!(bench.key("create --name e --scope organization:newer", Output::Table).code, 5);
        assert_eq!(bench.key("create --name f --expires 2020-01-01", Output::Table).code, 2);
    }

    #[test]
    fn a_value_that_nobody_took_is_told() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (bench, mut err) = (Bench::new(), Vec::new());
        let id = bench.create("--name CI");
        let key = block_on(bench.session.key(&id)).unwrap();
        let failure =
            print_value(&key, "kw_live_x", Output::Table, &mut Console::new(&mut Full, &mut err)).unwrap_err();
        assert_eq!(Exit::from(&failure), Exit::Failed);
        assert!(failure.to_string().contains(&format!("`keyward key rotate {id}` makes another")), "{failure}");
    }

    #[track_caller]
    fn record(words: &str, output: Output) -> String {
        let KeyCommand::Create(args) = key_command(words) else { panic!("{words}") };
        let (bench, mut out, mut err) = (Bench::new(), Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err);
        super::record(args, &bench.session.locksmith, ("cli:ann", noon()), output, &mut console).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_can_be_committed_by_somebody_else() {
        let text = record("create --name CI --scope organization:acme/project:p1 --record", Output::Table);
        let (value, document) = text.split_once("\n\n").unwrap();
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["pepper_check"].as_str().map(str::len), Some(64));
        let records = document["records"].as_array().unwrap();
        for record in records {
            let kind = Kind::parse(record["kind"].as_str().unwrap()).unwrap();
            let id = RecordId { kind, id: record["id"].as_str().unwrap().into() };
            Body::parse(&id, &record["body"].to_string()).unwrap();
        }
        assert_eq!((records.len(), value.len()), (4, 48));
        let Locksmith { format, pepper } = locksmith();
        let digest = format.parse(value.as_bytes()).unwrap().digest(&pepper).to_record_id();
        assert_eq!(records[3]["id"], digest);

        let json: Value = serde_json::from_str(&record("create --name CI --record", Output::Json)).unwrap();
        assert_eq!((json["name"].as_str(), json["records"].as_array().map(Vec::len)), (Some("CI"), Some(2)));
        assert!(json["value"].is_string() && json["pepper_check"].is_string());
    }
}
