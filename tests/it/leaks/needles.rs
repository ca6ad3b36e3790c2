//! What a secret may look like when it is told by mistake, and how it is found in a haystack.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The pepper of every site.
pub(super) const PEPPER: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// So many bytes in a row are no coincidence, and no hint: a hint has eight characters.
const WINDOW: usize = 12;

/// A secret that must not be seen.
#[derive(Clone, Debug)]
pub(super) struct Canary {
    /// What it is called when it is seen.
    pub(super) what: String,
    /// The secret.
    pub(super) value: String,
}

impl Canary {
    pub(super) fn new(what: &str, value: &str) -> Self {
        Self { what: what.to_owned(), value: value.to_owned() }
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.value).into()
    }

    /// Its hash, as other systems keep it.
    pub(super) fn sha256_hex(&self) -> String {
        hex(&self.sha256())
    }

    /// What the store looks it up by.
    fn digest(&self) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&[0x5a; 32]).unwrap();
        mac.update(&self.sha256());
        mac.finalize().into_bytes().into()
    }
}

/// A key of twenty hex digits that is like no other.
pub(super) fn hex_key(seed: &str) -> String {
    hex(&Sha256::digest(seed)[..10])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ways in which bytes are written.
fn encodings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let percent: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let text = |text: String| text.into_bytes();
    vec![
        ("as it is", bytes.to_vec()),
        ("in hex", text(hex(bytes))),
        ("in HEX", text(hex(bytes).to_uppercase())),
        ("percent-encoded", text(percent.clone())),
        ("PERCENT-encoded", text(percent.to_uppercase())),
        ("in base64", text(STANDARD_NO_PAD.encode(bytes))),
        ("in base64url", text(URL_SAFE_NO_PAD.encode(bytes))),
        ("as a list", text(numbers.join(", "))),
        ("reversed", bytes.iter().rev().copied().collect()),
    ]
}

/// All windows of all forms of some secrets.
pub(super) struct Needles(HashMap<[u8; WINDOW], String>);

impl Needles {
    /// Everything that tells a secret.
    pub(super) fn of(canaries: &[Canary]) -> Self {
        let mut needles = Self::of_values(canaries);
        for canary in canaries {
            let digest = canary.digest();
            needles.add(&canary.what, "its digest", &digest[..16], 0);
            needles.add(&canary.what, "its whole digest", &digest, 0);
        }
        needles
    }

    /// The same without the digests, which a database has.
    pub(super) fn of_values(canaries: &[Canary]) -> Self {
        let mut needles = Self(HashMap::new());
        for canary in canaries {
            // Of our own keys the brand is known, and no part of the secret.
            let known = if canary.value.starts_with("kw_") { "kw_live_".len() } else { 0 };
            needles.add(&canary.what, "its value", canary.value.as_bytes(), known);
            needles.add(&canary.what, "its hash", &canary.sha256(), 0);
            let basic = STANDARD.encode(format!("{}:", canary.value));
            needles.add(&canary.what, "its Basic form", basic.as_bytes(), 0);
        }
        needles
    }

    fn add(&mut self, what: &str, which: &str, bytes: &[u8], known: usize) {
        for (encoding, form) in encodings(bytes) {
            let known = if encoding == "as it is" { known } else { 0 };
            for window in form[known..].windows(WINDOW) {
                self.0.insert(window.try_into().unwrap(), format!("{what}: {which} {encoding}"));
            }
        }
    }

    /// What is found, once for each kind.
    pub(super) fn found_in(&self, by: &str, haystack: &[u8]) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (at, window) in haystack.windows(WINDOW).enumerate() {
            let Some(what) = self.0.get(window) else { continue };
            if !found.iter().any(|line| line.contains(what)) {
                let around = &haystack[at.saturating_sub(60)..haystack.len().min(at + 80)];
                found.push(format!("{what}, in {by}: …{}…", String::from_utf8_lossy(around)));
            }
        }
        found
    }
}
