//! What has been taken of the limits of keys: one number for each key that has a limit and was used.
//!
//! Meters are kept by the ids of keys, beside the table, so that neither a change of a key nor a full pull gives back what
//! was taken. They count in this process alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use dashmap::DashMap;

use crate::auth::limit::{Exhausted, Limit};

/// The meters of all limited keys that were used.
pub(super) struct Meters {
    by_key: DashMap<Box<str>, Meter>,
    /// What times are counted from.
    origin: Instant,
}

/// When all of a limit will be there again, in nanoseconds since the origin.
struct Meter {
    limit: Limit,
    full_at: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self { by_key: DashMap::new(), origin: Instant::now() }
    }
}

impl Meters {
    /// Takes one request from what a key may still do.
    pub(super) fn take(&self, key: &str, limit: Limit, now: Instant) -> Result<(), Exhausted> {
        let now = u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX >> 1);
        let known = self.by_key.get(key).filter(|meter| meter.limit == limit);
        if let Some(taken) = known.map(|meter| meter.take(now)) {
            return taken;
        }
        // The first request of the key, or the first since its limit changed.
        let mut meter = self.by_key.entry(key.into()).or_insert_with(|| Meter { limit, full_at: AtomicU64::new(0) });
        meter.change(limit, now);
        meter.take(now)
    }

    /// Forgets a key that has no limit any more, or no use for one.
    pub(super) fn forget(&self, key: &str) {
        self.by_key.remove(key);
    }

    /// Forgets all but these.
    pub(super) fn keep(&self, is_needed: impl Fn(&str) -> bool) {
        self.by_key.retain(|key, _| is_needed(key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

impl Meter {
    fn take(&self, now: u64) -> Result<(), Exhausted> {
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let after = self.limit.take(full_at, now)?;
            match self.full_at.compare_exchange_weak(full_at, after, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    fn change(&mut self, limit: Limit, now: u64) {
        if self.limit != limit {
            let full_at = self.full_at.get_mut();
            *full_at = limit.carry_over(self.limit, *full_at, now);
            self.limit = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_share_one_meter() {
        let (meters, limit) = (Meters::default(), Limit::new(100_000, 360_000).unwrap());
        let (now, together) = (Instant::now(), std::sync::Barrier::new(4));
        let taken = || {
            together.wait();
            (0..50_000).filter(|_| meters.take("k", limit, now).is_ok()).count()
        };
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taken)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 100_000);
        assert!(meters.take("k", limit, now + Duration::from_secs(4)).is_ok());
        assert!(meters.take("other", limit, now).is_ok(), "another key has a meter of its own");
    }
}
