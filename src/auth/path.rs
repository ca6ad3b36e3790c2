//! Paths that every server reads alike, and those that not.
//!
//! A rule on a path is worth nothing when the upstream reads the same bytes as another path. So a path that servers are
//! known to disagree on is *ambiguous* (reliability catalogue 33 to 38), and never matches a rule that lets it pass.

use std::borrow::Cow;

/// Whether different servers may read the path differently.
///
/// `//`, dot segments, backslash, `;`, `#`, control and raw non-ASCII bytes, invalid escapes, and the escapes of `.` `/`
/// `\` `%` and NUL, which some servers undo twice or before they split the path.
pub fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        let doubtful = match byte {
            b'/' => is_dubious_segment(tail),
            b'%' => is_dubious_escape(tail),
            b'\\' | b';' | b'#' | ..=0x20 | 0x7f.. => true,
            _ => false,
        };
        if doubtful {
            return true;
        }
        rest = tail;
    }
    !bytes.starts_with(b"/")
}

/// Empty but not the end, `.` or `..`: what follows a slash.
fn is_dubious_segment(after_slash: &[u8]) -> bool {
    match after_slash {
        [b'/', ..] => true,
        [b'.', b'.', rest @ ..] | [b'.', rest @ ..] => rest.is_empty() || rest[0] == b'/',
        _ => false,
    }
}

fn is_dubious_escape(after_percent: &[u8]) -> bool {
    match escaped(after_percent) {
        Some(byte) => matches!(byte, b'.' | b'/' | b'\\' | b'%' | 0),
        None => true,
    }
}

/// The byte that two hex digits stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

/// Undoes percent-encoding once. Invalid escapes stay as they are.
pub fn percent_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let (byte, tail) = match escaped(tail).filter(|_| *byte == b'%') {
            Some(escaped) => (escaped, &tail[2..]),
            None => (*byte, tail),
        };
        decoded.push(byte);
        rest = tail;
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_paths_that_servers_disagree_on() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.xml",
            "/a/.hidden",
            "/a/...",
            "/a/b..c",
            "/a%20b",
            "/%C3%A9",
            "/a:b@c!$&'()*+,=~",
            "/..a",
            "/a.",
            "/%7Euser",
            "/a%3Bb",
            "/%23",
        ] {
            assert!(!is_ambiguous(path), "{path}");
        }
        for path in [
            "",
            "a",
            "*",
            "//",
            "/a//b",
            "/a/.",
            "/a/./b",
            "/..",
            "/a/../b",
            "/a/..",
            "/%2e%2e/b",
            "/a%2Eb",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%252e",
            "/a%00",
            "/a;b=c",
            "/a#b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%u002f",
            "/a b",
            "/a\tb",
            "/a\u{7f}",
            "/é",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
    }

    #[test]
    fn decodes_once() {
        for (text, expected) in [
            ("/a", "/a"),
            ("/a%20b", "/a b"),
            ("%41%4a", "AJ"),
            ("%2541", "%41"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("", ""),
        ] {
            assert_eq!(percent_decode(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }
}
