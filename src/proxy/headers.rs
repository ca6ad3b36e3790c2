//! Which header fields go no further: those of one hop, and those that could pass for ours.
//!
//! Servers that hand headers on as CGI variables turn `-` into `_`, and some turn everything that is no letter or digit,
//! so `X_Keyward.Key~Id` is as good as ours to them. Every name is therefore judged with all such bytes read as `-`.
//! Names arrive in lower case: the `http` crate stores them so.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::auth::decision::Lines;

/// What happens to a field of a request on its way to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It passes.
    Pass,
    /// It is dropped.
    Drop,
    /// It says where the request came from: it passes from trusted proxies only.
    Forwarding,
}

/// Removes from a request what goes no further, and says whether it asked for a WebSocket. `prefix` is that of the identity
/// headers, in lower case.
pub(super) fn strip_request(headers: &mut HeaderMap, prefix: &str, peer_is_trusted: bool) -> bool {
    let goes = |name: &HeaderName| match fate(name.as_str(), prefix) {
        Fate::Pass => false,
        Fate::Drop => true,
        Fate::Forwarding => !peer_is_trusted,
    };
    strip(headers, goes)
}

/// Removes from an answer what is meant for us alone, and says whether it spoke of a WebSocket.
pub(super) fn strip_response(headers: &mut HeaderMap) -> bool {
    strip(headers, |name| is_hop_by_hop(name.as_str()))
}

/// Says the same to the next hop.
pub(super) fn add_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) -> bool {
    // Nearly all that say something say only whether the connection is kept.
    if says_only_whether_it_is_kept(headers) {
        headers.remove(CONNECTION);
    }
    // One pass over the names: most messages have nothing else to strip, and a look costs less than ten removals.
    if !headers.keys().any(&goes) {
        return false;
    }
    let is_websocket = speaks_of_websocket(headers);
    let mut names: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    names.extend(named_by_connection(headers));
    for name in names {
        headers.remove(name);
    }
    is_websocket
}

/// One `Upgrade`, to `websocket` alone, that `Connection` names (RFC 6455 section 4.1).
fn speaks_of_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let only = upgrades.next().filter(|_| upgrades.next().is_none());
    only.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && named_by_connection(headers).contains(&UPGRADE)
}

/// Whether `Connection` is there, and names no field.
fn says_only_whether_it_is_kept(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
    let only = lines.next().filter(|_| lines.next().is_none());
    only.is_some_and(|value| value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close"))
}

/// Fields that `Connection` declares to be of this hop. Those that frame or route the message are not up to it.
pub(super) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = values.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names.filter(|name| name != HOST && name != CONTENT_LENGTH).collect()
}

/// Whether a field may stand behind the body of a request. Whoever sends it, it cannot say what a server must know before the
/// body: how that is framed and meant, where it goes, who sent it, and under which conditions (RFC 9110 section 6.5.1).
pub(super) fn passes_behind_body(name: &str, prefix: &str) -> bool {
    let is_too_late = match &*dashed(name) {
        "authorization" | "cache-control" | "content-encoding" | "content-length" | "content-location" => true,
        "content-range" | "content-type" | "cookie" | "host" | "max-forwards" | "origin" | "pragma" | "range" => true,
        "referer" | "set-cookie" | "traceparent" | "tracestate" | "x-request-id" => true,
        dashed => dashed.starts_with("if-"),
    };
    !is_too_late && fate(name, prefix) == Fate::Pass
}

fn fate(name: &str, prefix: &str) -> Fate {
    if !may_matter(name.as_bytes(), prefix) {
        return Fate::Pass;
    }
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return fate_of_dashed(name, prefix);
    }
    let dashed = dashed(name);
    match fate_of_dashed(&dashed, prefix) {
        Fate::Pass if dashed == CONTENT_LENGTH.as_str() || dashed == "x-request-id" => Fate::Drop,
        // A trusted proxy writes dashes.
        Fate::Forwarding => Fate::Drop,
        fate @ (Fate::Pass | Fate::Drop) => fate,
    }
}

/// Whether a name begins like, and is as long as, one that does not pass: nearly all that pass end here.
fn may_matter(name: &[u8], prefix: &str) -> bool {
    let Some(first) = name.first() else { return false };
    let known = match first {
        b'x' => true,
        b'c' => matches!(name.len(), 10 | 14),
        b'e' => name.len() == 6,
        b'f' => name.len() == 9,
        b'h' => name.len() == 14,
        b'k' => name.len() == 10,
        b'p' => matches!(name.len(), 16 | 18 | 19),
        b't' => matches!(name.len(), 2 | 7 | 17),
        b'u' => name.len() == 7,
        _ => false,
    };
    known || prefix.as_bytes().first() == Some(first)
}

fn fate_of_dashed(name: &str, prefix: &str) -> Fate {
    if name.starts_with(prefix) {
        return Fate::Drop;
    }
    match name.as_bytes().first() {
        Some(b'x') => match name {
            // Servers that believe these serve another path or method than the one that was judged.
            "x-original-url" | "x-rewrite-url" | "x-http-method" | "x-http-method-override" | "x-method-override" => {
                Fate::Drop
            }
            "x-real-ip" => Fate::Forwarding,
            _ if name.starts_with("x-forwarded-") => Fate::Forwarding,
            _ => Fate::Pass,
        },
        Some(b'f') if name == FORWARDED.as_str() => Fate::Forwarding,
        // The client has been told to continue by us.
        Some(b'e') if name == EXPECT.as_str() => Fate::Drop,
        Some(_) | None if is_hop_by_hop(name) => Fate::Drop,
        Some(_) | None => Fate::Pass,
    }
}

/// RFC 9110 section 7.6.1, and what was hop-by-hop in its predecessors. Bodies are framed anew for each hop.
fn is_hop_by_hop(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'c') => name == CONNECTION.as_str(),
        Some(b'h') => name == "http2-settings",
        Some(b'k') => name == "keep-alive",
        Some(b'p') => {
            name == PROXY_AUTHENTICATE.as_str() || name == PROXY_AUTHORIZATION.as_str() || name == "proxy-connection"
        }
        Some(b't') => name == TE.as_str() || name == TRAILER.as_str() || name == TRANSFER_ENCODING.as_str(),
        Some(b'u') => name == UPGRADE.as_str(),
        Some(_) | None => false,
    }
}

/// A name as those servers read it that know letters, digits and one separator.
pub(super) fn dashed(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Removes a header in every spelling that some server takes for its name.
pub(super) fn remove_spellings(headers: &mut HeaderMap, name: &HeaderName) {
    let wanted = dashed(name.as_str());
    let spellings: Vec<HeaderName> = headers.keys().filter(|other| dashed(other.as_str()) == wanted).cloned().collect();
    for spelling in spellings {
        headers.remove(spelling);
    }
}

/// Removes some lines of one header, and keeps the others in their order.
pub(super) fn remove_lines(headers: &mut HeaderMap, name: &HeaderName, lines: &Lines) {
    let kept: Vec<HeaderValue> = match lines {
        Lines::None => return,
        Lines::All => Vec::new(),
        Lines::Some(going) => {
            let all = headers.get_all(name).iter().enumerate();
            all.filter(|(line, _)| !going.contains(line)).map(|(_, value)| value.clone()).collect()
        }
    };
    headers.remove(name);
    for value in kept {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &[(&str, &str)], trusted: bool, kept: &[&str]) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        strip_request(&mut headers, "x-keyward-", trusted);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, kept, "{sent:?}");
    }

    #[test]
    fn what_is_of_one_hop_goes_no_further() {
        check(
            &[("host", "a"), ("accept", "*/*"), ("user-agent", "x"), ("te-st", "1")],
            false,
            &["accept", "host", "te-st", "user-agent"],
        );
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
        ] {
            check(&[(name, "x"), ("a", "1")], false, &["a"]);
        }
        check(
            &[
                ("connection", "close, X-One"),
                ("connection", "x-two"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
            ],
            false,
            &["x-three"],
        );
        check(
            &[("connection", "host, content-length"), ("host", "a"), ("content-length", "1")],
            false,
            &["content-length", "host"],
        );
    }

    #[test]
    fn identity_headers_cannot_be_forged_in_any_spelling() {
        for name in [
            "X.Keyward.Key.Id",
            "X-Keyward~Key!Id",
            "X-Keyward-Key-Id",
            "x-keyward-anything",
            "X_KEYWARD_KEY_ID",
            "x-keyward_scope",
            "X_Keyward-User",
            "X-KEYWARD-",
        ] {
            check(&[(name, "forged"), ("x-keywarden", "1")], false, &["x-keywarden"]);
            check(&[(name, "forged")], true, &[]);
        }
    }

    #[test]
    fn forwarding_headers_pass_from_trusted_proxies_only() {
        let sent =
            [("x-forwarded-for", "1"), ("forwarded", "for=1"), ("x-real-ip", "1"), ("x-forwarded-proto", "https")];
        check(&sent, false, &[]);
        check(&sent, true, &["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"]);
        check(&[("x_forwarded_for", "1"), ("x_real_ip", "1")], true, &[]);
    }

    #[test]
    fn overrides_and_twins_of_framing_headers_never_pass() {
        for name in [
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X_Original_Url",
        ] {
            check(&[(name, "/admin")], true, &[]);
        }
        check(
            &[
                ("content_length", "5"),
                ("transfer_encoding", "chunked"),
                ("x_request_id", "1"),
                ("http2-settings", "x"),
                ("expect", "100-continue"),
            ],
            true,
            &[],
        );
    }

    #[test]
    fn some_lines_of_a_header_are_removed_and_the_others_stay_in_order() {
        for (gone, kept) in [
            (Lines::Some(vec![0]), &["b", "c"][..]),
            (Lines::Some(vec![1]), &["a", "c"]),
            (Lines::Some(vec![0, 1, 2]), &[]),
            (Lines::All, &[]),
            (Lines::None, &["a", "b", "c"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in ["a", "b", "c"] {
                headers.append("k", value.parse().unwrap());
            }
            remove_lines(&mut headers, &HeaderName::from_static("k"), &gone);
            assert_eq!(headers.get_all("k").iter().collect::<Vec<_>>(), kept);
        }
    }
}
