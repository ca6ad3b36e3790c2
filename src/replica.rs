//! The copy of the store's records that the data plane reads, and how fresh it is.
//!
//! Readers take a [`View`] and copy [`Grant`]s out of it: they hold no lock while a request is served. There is one
//! [`Writer`]. A full pull builds a new table beside the old one and swaps it, so that a request sees either the old state or
//! the new. News of a few records is applied in place, what takes away before what gives: a request that looks meanwhile may see
//! less than was ever there, and nothing that was not. One that has seen things from before and after looks again.

mod meters;
mod table;
pub mod usage;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use self::table::Table;
pub use self::table::{Change, Counts, Directory, Draft, KeyEntry, KeyFacts, Keys as KeysInOrder, Names};
use self::usage::{Tallies, Used};
use crate::auth::digest::Digest;
use crate::auth::grant::{
    Grant, KeyIndex, Keys, ParentIndex, RestrictionsIndex, ScopeIndex, Standing, State, Timestamp, Unavailable,
    UserIndex,
};
use crate::auth::limit::Exhausted;
use crate::auth::scope::{Scope, Step};

/// What the workers share and only sync writes.
pub struct Replica {
    table: ArcSwap<Table>,
    freshness: Freshness,
    /// How often it has changed.
    version: AtomicU64,
}

/// When the last successful pull began. Freshness is proved by pulls, not guessed from the last change.
struct Freshness {
    origin: Instant,
    /// Milliseconds since `origin`, plus [`BEFORE`]; 0 before the first pull.
    proved: AtomicU64,
    /// Milliseconds.
    max_staleness: AtomicU64,
}

/// Milliseconds by which something may be older than this process: thirty years.
const BEFORE: u64 = 1 << 40;

/// How much the replica can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing has been pulled yet.
    Booting,
    /// Good: this old.
    Usable(Duration),
    /// Too old: this old.
    Expired(Duration),
}

impl Replica {
    /// An empty replica, which knows nothing until its writer says so.
    pub fn new(max_staleness: Duration) -> (Arc<Self>, Writer) {
        let mut draft = Draft::new(None);
        draft.finish();
        let max_staleness = AtomicU64::new(millis(max_staleness));
        let freshness = Freshness { origin: Instant::now(), proved: AtomicU64::new(0), max_staleness };
        let replica = Arc::new(Self { table: ArcSwap::new(draft.table()), freshness, version: AtomicU64::new(0) });
        (replica.clone(), Writer { replica, draft })
    }

    /// What a request sees.
    pub fn view(&self, now: Instant) -> View {
        let availability = match self.status(now) {
            Status::Booting => Err(Unavailable::NotLoaded),
            Status::Expired(_) => Err(Unavailable::Expired),
            Status::Usable(_) => Ok(()),
        };
        let table = self.table.load();
        View { turns: table.turns().into(), table, availability, now }
    }

    /// How much it can be believed now.
    pub fn status(&self, now: Instant) -> Status {
        let proved = self.freshness.proved.load(Relaxed);
        if proved == 0 {
            return Status::Booting;
        }
        let since = now.saturating_duration_since(self.freshness.origin);
        let millis = (BEFORE + since.as_secs() * 1_000 + u64::from(since.subsec_millis())).saturating_sub(proved);
        let age = Duration::from_millis(millis);
        if millis <= self.freshness.max_staleness.load(Relaxed) { Status::Usable(age) } else { Status::Expired(age) }
    }

    /// All keys, in the order of their ids; the directory is kept for the next time.
    pub fn keys<'d>(&self, directory: &'d mut Directory) -> KeysInOrder<'d> {
        directory.of(self.table.load_full())
    }

    /// What was counted and not collected yet.
    pub fn tallies(&self) -> Arc<Tallies> {
        self.table.load().tallies.clone()
    }

    /// Changes with everything that changes here, a moment later.
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// How old it may be before it grants nothing.
    pub fn max_staleness(&self) -> Duration {
        Duration::from_millis(self.freshness.max_staleness.load(Relaxed))
    }

    /// From now on it may be this old.
    pub fn set_max_staleness(&self, max_staleness: Duration) {
        self.freshness.max_staleness.store(millis(max_staleness), Relaxed);
    }

    fn changed(&self) {
        self.version.fetch_add(1, Release);
    }

    fn prove(&self, began: Instant, age: Duration) {
        let millis =
            BEFORE + millis(began.saturating_duration_since(self.freshness.origin)) - millis(age).min(BEFORE - 1);
        self.freshness.proved.store(millis, Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The replica at the moment of a request.
pub struct View {
    table: Guard<Arc<Table>>,
    /// How often its table had turned from taking to giving.
    turns: Cell<u64>,
    availability: Result<(), Unavailable>,
    now: Instant,
}

impl View {
    /// The id and names of a key.
    pub fn names(&self, key: KeyIndex) -> Names<'_> {
        self.table.names(key)
    }

    /// Counts a request that a secret was good for, at a time.
    pub fn used(&self, grant: &Grant, secret: Digest, client: Option<IpAddr>, now: Timestamp) {
        let minute = usage::minute(now);
        let who = || Used { secret, key: self.table.names(grant.key).id.into(), count: 0, minute, client };
        self.table.tallies.count(grant.tally, minute, who);
    }
}

impl Keys for View {
    fn grant(&self, digest: &Digest) -> Result<Option<Grant>, Unavailable> {
        self.availability.map(|()| self.table.grant(digest))
    }

    fn scope(&self, index: ScopeIndex) -> Option<&Scope> {
        self.table.scope(index)
    }

    fn scope_of_step(&self, step: &Step) -> Option<&Scope> {
        self.table.scope_of_step(step)
    }

    fn standing(&self, user: UserIndex) -> Standing {
        self.table.standing(user)
    }

    fn parent(&self, index: ParentIndex) -> Option<Grant> {
        self.table.parent(index)
    }

    fn is_active(&self, index: ScopeIndex) -> bool {
        self.table.is_active(index)
    }

    fn allows(&self, restrictions: RestrictionsIndex, address: Option<IpAddr>) -> bool {
        self.table.allows(restrictions, address)
    }

    fn take(&self, grant: &Grant) -> Result<(), Exhausted> {
        self.table.take(grant, self.now)
    }

    fn has_turned(&self) -> bool {
        let turns = self.table.turns();
        self.turns.replace(turns) != turns
    }
}

/// The one who changes the replica.
pub struct Writer {
    replica: Arc<Replica>,
    draft: Draft,
}

impl Writer {
    /// Applies news in place, at most one of each record: first what takes away.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut at = None;
        for (step, change) in self.draft.in_steps(changes) {
            if at.replace(step).is_some_and(|at| at != step) {
                self.draft.turn();
            }
            let unlimited = id_without_limit(&change);
            self.draft.apply(change);
            // Afterwards: a request that saw the key as it was may have made its meter meanwhile.
            if let Some(id) = unlimited {
                self.draft.meters().forget(&id);
            }
        }
        self.replica.changed();
    }

    /// A table to be built from everything. It shares the meters and tallies of the present one.
    pub fn draft(&self) -> Draft {
        Draft::new(Some(self.draft.table()))
    }

    /// Puts a table built from everything in place of the present one.
    pub fn replace(&mut self, mut draft: Draft) {
        draft.finish();
        self.replica.table.store(draft.table());
        self.draft = draft;
        self.draft.forget_before();
        self.draft.meters().keep(|id| self.draft.is_limited(id));
        self.replica.changed();
    }

    /// A successful pull began then: what is here was true at that time.
    pub fn prove(&mut self, began: Instant) {
        self.replica.prove(began, Duration::ZERO);
    }

    /// What is here was true that long ago: it is of a snapshot.
    pub fn prove_aged(&mut self, age: Duration) {
        self.replica.prove(Instant::now(), age);
    }

    /// How many records of each kind there are.
    pub fn counts(&self) -> Counts {
        self.draft.counts()
    }
}

/// The key that news is about, if it has no limit from now on, or no use for one.
fn id_without_limit(change: &Change) -> Option<Box<str>> {
    match change {
        Change::Key(id, facts) if facts.limit.is_none() || facts.state == State::Revoked => Some(id.clone()),
        Change::KeyGone(id) => Some(id.clone()),
        Change::Key(..)
        | Change::Scope { .. }
        | Change::ScopeGone(_)
        | Change::User { .. }
        | Change::UserGone(_)
        | Change::Secret { .. }
        | Change::SecretGone(_) => None,
    }
}

#[cfg(test)]
mod tests;
