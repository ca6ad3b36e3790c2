//! What fuzzers call, and the tests with it: one function for each reader of bytes from outside. Each gives its bytes to the
//! code that serves, and panics when something does not hold that always must. No part of a release.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};

use crate::auth::credential::{Form, Place, Presented};
use crate::auth::decision::Denial;
use crate::auth::path::{is_ambiguous, percent_decode};
use crate::auth::query;
use crate::config;
use crate::proxy::fuzzing::{all_forms, contains, format, query_and_fields};
pub use crate::proxy::fuzzing::{forwarding, head};
use crate::proxy::proxy_protocol::{Preamble, parse};

/// One of the functions below.
pub struct Target {
    /// Its name, which is its corpus's too.
    pub name: &'static str,
    /// It.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: config },
    Target { name: "credential", run: credential },
    Target { name: "forwarding", run: forwarding },
    Target { name: "head", run: head },
    Target { name: "path", run: path },
    Target { name: "proxy_protocol", run: proxy_protocol },
    Target { name: "query", run: query },
];

/// The name of the parameter that holds a key.
const PARAMETER: &str = "api_key";

/// What is taken for a key stands in the request, and beside it a second one counts as two.
pub fn credential(data: &[u8]) {
    let (query, mut headers) = query_and_fields(data);
    let (forms, format) = (all_forms(), format());
    let Ok(one) = Presented::find(&headers, query, &forms, &format).exactly_one() else { return };
    if let Some(secret) = one.secret() {
        let text = match &one.place {
            Place::Query(range) => percent_decode(query.map_or(&b""[..], |query| query[range.clone()].as_bytes())),
            Place::Header(line) => field(&headers, "x-api-key", *line),
            Place::Authorization(line) => field(&headers, "authorization", *line),
        };
        let in_base64 = one.form == Form::Basic;
        // `+` is a space in a query.
        let spaced = secret.contains(&b' ');
        assert!(in_base64 || spaced || contains(&text, secret), "a key out of nowhere");
    }
    headers.append("x-api-key", HeaderValue::from_static("another"));
    let two = Presented::find(&headers, query, &forms, &format).exactly_one();
    assert!(two.is_err_and(|denial| denial == Denial::AmbiguousCredential), "two count as one");
}

fn field<'h>(headers: &'h HeaderMap, name: &str, line: usize) -> Cow<'h, [u8]> {
    Cow::Borrowed(headers.get_all(name).iter().nth(line).map_or(&b""[..], HeaderValue::as_bytes))
}

/// Nothing of a parameter's name is left behind, and nothing else goes.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let cuts: Vec<_> = query::parameters(text, PARAMETER).map(|parameter| parameter.whole).collect();
    let left = query::without(text, &cuts);
    assert!(query::parameters(&left, PARAMETER).next().is_none(), "{left:?} of {text:?}");
    let of_others = |text: &str| -> Vec<String> {
        let names = text.split('&').filter(|part| query::parameters(part, PARAMETER).next().is_none());
        names.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(of_others(text), of_others(&left), "{text:?}");
    let left = query::without(text, &query::lookalikes(text, PARAMETER));
    assert!(query::parameters(&left, PARAMETER).next().is_none(), "{left:?} of {text:?}");
}

/// A path that is not ambiguous has the same segments before and after it is decoded, and none that leads elsewhere.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if is_ambiguous(text) {
        return;
    }
    let decoded = percent_decode(data);
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    assert!(data.starts_with(b"/") && slashes(data) == slashes(&decoded), "{text:?}");
    assert!(!decoded.iter().any(|byte| matches!(byte, b'\\' | b'%' | 0)), "{text:?}");
    let segments: Vec<&[u8]> = decoded[1..].split(|byte| *byte == b'/').collect();
    let leads_elsewhere = |segment: &&[u8]| matches!(**segment, [] | [b'.'] | [b'.', b'.']);
    let last = segments.len() - 1;
    assert!(!segments[..last].iter().any(leads_elsewhere), "{text:?}");
    assert!(segments[last].is_empty() || !leads_elsewhere(&segments[last]), "{text:?}");
}

/// A header of the PROXY protocol is whole at one place only, and what follows it changes nothing.
pub fn proxy_protocol(data: &[u8]) {
    let Ok(Preamble::Whole { length, client }) = parse(data) else { return };
    assert_eq!(parse(&data[..length]), Ok(Preamble::Whole { length, client }));
    for shorter in 0..length {
        assert_eq!(parse(&data[..shorter]), Ok(Preamble::Incomplete), "{shorter} of {length}");
    }
}

/// Any text is a config, or something is said of it.
pub fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        config::read_text(text);
    }
}

#[cfg(test)]
mod tests;
