//! Rows become commits: one for each batch, all or nothing. What is there already is looked at only if a commit says
//! so, since in most imports nothing is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, BufRead};

use serde_json::json;

use super::columns::Fields;
use super::known::Known;
use super::row::{Raw, Reason, Rejection, Row};
use super::source::{Layout, Next, Source};
use crate::auth::digest::Digest;
use crate::auth::scope::Scope;
use crate::manage::values::Email;
use crate::manage::{ATTEMPTS, Failure, Session};
use crate::store::record::{Body, RecordId, SecretBody, new_id, to_json};
use crate::store::{Change, Commit, CommitError, Expect, Store};

/// Why a row that is no row is rejected.
pub const TOO_LONG: &str = "it is longer than 64 KiB and is not repeated here";

/// How many lines make a commit.
pub const BATCH: usize = 5_000;

/// The lines of one commit.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    unchanged: usize,
    rejected: Vec<Rejection>,
    /// The lines with these ids: a commit could not tell a second one from a later change of the first.
    ids: HashMap<Box<str>, u64>,
}

impl Batch {
    /// How many lines are in it.
    pub fn len(&self) -> usize {
        self.rows.len() + self.unchanged + self.rejected.len()
    }

    /// Whether there was nothing left to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn reject(&mut self, row: Row, reason: Reason) {
        self.rejected.push(Rejection { line: row.line, raw: row.raw, reason });
    }
}

/// What there is against a key with that id, if it has one, in that scope; nothing, in most cases.
pub type Against<'t> = dyn Fn(Option<&str>, Option<&Scope>) -> Option<&'static str> + Send + Sync + 't;

/// On what terms rows are taken.
pub struct Terms<'t> {
    /// The file they come from, for the audit.
    pub file: Option<String>,
    /// Where keys act for which no scope is given; everywhere if absent.
    pub scope: Option<Scope>,
    /// What there is against a key with that id, if it has one, in that scope.
    pub against: Box<Against<'t>>,
}

/// An import under way.
pub struct Importer<'s, S> {
    session: &'s Session<S>,
    terms: Terms<'s>,
    /// The revision of the last commit.
    pub revision: Option<u64>,
    /// How many keys were made.
    pub imported: u64,
    /// How many were there already.
    pub unchanged: u64,
    /// Every value so far and its line; a line beyond four billion is not told exactly.
    seen: HashMap<Digest, u32>,
    /// Scopes that are in the store.
    scopes: HashSet<Scope>,
    /// Addresses, and whether they are those of accounts.
    accounts: HashMap<String, bool>,
    /// What is in the store, if much of the file turned out to be.
    known: Option<Known>,
}

/// What the store says of a row.
enum Verdict {
    New,
    Unchanged,
    Rejected(Reason),
}

impl<'s, S: Store> Importer<'s, S> {
    /// Begins an import.
    pub fn new(session: &'s Session<S>, terms: Terms<'s>) -> Self {
        let (seen, scopes, accounts, known) = (HashMap::new(), HashSet::new(), HashMap::new(), None);
        Self { session, terms, revision: None, imported: 0, unchanged: 0, seen, scopes, accounts, known }
    }

    /// The next batch of lines; an empty one at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read<R: BufRead>(&mut self, source: &mut Source<R>) -> io::Result<Batch> {
        let (mut batch, mut raw) = (Batch::default(), Vec::new());
        while batch.len() < BATCH {
            let row = match source.next(&mut raw)? {
                Next::End => break,
                Next::TooLong => Err(Reason::from(TOO_LONG)),
                Next::Row => self.row(&raw, source),
            };
            self.add(&mut batch, row, source.line, &raw);
        }
        Ok(batch)
    }

    fn row<R>(&self, raw: &[u8], source: &Source<R>) -> Result<Row, Reason> {
        let locksmith = &*self.session.locksmith;
        let fields = match &source.layout {
            Layout::JsonLines => Fields::of_object(raw, &locksmith.format)?,
            Layout::Table { columns, .. } => columns.fields(raw, source.format.delimiter())?,
        };
        let mut row = Row::read(&fields, source.line, raw, locksmith)?;
        if row.settings.scope.is_none() {
            row.settings.scope.clone_from(&self.terms.scope);
        }
        match (self.terms.against)(row.id.as_deref(), row.settings.scope.as_ref()) {
            Some(why) => Err(Reason::from(why)),
            None => Ok(row),
        }
    }

    /// Adds a row that was read, or why it could not be.
    fn add(&mut self, batch: &mut Batch, row: Result<Row, Reason>, line: u64, raw: &[u8]) {
        let row = match row {
            Ok(row) => row,
            Err(reason) => return batch.rejected.push(Rejection { line, raw: Raw::new(raw), reason }),
        };
        if let Some(first) = self.seen.get(&row.digest) {
            return batch.reject(row, Reason::from(format!("its value is that of line {first} too")));
        }
        if let Some(first) = row.id.as_ref().and_then(|id| batch.ids.get(id)) {
            return batch.reject(row, Reason::from(format!("its `id` is that of line {first} too")));
        }
        self.seen.insert(row.digest, u32::try_from(line).unwrap_or(u32::MAX));
        if let Some(id) = &row.id {
            batch.ids.insert(id.clone(), line);
        }
        if self.known.as_ref().is_some_and(|known| known.has(&row)) {
            batch.unchanged += 1;
            return;
        }
        batch.rows.push(row);
    }

    /// Commits a batch and returns what was rejected, in the order of the lines.
    ///
    /// # Errors
    /// When the store cannot be read or written; batches before this one are in it.
    pub async fn commit(&mut self, mut batch: Batch) -> Result<Vec<Rejection>, Failure> {
        self.drop_impostors(&mut batch).await?;
        let mut attempt = 1;
        while !batch.rows.is_empty() {
            let scopes = self.missing_scopes(&batch.rows).await?;
            match self.session.store.commit(self.commit_of(&batch.rows, &scopes)?).await {
                Ok(revision) => {
                    self.revision = Some(revision.number);
                    self.imported += batch.rows.len() as u64;
                    self.scopes.extend(scopes);
                    break;
                }
                Err(CommitError::Conflict(_)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    self.drop_known(&mut batch).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.unchanged += batch.unchanged as u64;
        // Two records read by name cost a hundred times what two of a pull cost; this pays after a few thousand.
        if self.known.is_none() && batch.unchanged > BATCH / 2 {
            self.known = Some(Known::read(&self.session.store).await?);
        }
        batch.rejected.sort_by_key(|rejection| rejection.line);
        Ok(batch.rejected)
    }

    /// One commit of all rows, none of which may be there.
    fn commit_of(&self, rows: &[Row], scopes: &[Scope]) -> Result<Commit, Failure> {
        let (now, by) = (self.session.now, self.session.who());
        let absent = |id, body| Change { id, expect: Expect::Absent, body: Some(body) };
        let mut changes: Vec<Change> = scopes.iter().map(|scope| self.session.new_scope(scope)).collect();
        changes.reserve(rows.len() * 2);
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id.as_ref().map_or_else(|| new_id(now), |id| Ok(id.to_string()))?;
            changes.push(absent(RecordId::key(&id), to_json(&row.key_body(&id, by, now))));
            changes.push(absent(RecordId::secret(row.digest), to_json(&row.secret_body(&id, now))));
            ids.push(id);
        }
        let lines = [rows.first(), rows.last()].map(|row| row.map(|row| row.line));
        let created: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        // Whoever sees the audit of all of these sees this.
        let scopes: BTreeSet<Option<String>> =
            rows.iter().map(|row| row.settings.scope.as_ref().map(Scope::to_string)).collect();
        let mut detail = json!({ "lines": lines, "keys": ids, "scopes": scopes, "created_scopes": created });
        if let Some(file) = &self.terms.file {
            detail["file"] = file.as_str().into();
        }
        Ok(Commit { actor: self.session.actor.clone(), action: "key.import", detail, changes })
    }

    /// The scopes of some rows that are not in the store, those above before those below.
    async fn missing_scopes(&mut self, rows: &[Row]) -> Result<Vec<Scope>, Failure> {
        let mut missing = Vec::new();
        for scope in rows.iter().filter_map(|row| row.settings.scope.as_ref()) {
            if self.scopes.contains(scope) || missing.contains(scope) {
                continue;
            }
            let lacking = self.session.missing_scopes(Some(scope)).await?;
            if lacking.is_empty() {
                self.scopes.insert(scope.clone());
            }
            for scope in lacking {
                if !missing.contains(&scope) {
                    missing.push(scope);
                }
            }
        }
        Ok(missing)
    }

    /// Takes those rows out of a batch whose keys would say that they act for an account that they do not belong to.
    async fn drop_impostors(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        for row in std::mem::take(&mut batch.rows) {
            let email = row.settings.user.as_ref().and_then(|user| user.parse::<Email>().ok());
            let is_account = match email {
                Some(Email(email)) => self.is_account(email).await?,
                None => false,
            };
            if is_account { batch.reject(row, Reason::from(IMPOSTOR)) } else { batch.rows.push(row) }
        }
        Ok(())
    }

    async fn is_account(&mut self, email: String) -> Result<bool, Failure> {
        if let Some(known) = self.accounts.get(&email) {
            return Ok(*known);
        }
        let is_account = match self.session.find_user(&email).await {
            Ok(_) => true,
            Err(Failure::NotFound(_)) => false,
            Err(failure) => return Err(failure),
        };
        self.accounts.insert(email, is_account);
        Ok(is_account)
    }

    /// Takes those rows out of a batch that the store has something to say about.
    async fn drop_known(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        for row in std::mem::take(&mut batch.rows) {
            match self.verdict(&row).await? {
                Verdict::New => batch.rows.push(row),
                Verdict::Unchanged => batch.unchanged += 1,
                Verdict::Rejected(reason) => batch.reject(row, reason),
            }
        }
        Ok(())
    }

    async fn verdict(&self, row: &Row) -> Result<Verdict, Failure> {
        if let Some(secret) = self.secret(row.digest).await? {
            let key = match self.session.key(&secret.key).await {
                Ok(key) => key,
                Err(Failure::NotFound(_) | Failure::LooksLikeValue | Failure::Unreadable(_)) => {
                    return Ok(Verdict::Rejected(Reason::from(NO_KEY)));
                }
                Err(failure) => return Err(failure),
            };
            if (self.terms.against)(None, key.body.scope.as_ref()).is_some() {
                return Ok(Verdict::Rejected(Reason::from(OUT_OF_REACH)));
            }
            let differences = row.differences(&key.id, key.body);
            if differences.is_empty() {
                return Ok(Verdict::Unchanged);
            }
            let why = format!("its value is that of key {}, with other settings: {}", key.id, differences.join(", "));
            return Ok(Verdict::Rejected(Reason::from(why)));
        }
        let Some(id) = &row.id else { return Ok(Verdict::New) };
        let (_, taken) = self.session.store.get(&RecordId::key(id)).await?;
        let taken = taken.is_some_and(|record| record.body.is_some());
        Ok(if taken {
            Verdict::Rejected(Reason::from("its `id` is that of a key with another value"))
        } else {
            Verdict::New
        })
    }

    async fn secret(&self, digest: Digest) -> Result<Option<SecretBody>, Failure> {
        let (_, record) = self.session.store.get(&RecordId::secret(digest)).await?;
        let Some((id, json)) = record.and_then(|record| Some((record.id, record.body?))) else { return Ok(None) };
        match Body::parse(&id, &json) {
            Ok(Body::Secret(_, body)) => Ok(Some(body)),
            Ok(_) => Ok(None),
            Err(unreadable) => Err(unreadable.into()),
        }
    }
}

const IMPOSTOR: &str = "its `user` is the address of an account, and said by the keys of that account alone";
const OUT_OF_REACH: &str = "its value is that of a key that you may not change";
const NO_KEY: &str = "its value is there already, for a key that is missing or cannot be read";
