//! The config in force. It is replaced as a whole, and every connection notices before its next request; a request in
//! flight keeps what it began with.
//!
//! Noticing costs a request one look at a number that nobody writes between two reloads.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::establish::CROWD;
use super::peers::Peers;
use super::seldom::Seldom;
use super::{Config, Shared, Surroundings};
use crate::control::desk::Desk;
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::metrics::Refused;
use crate::telemetry::traces::Tracer;

/// What the workers serve by, and how it is replaced.
pub struct Live {
    generation: AtomicU64,
    shared: Mutex<Arc<Shared>>,
    desk: Option<Desk>,
    /// Connections outlive a config.
    pub(super) peers: Arc<Peers>,
    /// How many connections may be told at a time that there is no room.
    pub(super) refusals: Semaphore,
    /// Whether it may be said now that a connection was refused, by why.
    pub(super) said: [Seldom; Refused::COUNT],
}

impl Live {
    pub(super) fn new(config: Config, surroundings: Surroundings) -> io::Result<Self> {
        let Surroundings { replica, metrics, access, tracer, lifecycle: _, desk } = surroundings;
        let shared = Shared::new(config, 0, replica, metrics, access, tracer, desk.as_ref())?;
        shared.tell_expiry();
        let (shared, refusals) = (Mutex::new(Arc::new(shared)), Semaphore::new(CROWD));
        let said = <[Seldom; Refused::COUNT]>::default();
        Ok(Self { generation: AtomicU64::default(), shared, desk, peers: Arc::default(), refusals, said })
    }

    /// Puts another config in force: what begins from now on is served by it. Its address and number of workers are not
    /// looked at again.
    ///
    /// # Errors
    /// When a name of the config cannot be a header; then nothing changes.
    pub fn replace(&self, config: Config, access: AccessLogger, tracer: Option<Tracer>) -> io::Result<()> {
        let mut shared = self.lock();
        let generation = shared.generation + 1;
        let (replica, metrics) = (shared.replica.clone(), shared.metrics.clone());
        *shared = Arc::new(Shared::new(config, generation, replica, metrics, access, tracer, self.desk.as_ref())?);
        self.generation.store(generation, Ordering::Release);
        shared.tell_expiry();
        Ok(())
    }

    /// How long new connections are still taken once the process is to stop.
    pub fn drain_delay(&self) -> Duration {
        self.lock().limits.drain_delay
    }

    /// Whether this is still the config in force.
    pub(super) fn is(&self, shared: &Shared) -> bool {
        self.generation.load(Ordering::Acquire) == shared.generation
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.lock().clone()
    }

    /// Replacing is one assignment; a panic cannot leave half of it.
    fn lock(&self) -> MutexGuard<'_, Arc<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
