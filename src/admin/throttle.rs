//! Keeps those down who try keys: each source may fail so often, and then as often as time passes. Whoever has a good key is
//! never kept out: the limit is for load, since a key cannot be guessed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::auth::limit::{Exhausted, Limit};

/// How many sources are told apart; beyond them, all are one.
const SOURCES: usize = 4_096;

/// How often each source has failed.
pub(super) struct Throttle {
    origin: Instant,
    limit: Option<Limit>,
    sources: Mutex<HashMap<IpAddr, u64>>,
}

impl Default for Throttle {
    fn default() -> Self {
        // Twenty at once, then one every three seconds.
        Self { origin: Instant::now(), limit: Limit::new(20, 60).ok(), sources: Mutex::default() }
    }
}

impl Throttle {
    /// A source has failed.
    ///
    /// # Errors
    /// When it has done so too often.
    pub(super) fn failed(&self, peer: IpAddr) -> Result<(), Exhausted> {
        let Some(limit) = self.limit else { return Ok(()) };
        let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = network(peer);
        if !sources.contains_key(&source) && sources.len() >= SOURCES {
            sources.retain(|_, full_at| *full_at > now);
            if sources.len() >= SOURCES {
                source = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let full_at = sources.entry(source).or_default();
        *full_at = limit.take(*full_at, now)?;
        Ok(())
    }
}

/// Whoever has one address of IPv6 has all of its /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_fails_so_often_and_no_more() {
        let throttle = Throttle::default();
        let peer = |text: &str| text.parse().unwrap();
        assert!((0..20).all(|_| throttle.failed(peer("2001:db8::1")).is_ok()));
        let exhausted = throttle.failed(peer("2001:db8::ffff")).unwrap_err();
        assert!((1..=3).contains(&exhausted.retry_after), "{exhausted:?}");
        assert!(throttle.failed(peer("2001:db8:0:1::1")).is_ok() && throttle.failed(peer("10.0.0.1")).is_ok());
    }

    #[test]
    fn memory_has_an_end() {
        let throttle = Throttle::default();
        for n in 0..5_000_u32 {
            let _ = throttle.failed(IpAddr::V4((n + 1).into()));
        }
        assert!(throttle.sources.lock().unwrap().len() <= SOURCES + 1);
    }
}
