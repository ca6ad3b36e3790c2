//! What a request is called, by us, by the server behind and in the log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HeaderValue;

/// The id of a request. It becomes a header value only where one is needed: a clone of a value costs an allocation, too.
pub(super) enum RequestId {
    /// 32 hex digits of ours.
    Made([u8; 32]),
    /// What a trusted proxy calls it.
    Given(HeaderValue),
}

impl RequestId {
    /// An id that came from outside, if it can stand in a log as it is.
    pub(super) fn given(value: &HeaderValue) -> Option<Self> {
        let readable = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let fits = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(readable);
        fits.then(|| Self::Given(value.clone()))
    }

    /// As the value of a header.
    pub(super) fn to_value(&self) -> HeaderValue {
        match self {
            // Hex digits are always a value.
            Self::Made(digits) => {
                HeaderValue::from_bytes(digits).unwrap_or_else(|_| HeaderValue::from_static("unnamed"))
            }
            Self::Given(value) => value.clone(),
        }
    }

    /// Its digits, if it is made of 32 hex digits in lower case.
    pub(super) fn hex_digits(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Made(digits) => Some(digits),
            Self::Given(value) => {
                let digits: &[u8; 32] = value.as_bytes().try_into().ok()?;
                digits.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).then_some(digits)
            }
        }
    }
}

/// Makes ids: 128 bits that do not repeat. They are names, not secrets, so no cryptography is spent on them.
pub(super) struct RequestIds {
    seed: u64,
    count: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        // Without random numbers of the system, the clock keeps workers apart well enough for names.
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
        let random = || getrandom::u64().unwrap_or_else(|_| clock() ^ u64::from(std::process::id()));
        Self { seed: random(), count: AtomicU64::new(random()) }
    }
}

impl RequestIds {
    pub(super) fn next(&self) -> RequestId {
        let [high, low] = self.bits();
        let mut digits = [0; 32];
        write_hex(&mut digits[..16], high);
        write_hex(&mut digits[16..], low);
        RequestId::Made(digits)
    }

    /// The bits of an id.
    pub(super) fn bits(&self) -> [u64; 2] {
        let count = self.count.fetch_add(1, Relaxed);
        [mix(self.seed ^ count), mix(self.seed.wrapping_add(count))]
    }
}

/// Sixteen digits, two at a time.
fn write_hex(text: &mut [u8], bits: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bits.to_be_bytes()) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

/// The finalizer of splitmix64: a bijection whose output looks random.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hex_digits_and_do_not_repeat() {
        let ids = RequestIds::default();
        let made: std::collections::HashSet<HeaderValue> = (0..10_000).map(|_| ids.next().to_value()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }

    #[test]
    fn an_id_from_outside_must_be_fit_for_a_log() {
        for (text, fits) in [("a-B_9.x", true), ("", false), ("a b", false), ("a\"b", false), ("é", false)] {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(RequestId::given(&value).is_some(), fits, "{text}");
        }
        assert!(RequestId::given(&HeaderValue::from_bytes(&[b'a'; 129]).unwrap()).is_none());
    }
}
