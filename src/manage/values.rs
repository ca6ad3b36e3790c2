//! What people write of keys, on the command line or in JSON, as types that cannot be wrong.

use std::str::FromStr;
use std::time::Duration;

use crate::auth::address::{Networks, NotANetwork};
use crate::auth::grant::Timestamp;
use crate::auth::limit::{Limit, NotALimit};
use crate::store::record::is_key_id;

/// Why a text is not what an option wants.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAValue(&'static str);

impl NotAValue {
    pub(super) const fn new(why: &'static str) -> Self {
        Self(why)
    }
}

/// Where mail reaches a user, in lower case: one address, one user, however it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(pub String);

impl FromStr for Email {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let text = text.trim().to_lowercase();
        let strange = |c: char| c.is_whitespace() || c.is_control() || "<>()[],;:\\\"".contains(c);
        let parts = text.rsplit_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty());
        let fits = parts.is_some_and(|(name, _)| !name.contains('@')) && text.len() <= 254 && !text.contains(strange);
        fits.then_some(Self(text)).ok_or(NotAValue("an e-mail address is written ann@example.com"))
    }
}

/// What people call a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonName(pub String);

impl FromStr for PersonName {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        is_line(text, 100)
            .then(|| Self(text.to_owned()))
            .ok_or(NotAValue("names of users are 1 to 100 characters on one line, none of them hidden"))
    }
}

/// The id of a key that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(pub String);

impl FromStr for KeyId {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let fits = is_new_key_id(text);
        fits.then(|| Self(text.to_owned())).ok_or(NotAValue(
            "ids of keys are 1 to 64 of A-Z a-z 0-9 . _ -, not of dots alone, and neither import nor identify",
        ))
    }
}

/// Whether a key that is made may have this id: the API must be able to ask for it, under `/v2/keys/`.
pub(super) fn is_new_key_id(text: &str) -> bool {
    is_key_id(text) && !["import", "identify"].contains(&text) && text.contains(|c| c != '.')
}

/// The name of a key. It may be put into a header for the upstream, so it has no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(pub String);

impl FromStr for KeyName {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        is_line(text, 50)
            .then(|| Self(text.to_owned()))
            .ok_or(NotAValue("names of keys are 1 to 50 characters on one line, none of them hidden"))
    }
}

/// A word by which people find a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub String);

impl FromStr for Tag {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        is_line(text, 50)
            .then(|| Self(text.to_owned()))
            .ok_or(NotAValue("tags are 1 to 50 characters on one line, none of them hidden"))
    }
}

/// The user that a key was handed to. It may be put into a header for the upstream too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl FromStr for UserName {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        is_line(text, 255)
            .then(|| Self(text.to_owned()))
            .ok_or(NotAValue("users are 1 to 255 characters on one line, none of them hidden"))
    }
}

/// The name of a role, which is also its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(pub Box<str>);

impl FromStr for RoleName {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let fits = is_key_id(text);
        fits.then(|| Self(text.into()))
            .ok_or(NotAValue("names of roles are 1 to 64 of A-Z a-z 0-9 . _ -, such as admin"))
    }
}

/// Whether a text is that long at most, can be seen, and reads as it is written: nothing in it turns the line around, hides, or
/// breaks it.
fn is_line(text: &str, longest: usize) -> bool {
    let fits = (1..=longest).contains(&text.chars().count());
    fits && !text.trim().is_empty() && !text.contains(|c: char| c.is_control() || is_unseen(c))
}

/// Line separators, marks of direction, characters without width, and tags (Unicode's Cf, Zl and Zp, as far as they matter).
const fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An address or network that a key may be used from, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net(pub String);

impl FromStr for Net {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        Networks::parse([text]).map(|_| Self(text.to_owned()))
    }
}

/// A time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has passed")]
pub struct Passed(pub Timestamp);

/// The longest time that an end may be away: what is longer was mistyped.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// When something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// That long from now.
    In(Duration),
    /// At that time.
    At(Timestamp),
}

impl FromStr for Expiry {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let at = Timestamp::parse(text).map(Self::At);
        let soon = |duration: &Duration| *duration <= LONGEST;
        at.or_else(|| humantime::parse_duration(text).ok().filter(soon).map(Self::In))
            .ok_or(NotAValue("write 90d, 12h, 2027-01-31 (UTC) or 2027-01-31T12:00:00Z, within a hundred years"))
    }
}

impl Expiry {
    /// The time that it means.
    ///
    /// # Errors
    /// When it has passed: a key that must not work is disabled or revoked.
    pub fn after(self, now: Timestamp) -> Result<Timestamp, Passed> {
        let time = match self {
            Self::In(duration) => now.plus(duration),
            Self::At(time) => time,
        };
        if time > now { Ok(time) } else { Err(Passed(time)) }
    }
}

/// How often a key may be used; `none` for as often as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit(pub Option<Limit>);

impl FromStr for RateLimit {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|limit| Self(Some(limit))) }
    }
}

/// How long the other values of a key go on after a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl FromStr for Grace {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let duration = if text == "now" { Some(Duration::ZERO) } else { humantime::parse_duration(text).ok() };
        duration.map(Self).ok_or(NotAValue("write 24h, 30min or now"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_in_characters_and_fit_on_a_line() {
        for (text, fits) in [
            ("CI", true),
            (&"é".repeat(50), true),
            (&"é".repeat(51), false),
            ("", false),
            ("a\nb", false),
            ("a\u{1b}[31m", false),
            (" ", false),
            ("a\u{202e}b", false),
            ("a\u{200b}b", false),
            ("a\u{2028}b", false),
            ("\u{feff}a", false),
            ("ann 🙂 سلام", true),
        ] {
            assert_eq!(KeyName::from_str(text).is_ok(), fits, "{text}");
        }
        assert!(UserName::from_str(&"u".repeat(255)).is_ok());
        assert!(UserName::from_str(&"u".repeat(256)).is_err());
        assert!(KeyId::from_str("a.b_c-1").is_ok());
        for text in ["a/b", "import", "identify", ".", "..", ""] {
            assert!(KeyId::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_one_however_it_is_typed() {
        assert_eq!(Email::from_str(" Ann@Example.COM ").unwrap().0, "ann@example.com");
        for text in ["", "ann", "@example.com", "ann@", "a@b@c", "ann smith@example.com", "<ann@example.com>"] {
            assert!(Email::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_expiry_is_a_time_or_a_duration_and_lies_ahead() {
        let now = Timestamp::parse("2026-11-22").unwrap();
        for (text, expected) in [
            ("90d", Some("2027-02-20T00:00:00.000Z")),
            ("36h", Some("2026-11-23T12:00:00.000Z")),
            ("2027-01-31", Some("2027-01-31T00:00:00.000Z")),
            ("2027-01-31T12:00:00Z", Some("2027-01-31T12:00:00.000Z")),
            ("2026-11-22", None),
            ("2020-01-01", None),
            ("0s", None),
        ] {
            let time = Expiry::from_str(text).unwrap().after(now).map(|time| time.to_string());
            assert_eq!(time.ok().as_deref(), expected, "{text}");
        }
        for text in ["", "90", "soon", "31.01.2027", "2027-02-30", "99999999999d"] {
            assert!(Expiry::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_grace_may_be_none() {
        assert_eq!(Grace::from_str("now"), Ok(Grace(Duration::ZERO)));
        assert_eq!(Grace::from_str("24h"), Ok(Grace(Duration::from_secs(86_400))));
        assert!(Grace::from_str("2027-01-31").is_err());
    }
}
