//! Keeps the replica up with the store. Level-triggered: pull, apply, then wait for a hint *or* the poll interval. A hint
//! only ever means "look now", so a lost one costs at most an interval.

pub mod node;
pub mod snapshot;
pub mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use self::node::Applied;
use self::snapshot::{Snapshot, Useless};
use crate::auth::address::Networks;
use crate::auth::grant::{Standing, Timestamp};
use crate::auth::scope::Scope;
use crate::lifecycle::Lifecycle;
use crate::replica::{Change, Draft, KeyFacts, Writer};
use crate::store::record::{Body, KeyBody, Kind, Record, ScopeState, UserBody, UserState};
use crate::store::{Records, Revision, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// How the replica is kept up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long to wait for a hint before looking anyway.
    pub poll_interval: Duration,
    /// How old the last successful pull may be before every key is answered with 503.
    pub max_staleness: Duration,
    /// Where a snapshot is kept for starts without the store, if anywhere.
    pub snapshot: Option<PathBuf>,
    /// What this process is called among those that follow the store; `None` after the machine and its port.
    pub node: Option<String>,
}

/// The longest wait between two attempts at a store that does not answer: a key may have been revoked meanwhile.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// How much news is applied in place: some 20 MB at most, in a tenth of a second. More, after a long absence, is a state of its
/// own: it is read whole, beside the present one.
const LONGEST_DELTA: usize = 50_000;

/// What a pull came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulled {
    Unchanged,
    Delta,
    Full,
}

impl Pulled {
    const fn label(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Delta => "delta",
            Self::Full => "full",
        }
    }
}

/// The loop and what it remembers.
pub struct Sync<S> {
    store: S,
    writer: Writer,
    /// How long to wait for a hint; it may change.
    poll_interval: watch::Receiver<Duration>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    revision: Option<Revision>,
    /// What of the store is in the replica, for those who wait for something to be in force.
    applied: watch::Sender<Option<Revision>>,
    /// What is read where the first pull fails.
    snapshot: Option<Snapshot>,
    /// Who says how far this node is.
    teller: Option<mpsc::UnboundedSender<Applied>>,
}

impl<S: Store> Sync<S> {
    /// A loop that has not pulled yet.
    pub fn new(
        store: S,
        writer: Writer,
        poll_interval: watch::Receiver<Duration>,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> Self {
        let applied = watch::Sender::new(None);
        let (revision, snapshot, teller) = (None, None, None);
        Self { store, writer, poll_interval, metrics, lifecycle, revision, applied, snapshot, teller }
    }

    /// The revision that the replica has come to, each time that it comes to another one.
    pub fn applied(&self) -> watch::Receiver<Option<Revision>> {
        self.applied.subscribe()
    }

    /// Where the store is away at the start, begins with a snapshot.
    pub fn beginning_with(self, snapshot: Option<Snapshot>) -> Self {
        Self { snapshot, ..self }
    }

    /// Tells somebody of everything that is applied.
    pub fn telling(self, teller: mpsc::UnboundedSender<Applied>) -> Self {
        Self { teller: Some(teller), ..self }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let pulled = self.pull().await;
            failures = if pulled.is_ok() { 0 } else { failures + 1 };
            let is_away = matches!(pulled, Err(StoreError::Unavailable { .. }));
            self.account(pulled);
            // Only then: where the store can be read, nothing that it has taken back since may be believed for a moment.
            if is_away
                && self.revision.is_none()
                && let Some(snapshot) = self.snapshot.take()
            {
                self.recall(&snapshot).await;
            }
            let pause = pause(*self.poll_interval.borrow_and_update(), failures);
            tokio::select! {
                () = self.store.changed(self.revision), if failures == 0 => self.metrics.sync.hints.inc(),
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.poll_interval.changed() => {}
            }
        }
    }

    /// Asks the store for what is new, and applies it.
    async fn pull(&mut self) -> Result<Pulled, StoreError> {
        let (began, before) = (Instant::now(), self.revision);
        let mut takes_away = false;
        let mut pull = self.store.pull(self.revision).await?;
        let keys = self.writer.counts().keys;
        let is_lost = pull.full && before.is_some();
        let delta = if pull.full { None } else { self.delta(&mut pull.records).await? };
        if !pull.full && delta.is_none() {
            pull = self.store.pull(None).await?;
        }
        let pulled = match delta {
            Some(changes) => {
                let pulled = if changes.is_empty() { Pulled::Unchanged } else { Pulled::Delta };
                takes_away = changes.iter().any(Change::takes_away);
                self.writer.apply(changes);
                pulled
            }
            None => {
                let draft = self.read_all(&mut pull.records).await?;
                self.writer.replace(draft);
                Pulled::Full
            }
        };
        if is_lost {
            self.metrics.sync.resyncs.inc();
            let (was, is, keys_now) = (self.revision, pull.revision, self.writer.counts().keys);
            tracing::warn!(?was, %is, keys, keys_now, "the store does not know the revision that was followed: it is another one, or an older backup, and was read anew");
        }
        self.revision = Some(pull.revision);
        self.writer.prove(began);
        let revision = self.revision;
        self.applied.send_if_modified(|applied| std::mem::replace(applied, revision) != revision);
        if let Some(teller) = self.teller.as_ref().filter(|_| before != self.revision) {
            let first = before.filter(|_| !pull.full).map(|before| before.number + 1);
            // Who listened has ended only if the program has.
            let _ = teller.send(Applied { revision: pull.revision.number, first, takes_away, at: Instant::now() });
        }
        Ok(pulled)
    }

    /// All news of a delta, before any of it is applied: one that breaks off changes nothing. `None` if it is too long.
    async fn delta(&self, records: &mut Records) -> Result<Option<Vec<Change>>, StoreError> {
        let mut changes = Vec::new();
        while let Some(batch) = records.next().await? {
            if changes.len() + batch.len() > LONGEST_DELTA {
                return Ok(None);
            }
            changes.extend(batch.iter().filter_map(|record| self.change(record)));
        }
        Ok(Some(changes))
    }

    /// All that there is, beside what is in force.
    async fn read_all(&self, records: &mut Records) -> Result<Draft, StoreError> {
        let mut draft = self.writer.draft();
        while let Some(batch) = records.next().await? {
            batch.iter().filter_map(|record| self.change(record)).for_each(|change| draft.apply(change));
            // The control plane has other things to do than a pull of a million records.
            tokio::task::yield_now().await;
        }
        Ok(draft)
    }

    /// Takes what the snapshot has, if it is ours and whole.
    async fn recall(&mut self, snapshot: &Snapshot) {
        let path = snapshot.path().display();
        match self.read(snapshot).await {
            Ok(age) => {
                tracing::warn!(%path, ?age, "the store is away: serving what the snapshot has");
            }
            Err(useless) => {
                tracing::error!(%path, %useless, "the store is away, and the snapshot is of no use");
            }
        }
    }

    async fn read(&mut self, snapshot: &Snapshot) -> Result<Duration, Useless> {
        let mut reading = snapshot.read(SystemTime::now().into())?;
        let mut draft = self.writer.draft();
        while let Some(batch) = reading.batch()? {
            batch.iter().filter_map(|record| self.change(record)).for_each(|change| draft.apply(change));
            tokio::task::yield_now().await;
        }
        // Only now all of it is proved.
        self.writer.replace(draft);
        self.revision = Some(reading.revision);
        self.writer.prove_aged(reading.age);
        self.applied.send_replace(self.revision);
        self.count();
        Ok(reading.age)
    }

    /// Tells metrics and log how a pull went.
    fn account(&self, pulled: Result<Pulled, StoreError>) {
        let metrics = &self.metrics.sync;
        let label = pulled.as_ref().map_or("failed", |pulled| pulled.label());
        metrics.pulls.with_label_values(&[label]).inc();
        metrics.pepper_mismatch.set(i64::from(matches!(pulled, Err(StoreError::WrongPepper { .. }))));
        let was_up = metrics.store_up.get() == 1;
        metrics.store_up.set(i64::from(pulled.is_ok()));
        if pulled.is_ok() && !was_up {
            tracing::info!("the store can be read");
        }
        match pulled {
            Ok(Pulled::Unchanged) => metrics.last_pull.set(now()),
            Ok(Pulled::Delta | Pulled::Full) => {
                metrics.last_pull.set(now());
                self.count();
            }
            Err(ref error) if was_up || self.revision.is_none() => tracing::warn!(%error, "the store cannot be read"),
            Err(ref error) => tracing::debug!(%error, "the store still cannot be read"),
        }
        self.lifecycle.report("store", pulled.err().map(|error| error.to_string()));
    }

    fn count(&self) {
        let counts = self.writer.counts();
        let revision = self.revision.map_or(0, |revision| revision.number);
        self.metrics.sync.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        let kinds = [
            (Kind::Scope, counts.scopes),
            (Kind::User, counts.users),
            (Kind::Key, counts.keys),
            (Kind::Secret, counts.secrets),
        ];
        for (kind, count) in kinds {
            self.metrics.sync.records.with_label_values(&[kind.label()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        tracing::debug!(
            revision,
            scopes = counts.scopes,
            keys = counts.keys,
            secrets = counts.secrets,
            "the replica was changed"
        );
    }

    /// A record as news for the replica. One that cannot be read counts as gone: it grants nothing.
    fn change(&self, record: &Record) -> Option<Change> {
        let body = record.body.as_deref().map(|json| Body::parse(&record.id, json).map_err(|error| error.to_string()));
        match body.map(|body| body.and_then(read)) {
            None => gone(record),
            Some(Ok(Read::Key(facts))) => Some(Change::Key(record.id.id.clone(), facts)),
            Some(Ok(Read::User(standing))) => Some(Change::User { id: record.id.id.clone(), standing }),
            Some(Ok(Read::Other(change))) => Some(change),
            Some(Ok(Read::Nothing)) => None,
            Some(Err(error)) => {
                self.metrics.sync.unreadable.inc();
                tracing::warn!(%error, "a record cannot be read and grants nothing");
                gone(record)
            }
        }
    }
}

/// Those of keys and users still lack their id.
enum Read {
    Key(KeyFacts),
    User(Standing),
    Other(Change),
    /// The data plane has no use for it.
    Nothing,
}

fn read(body: Body) -> Result<Read, String> {
    Ok(match body {
        Body::Scope(scope, body) => Read::Other(Change::Scope { scope, active: body.state == ScopeState::Active }),
        Body::Secret(digest, body) => {
            let not_after = body.not_after.unwrap_or(Timestamp::NEVER);
            Read::Other(Change::Secret { digest, key: body.key.into(), not_after })
        }
        Body::Key(body) => Read::Key(facts(body)?),
        Body::User(body) => Read::User(standing(&body)),
        Body::Role(_) | Body::Binding(_) | Body::Password(_) | Body::Sealed(_) | Body::Unique(_) => Read::Nothing,
    })
}

/// What the keys of a user may count on (B5, B7).
fn standing(body: &UserBody) -> Standing {
    match body.state {
        UserState::Suspended => Standing::Suspended,
        UserState::Active if !body.api_access => Standing::NoApiAccess,
        UserState::Active => Standing::Good,
    }
}

fn facts(body: KeyBody) -> Result<KeyFacts, String> {
    Ok(KeyFacts {
        networks: Networks::parse(body.ips.iter().map(String::as_str)).map_err(|error| error.to_string())?,
        name: body.name,
        user: body.user.or_else(|| body.owner.as_deref().map(str::to_owned)),
        owner: body.owner,
        parent: body.parent,
        scope: body.scope,
        environment: body.env,
        access: body.access,
        limit: body.rate_limit,
        expires_at: body.expires_at.unwrap_or(Timestamp::NEVER),
        state: body.state,
    })
}

/// What it means that a record is not there. An id that is none never was there.
fn gone(record: &Record) -> Option<Change> {
    let id = &record.id.id;
    match record.id.kind {
        Kind::Scope => Scope::parse(id).ok().map(Change::ScopeGone),
        Kind::Key => Some(Change::KeyGone(id.clone())),
        Kind::Secret => crate::auth::digest::Digest::from_record_id(id).map(Change::SecretGone),
        Kind::User => Some(Change::UserGone(id.clone())),
        Kind::Role | Kind::Binding | Kind::Password | Kind::Sealed | Kind::Unique => None,
    }
}

/// The poll interval, or less: many that were started together do not stay in step. Longer and longer while the store
/// does not answer.
fn pause(poll_interval: Duration, failures: u32) -> Duration {
    let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    if failures == 0 {
        return poll_interval - (poll_interval / 5).mul_f64(jitter);
    }
    let backoff = Duration::from_millis(100 << failures.min(6)).min(MAX_BACKOFF);
    backoff.mul_f64(0.5 + jitter / 2.0)
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
