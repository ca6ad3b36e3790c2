//! What may be repeated in a message, and what could be a key, a pepper or a password and may not.

use std::fmt;

/// Whether a text may be repeated. A word of 16 characters or more with a digit in it could be a key, and what stands
/// before an `@` a password.
pub(super) fn may_be_shown(text: &str) -> bool {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let mut words = words.filter(|word| word.len() >= 16);
    text.len() <= 200 && !text.contains('@') && !words.any(|word| word.contains(|c: char| c.is_ascii_digit()))
}

/// A text in quotes, or words instead of one that may not be shown.
pub(super) fn quoted(text: &str) -> String {
    if may_be_shown(text) { format!("{text:?}") } else { "this value".to_owned() }
}

/// A message of somebody else, without the text that it quotes if that may not be shown.
pub(super) fn without(text: &str, message: &impl fmt::Display) -> String {
    message.to_string().replace(&format!("{text:?}"), &quoted(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_not_repeated() {
        for (text, shown) in [
            ("", true),
            ("localhost:80", true),
            ("http://my-app.some-namespace.svc.cluster.local:8080", true),
            ("/v0/organizations/{organization}/{*rest}", true),
            ("2001:db8:1234:5678:9abc:def0:1234:5678", true),
            ("0123456789abcdef", false),
            ("0123456789abcdef0123", false),
            ("kw_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWX012345", false),
            ("postgres://user:hunter2@db", false),
            ("see 00112233445566778899aabbccddeeff here", false),
            ("3q2-7wEjRWeJq83vEjRWeA==", false),
        ] {
            assert_eq!(may_be_shown(text), shown, "{text}");
            assert_eq!(quoted(text).contains(text), shown || text.is_empty(), "{text}");
        }
        assert_eq!(without("0123456789abcdef", &"\"0123456789abcdef\" is wrong"), "this value is wrong");
    }
}
