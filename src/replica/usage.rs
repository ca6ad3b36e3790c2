//! How often each secret was used, and when last. The data plane adds to two numbers; the control plane takes what was added.
//!
//! Tallies stand beside the table, like meters, so that a full pull loses no count. Who has used a secret for the first time
//! in a minute says so once; so whoever collects looks at those alone, and not at a million.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use crate::auth::digest::Digest;
use crate::auth::grant::{TallyIndex, Timestamp};

/// The tallies of all secrets that were ever in the table: twelve bytes each, also of those that are gone.
#[derive(Default)]
pub struct Tallies {
    all: boxcar::Vec<Tally>,
    /// Places at the end that nobody uses yet.
    spare: Mutex<Range<u32>>,
    /// Who was used for the first time in a minute, since somebody collected.
    news: Mutex<Vec<Seen>>,
}

/// What is counted of a secret.
#[derive(Default)]
struct Tally {
    /// Requests since somebody collected.
    count: AtomicU32,
    /// When it was used last, in minutes since 1970.
    minute: AtomicU32,
}

/// A secret that was used.
struct Seen {
    tally: TallyIndex,
    used: Used,
}

/// What is known of the uses of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Used {
    /// The secret.
    pub secret: Digest,
    /// The key that it opens.
    pub key: Box<str>,
    /// Requests that it was good for.
    pub count: u64,
    /// When the last of them came, in minutes since 1970.
    pub minute: u32,
    /// Where the first in that minute came from, if it is known.
    pub client: Option<IpAddr>,
}

impl Used {
    /// Takes in what was seen of the same secret later.
    pub fn add(&mut self, later: Self) {
        self.count += later.count;
        if later.minute >= self.minute {
            *self = Self { count: self.count, ..later };
        }
    }
}

/// Minutes since 1970; there are enough for eight thousand years.
pub fn minute(now: Timestamp) -> u32 {
    u32::try_from(now.millis() / 60_000).unwrap_or(u32::MAX)
}

impl Tallies {
    /// Room for one more secret.
    pub(super) fn open(&self) -> TallyIndex {
        if let Some(spare) = self.spare.lock().unwrap_or_else(PoisonError::into_inner).next() {
            return TallyIndex(spare);
        }
        // A table holds fewer than 2^32 secrets; beyond that, they would share one.
        TallyIndex(u32::try_from(self.all.push(Tally::default())).unwrap_or(u32::MAX))
    }

    /// All that has been opened since this one, it included, was for a table that nobody has seen.
    pub(super) fn take_back(&self, first: TallyIndex) {
        let end = u32::try_from(self.all.count()).unwrap_or(u32::MAX);
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = first.0..end;
    }

    /// Counts a request. `who` is asked for once in a minute.
    pub(super) fn count(&self, index: TallyIndex, minute: u32, who: impl FnOnce() -> Used) {
        let Some(tally) = self.all.get(index.0 as usize) else { return };
        tally.count.fetch_add(1, Relaxed);
        // Two workers may both be first: then it is told twice.
        if tally.minute.load(Relaxed) != minute {
            tally.minute.store(minute, Relaxed);
            let seen = Seen { tally: index, used: who() };
            self.news.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        }
    }
}

/// The one who collects.
#[derive(Default)]
pub struct Collector {
    /// Those that may be counted up without another word, since they were used in this minute or the one before.
    active: HashMap<u32, Used>,
}

impl Collector {
    /// What was counted since the last time. Nothing is counted twice, and nothing is lost: who was used in a minute is
    /// looked at until two minutes later.
    pub fn collect(&mut self, tallies: &Tallies, now: Timestamp) -> Vec<Used> {
        let news = std::mem::take(&mut *tallies.news.lock().unwrap_or_else(PoisonError::into_inner));
        for Seen { tally, used } in news {
            self.active.insert(tally.0, used);
        }
        let recently = minute(now).saturating_sub(2);
        let mut collected = Vec::new();
        self.active.retain(|index, used| {
            let count = tallies.all.get(*index as usize).map_or(0, |tally| tally.count.swap(0, Relaxed));
            if count > 0 {
                collected.push(Used { count: count.into(), ..used.clone() });
            }
            used.minute >= recently
        });
        collected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::digest::Pepper;

    fn used(key: &str, minute: u32) -> Used {
        let pepper = Pepper::from_hex(&"07".repeat(32)).unwrap();
        let secret = crate::auth::key::KeyFormat::new(crate::auth::key::Brand::parse("kw").unwrap(), vec![])
            .generate(crate::auth::grant::Environment::Live)
            .unwrap()
            .digest(&pepper);
        Used { secret, key: key.into(), count: 0, minute, client: None }
    }

    fn at(minute: u32) -> Timestamp {
        Timestamp::from_millis(u64::from(minute) * 60_000 + 59_999)
    }

    #[test]
    fn what_is_counted_is_collected_once_and_whole() {
        let (tallies, mut collector) = (Tallies::default(), Collector::default());
        let (one, two) = (tallies.open(), tallies.open());
        let mut asked = 0;
        for _ in 0..5 {
            tallies.count(one, 100, || {
                asked += 1;
                used("k1", 100)
            });
        }
        tallies.count(two, 100, || used("k2", 100));
        assert_eq!(asked, 1, "who it was is asked for once in a minute");
        let counts = |mut collected: Vec<Used>| {
            collected.sort_by(|a, b| a.key.cmp(&b.key));
            collected.iter().map(|used| (used.key.to_string(), used.count, used.minute)).collect::<Vec<_>>()
        };
        assert_eq!(counts(collector.collect(&tallies, at(100))), [("k1".into(), 5, 100), ("k2".into(), 1, 100)]);
        assert_eq!(counts(collector.collect(&tallies, at(100))), []);
        // In the same minute nobody says so again, and it is collected all the same.
        tallies.count(one, 100, || panic!("it was told"));
        assert_eq!(counts(collector.collect(&tallies, at(101))), [("k1".into(), 1, 100)]);
        // A request that was long on its way.
        tallies.count(two, 100, || panic!("it was told"));
        assert_eq!(counts(collector.collect(&tallies, at(102))), [("k2".into(), 1, 100)]);
        assert_eq!(counts(collector.collect(&tallies, at(200))), []);
        assert!(collector.active.is_empty(), "who is not used is not looked at");
        tallies.count(one, 200, || used("k1", 200));
        assert_eq!(counts(collector.collect(&tallies, at(200))), [("k1".into(), 1, 200)]);
    }

    #[test]
    fn threads_lose_no_count() {
        let (tallies, mut collector) = (Tallies::default(), Collector::default());
        let index = tallies.open();
        let done = std::sync::atomic::AtomicBool::new(false);
        let total: u64 = std::thread::scope(|scope| {
            let counting: Vec<_> = (0..4_u32)
                .map(|n| {
                    let tallies = &tallies;
                    scope.spawn(move || {
                        (0..50_000)
                            .for_each(|round| tallies.count(index, 100 + (round + n) / 20_000, || used("k", 100)));
                    })
                })
                .collect();
            let collecting = scope.spawn(|| {
                let mut total = 0;
                while !done.load(Relaxed) {
                    total += collector.collect(&tallies, at(100)).iter().map(|used| used.count).sum::<u64>();
                }
                total + collector.collect(&tallies, at(100)).iter().map(|used| used.count).sum::<u64>()
            });
            counting.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Relaxed);
            collecting.join().unwrap()
        });
        assert_eq!(total, 200_000);
    }

    #[test]
    fn what_is_kept_takes_in_what_comes_later() {
        let mut kept = Used { count: 3, ..used("k", 100) };
        let secret = kept.secret;
        let client = "10.0.0.1".parse().ok();
        kept.add(Used { secret, count: 2, client, ..used("k", 101) });
        assert_eq!((kept.count, kept.minute, kept.client), (5, 101, client));
        kept.add(Used { secret, count: 1, client: None, ..used("k", 100) });
        assert_eq!((kept.count, kept.minute, kept.client), (6, 101, client));
    }
}
