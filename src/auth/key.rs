//! What a key looks like: our own format with its checksum, and the declared shapes of legacy keys.
//!
//! Everything that does not fit is refused offline: no digest, no look-up, no store.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use super::digest::{Digest, Pepper};
use super::grant::Environment;
use super::path::percent_decode;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BODY: usize = 34;
const CHECKSUM: usize = 6;
/// How many characters of a new key's body may be stored and shown; the 26 others (155 bits) stay secret.
const HINT: usize = 8;

/// The word that our keys begin with: `kw` in `kw_live_…`. Scanners find leaked keys by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brand(String);

impl Brand {
    /// A lower-case letter, then 1 to 11 lower-case letters or digits.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (2..=12).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        fits.then(|| Self(text.to_owned()))
    }
}

impl Default for Brand {
    fn default() -> Self {
        Self("kw".to_owned())
    }
}

/// The characters a shape allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// `0-9a-fA-F`
    Hex,
    /// `0-9A-Za-z`
    Base62,
    /// `0-9A-Za-z_-`
    Base64Url,
}

impl Alphabet {
    /// Without an early end, so that the compiler compares sixteen bytes at a time.
    fn allows_all(self, text: &[u8]) -> bool {
        let is_letter = |byte: u8, letters: u8| (byte | 0x20).wrapping_sub(b'a') < letters;
        let is_digit = |byte: u8| byte.wrapping_sub(b'0') < 10;
        match self {
            Self::Hex => text.iter().fold(true, |all, b| all & (is_digit(*b) | is_letter(*b, 6))),
            Self::Base62 => text.iter().fold(true, |all, b| all & (is_digit(*b) | is_letter(*b, 26))),
            Self::Base64Url => {
                let is_mark = |byte: u8| (byte == b'_') | (byte == b'-');
                text.iter().fold(true, |all, b| all & (is_digit(*b) | is_letter(*b, 26) | is_mark(*b)))
            }
        }
    }
}

/// What the keys of another system look like, such as 20 hex digits (Cablecast) or 16 (Cognitive3D).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What people call it; also kept with the secrets that have it.
    pub name: String,
    /// Exact number of characters.
    pub length: usize,
    /// Allowed characters.
    pub alphabet: Alphabet,
}

/// Every form of key that this deployment accepts.
#[derive(Clone, Debug)]
pub struct KeyFormat {
    brand: Brand,
    shapes: Vec<Shape>,
}

/// A secret that fits the format, borrowed from the request. The proof that it was checked before it is digested.
pub struct WellFormed<'s>(&'s [u8]);

impl WellFormed<'_> {
    /// The digest to look the secret up by.
    pub fn digest(&self, pepper: &Pepper) -> Digest {
        pepper.digest(self.0)
    }
}

impl KeyFormat {
    /// The format of keys of `brand`, and of foreign keys of these shapes.
    pub fn new(brand: Brand, shapes: Vec<Shape>) -> Self {
        Self { brand, shapes }
    }

    /// Refuses whatever cannot be a key, by length, alphabet and checksum alone.
    ///
    /// A value that bears our brand must be a whole key of ours: it never counts as a foreign shape.
    pub fn parse<'s>(&self, secret: &'s [u8]) -> Option<WellFormed<'s>> {
        let fits = match self.unbranded(secret) {
            Some(rest) => self.is_ours(secret, rest),
            None => self.shape_of(secret).is_some(),
        };
        fits.then_some(WellFormed(secret))
    }

    /// Whether a value begins with our brand, whole key or not.
    pub fn bears_brand(&self, value: &[u8]) -> bool {
        self.unbranded(value).is_some()
    }

    /// The declared shape that a foreign key has.
    pub fn shape_of(&self, secret: &[u8]) -> Option<&Shape> {
        self.shapes.iter().find(|shape| shape.length == secret.len() && shape.alphabet.allows_all(secret))
    }

    /// A path without what may be a key: segments in which our brand or a foreign key stands are `***`, so that a log does
    /// not have them. Ids that look like foreign keys are taken for some.
    pub fn masked<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let is_secret = |segment: &str| self.holds_key(&percent_decode(segment.as_bytes()));
        if !path.split('/').any(is_secret) {
            return Cow::Borrowed(path);
        }
        let segments: Vec<&str> =
            path.split('/').map(|segment| if is_secret(segment) { "***" } else { segment }).collect();
        Cow::Owned(segments.join("/"))
    }

    fn holds_key(&self, text: &[u8]) -> bool {
        let bears_brand = ["live", "test"].into_iter().any(|environment| {
            let brand = format!("{}_{environment}_", self.brand.0);
            text.windows(brand.len()).any(|part| part.eq_ignore_ascii_case(brand.as_bytes()))
        });
        let has_shape = |shape: &Shape| {
            let words = text.split(|byte| !shape.alphabet.allows_all(&[*byte]));
            words.into_iter().any(|word| word.len() == shape.length)
        };
        bears_brand || self.shapes.iter().any(has_shape)
    }

    /// The part of a key that may be shown: brand, environment and hint. Nothing of a foreign key may.
    pub fn hint<'s>(&self, secret: &'s str) -> Option<&'s str> {
        let rest = self.unbranded(secret.as_bytes()).filter(|rest| self.is_ours(secret.as_bytes(), rest))?;
        secret.get(secret.len() - rest.len() + "live_".len()..)?.get(..HINT)
    }

    /// Makes a new key for an environment from the operating system's random numbers.
    pub fn generate(&self, environment: Environment) -> Result<Secret, getrandom::Error> {
        let mut text = Zeroizing::new(format!("{}_{}_", self.brand.0, environment.label()));
        let body = text.len() + BODY;
        let mut random = Zeroizing::new([0; 64]);
        while text.len() < body {
            getrandom::fill(&mut *random)?;
            // Rejection sampling: 248 is the largest multiple of 62 in a byte, so every character is equally likely.
            let letters = random.iter().filter(|b| **b < 248).map(|b| char::from(ALPHABET[usize::from(b % 62)]));
            let missing = body - text.len();
            text.extend(letters.take(missing));
        }
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        Ok(Secret(text))
    }

    fn unbranded<'s>(&self, value: &'s [u8]) -> Option<&'s [u8]> {
        value.strip_prefix(self.brand.0.as_bytes())?.strip_prefix(b"_")
    }

    fn is_ours(&self, secret: &[u8], rest: &[u8]) -> bool {
        let Some(body) = rest.strip_prefix(b"live_").or_else(|| rest.strip_prefix(b"test_")) else { return false };
        let (protected, sum) = secret.split_at(secret.len().saturating_sub(CHECKSUM));
        body.len() == BODY + CHECKSUM && Alphabet::Base62.allows_all(body) && checksum(protected) == sum
    }
}

/// CRC-32 over everything before it, brand and environment included, in base62 padded with `0`.
fn checksum(text: &[u8]) -> [u8; CHECKSUM] {
    let mut sum = crc32fast::hash(text) as usize;
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[sum % 62];
        sum /= 62;
    }
    digits
}

/// A new key's only value: shown once by [`Secret::reveal`], wiped when dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// One that was handed out before, and has come back.
    pub fn returned(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The text to hand to the customer, for printing it once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The digest to store it by.
    pub fn digest(&self, pepper: &Pepper) -> Digest {
        pepper.digest(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn format() -> KeyFormat {
        let shape = |name: &str, length, alphabet| Shape { name: name.into(), length, alphabet };
        KeyFormat::new(
            Brand::parse("kw").unwrap(),
            vec![
                shape("cablecast", 20, Alphabet::Hex),
                shape("cognitive3d", 16, Alphabet::Hex),
                shape("apivideo", 23, Alphabet::Base62),
                shape("url", 43, Alphabet::Base64Url),
            ],
        )
    }

    #[test]
    fn parses_exactly_the_keys_of_this_deployment() {
        for (key, fits) in [
            ("kw_live_000000000000000000000000000000000032gtfw", true),
            ("kw_test_4Zq8mT1yJc6Kx0PnWv3LbR7dHs9GfE2uAi3YRHqB", true),
            ("kw_live_EXAMPLEexampleEXAMPLEexample0000011o0HwR", true),
            // The checksum covers brand and environment.
            ("kw_test_000000000000000000000000000000000032gtfw", false),
            ("kw_live_000000000000000000000000000000000032gtfW", false),
            ("kw_live_00000000000000000000000000000000032gtfw", false),
            ("kw_live_0000000000000000000000000000000000032gtfw", false),
            ("KW_live_000000000000000000000000000000000032gtfw", false),
            ("kw_prod_000000000000000000000000000000000032gtfw", false),
            ("kw_live_00000000000000000000000000000000003_gtfw", false),
            ("kw_live_", false),
            ("kw_", false),
            ("", false),
            // Foreign keys, by shape.
            ("7e14204fcce1e00152b4", true),
            ("7E14204FCCE1E00152B4", true),
            ("7e14204fcce1e00152b", false),
            ("7e14204fcce1e00152bg", false),
            ("abcdef1234567890", true),
            ("9VxMaPgsaFg7EBqmuspSzF7", true),
            ("9VxMaPgsaFg7EBqmuspSzF-", false),
            ("9VxMaPgsaFg7EBqmuspSzF-9VxMaPgsaFg7EBqm_spS", true),
            // What bears the brand is ours or nothing, even where a shape would fit.
            ("kw_maPgsaFg7EBqmuspSzF-9VxMaPgsaFg7EBqm_spS", false),
        ] {
            assert_eq!(format().parse(key.as_bytes()).is_some(), fits, "{key}");
        }
        let none = KeyFormat::new(Brand::parse("acme").unwrap(), vec![]);
        assert!(none.parse(b"7e14204fcce1e00152b4").is_none(), "no shape is declared");
    }

    #[test]
    fn a_new_key_parses_and_shows_its_hint_only() {
        for environment in [Environment::Live, Environment::Test] {
            let secret = format().generate(environment).unwrap();
            let text = secret.reveal();
            assert!(format().parse(text.as_bytes()).is_some(), "{text}");
            assert_eq!((text.len(), &text[3..7]), (48, environment.label()));
            assert_eq!(format().hint(text), Some(&text[8..16]));
            assert_eq!(format!("{secret:?}"), "Secret");
        }
        assert_eq!(format().hint("7e14204fcce1e00152b4"), None);
        assert_eq!(format().hint("kw_live_broken"), None);
    }

    #[test]
    fn b29_what_may_be_a_key_is_masked_in_paths() {
        for (path, masked) in [
            ("/", "/"),
            ("", ""),
            ("/a/b.xml", "/a/b.xml"),
            ("/kw/live", "/kw/live"),
            ("/kw_live_000000000000000000000000000000000032gtfw", "/***"),
            ("/a/kw_live_000000000000000000000000000000000032gtfw.xml/b", "/a/***/b"),
            ("/a/xKW_TEST_0000/kw_other", "/a/***/kw_other"),
            ("/%6bw%5flive_0000000000/b", "/***/b"),
            ("/key=7e14204fcce1e00152b4;v=1/x", "/***/x"),
            ("/7E14204FCCE1E00152B4", "/***"),
            ("/7e14204fcce1e00152b", "/7e14204fcce1e00152b"),
            ("/abcdef1234567890", "/***"),
            ("/9VxMaPgsaFg7EBqmuspSzF-9VxMaPgsaFg7EBqm_spS", "/***"),
        ] {
            assert_eq!(format().masked(path), masked, "{path}");
        }
    }

    #[test]
    fn alphabets_are_what_they_say() {
        for byte in 0..=255_u8 {
            let alnum = byte.is_ascii_alphanumeric();
            assert_eq!(Alphabet::Hex.allows_all(&[byte]), byte.is_ascii_hexdigit(), "{byte}");
            assert_eq!(Alphabet::Base62.allows_all(&[byte]), alnum, "{byte}");
            assert_eq!(Alphabet::Base64Url.allows_all(&[byte]), alnum || byte == b'_' || byte == b'-', "{byte}");
        }
    }

    #[test]
    fn a_brand_is_short_lower_case_and_begins_with_a_letter() {
        for (text, fits) in [
            ("kw", true),
            ("acme2", true),
            ("a", false),
            ("2a", false),
            ("Kw", false),
            ("abcdefghijklm", false),
            ("a_b", false),
        ] {
            assert_eq!(Brand::parse(text).is_some(), fits, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_breaks_a_key(at in 0_usize..48, byte in any::<u8>()) {
            let mut key = *b"kw_live_EXAMPLEexampleEXAMPLEexample0000011o0HwR";
            let same = key[at] == byte;
            key[at] = byte;
            prop_assert!(same == format().parse(&key).is_some());
        }

        #[test]
        fn parsing_never_panics(bytes in any::<Vec<u8>>()) {
            let _ = format().parse(&bytes);
            let _ = format().hint(&String::from_utf8_lossy(&bytes));
        }
    }
}
