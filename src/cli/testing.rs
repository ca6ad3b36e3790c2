//! What the tests of the commands share: a store in memory, and a console that remembers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clap::Parser;

use super::console::{Console, Output};
use super::exit::{Exit, Failure};
use super::key::KeyCommand;
use super::records::Session;
use crate::auth::Locksmith;
use crate::auth::digest::Pepper;
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::key::{Alphabet, Brand, KeyFormat, Shape};
use crate::store::record::{KeyBody, KeyType, Record, RecordId};
use crate::store::{Commit, CommitError, Expect, Pull, Records, Revision, Store, StoreError};

/// When all tests happen.
pub(super) fn noon() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

/// Our own keys, and those of two others.
pub(super) fn locksmith() -> Locksmith {
    let shape = |name: &str, length, alphabet| Shape { name: name.into(), length, alphabet };
    let shapes = vec![shape("cablecast", 20, Alphabet::Hex), shape("apivideo", 23, Alphabet::Base62)];
    let pepper = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    Locksmith { format: KeyFormat::new(Brand::parse("kw").unwrap(), shapes), pepper: Pepper::from_hex(pepper).unwrap() }
}

/// A key that may do everything.
pub(super) fn key_body(name: &str) -> KeyBody {
    KeyBody {
        name: name.to_owned(),
        key_type: KeyType::Api,
        user: None,
        scope: None,
        env: Environment::Live,
        access: Access::ReadWrite,
        ips: vec![],
        rate_limit: None,
        expires_at: None,
        state: State::Active,
        created_by: None,
        created_time: noon(),
        updated_by: None,
        updated_time: noon(),
    }
}

/// A store that keeps everything in memory, and can be told to be slower than others.
#[derive(Default)]
pub(super) struct MemoryStore {
    state: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    number: u64,
    records: BTreeMap<RecordId, Record>,
    commits: Vec<Commit>,
    conflicts: usize,
    gets: usize,
}

impl MemoryStore {
    /// The next commits come too late.
    pub(super) fn fail_commits(&self, count: usize) {
        self.state.lock().unwrap().conflicts = count;
    }

    /// What was committed, in order.
    pub(super) fn commits(&self) -> Vec<Commit> {
        self.state.lock().unwrap().commits.clone()
    }

    /// All records there are.
    pub(super) fn records(&self) -> Vec<Record> {
        self.state.lock().unwrap().records.values().cloned().collect()
    }

    /// How many records were asked for one by one.
    pub(super) fn gets(&self) -> usize {
        self.state.lock().unwrap().gets
    }
}

impl Store for MemoryStore {
    async fn pull(&self, _since: Option<Revision>) -> Result<Pull, StoreError> {
        let state = self.state.lock().unwrap();
        let records = Records::from_vec(state.records.values().cloned().collect());
        Ok(Pull { revision: revision(state.number), full: true, now: noon(), records })
    }

    async fn changed(&self, _since: Option<Revision>) {
        std::future::pending::<()>().await;
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        let mut state = self.state.lock().unwrap();
        state.gets += 1;
        Ok((revision(state.number), state.records.get(id).cloned()))
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        let mut state = self.state.lock().unwrap();
        if state.conflicts > 0 {
            state.conflicts -= 1;
            return Err(CommitError::Conflict(commit.changes[0].id.clone()));
        }
        for change in &commit.changes {
            let there = state.records.get(&change.id).map(|record| record.revision);
            let holds = match change.expect {
                Expect::Absent => there.is_none(),
                Expect::At(number) => there == Some(number),
                Expect::Any => true,
            };
            if !holds {
                return Err(CommitError::Conflict(change.id.clone()));
            }
        }
        state.number += 1;
        let number = state.number;
        for change in &commit.changes {
            let record = Record { id: change.id.clone(), revision: number, body: change.body.clone() };
            state.records.insert(change.id.clone(), record);
        }
        state.commits.push(commit);
        Ok(revision(number))
    }
}

fn revision(number: u64) -> Revision {
    Revision { number, chain: [0; 32] }
}

/// A store, and what the commands on it print.
pub(super) struct Bench {
    /// What the commands work with.
    pub(super) session: Session<MemoryStore>,
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its exit code.
    pub(super) code: u8,
    /// Its data.
    pub(super) out: String,
    /// Everything else, its failure included.
    pub(super) err: String,
}

impl Ran {
    /// Its data as JSON.
    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// Runs one command with a console that remembers.
pub(super) fn remember(run: impl FnOnce(&mut Console<'_>) -> Result<Exit, Failure>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let result = run(&mut Console::new(&mut out, &mut err));
    let (code, failure) = match result {
        Ok(exit) => (exit.code(), String::new()),
        Err(failure) => (Exit::from(&failure).code(), failure.to_string()),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) + &failure }
}

impl Bench {
    /// An empty store.
    pub(super) fn new() -> Self {
        let (store, locksmith, actor) = (MemoryStore::default(), Arc::new(locksmith()), "cli:ann".to_owned());
        Self { session: Session { store, locksmith, actor, now: noon() } }
    }

    /// Runs `keyward key …`; words are apart by spaces.
    #[track_caller]
    pub(super) fn key(&self, words: &str, output: Output) -> Ran {
        let command: KeyCommand = key_command(words);
        remember(|console| block_on(super::key::run(command, &self.session, output, console)))
    }

    /// Runs `keyward scope …`.
    #[track_caller]
    pub(super) fn scope(&self, words: &str, output: Output) -> Ran {
        let super::Command::Scope { command, .. } = command(&format!("scope {words}")) else { panic!("{words}") };
        remember(|console| block_on(super::scope::run(command, &self.session, output, console)))
    }

    /// The id of a new key, made with these words.
    #[track_caller]
    pub(super) fn create(&self, words: &str) -> String {
        let ran = self.key(&format!("create {words}"), Output::Json);
        ran.json()["id"].as_str().unwrap().to_owned()
    }
}

/// The command that these words are; they are apart by spaces.
#[track_caller]
fn command(words: &str) -> super::Command {
    let cli = super::Cli::try_parse_from(["keyward"].into_iter().chain(words.split_whitespace()));
    cli.unwrap_or_else(|error| panic!("{words}: {error}")).command
}

/// The command of `keyward key` that these words are.
#[track_caller]
pub(super) fn key_command(words: &str) -> KeyCommand {
    let super::Command::Key { command, .. } = command(&format!("key {words}")) else { panic!("{words}") };
    command
}

/// Runs a future on a thread of its own making.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
