//! Paths that every server reads alike, and those that not.
//!
//! A rule on a path is worth nothing when the upstream reads the same bytes as another path. So a path that servers are
//! known to disagree on is *ambiguous* (reliability catalogue 33 to 38), and never matches a rule that lets it pass.

use std::borrow::Cow;

/// Whether different servers may read the path differently.
///
/// `//`, segments of dots (with blanks behind them, which Windows does not see; `...` has led two folders up), backslash,
/// `;`, `#`, control and raw non-ASCII bytes, invalid escapes, and those of controls, of `.` `/` `\` `%` and of overlong
/// UTF-8, which some servers undo twice or before they split the path. (Escapes of Latin-1 are not: old servers have files so named; and so are `%ef%bc%8f` and other
/// characters that look like a slash, for which Windows may put one, since titles have them.)
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

/// Empty but not the end, or nothing but dots: what follows a slash.
fn is_dubious_segment(after_slash: &[u8]) -> bool {
    match after_slash {
        [b'/', ..] => true,
        [b'.', rest @ ..] => {
            let dots = rest.iter().take_while(|byte| **byte == b'.').count();
            let rest = &rest[dots..];
            rest.is_empty() || rest[0] == b'/' || rest.starts_with(b"%20")
        }
        _ => false,
    }
}

fn is_dubious_escape(after_percent: &[u8]) -> bool {
    match escaped(after_percent) {
        Some(b'.' | b'/' | b'\\' | b'%' | ..0x20 | 0x7f) | None => true,
        Some(first @ (0xc0 | 0xc1 | 0xe0 | 0xf0)) => is_overlong(first, &after_percent[2..]),
        Some(_) => false,
    }
}

/// Whether these are bytes that spell a character longer than UTF-8 allows (RFC 3629 section 3): `%c0%ae` for a dot.
fn is_overlong(first: u8, after: &[u8]) -> bool {
    let second = after.strip_prefix(b"%").and_then(escaped);
    second.is_some_and(|second| match first {
        0xe0 => (0x80..0xa0).contains(&second),
        0xf0 => (0x80..0x90).contains(&second),
        _ => (0x80..0xc0).contains(&second),
    })
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

    const PLAIN: &[&str] = &[
        "/",
        "/a",
        "/a/",
        "/a/b.xml",
        "/a/.hidden",
        "/a/...b",
        "/AC%ef%bc%8fDC",
        "/a/b..c",
        "/a%20b",
        "/%C3%A9",
        "/a:b@c!$&'()*+,=~",
        "/..a",
        "/a.",
        "/%7Euser",
        "/a%3Bb",
        "/%23",
        "/voil%E0",
        "/%C0%20bient%F4t",
        "/%e0%a4%85",
    ];

    const AMBIGUOUS: &[&str] = &[
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
        "/...",
        "/a/.../b",
        "/....%20/b",
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
        "/a%0ab",
        "/a%7f",
        "/..%20/a",
        "/.%20",
        "/%c0%ae%c0%ae/a",
        "/a%c0%af",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/a\u{7f}",
        "/é",
    ];

    #[test]
    fn knows_the_paths_that_servers_disagree_on() {
        for path in PLAIN {
            assert!(!is_ambiguous(path), "{path}");
        }
        for path in AMBIGUOUS {
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
