//! Hearing of commits at once: a connection of its own that does nothing but LISTEN. What it misses, the next poll finds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{ToSql, Type};

use super::address::Way;
use super::link::{Link, PATIENCE, Pool, within};
use super::trouble::Trouble;

/// Where commits are told.
const CHANNEL: &str = "keyward";

/// How often the server is asked whether it is still there: a connection that only listens would never find out.
const PING: Duration = Duration::from_secs(10);

/// How long a notification may take before it counts as lost.
const PROBE: Duration = Duration::from_secs(2);

/// The longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What has been heard of.
#[derive(Clone, Copy, Default)]
pub(super) struct Heard {
    /// The number of the last commit that was told.
    number: u64,
    /// How often listening began: what was told before it was heard by nobody, so one has to look.
    begun: u64,
    /// How often it had begun when a pull last did.
    looked: u64,
}

/// What tells [`crate::store::Store::changed`] when to wake.
pub(super) struct Ear {
    heard: watch::Sender<Heard>,
    task: OnceLock<JoinHandle<()>>,
}

impl Ear {
    pub(super) fn new() -> Self {
        Self { heard: watch::Sender::default(), task: OnceLock::new() }
    }

    /// What has been heard of, before a pull.
    pub(super) fn before_pull(&self) -> Heard {
        *self.heard.borrow()
    }

    /// A pull that began after `before` was read has come to this number. A lower one than was heard of means that the
    /// history went back: waiting for what comes after a number that is gone would never end.
    pub(super) fn pulled(&self, before: Heard, number: u64) {
        self.heard.send_if_modified(|heard| {
            heard.looked = before.begun;
            if number < before.number && heard.number == before.number {
                heard.number = number;
            }
            false
        });
    }

    /// A commit was made.
    pub(super) fn tell(&self, number: u64) {
        tell(&self.heard, number);
    }

    /// Resolves when a commit after this one has been heard of.
    pub(super) async fn after(&self, number: u64) {
        // The sender is a field of this, so it is there for as long as anybody can wait here.
        let _ = self.heard.subscribe().wait_for(|heard| heard.number > number || heard.begun > heard.looked).await;
    }

    /// Begins to listen, unless it has begun.
    pub(super) fn listen(&self, way: &Way, pool: &Arc<Pool>, store: &str) {
        self.task.get_or_init(|| {
            let (way, pool, heard, store) = (way.clone(), Arc::clone(pool), self.heard.clone(), store.to_owned());
            tokio::spawn(async move { keep_listening(&way, &pool, &heard, &store).await })
        });
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

fn tell(heard: &watch::Sender<Heard>, number: u64) {
    heard.send_if_modified(|heard| {
        let news = number > heard.number;
        heard.number = number.max(heard.number);
        news
    });
}

async fn keep_listening(way: &Way, pool: &Arc<Pool>, heard: &watch::Sender<Heard>, store: &str) {
    let (mut failures, mut told) = (0_u32, false);
    loop {
        match Listener::start(way, heard).await {
            Ok(mut listener) => {
                tracing::debug!(store, "listening for changes");
                told = told || !listener.hears(pool, store).await;
                failures = 0;
                listener.until_it_ends().await;
            }
            Err(trouble) if failures == 0 => {
                tracing::warn!(store, %trouble, "cannot listen for changes; they are seen when the store is polled");
            }
            Err(trouble) => tracing::debug!(store, %trouble, "still cannot listen for changes"),
        }
        let backoff = Duration::from_millis(100 << failures.min(6)).min(MAX_BACKOFF);
        let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        sleep(backoff.mul_f64(0.5 + jitter / 2.0)).await;
        failures = failures.saturating_add(1);
    }
}

/// A connection that listens.
pub(super) struct Listener {
    link: Link,
    /// A channel that only we know.
    own: String,
    heard_ourselves: Arc<Notify>,
}

impl Listener {
    pub(super) async fn start(way: &Way, heard: &watch::Sender<Heard>) -> Result<Self, Trouble> {
        let random =
            getrandom::u64().map_err(|error| Trouble::Refused(format!("there are no random numbers: {error}")))?;
        let own = format!("{CHANNEL}_{random:016x}");
        let heard_ourselves = Arc::new(Notify::new());
        let (told, echo) = (heard.clone(), heard_ourselves.clone());
        let link = Link::connect(way, move |notification| match notification.payload().parse() {
            Ok(number) if notification.channel() == CHANNEL => tell(&told, number),
            Ok(_) | Err(_) => echo.notify_one(),
        })
        .await?;
        let listen = format!("listen {CHANNEL}; listen {own}");
        within(PATIENCE, "listening", link.client.batch_execute(&listen)).await?;
        heard.send_modify(|heard| heard.begun += 1);
        Ok(Self { link, own, heard_ourselves })
    }

    /// Whether a notification that is sent over another connection arrives. Behind a pooler that lends connections by the
    /// transaction it never does, without any error.
    pub(super) async fn hears(&self, pool: &Arc<Pool>, store: &str) -> bool {
        let Ok(lease) = pool.lease().await else { return true };
        let own = [(&self.own as &(dyn ToSql + Sync), Type::TEXT)];
        let sent = lease.client().query_typed("select pg_notify($1, '')", &own);
        if within(PATIENCE, "notifying", sent).await.is_err() {
            return true; // a standby cannot, and says so when it is asked to listen
        }
        lease.give_back();
        let arrived = timeout(PROBE, self.heard_ourselves.notified()).await.is_ok();
        if !arrived {
            tracing::warn!(
                store,
                "notifications do not arrive, so changes are seen when the store is polled; behind a pooler, name the server \
                 itself in the URL: listen=HOST:PORT, or listen=off"
            );
        }
        arrived
    }

    /// Resolves when the connection is no longer there, or of no use.
    async fn until_it_ends(&mut self) {
        loop {
            tokio::select! {
                () = self.link.ended() => return,
                () = sleep(PING) => {}
            }
            if within(PATIENCE, "a ping", self.link.client.check_connection()).await.is_err() {
                return;
            }
        }
    }
}
