//! The query string as ranges of bytes, so that one parameter can be cut out and all else stays as it is.
//!
//! Taking a query apart and putting it together again re-orders and re-encodes it, and breaks signatures and odd
//! syntax; so nothing here ever builds a query from decoded parts.

use std::borrow::Cow;
use std::ops::Range;

use zeroize::Zeroizing;

use super::path::percent_decode;

/// One parameter: where it stands in the query, and where its value does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name, `=` and value.
    pub whole: Range<usize>,
    /// What follows the first `=`; empty at the end where there is none.
    pub value: Range<usize>,
}

/// The parameters of that name, whether it is written plainly or percent-encoded.
pub fn parameters<'q, 'n>(query: &'q str, name: &'n str) -> impl Iterator<Item = Parameter> + use<'q, 'n> {
    named(query, move |found| found == name.as_bytes())
}

/// What some server takes for a parameter of that name: many do not look at the case of letters, some trim spaces, read
/// `name[]` as a list, or end parameters at `;` too. Each comes with the one separator that goes with it.
pub fn lookalikes(query: &str, name: &str) -> Vec<Range<usize>> {
    let is_wanted = |found: &[u8]| {
        let plain = found.split(|byte| *byte == b'[').next().unwrap_or_default().trim_ascii();
        plain.eq_ignore_ascii_case(name.as_bytes())
    };
    let mut found = Vec::new();
    for whole in named(query, |_| true).map(|parameter| parameter.whole) {
        let mut start = whole.start;
        let parts: Vec<Range<usize>> = query[whole.clone()]
            .split(';')
            .map(|part| {
                let range = start..start + part.len();
                start = range.end + 1;
                range
            })
            .collect();
        let wanted = parts.iter().filter(|part| {
            let text = &query[(*part).clone()];
            is_wanted(&decode(text.split('=').next().unwrap_or_default().as_bytes()))
        });
        let wanted: Vec<&Range<usize>> = wanted.collect();
        if wanted.len() == parts.len() {
            found.push(whole);
        } else {
            let with_separator = |part: &Range<usize>| {
                if part.start > whole.start { part.start - 1..part.end } else { part.start..part.end + 1 }
            };
            found.extend(wanted.into_iter().map(with_separator));
        }
    }
    found
}

fn named<F: Fn(&[u8]) -> bool>(query: &str, is_wanted: F) -> impl Iterator<Item = Parameter> + use<'_, F> {
    let mut start = 0;
    query.split('&').filter_map(move |part| {
        let whole = start..start + part.len();
        start = whole.end + 1;
        let name_length = part.find('=').unwrap_or(part.len());
        let value = (whole.start + name_length + 1).min(whole.end)..whole.end;
        is_wanted(&decode(&part.as_bytes()[..name_length])).then_some(Parameter { whole, value })
    })
}

/// A value as the client meant it: `+` is a space, escapes are undone. `None` where the raw bytes are the value.
pub fn decoded_value(value: &str) -> Option<Zeroizing<Vec<u8>>> {
    match decode(value.as_bytes()) {
        Cow::Borrowed(_) => None,
        Cow::Owned(decoded) => Some(Zeroizing::new(decoded)),
    }
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text);
    }
    let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    Cow::Owned(percent_decode(&spaced).into_owned())
}

/// The query without some parameters, given in order: each goes with one `&` beside it, and no other byte changes.
pub fn without(query: &str, cuts: &[Range<usize>]) -> String {
    let mut kept = String::with_capacity(query.len());
    let mut at = 0;
    for cut in cuts {
        // Cuts may overlap: one parameter can be a credential to us, and another one's name to some server.
        kept.push_str(&query[at..cut.start.max(at)]);
        at = cut.end.max(at);
        let ends_here = at == query.len() || query[at..].starts_with('&');
        if kept.ends_with('&') && ends_here {
            kept.pop();
        } else if kept.is_empty() && query[at..].starts_with('&') {
            at += 1;
        }
    }
    kept.push_str(&query[at..]);
    kept
}

/// Appends a parameter, percent-encoding whatever could end it or be read in two ways.
pub fn append(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    encode(query, name);
    query.push('=');
    encode(query, value);
}

fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    #[track_caller]
    fn check(query: &str, values: &[&str], rest: &str) {
        let found: Vec<Parameter> = parameters(query, "api_key").collect();
        let cuts: Vec<Range<usize>> = found.iter().map(|p| p.whole.clone()).collect();
        assert_eq!(found.iter().map(|p| &query[p.value.clone()]).collect::<Vec<_>>(), values, "{query}");
        assert_eq!(without(query, &cuts), rest, "{query}");
    }

    #[test]
    fn cuts_exactly_the_parameter() {
        check("api_key=K", &["K"], "");
        check("api_key=K&", &["K"], "");
        check("&api_key=K", &["K"], "");
        check("a=1&api_key=K", &["K"], "a=1");
        check("api_key=K&a=1", &["K"], "a=1");
        check("a=1&api_key=K&b=2", &["K"], "a=1&b=2");
        check("a&&api_key=K&&b", &["K"], "a&&&b");
        check("api%5Fkey=K&a=%zz", &["K"], "a=%zz");
        check("%61pi_key=a%2Bb", &["a%2Bb"], "");
        check("api_key", &[""], "");
        check("api_key=", &[""], "");
        check("api_key=a=b", &["a=b"], "");
        check("api_key=1&x&api_key=2", &["1", "2"], "x");
        check("api_key=1&api_key=2", &["1", "2"], "");
        check("API_KEY=K&+api_key=K&api_keys=K&a=1;api_key=K", &[], "API_KEY=K&+api_key=K&api_keys=K&a=1;api_key=K");
        check("param[0:1:0]=x&api_key=K&y=%20+", &["K"], "param[0:1:0]=x&y=%20+");
        check("", &[], "");
    }

    #[test]
    fn knows_what_servers_take_for_a_name() {
        for (query, rest) in [
            ("user=1&USER=2&u%53er=3&user", ""),
            ("+user=3&%20user=4&user[]=5&user%5B0%5D=6&x", "x"),
            ("a=1;user=2", "a=1"),
            ("q&user=1;b=2&c", "q&b=2&c"),
            ("a=1;user=2;b=3;User=4&c=5", "a=1;b=3&c=5"),
            ("user=1;user=2&c", "c"),
            ("users=1&us er=2&a=user&a=1;b=user", "users=1&us er=2&a=user&a=1;b=user"),
        ] {
            assert_eq!(without(query, &lookalikes(query, "user")), rest, "{query}");
        }
    }

    #[test]
    fn decodes_values_only_where_needed() {
        assert!(decoded_value("7e14").is_none());
        for (value, decoded) in [("a%2Bb", "a+b"), ("a+b", "a b"), ("%37e", "7e")] {
            assert_eq!(decoded_value(value).as_deref().map(Vec::as_slice), Some(decoded.as_bytes()));
        }
    }

    #[test]
    fn appended_values_cannot_break_out() {
        let mut query = String::from("a=1");
        append(&mut query, "username", "J & K=é/+");
        assert_eq!(query, "a=1&username=J%20%26%20K%3D%C3%A9%2F%2B");
        let mut empty = String::new();
        append(&mut empty, "u", "x");
        assert_eq!(empty, "u=x");
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![Just("api_key=K".to_owned()), Just("api%5fkey".to_owned()), "[a-z%+=\\[\\];:/?]{0,6}"]
    }

    #[test]
    fn cuts_may_overlap() {
        let query = "x&api_key=K;user=1;name=2;c&y";
        let mut cuts: Vec<Range<usize>> = parameters(query, "api_key").map(|p| p.whole).collect();
        cuts.extend(lookalikes(query, "user"));
        cuts.extend(lookalikes(query, "name"));
        cuts.sort_unstable_by_key(|cut| cut.start);
        assert_eq!(without(query, &cuts), "x&y");
    }

    proptest! {
        #[test]
        fn cutting_never_panics(query in "[a-c=&;%+\\[]{0,24}") {
            let mut cuts: Vec<Range<usize>> = parameters(&query, "a").map(|p| p.whole).collect();
            cuts.extend(lookalikes(&query, "b"));
            cuts.extend(lookalikes(&query, "a"));
            cuts.sort_unstable_by_key(|cut| cut.start);
            let rest = without(&query, &cuts);
            prop_assert_eq!(parameters(&rest, "a").count(), 0);
        }

        #[test]
        fn what_is_left_is_the_other_parts_in_order(parts in proptest::collection::vec(part(), 0..8)) {
            let query = parts.join("&");
            let cuts: Vec<_> = parameters(&query, "api_key").map(|p| p.whole).collect();
            let others: Vec<&str> = parts.iter().map(String::as_str).filter(|p| parameters(p, "api_key").next().is_none()).collect();
            prop_assert_eq!(without(&query, &cuts), others.join("&"));
        }
    }
}
