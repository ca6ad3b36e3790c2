//! How often a key may be used: so many requests at once, and then one more each time its share of the period has passed.
//!
//! The generic cell rate algorithm needs one number for each key, the time at which all of its limit will be there again,
//! and no clock of its own. Times here are nanoseconds since any fixed moment.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS: u64 = 1_000_000_000;
const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;
const DAY: u32 = 24 * HOUR;

/// More is no limit: one process does not serve as many in a second.
const MOST_REQUESTS: u32 = 1_000_000;
/// Counts are kept in memory. What lasts longer would rather be lost with a restart than used up.
const LONGEST: u32 = 31 * DAY;

/// So many requests in so many seconds; written `100/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    requests: NonZeroU32,
    seconds: NonZeroU32,
}

/// Why a text is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALimit {
    /// It is written in another way.
    #[error("write requests and a time with its unit, such as 100/1m, 5/1s or 10000/1d")]
    Form,
    /// So many requests make no sense.
    #[error("write from 1 to 1000000 requests, such as 100/1m; `keyward key disable` stops a key")]
    Requests,
    /// So long a time makes no sense.
    #[error("write a time of whole seconds, from 1s to 31d, such as 100/1m")]
    Period,
}

/// A limit that has nothing left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The limit.
    pub limit: Limit,
    /// When the next request will pass, in seconds from now, rounded up.
    pub retry_after: u64,
}

impl Limit {
    /// A limit, if it is one that makes sense.
    ///
    /// # Errors
    /// When there are no requests, too many, or the time is too short or too long.
    pub fn new(requests: u32, seconds: u32) -> Result<Self, NotALimit> {
        let requests = NonZeroU32::new(requests).filter(|n| n.get() <= MOST_REQUESTS).ok_or(NotALimit::Requests)?;
        let seconds = NonZeroU32::new(seconds).filter(|n| n.get() <= LONGEST).ok_or(NotALimit::Period)?;
        Ok(Self { requests, seconds })
    }

    /// How many may come at once, and in each period.
    pub fn requests(self) -> u32 {
        self.requests.get()
    }

    /// The period, in seconds.
    pub fn seconds(self) -> u32 {
        self.seconds.get()
    }

    /// Whether something passes here that does not pass there: more at once, or more in the long run.
    pub fn is_wider_than(self, other: Self) -> bool {
        let share = |own: Self, of: Self| u64::from(own.requests()) * u64::from(of.seconds());
        self.requests > other.requests || share(self, other) > share(other, self)
    }

    /// From one request to the next at a steady rate; rounded up, so that the rounding lets nothing pass.
    fn interval(self) -> u64 {
        (u64::from(self.seconds()) * NANOS).div_ceil(self.requests().into())
    }

    /// Takes one request at a time. `full_at` is when all of the limit is there again; the new such time comes back.
    ///
    /// # Errors
    /// When nothing is left: nothing is taken then, so that asking does not make it longer.
    pub fn take(self, full_at: u64, now: u64) -> Result<u64, Exhausted> {
        let after = full_at.max(now) + self.interval();
        let wait = (after - now).saturating_sub(self.interval() * u64::from(self.requests()));
        if wait == 0 { Ok(after) } else { Err(Exhausted { limit: self, retry_after: wait.div_ceil(NANOS) }) }
    }

    /// When all of this limit is there again, if of another one that was in its place all would be at `full_at`: what has
    /// been taken stays taken, up to the whole of this one.
    pub fn carry_over(self, other: Self, full_at: u64, now: u64) -> u64 {
        let taken = full_at.saturating_sub(now).div_ceil(other.interval()).min(self.requests().into());
        now + taken * self.interval()
    }
}

impl FromStr for Limit {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        let (requests, period) = text.split_once('/').ok_or(NotALimit::Form)?;
        if requests.is_empty() || !requests.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotALimit::Form);
        }
        let period = humantime::parse_duration(period).map_err(|_| NotALimit::Form)?;
        let seconds = u32::try_from(period.as_secs()).ok().filter(|_| period.subsec_nanos() == 0);
        Self::new(requests.parse().map_err(|_| NotALimit::Requests)?, seconds.ok_or(NotALimit::Period)?)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m")];
        let (length, unit) =
            units.into_iter().find(|(length, _)| self.seconds().is_multiple_of(*length)).unwrap_or((1, "s"));
        write!(f, "{}/{}{unit}", self.requests, self.seconds() / length)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse().unwrap()
    }

    #[test]
    fn limits_are_read_and_written() {
        for (text, expected) in [
            ("100/1m", Ok("100/1m")),
            ("100/60s", Ok("100/1m")),
            ("1/90s", Ok("1/90s")),
            ("5/1s", Ok("5/1s")),
            ("3/1h", Ok("3/1h")),
            ("1000000/31d", Ok("1000000/31d")),
            ("10/1h 30m", Ok("10/90m")),
            ("0/1m", Err(NotALimit::Requests)),
            ("1000001/1m", Err(NotALimit::Requests)),
            ("99999999999/1m", Err(NotALimit::Requests)),
            ("100/0s", Err(NotALimit::Period)),
            ("100/500ms", Err(NotALimit::Period)),
            ("100/1500ms", Err(NotALimit::Period)),
            ("100/32d", Err(NotALimit::Period)),
            ("100/999y", Err(NotALimit::Period)),
            ("100/1", Err(NotALimit::Form)),
            ("100/m", Err(NotALimit::Form)),
            ("100", Err(NotALimit::Form)),
            ("100/", Err(NotALimit::Form)),
            ("/1m", Err(NotALimit::Form)),
            ("-1/1m", Err(NotALimit::Form)),
            ("+1/1m", Err(NotALimit::Form)),
            ("", Err(NotALimit::Form)),
        ] {
            assert_eq!(text.parse::<Limit>().map(|limit| limit.to_string()), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn more_at_once_or_more_in_the_long_run_is_wider() {
        for (one, other, expected) in [
            ("100/1m", "100/1m", false),
            ("101/1m", "100/1m", true),
            ("99/1m", "100/1m", false),
            ("100/59s", "100/1m", true),
            ("100/1h", "100/1m", false),
            ("1/1s", "60/1m", false),
            ("60/1m", "1/1s", true),
            ("2/1s", "60/1m", true),
        ] {
            assert_eq!(limit(one).is_wider_than(limit(other)), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let limit = limit("3/1h");
        let mut full_at = 0;
        for _ in 0..3 {
            full_at = limit.take(full_at, 5).unwrap();
        }
        for (now, retry_after) in [(5, 1200), (6, 1200), (5 + NANOS, 1199), (1200 * NANOS + 4, 1)] {
            assert_eq!(limit.take(full_at, now), Err(Exhausted { limit, retry_after }), "{now}");
        }
        let full_at = limit.take(full_at, 1200 * NANOS + 5).unwrap();
        assert_eq!(limit.take(full_at, 1200 * NANOS + 5).unwrap_err().retry_after, 1200);
    }

    #[test]
    fn what_was_taken_stays_taken_when_the_limit_changes() {
        let (old, now) = (limit("3/1h"), 7 * NANOS);
        let spent = (0..3).fold(0, |full_at, _| old.take(full_at, now).unwrap());
        for (new, left) in [("1000/1h", 997), ("4/1h", 1), ("3/1m", 0), ("100/1s", 97), ("2/1d", 0), ("1/1h", 0)] {
            let new = limit(new);
            let mut full_at = new.carry_over(old, spent, now);
            let passes = std::iter::from_fn(|| {
                full_at = new.take(full_at, now).ok()?;
                Some(())
            });
            assert_eq!(passes.count(), left, "{new}");
        }
        assert_eq!(limit("5/1s").carry_over(old, 3, now), now, "nothing was taken");
    }

    /// Limits of all sizes, and gaps between requests about as long as their interval.
    fn limit_and_gaps() -> impl Strategy<Value = (Limit, Vec<u64>)> {
        let limits = (1_u32..50, 1_u32..200).prop_map(|(requests, seconds)| Limit::new(requests, seconds).unwrap());
        let gaps = proptest::collection::vec(0_u64..300, 1..200);
        (limits, gaps).prop_map(|(limit, percents)| {
            let gaps = percents.into_iter().map(|percent| limit.interval() * percent.saturating_sub(100) / 100);
            (limit, gaps.collect())
        })
    }

    proptest! {
        /// Against a bucket of tokens that fills while time passes, counted in fractions that need no rounding.
        #[test]
        fn it_admits_what_a_bucket_of_tokens_does((limit, gaps) in limit_and_gaps()) {
            let (token, whole) = (u128::from(limit.interval()), u128::from(limit.interval()) * u128::from(limit.requests()));
            let (mut bucket, mut full_at, mut now) = (whole, 0, 0);
            let mut admitted = Vec::new();
            for gap in gaps {
                now += gap;
                bucket = (bucket + u128::from(gap)).min(whole);
                let taken = limit.take(full_at, now);
                prop_assert_eq!(taken.is_ok(), bucket >= token);
                match taken {
                    Ok(after) => {
                        (bucket, full_at) = (bucket - token, after);
                        admitted.push(now);
                    }
                    Err(Exhausted { retry_after, .. }) => {
                        prop_assert!(limit.take(full_at, now + retry_after * NANOS).is_ok());
                        prop_assert!(limit.take(full_at, now + (retry_after - 1) * NANOS).is_err());
                    }
                }
            }
            // In no window more than the burst and what the rate allows in its time.
            for (at, from) in admitted.iter().enumerate() {
                for (count, to) in admitted[at..].iter().enumerate() {
                    let time = u128::from(to - from) * u128::from(limit.requests());
                    let allowed = u128::from(limit.requests()) + time / (u128::from(limit.seconds()) * u128::from(NANOS));
                    prop_assert!((count as u128) < allowed);
                }
            }
        }

        #[test]
        fn a_steady_rate_always_passes(requests in 1_u32..1_000_000, seconds in 1_u32..LONGEST, from in 0..NANOS) {
            let limit = Limit::new(requests, seconds).unwrap();
            let period = limit.interval() * u64::from(requests);
            prop_assert!(period >= u64::from(seconds) * NANOS, "no more than the limit says, however long it lasts");
            let mut full_at = 0;
            for n in 0..200 {
                full_at = limit.take(full_at, from + n * limit.interval()).unwrap();
            }
        }
    }
}
