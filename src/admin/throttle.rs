//! Keeps those down who try keys: each source may fail so often, and then as often as time passes. Whoever has a good key is
//! never kept out: the limit is for load, since a key cannot be guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::auth::limit::{Exhausted, Limit};

/// How many sources are told apart; beyond them, all are one.
const SOURCES: usize = 4_096;

/// How often each source has failed.
pub(super) struct Throttle {
    origin: Instant,
    limit: Option<Limit>,
    sources: Mutex<HashMap<u128, u64>>,
}

/// What an address of IPv6 cannot be: stands for all sources that are not told apart.
const OTHERS: u128 = 0;

impl Default for Throttle {
    fn default() -> Self {
        // Twenty at once, then one every three seconds.
        Self::of(20)
    }
}

/// Attempts to sign in, of which each costs memory and time: by where they come from, by that and whom they are meant to be,
/// and, more of them, by whom alone: one source shuts nobody out, and many of them guess only so fast.
pub(super) struct SignIns {
    peers: Throttle,
    pairs: Throttle,
    users: Throttle,
}

impl Default for SignIns {
    fn default() -> Self {
        Self { peers: Throttle::of(20), pairs: Throttle::of(10), users: Throttle::of(100) }
    }
}

impl SignIns {
    /// Somebody comes to try. Whoever succeeds counts too: it is known only afterwards.
    ///
    /// # Errors
    /// When there were too many.
    pub(super) fn come(&self, peer: IpAddr) -> Result<(), Exhausted> {
        self.peers.failed(peer)
    }

    /// They try to be somebody.
    ///
    /// # Errors
    /// When there were too many.
    pub(super) fn attempt(&self, peer: IpAddr, email: &str) -> Result<(), Exhausted> {
        let email = email.trim().to_lowercase();
        self.pairs.take(source(&[&network(peer).to_be_bytes(), email.as_bytes()]))?;
        self.users.take(source(&[email.as_bytes()]))
    }
}

/// Somebody, as throttles tell them apart.
fn source(parts: &[&[u8]]) -> u128 {
    let hash: [u8; 32] = parts.iter().fold(Sha256::new(), Sha256::chain_update).finalize().into();
    u128::from_be_bytes(*hash.first_chunk().unwrap_or(&[1; 16]))
}

impl Throttle {
    /// So often a minute.
    fn of(times: u32) -> Self {
        Self { origin: Instant::now(), limit: Limit::new(times, 60).ok(), sources: Mutex::default() }
    }

    /// A source has failed.
    ///
    /// # Errors
    /// When it has done so too often.
    pub(super) fn failed(&self, peer: IpAddr) -> Result<(), Exhausted> {
        self.take(network(peer))
    }

    fn take(&self, mut source: u128) -> Result<(), Exhausted> {
        let Some(limit) = self.limit else { return Ok(()) };
        let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if !sources.contains_key(&source) && sources.len() >= SOURCES {
            sources.retain(|_, full_at| *full_at > now);
            if sources.len() >= SOURCES {
                source = OTHERS;
            }
        }
        let full_at = sources.entry(source).or_default();
        *full_at = limit.take(*full_at, now)?;
        Ok(())
    }
}

/// Whoever has one address of IPv6 has all of its /64.
fn network(peer: IpAddr) -> u128 {
    match peer {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << 64),
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
    fn whoever_shall_be_guessed_is_tried_so_often_wherever_it_comes_from() {
        let sign_ins = SignIns::default();
        let attempt = |n: u32, email| sign_ins.attempt(IpAddr::V4(n.into()), email);
        assert!((0..10).all(|_| attempt(1, "ann@example.com").is_ok()));
        assert!(attempt(1, " Ann@example.com").is_err() && attempt(1, "bea@example.com").is_ok());
        // Whom somebody else tries to shut out comes in; but not everybody tries for ever.
        assert!((2..92).all(|n| attempt(n, "Ann@example.com").is_ok()));
        assert!(attempt(92, "ann@example.com").is_err());
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
