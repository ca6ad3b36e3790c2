//! Connections to the server: a few that are kept, each lent to one caller at a time, so that a pull whose reader takes
//! its time holds up nobody. One that was not given back whole is closed: what it was doing ends with it.

use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Notification};

use super::address::Way;
use super::tls::Connector;
use super::trouble::Trouble;

/// How long to wait for an answer to something small.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for the next part of something large.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// More connections than this are closed after use.
const IDLE: usize = 2;

/// Waits for an answer, but not for ever: a server that is frozen keeps its connections open.
pub(super) async fn within<T, E: Into<Trouble>>(
    limit: Duration,
    doing: &'static str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Trouble> {
    match timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Trouble::Slow(doing)),
    }
}

/// The answer to a commit did not come: looks whether it was made. It is an error if it was not, or if nobody can tell.
pub(super) async fn settle(lost: Trouble, look: impl Future<Output = Result<bool, Trouble>>) -> Result<(), Trouble> {
    match within(LONG_PATIENCE, "looking whether a commit was made", look).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(lost),
        Err(_) => Err(Trouble::Unsettled(Box::new(lost))),
    }
}

/// One connection, and the task that moves its bytes.
pub(super) struct Link {
    pub(super) client: Client,
    mover: JoinHandle<()>,
    /// Whether the server has warned of something since somebody asked.
    warned: Arc<AtomicBool>,
}

impl Link {
    /// Connects. What the server announces by itself goes to `hear`.
    pub(super) async fn connect(way: &Way, hear: impl Fn(Notification) + Send + 'static) -> Result<Self, Trouble> {
        let connector = Connector::new(&way.tls)?;
        let (client, mut connection) = within(PATIENCE, "connecting", way.config.connect(connector)).await?;
        let warned = Arc::<AtomicBool>::default();
        let noted = warned.clone();
        let mover = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    AsyncMessage::Notification(notification) => hear(notification),
                    AsyncMessage::Notice(notice) if notice.code() == &SqlState::WARNING => noted.store(true, Relaxed),
                    _ => {}
                }
            }
        });
        let link = Self { client, mover, warned };
        // On tables without statistics, as after an import, the server takes a poll for something large and compiles it for
        // half a second, to find that there is no news.
        within(PATIENCE, "connecting", link.client.batch_execute("set jit = off")).await?;
        Ok(link)
    }

    /// Resolves when the connection is no longer there.
    pub(super) async fn ended(&mut self) {
        // A panic in it is an end too.
        let _ = (&mut self.mover).await;
    }
}

impl Drop for Link {
    /// Without this the task would wait for the answers that are due, from a frozen server for ever.
    fn drop(&mut self) {
        self.mover.abort();
    }
}

/// The connections.
pub(super) struct Pool {
    way: Way,
    idle: Mutex<Vec<Link>>,
    /// Where its connections are moved on, whoever uses them: what one thread has to do must not hold up what another asks
    /// over a connection that both have had.
    home: Option<Handle>,
}

impl Pool {
    pub(super) fn new(way: Way) -> Self {
        Self { way, idle: Mutex::default(), home: Handle::try_current().ok() }
    }

    /// A connection on which nothing is going on.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, Trouble> {
        let kept = {
            let mut idle = self.idle();
            idle.retain(|link| !link.client.is_closed());
            idle.pop()
        };
        let link = match kept {
            Some(link) => link,
            None => self.connect().await?,
        };
        Ok(Lease { link, pool: Arc::clone(self) })
    }

    async fn connect(self: &Arc<Self>) -> Result<Link, Trouble> {
        let pool = Arc::clone(self);
        let connect = async move { Link::connect(&pool.way, |_| {}).await };
        match &self.home {
            Some(home) => home.spawn(connect).await.unwrap_or(Err(Trouble::Slow("connecting"))),
            None => connect.await,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        // The list is whole after every step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for as long as somebody uses it. Dropping it closes it.
pub(super) struct Lease {
    link: Link,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) fn client(&self) -> &Client {
        &self.link.client
    }

    /// Has the server stop what did not come in time: busy with a sort, it would not see that nobody waits any more, and
    /// whoever asks again would have it sort twice at once. Only for reading: a commit that is broken off may be made.
    pub(super) fn give_up(&self, trouble: &Trouble) {
        let (Trouble::Slow(_), Ok(connector)) = (trouble, Connector::new(&self.pool.way.tls)) else { return };
        let token = self.client().cancel_token();
        // Nobody waits for it: where the server is frozen it does not come about.
        tokio::spawn(async move { within(PATIENCE, "cancelling", token.cancel_query(connector)).await });
    }

    /// Commits, and makes sure that it is as safe as the server's settings promise. Whoever waits for a standby may be told to
    /// wait no longer (`pg_cancel_backend`, an operator who clears up): then the server answers that it has committed, with a
    /// warning that the standby may not have it. The warning arrives before the answer.
    pub(super) async fn commit(&self) -> Result<(), Trouble> {
        self.link.warned.store(false, Relaxed);
        within(LONG_PATIENCE, "committing", self.client().batch_execute("commit")).await?;
        match self.link.warned.load(Relaxed) {
            false => Ok(()),
            true => Err(Trouble::Unconfirmed),
        }
    }

    /// Gives the connection back: nothing is going on there any more, and no transaction is open.
    pub(super) fn give_back(self) {
        let Self { link, pool } = self;
        let mut idle = pool.idle();
        if idle.len() < IDLE && !link.client.is_closed() {
            idle.push(link);
        }
    }
}
