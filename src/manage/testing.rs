//! What the tests of changes share: a store in memory that can be slower than others.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::auth::Locksmith;
use crate::auth::digest::{Digest, Pepper};
use crate::auth::grant::{Access, Environment, State, Timestamp};
use crate::auth::key::{Alphabet, Brand, KeyFormat, Shape};
use crate::store::ledger::audit::{Line, Page};
use crate::store::ledger::nodes::{Node, Report};
use crate::store::ledger::usage::{Usage, Uses};
use crate::store::ledger::{Ledger, LedgerError};
use crate::store::record::{KeyBody, KeyType, Kind, Record, RecordId, UserBody, UserState};
use crate::store::{Commit, CommitError, Expect, Pull, Records, Revision, Store, StoreError};

/// When all tests happen.
pub(crate) fn noon() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

/// Our own keys, and those of two others.
pub(crate) fn locksmith() -> Locksmith {
    let shape = |name: &str, length, alphabet| Shape { name: name.into(), length, alphabet };
    let shapes = vec![shape("cablecast", 20, Alphabet::Hex), shape("apivideo", 23, Alphabet::Base62)];
    let pepper = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    Locksmith { format: KeyFormat::new(Brand::parse("kw").unwrap(), shapes), pepper: Pepper::from_hex(pepper).unwrap() }
}

/// A key that may do everything.
pub(crate) fn key_body(name: &str) -> KeyBody {
    KeyBody {
        name: name.to_owned(),
        key_type: KeyType::Api,
        owner: None,
        parent: None,
        tags: vec![],
        recoverable: false,
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

/// A user who may sign in and nothing else.
pub(crate) fn user_body(email: &str) -> UserBody {
    UserBody {
        email: email.to_owned(),
        name: None,
        scope: None,
        state: UserState::Active,
        api_access: false,
        password_time: None,
        created_by: None,
        created_time: noon(),
        updated_by: None,
        updated_time: noon(),
    }
}

/// A store that keeps everything in memory, and can be told to be slower than others.
#[derive(Default)]
pub(crate) struct MemoryStore {
    state: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    number: u64,
    records: BTreeMap<RecordId, Record>,
    commits: Vec<Commit>,
    conflicts: usize,
    gets: usize,
    nodes: Vec<Node>,
}

impl MemoryStore {
    /// The next commits come too late.
    pub(crate) fn fail_commits(&self, count: usize) {
        self.state.lock().unwrap().conflicts = count;
    }

    /// What was committed, in order.
    pub(crate) fn commits(&self) -> Vec<Commit> {
        self.state.lock().unwrap().commits.clone()
    }

    /// All records there are.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.state.lock().unwrap().records.values().cloned().collect()
    }

    /// How many records were asked for one by one.
    pub(crate) fn gets(&self) -> usize {
        self.state.lock().unwrap().gets
    }
}

impl MemoryStore {
    /// The nodes that follow it.
    pub(crate) fn set_nodes(&self, nodes: Vec<Node>) {
        self.state.lock().unwrap().nodes = nodes;
    }
}

/// It has nodes, and no more.
impl Ledger for MemoryStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        Err(none())
    }

    async fn lines(&self, _: Page) -> Result<Vec<Line>, LedgerError> {
        Err(none())
    }

    async fn rows(&self) -> Result<(Revision, Records), LedgerError> {
        Err(none())
    }

    async fn age(&self, _: u64) -> Result<Option<Duration>, LedgerError> {
        Err(none())
    }

    async fn add_usage(&self, _: &str, _: Vec<Uses>) -> Result<(), LedgerError> {
        Err(none())
    }

    async fn usage(&self, _: Option<&str>) -> Result<Vec<Usage>, LedgerError> {
        Err(none())
    }

    async fn usage_after(&self, _: &str, _: usize) -> Result<Vec<Usage>, LedgerError> {
        Err(none())
    }

    async fn idle_usage(
        &self,
        _: u64,
        _: Option<(Box<str>, Digest)>,
        _: u32,
    ) -> Result<Vec<(Box<str>, Digest)>, LedgerError> {
        Err(none())
    }

    async fn drop_usage(&self, _: Vec<(Box<str>, Digest)>, _: u64) -> Result<(), LedgerError> {
        Err(none())
    }

    async fn kept(&self, _: Kind, _: &str, _: u32) -> Result<Vec<Record>, LedgerError> {
        Err(none())
    }

    async fn report(&self, _: Report) -> Result<(), LedgerError> {
        Err(none())
    }

    async fn forget(&self, _: &str) -> Result<(), LedgerError> {
        Err(none())
    }

    async fn nodes(&self) -> Result<Vec<Node>, LedgerError> {
        Ok(self.state.lock().unwrap().nodes.clone())
    }
}

fn none() -> LedgerError {
    LedgerError::None("a store in memory has no ledger".to_owned())
}

impl Store for MemoryStore {
    async fn pull(&self, _since: Option<Revision>) -> Result<Pull, StoreError> {
        let state = self.state.lock().unwrap();
        let lives = |record: &&Record| record.body.is_some() && record.id.kind.replicated();
        let records = Records::from_vec(state.records.values().filter(lives).cloned().collect());
        Ok(Pull { revision: revision(state.number), full: true, now: noon(), records })
    }

    async fn changed(&self, _since: Option<Revision>) {
        std::future::pending::<()>().await;
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        let mut state = self.state.lock().unwrap();
        state.gets += 1;
        Ok((revision(state.number), state.records.get(id).filter(|record| record.body.is_some()).cloned()))
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        let mut state = self.state.lock().unwrap();
        assert!(commit.detail["scopes"].is_array(), "whom {} concerns", commit.action);
        if state.conflicts > 0 {
            state.conflicts -= 1;
            let first = commit.changes.first().map(|change| change.id.clone());
            return Err(CommitError::Conflict(first.unwrap_or_else(|| RecordId::key("another"))));
        }
        for change in &commit.changes {
            let there = state.records.get(&change.id).filter(|record| record.body.is_some());
            let there = there.map(|record| record.revision);
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
