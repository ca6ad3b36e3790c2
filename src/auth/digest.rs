//! The fingerprint under which a secret is stored and looked up, and the pepper that goes into it.
//!
//! `digest = HMAC-SHA-256(pepper, SHA-256(secret))[..16]`. Fast on purpose: keys are random, so there is nothing to
//! guess that a slow hash would protect, and it runs on every request. Peppered, because imported legacy keys have as
//! little as 64 bits: a stolen table of plain hashes could be searched, a peppered one cannot. The inner SHA-256 lets
//! systems that only kept `sha256(key)` be imported.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The 16-byte fingerprint of a secret. It is a function of a secret, so it is never printed or logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The id of the digest's `secret` record: 32 hex digits.
    pub fn to_record_id(self) -> String {
        hex(&self.0)
    }

    /// Reads the id of a `secret` record.
    pub fn from_record_id(id: &str) -> Option<Self> {
        parse_hex(id).map(Self)
    }
}

/// A place for the digest of what is in use. One thread writes and reads it, so its two halves belong together.
#[derive(Default)]
pub struct DigestCell([AtomicU64; 2]);

impl DigestCell {
    /// Puts a digest into its place, or none.
    pub fn set(&self, digest: Option<Digest>) {
        let (halves, _) = digest.as_ref().map_or(&NO_DIGEST, |digest| &digest.0).as_chunks::<8>();
        for (cell, half) in self.0.iter().zip(halves) {
            cell.store(u64::from_ne_bytes(*half), Relaxed);
        }
    }

    /// What is in it.
    pub fn get(&self) -> Option<Digest> {
        let mut bytes = NO_DIGEST;
        for (half, cell) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.0) {
            *half = cell.load(Relaxed).to_ne_bytes();
        }
        (bytes != NO_DIGEST).then_some(Digest(bytes))
    }
}

/// No secret has it: one in 2^128 would.
const NO_DIGEST: [u8; 16] = [0; 16];

impl Hash for Digest {
    /// Eight of its bytes: a digest is uniformly distributed, and nobody without the pepper can choose one.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_le_bytes(self.0.as_chunks().0[0]));
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

/// The pepper as a keyed HMAC state, so that a digest costs three compressions and not five.
pub struct Pepper(Hmac<Sha256>);

/// What a key that comes from the pepper is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Goes into the hashes of passwords: a stolen store says nothing about them.
    Passwords,
    /// Encrypts values that may be looked up again.
    Sealing,
    /// Marks what was handed out to be brought back: links, and values that wait to be confirmed.
    Tickets,
    /// Proves that a snapshot of the store is ours.
    Snapshots,
}

/// Why a text is no pepper.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a pepper is 64 hex digits (32 random bytes); make one with `keyward init` or `openssl rand -hex 32`")]
pub struct NotAPepper;

impl Pepper {
    /// Reads 64 hex digits, as they stand in a pepper file; white space around them is ignored.
    pub fn from_hex(text: &str) -> Result<Self, NotAPepper> {
        let mut bytes: [u8; 32] = parse_hex(text.trim()).ok_or(NotAPepper)?;
        let pepper = Self(Hmac::new_from_slice(&bytes).map_err(|_| NotAPepper)?);
        bytes.zeroize();
        Ok(pepper)
    }

    /// The text of a new pepper file.
    pub fn generate() -> Result<Zeroizing<String>, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes)?;
        Ok(Zeroizing::new(hex(&*bytes)))
    }

    /// The digest of a secret. Only well-formed secrets get here: see [`super::key::KeyFormat::parse`].
    pub(super) fn digest(&self, secret: &[u8]) -> Digest {
        self.digest_of_sha256(&Sha256::digest(secret).into())
    }

    /// The digest of a secret of which another system kept only the SHA-256.
    pub fn digest_of_sha256(&self, hash: &[u8; 32]) -> Digest {
        Digest(self.mac(hash).as_chunks().0[0])
    }

    /// What a store keeps to notice that it is opened with another pepper: it says nothing about any secret.
    pub fn check(&self) -> PepperCheck {
        PepperCheck(self.mac(b"keyward pepper check"))
    }

    /// A key for something else that must not lie in the store. No purpose is as long as what digests are made of, so none
    /// of these is a digest.
    pub fn key_for(&self, purpose: Purpose) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.mac(match purpose {
            Purpose::Passwords => b"keyward passwords",
            Purpose::Sealing => b"keyward sealed values",
            Purpose::Tickets => b"keyward tickets",
            Purpose::Snapshots => b"keyward snapshot",
        }))
    }

    /// What proves that a snapshot is ours.
    pub fn snapshot_mac(&self) -> SnapshotMac {
        let key = self.key_for(Purpose::Snapshots);
        SnapshotMac(Hmac::new_from_slice(&*key).expect("HMAC takes keys of any length"))
    }

    fn mac(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper")
    }
}

/// A proof over everything that it is given, which only those with the pepper can make.
#[derive(Clone)]
pub struct SnapshotMac(Hmac<Sha256>);

impl SnapshotMac {
    /// Takes in what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The proof.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// Whether this is the proof; takes as long whichever byte is wrong.
    pub fn proves(self, proof: &[u8; 32]) -> bool {
        self.0.verify_slice(proof).is_ok()
    }
}

/// A value that two peppers share only if they are equal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PepperCheck([u8; 32]);

impl PepperCheck {
    /// As it is kept in a store.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// As it is read from a store.
    pub fn from_hex(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Debug for PepperCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PepperCheck")
    }
}

/// Lower-case hex digits of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// Reads exactly `N` bytes of hex digits of either case.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn test_pepper() -> Pepper {
        Pepper::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap()
    }

    #[test]
    fn digests_are_those_of_the_published_vectors() {
        for (secret, expected) in [
            ("kw_live_000000000000000000000000000000000032gtfw", "4297c3da985becfc784a268dfab43ef1"),
            ("kw_test_4Zq8mT1yJc6Kx0PnWv3LbR7dHs9GfE2uAi3YRHqB", "6fa289126fc22b8e97995fa3cef1b3f6"),
            ("kw_live_EXAMPLEexampleEXAMPLEexample0000011o0HwR", "c8574de1a6d47acdb4915ea49a32f998"),
            ("7e14204fcce1e00152b4", "f2e8e5ebdcd551bc1de810156a310d47"),
            ("9VxMaPgsaFg7EBqmuspSzF7", "b99e30cc339eca79b4c74f8675260005"),
        ] {
            assert_eq!(test_pepper().digest(secret.as_bytes()).to_record_id(), expected);
        }
    }

    #[test]
    fn a_pepper_is_64_hex_digits_and_nothing_else() {
        let good = "ab".repeat(32);
        assert!(Pepper::from_hex(&format!(" {good}\n")).is_ok());
        for bad in ["", "ab", &good[1..], &format!("{good}00"), &good.replace('a', "g"), &good.replacen("ab", "+b", 1)]
        {
            assert_eq!(Pepper::from_hex(bad).unwrap_err(), NotAPepper, "{bad}");
        }
    }

    #[test]
    fn a_cell_gives_back_what_was_put_in() {
        let (cell, digest) = (DigestCell::default(), test_pepper().digest(b"x"));
        assert_eq!(cell.get(), None);
        cell.set(Some(digest));
        assert_eq!(cell.get(), Some(digest));
        cell.set(None);
        assert_eq!(cell.get(), None);
    }

    #[test]
    fn what_is_a_function_of_a_secret_does_not_print() {
        let pepper = test_pepper();
        let printed = format!("{:?} {:?} {:?}", pepper, pepper.digest(b"x"), pepper.check());
        assert_eq!(printed, "Pepper Digest PepperCheck");
    }
}
